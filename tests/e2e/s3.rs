//! Buckets as origins (issue line 7), against a server that checks signatures.

use harness::prelude::*;
use harness::s3::BucketOrigin;

async fn host(bucket: &BucketOrigin) -> Host {
    Host::with(vhost("a.test").origin(bucket).set("prefix", "my")).await
}

#[tokio::test]
async fn a_private_bucket_with_a_prefix() {
    let s3 = S3Server::with_bucket("site").await;
    let stored = object("hello").content_type("text/plain").content_disposition("attachment").meta("colour", "blue");
    s3.put("site", "my/a.txt", stored.content_language("de").cache_control("max-age=60"));
    let host = host(&s3.bucket("site")).await;
    let answer = host.get("/a.txt").await;
    answer.expect(200, "hello").cache("miss").header("content-type", "text/plain").header("content-language", "de");
    answer
        .header("content-disposition", "attachment")
        .header("x-amz-meta-colour", "blue")
        .header("cache-control", "max-age=60");
    answer.header("etag", "\"5d41402abc4b2a76b9719d911017c592\"");
    for internal in ["x-amz-request-id", "x-amz-id-2", "authorization"] {
        answer.no_header(internal);
    }
    host.get("/a.txt").await.expect(200, "hello").cache("hit");
    host.get("/a.txt?anything").await.expect(200, "hello").cache("hit");
    assert_eq!(s3.count("GET", "my/a.txt"), 1);
}

#[tokio::test]
async fn keys_that_need_encoding() {
    let s3 = S3Server::with_bucket("site").await;
    for key in ["my/a b.txt", "my/ü+ö&=?.txt", "my/100%.txt", "my/a//b", "my/(x)'*!~"] {
        s3.put("site", key, object(key));
    }
    let host = host(&s3.bucket("site")).await;
    host.get("/a%20b.txt").await.expect(200, "my/a b.txt");
    host.get("/%C3%BC+%C3%B6&=%3F.txt").await.expect(200, "my/ü+ö&=?.txt");
    host.get("/100%25.txt").await.expect(200, "my/100%.txt");
    host.get("/a//b").await.expect(200, "my/a//b");
    host.get("/(x)'*!~").await.expect(200, "my/(x)'*!~");
}

#[tokio::test]
async fn credentials_that_are_wrong_are_no_404() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object("hello"));
    let host = host(&s3.bucket("site").set("secret_access_key", json!("wrong"))).await;
    let answer = host.get("/a").await;
    answer.status(503);
    assert!(!answer.text().contains("wrong"), "{}", answer.text());
}

#[tokio::test]
async fn a_public_bucket_needs_no_credentials() {
    let s3 = S3Server::with_bucket("site").await;
    s3.publish("site");
    s3.put("site", "my/a", object("hello"));
    let host = host(&s3.bucket("site").anonymous()).await;
    host.get("/a").await.expect(200, "hello");
    assert_eq!(s3.seen()[0].header("authorization"), "");
}

#[tokio::test]
async fn credentials_come_from_the_environment_when_none_are_written() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "a", object("hello"));
    let bucket = s3.bucket("site").set("access_key_id", Value::Null).set("secret_access_key", Value::Null);
    let setup = setup().vhost(vhost("a.test").origin(&bucket));
    let setup = setup.env("AWS_ACCESS_KEY_ID", harness::s3::ACCESS_KEY);
    let host = setup.env("AWS_SECRET_ACCESS_KEY", harness::s3::SECRET_KEY).start().await;
    host.get("/a").await.expect(200, "hello");
}

#[tokio::test]
async fn what_the_bucket_refuses_is_told_apart() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object("hello"));
    let there = host(&s3.bucket("site")).await;
    there.get("/nothing").await.status(404);
    s3.refuse("site", true);
    let answer = there.get("/a").await;
    assert!(matches!(answer.status.as_u16(), 403 | 502), "{answer:?}");
    s3.refuse("site", false);
    there.get("/a").await.expect(200, "hello");
    // A bucket that does not exist is a mistake of ours, not a page that is missing.
    let nowhere = host(&s3.bucket("nowhere")).await;
    let answer = nowhere.get("/a").await;
    assert!(matches!(answer.status.as_u16(), 502 | 503), "{answer:?}");
}

#[tokio::test]
async fn slow_down_is_tried_once_more_and_then_503() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object("hello"));
    let host = host(&s3.bucket("site")).await;
    s3.fail_next(1, Fault::SlowDown);
    host.get("/a").await.expect(200, "hello");
    s3.put("site", "my/b", object("hello"));
    s3.fail(Fault::SlowDown);
    s3.forget();
    host.get("/b").await.status(503);
    assert_eq!(s3.requests(), 2);
    // The length must be known first: it is not asked for in another way when it can't be had.
    s3.forget();
    host.call("GET", "/b").header("range", "bytes=-2").send().await.status(503);
    assert_eq!((s3.count("HEAD", "my/b"), s3.requests()), (2, 2));
    s3.heal();
    host.get("/b").await.expect(200, "hello");
}

#[tokio::test]
async fn an_expired_object_is_revalidated() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object("hello").cache_control("max-age=1"));
    let host = host(&s3.bucket("site")).await;
    host.get("/a").await.expect(200, "hello");
    tokio::time::sleep(millis(2100)).await;
    host.get("/a").await.expect(200, "hello").cache("revalidated");
    assert_eq!(s3.seen().last().map(|seen| seen.status), Some(304));
    s3.put("site", "my/a", object("changed").cache_control("max-age=60"));
    tokio::time::sleep(millis(2100)).await;
    host.get("/a").await.expect(200, "changed");
}

#[tokio::test]
async fn a_bucket_has_a_ttl_of_five_minutes_unless_told_otherwise() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object("hello"));
    let host = host(&s3.bucket("site")).await;
    host.get("/a").await.expect(200, "hello");
    host.get("/a").await.expect(200, "hello").cache("hit");
    assert_eq!(s3.requests(), 1);
}

#[tokio::test]
async fn an_object_that_changes_in_the_middle_of_a_fill_is_never_mixed() {
    let s3 = S3Server::with_bucket("site").await;
    let (old, new) = (object(generated(1, 30_000_000)), object(generated(2, 30_000_000)));
    s3.put("site", "my/a", old);
    let host = host(&s3.bucket("site")).await;
    s3.fail_key("my/a", Fault::ReplaceAfterwards(Box::new(new)));
    // The first answer is one version, whole, or it is cut; what comes after is one version, whole.
    if let Ok(answer) = host.call("GET", "/a").attempt().await {
        let (old, new) = (pattern(1, 0..30_000_000), pattern(2, 0..30_000_000));
        assert!(answer.body == old || answer.body == new, "a mixed body of {} bytes", answer.body.len());
    }
    host.purge(json!({ "host": "a.test", "path": "/a" })).await;
    host.get("/a").await.expect(200, pattern(2, 0..30_000_000));
}

#[tokio::test]
async fn a_body_that_is_cut_is_cut_for_the_client_and_not_kept() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object(generated(1, 1_000_000)));
    for fault in [Fault::CloseAfter(300_000), Fault::ClaimMore(1000)] {
        let host = host(&s3.bucket("site")).await;
        s3.fail_key("my/a", fault.clone());
        if let Ok(answer) = host.call("GET", "/a").attempt().await {
            // Mended on the way by asking for the rest is as good.
            answer.expect(200, pattern(1, 0..1_000_000));
        }
        s3.heal();
        host.get("/a").await.expect(200, pattern(1, 0..1_000_000));
    }
}

#[tokio::test]
async fn a_range_of_a_huge_object_fetches_only_what_it_needs() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/huge", generated(7, 2_000_000_000).into());
    let host = host(&s3.bucket("site")).await;
    let end = pattern(7, 1_999_999_900..2_000_000_000);
    host.call("GET", "/huge").range("-100").send().await.expect(206, &end);
    let middle = pattern(7, 1_000_000_000..1_000_100_000);
    host.call("GET", "/huge").range("1000000000-1000099999").send().await.expect(206, &middle);
    host.call("GET", "/huge").range("1000000000-1000099999").send().await.expect(206, &middle).cache("hit");
    assert!(s3.seen().iter().all(|seen| seen.method == "HEAD" || !seen.header("range").is_empty()), "{:?}", s3.seen());
}

#[tokio::test]
async fn a_length_that_was_a_lie_is_not_believed_for_long() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object(generated(1, 3_000_000)));
    let host = host(&s3.bucket("site")).await;
    s3.fail_key("my/a", Fault::ClaimMore(1000));
    assert!(host.call("GET", "/a").attempt().await.is_err(), "what is not there cannot be whole");
    s3.heal();
    // The first slices are kept, with the length that was claimed: whoever comes next may find it out on the way.
    if let Ok(answer) = host.call("GET", "/a").attempt().await {
        answer.expect(200, pattern(1, 0..3_000_000));
    }
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000));
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000)).cache("hit");
}

#[tokio::test]
async fn a_bucket_that_hangs_is_504_and_one_that_stalls_is_cut() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object(generated(1, 1_000_000)));
    let host = host(&s3.bucket("site").timeouts(json!({ "first_byte": "1s", "idle": "1s" }))).await;
    s3.fail(Fault::Hang);
    host.get("/a").await.status(504);
    s3.heal();
    s3.fail_key("my/a", Fault::StallAfter(300_000));
    let start = std::time::Instant::now();
    if let Ok(answer) = host.call("GET", "/a").attempt().await {
        answer.expect(200, pattern(1, 0..1_000_000));
    }
    assert!(start.elapsed() < secs(20), "{:?}", start.elapsed());
    host.get("/a").await.expect(200, pattern(1, 0..1_000_000));
}

#[tokio::test]
async fn an_internal_error_of_the_bucket_is_tried_once_more_and_never_a_404() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a", object("hello"));
    s3.put("site", "my/b", object("hello"));
    let host = host(&s3.bucket("site")).await;
    s3.fail_next(1, Fault::InternalError);
    host.get("/a").await.expect(200, "hello");
    s3.fail(Fault::InternalError);
    let answer = host.get("/b").await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    s3.heal();
    host.get("/b").await.expect(200, "hello");
}
