//! Digests of bodies (RFC 9530; issue 5, line 8): no wrong one ever goes out, and no body is kept that is not what its origin says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::origin::Seen;
use harness::prelude::*;
use sha2::{Digest, Sha256, Sha512};

const TEXT: &str = "a text that is long enough to be compressed, a text that is long enough to be compressed";

fn sha256(bytes: impl AsRef<[u8]>) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)))
}

fn sha512(bytes: impl AsRef<[u8]>) -> String {
    format!("sha-512=:{}:", STANDARD.encode(Sha512::digest(bytes)))
}

fn whole(content: impl Into<harness::content::Content> + Clone, digest: &str) -> Reply {
    ok(content).cache_control("max-age=600").etag("\"1\"").ranged().conditional().header("repr-digest", digest)
}

#[tokio::test]
async fn what_an_origin_says_is_kept_and_true_of_parts_heads_and_304() {
    let body = pattern(1, 0..3_000_000);
    let digest = sha256(&body);
    let reply = whole(generated(1, 3_000_000), &digest).header("content-digest", &digest).header("content-md5", "x");
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for word in ["miss", "hit"] {
        let answer = host.get("/a").await;
        answer.expect(200, &body).cache(word).header("repr-digest", &digest).header("content-digest", &digest);
    }
    let part = host.call("GET", "/a").range("5-9").send().await;
    part.expect(206, pattern(1, 5..10)).header("repr-digest", &digest);
    let parts = host.call("GET", "/a").range("5-9, 100-200").send().await;
    parts.status(206).header("repr-digest", &digest);
    let head = host.head("/a").await;
    head.status(200).header("repr-digest", &digest);
    let not_modified = host.call("GET", "/a").header("if-none-match", "\"1\"").send().await;
    not_modified.status(304);
    for answer in [&part, &parts, &head, &not_modified] {
        answer.no_header("content-digest").no_header("content-md5");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn an_altered_body_breaks_off_and_is_not_kept() {
    let small = whole("hello", &sha256("other"));
    let large = whole(generated(1, 3_000_000), &sha512("other"));
    let origin = Origin::serving("/small", small).await;
    origin.set("/large", large.clone());
    origin.set("/unknown-length", large.chunked());
    origin.set("/weak", ok(generated(2, 300_000)).cache_control("max-age=600").header("content-digest", &sha256("x")));
    origin.set("/empty", whole("", &sha256("x")));
    let (right, wrong) = (sha256(pattern(3, 0..300_000)), sha512("x"));
    origin.set("/second", whole(generated(3, 300_000), &format!("{right}, {wrong}")));
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let paths = ["/small", "/large", "/unknown-length", "/weak", "/second"];
    for path in paths {
        for _ in 0..2 {
            host.call("GET", path).attempt().await.expect_err("it breaks off");
        }
        assert_eq!(origin.requests_to(path), 2, "{path}");
    }
    host.get("/empty").await.status(502);
    assert_eq!(host.metric("proxyhost_proxy_digest_mismatches_total").await, 11.0);
    host.stderr_line("not what its digest says").await;
    // It was on its way, and what comes next is whole.
    origin.set("/large", whole(generated(1, 3_000_000), &sha256(pattern(1, 0..3_000_000))));
    host.get("/large").await.expect(200, pattern(1, 0..3_000_000)).cache("miss");
    host.get("/large").await.expect(200, pattern(1, 0..3_000_000)).cache("hit");
}

#[tokio::test]
async fn a_304_and_a_head_change_no_digest() {
    let empty = sha256("");
    let origin = Origin::answering(move |seen: &Seen| {
        let of = |digest: &str| {
            ok("hello").cache_control("max-age=0").etag("\"1\"").conditional().header("repr-digest", digest)
        };
        let is_first = seen.header("if-none-match").is_empty() && seen.method != "HEAD";
        if is_first { of(&sha256("hello")) } else { of(&empty) }
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "hello").header("repr-digest", &sha256("hello"));
    host.get("/a").await.expect(200, "hello").header("repr-digest", &sha256("hello"));
    host.call("HEAD", "/a").send().await.status(200);
    host.get("/a").await.expect(200, "hello").header("repr-digest", &sha256("hello"));
    assert!(origin.requests() > 1, "it was asked again");
}

#[tokio::test]
async fn what_is_no_digest_checks_nothing_and_is_passed_on() {
    let origin = Origin::serving("/a", whole("hello", "sha-256=1, md5=:AAAA:")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for word in ["miss", "hit"] {
        host.get("/a").await.expect(200, "hello").cache(word).header("repr-digest", "sha-256=1, md5=:AAAA:");
    }
}

#[tokio::test]
async fn a_part_that_an_origin_sent_with_a_digest_of_its_content_is_not_told_of_the_whole() {
    let body = pattern(1, 0..3_000_000);
    let digest = sha256(&body);
    let origin = Origin::answering(move |seen: &Seen| {
        let digest_of_part = match seen.header("range") {
            "" => sha256(pattern(1, 0..3_000_000)),
            range => sha256(range),
        };
        whole(generated(1, 3_000_000), &sha256(pattern(1, 0..3_000_000))).header("content-digest", &digest_of_part)
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let part = host.call("GET", "/a").range("10-19").send().await;
    part.expect(206, pattern(1, 10..20)).header("repr-digest", &digest).no_header("content-digest");
    let all = host.get("/a").await;
    all.expect(200, &body).header("repr-digest", &digest).no_header("content-digest");
}

#[tokio::test]
async fn another_coding_has_no_digest_of_the_first() {
    let digest = sha256(TEXT);
    let reply = whole(TEXT, &digest).header("content-type", "text/plain").header("content-digest", &digest);
    let origin = Origin::serving("/a", reply.header("x-amz-checksum-sha256", "x")).await;
    let compress = json!({ "min_size": 1 });
    let host = Host::with(vhost("a.test").origin(&origin).set("compress", compress)).await;
    let ask = || host.call("GET", "/a").header("accept-encoding", "gzip");
    ask().send().await.expect(200, TEXT).header("repr-digest", &digest);
    let coded = crate::compression::form(&host, "gzip", "gzip").await;
    coded.no_header("repr-digest").no_header("content-digest").no_header("x-amz-checksum-sha256");
    // Of the form, where it is asked for.
    let wished = ask().header("want-repr-digest", "sha-256=3").header("want-content-digest", "sha-512=3").send().await;
    wished.header("content-encoding", "gzip");
    wished.header("repr-digest", &sha256(&wished.body)).header("content-digest", &sha512(&wished.body));
    host.get("/a").await.expect(200, TEXT).header("repr-digest", &digest).header("content-digest", &digest);
}

#[tokio::test]
async fn wishes_are_met_where_that_is_cheap() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=600").etag("\"1\"").ranged()).await;
    let digest = sha256(pattern(1, 0..3_000_000));
    origin.set("/large", whole(generated(1, 3_000_000), &digest));
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let wish = |path: &str, repr: &str, content: &str| {
        host.call("GET", path).header("want-repr-digest", repr).header("want-content-digest", content)
    };
    host.get("/a").await.expect(200, "hello").no_header("repr-digest").no_header("content-digest");
    let both = wish("/a", "sha-256=1, sha-512=9", "sha-256=1").send().await;
    both.expect(200, "hello").header("repr-digest", &sha512("hello")).header("content-digest", &sha256("hello"));
    let part = wish("/a", "sha-256=1", "sha-256=1").range("1-2").send().await;
    part.expect(206, "el").header("repr-digest", &sha256("hello")).header("content-digest", &sha256("el"));
    let none = wish("/a", "sha-256=0", "md5=10, &").send().await;
    none.expect(200, "hello").no_header("repr-digest").no_header("content-digest");
    let head = host.call("HEAD", "/a").header("want-repr-digest", "sha-256=1").send().await;
    head.status(200).header("repr-digest", &sha256("hello"));
    // Of what is large, what is known.
    host.get("/large").await.status(200).cache("miss");
    let known = wish("/large", "sha-512=9", "sha-256=1").send().await;
    known.status(200).header("repr-digest", &digest).header("content-digest", &digest);
    // Our own page is other bytes.
    let beyond = wish("/a", "sha-256=1", "").range("100-200").send().await;
    beyond.status(416).header("repr-digest", &sha256(&beyond.body));
    wish("/large", "", "sha-512=1").send().await.status(200).no_header("content-digest");
    let part = wish("/large", "", "sha-256=1").range("0-99999").send().await;
    part.status(206).no_header("content-digest");
}

#[tokio::test]
async fn a_bucket_is_asked_for_its_checksum_and_bodies_are_held_against_it() {
    let s3 = S3Server::with_bucket("site").await;
    let checksum = |bytes: &[u8]| STANDARD.encode(Sha256::digest(bytes));
    let body = pattern(1, 0..3_000_000);
    s3.put("site", "good", object(generated(1, 3_000_000)).checksum_sha256(&checksum(&body)));
    s3.put("site", "bad", object(generated(2, 3_000_000)).checksum_sha256(&checksum(&body)));
    let of_parts = object("hello").checksum_sha256(&checksum(b"x")).checksum_type("COMPOSITE");
    s3.put("site", "composite", of_parts);
    s3.put("site", "in-parts", object("hello").checksum_sha256(&format!("{}-2", checksum(b"x"))));
    let host = Host::with(vhost("a.test").origin(&s3.bucket("site"))).await;
    for word in ["miss", "hit"] {
        host.get("/good").await.expect(200, &body).cache(word).header("repr-digest", &sha256(&body));
    }
    let part = host.call("GET", "/good").range("0-9").send().await;
    part.expect(206, &body[..10]).header("repr-digest", &sha256(&body)).no_header("x-amz-checksum-sha256");
    host.call("GET", "/bad").attempt().await.expect_err("it breaks off");
    assert_eq!(host.metric("proxyhost_proxy_digest_mismatches_total").await, 1.0);
    for path in ["/composite", "/in-parts"] {
        host.get(path).await.expect(200, "hello").no_header("repr-digest");
    }
    // With a range it may be that of a part; a HEAD of it takes other rights.
    s3.forget();
    s3.put("site", "ranged", object(generated(3, 3_000_000)).checksum_sha256(&checksum(&body)));
    host.call("GET", "/ranged").range("0-9").send().await.expect(206, pattern(3, 0..10)).no_header("repr-digest");
    host.head("/good-head").await.status(404);
    assert!(s3.seen().iter().all(|seen| seen.header("x-amz-checksum-mode").is_empty()));
}
