//! Hosts whose bucket or folder is kept whole: by listings, and by what the bucket tells.

use harness::prelude::*;
use harness::temp_dir;

async fn status(host: &Host) -> Value {
    host.stats().await["mirrors"][0].clone()
}

/// Waits until a listing that began after this call has come to its end.
async fn listed(host: &Host) -> Value {
    // Listings are told apart by whole seconds.
    tokio::time::sleep(millis(1100)).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    for _ in 0..400 {
        let status = status(host).await;
        if status["listed_at"].as_u64().is_some_and(|at| at >= now) && status["listing"] == false {
            return status;
        }
        tokio::time::sleep(millis(50)).await;
    }
    panic!("it was never listed: {}", status(host).await);
}

#[tokio::test]
async fn a_bucket_is_kept_whole_and_follows_its_changes() {
    let s3 = S3Server::with_bucket("site").await;
    (0..1200).for_each(|number| s3.put("site", &format!("my/{number:04}"), object(format!("{number}"))));
    s3.put("site", "my/ü +&<>.txt", object("odd"));
    s3.put("site", "my/live", object("live").cache_control("no-store"));
    let mirror = json!({ "interval": "1s", "jobs": 16 });
    let a = vhost("a.test").origin(&s3.bucket("site")).set("prefix", "my").set("mirror", mirror);
    let mut host = Host::with(a).await;
    let first = listed(&host).await;
    assert_eq!(
        (&first["objects"], &first["fetched"], &first["left_out"]),
        (&json!(1202), &json!(1201), &json!(1)),
        "{first}"
    );
    assert_eq!((&first["failed"], &first["error"]), (&json!(0), &Value::Null));
    host.get("/0007").await.expect(200, "7").cache("hit");
    host.get("/%C3%BC%20+&%3C%3E.txt").await.expect(200, "odd").cache("hit");

    s3.put("site", "my/0007", object("seven"));
    s3.put("site", "my/new", object("new"));
    s3.delete("site", "my/0008");
    s3.delete("site", "my/1199");
    s3.forget();
    let second = listed(&host).await;
    assert_eq!(second["purged"], 2, "{second}");
    host.get("/0007").await.expect(200, "seven").cache("hit");
    host.get("/new").await.expect(200, "new").cache("hit");
    host.get("/0008").await.status(404);
    let fetched = s3.seen().iter().filter(|seen| seen.key.starts_with("my/")).count();
    assert!(fetched <= 4, "{fetched} requests for two changes and a 404: listings alone tell the rest");

    host.restart().await;
    s3.forget();
    listed(&host).await;
    assert_eq!(s3.count("GET", "my/0100"), 0, "what was fetched survives a restart");
    host.get("/0100").await.expect(200, "100").cache("hit");
}

#[tokio::test]
async fn a_listing_that_fails_or_is_empty_takes_nothing_away() {
    let s3 = S3Server::with_bucket("site").await;
    (0..1500).for_each(|number| s3.put("site", &format!("{number:04}"), object("x")));
    let a = vhost("a.test").origin(&s3.bucket("site")).set("mirror", json!({ "interval": "1s", "jobs": 16 }));
    let host = Host::with(a.set("ttl", "1h")).await;
    listed(&host).await;
    s3.refuse("site", true);
    host.stderr_line("the listing breaks off").await;
    host.get("/0001").await.expect(200, "x").cache("hit");
    s3.refuse("site", false);
    listed(&host).await;
    (0..1500).for_each(|number| s3.delete("site", &format!("{number:04}")));
    host.stderr_line("the listing is empty").await;
    host.get("/0001").await.expect(200, "x").cache("hit");
}

#[tokio::test]
async fn a_folder_is_mirrored_behind_a_policy_with_clean_urls() {
    let folder = temp_dir("site");
    for name in ["index.html", "about.html", "docs/index.html"] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(path, name).expect("writable");
    }
    let dir = json!({ "dir": { "path": folder.path() } });
    let a = vhost("a.test").origin(&dir).set("ttl", "1h").set("mirror", json!({ "interval": "1s" }));
    let host = Host::with(a.policy("static-site", json!({}))).await;
    listed(&host).await;
    host.get("/").await.status(200);
    std::fs::write(folder.path().join("index.html"), "another").expect("writable");
    listed(&host).await;
    host.get("/").await.expect(200, "another");
    std::fs::remove_file(folder.path().join("docs/index.html")).expect("there");
    listed(&host).await;
    host.get("/docs/index.html").await.status(404);
}

#[tokio::test]
async fn what_a_bucket_tells_counts_at_once() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a b", object("one"));
    s3.put("site", "my/c", object("c"));
    let bucket = s3.bucket("site");
    let mirror =
        vhost("a.test").origin(&bucket).set("prefix", "my").set("ttl", "1h").set("mirror", json!({ "interval": "1h" }));
    let plain = vhost("*.b.test").origin(&bucket).set("ttl", "1h");
    let host = setup().vhost(mirror).vhost(plain).start().await;
    let start = std::time::Instant::now();
    while !status(&host).await["listed_at"].is_u64() || status(&host).await["listing"] == true {
        assert!(start.elapsed() < secs(60), "it was never listed: {}", status(&host).await);
        tokio::time::sleep(millis(50)).await;
    }
    host.get_from("x.b.test", "/my/a%20b").await.expect(200, "one").cache("miss");
    s3.put("site", "my/a b", object("two"));
    s3.delete("site", "my/c");
    let record = |name: &str, key: &str| json!({ "eventName": name, "s3": { "bucket": { "name": "site" }, "object": { "key": key } } });
    let records = json!({ "Records": [record("ObjectCreated:Put", "my/a+b"), record("ObjectRemoved:Delete", "my/c"),
        record("ObjectCreated:Put", "other/x")] });
    let enveloped = json!({ "Type": "Notification", "Message": records.to_string() });
    let answer = host.admin("POST", "/events").body(enveloped.to_string()).send().await;
    assert_eq!(answer.status(200).json(), json!({ "events": 3, "purged": 5, "fetching": 2, "ignored": 0 }));
    host.get("/c").await.status(404);
    host.get_from("x.b.test", "/my/a%20b").await.expect(200, "two");
    host.get_until("/a%20b", |answer| answer.text() == "two" && answer.cache_status().iter().any(|said| said == "hit"))
        .await;

    let bad = json!({ "Records": [record("ObjectCreated:Put", "my/a+b"), { "eventName": 3 }] });
    let answer = host.admin("POST", "/events").body(bad.to_string()).send().await;
    assert_eq!(answer.status(400).json()["errors"][0]["at"], "Records[1]");
    host.admin_without_token("POST", "/events").body(bad.to_string()).send().await.status(401);
    // Not a reset, though it is far too long.
    host.admin("POST", "/events").body("x".repeat(30 << 20)).send().await.status(413);
}

#[tokio::test]
async fn a_bucket_that_is_larger_than_the_cache_is_kept_as_far_as_there_is_room() {
    let s3 = S3Server::with_bucket("site").await;
    (0..40).for_each(|number| s3.put("site", &format!("{number:02}"), object(generated(number, 1 << 20))));
    let a = vhost("a.test").origin(&s3.bucket("site")).set("ttl", "1h").set("mirror", json!({ "interval": "1s" }));
    let host = setup().vhost(a).config(json!({ "cache": { "disk": "20MiB" } })).start().await;
    let status = listed(&host).await;
    assert!(status["error"].as_str().is_some_and(|error| error.contains("90 % of the disk budget")), "{status}");
    assert_eq!(status["left_out"], 23, "{status}");
    s3.forget();
    listed(&host).await;
    let again = s3.seen().iter().filter(|seen| !seen.key.is_empty()).count();
    assert_eq!(again, 0, "nothing is fetched over and over");
    host.get("/00").await.status(200).cache("hit");
}

#[tokio::test]
async fn what_has_no_room_does_not_keep_the_rest_out() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "a-large", object(generated(1, 30 << 20)));
    s3.put("site", "b-live", object(generated(2, 8 << 20)).cache_control("no-store"));
    (0..5).for_each(|number| s3.put("site", &format!("small/{number}"), object("small")));
    let mirror = json!({ "interval": "1s" });
    let a = vhost("a.test").origin(&s3.bucket("site")).set("ttl", "1h").set("cache_disk", "10MB");
    let host = Host::with(a.set("mirror", mirror)).await;
    listed(&host).await;
    let status = listed(&host).await;
    assert_eq!((&status["objects"], &status["left_out"]), (&json!(7), &json!(2)), "{status}");
    for number in 0..5 {
        host.get(&format!("/small/{number}")).await.expect(200, "small").cache("hit");
    }
}

#[tokio::test]
async fn mirrors_that_cannot_be_are_refused() {
    let origin = Origin::start().await;
    setup()
        .vhost(vhost("a.test").origin(&origin).set("mirror", true))
        .refused()
        .await
        .code(2)
        .says(&["mirror", "no list of what it has"]);
    let dir = json!({ "dir": { "path": "." } });
    setup()
        .vhost(vhost("*.a.test").origin(&dir).set("mirror", true))
        .refused()
        .await
        .code(2)
        .says(&["a mirror for a pattern of hosts"]);
    setup()
        .vhost(vhost("a.test").origin(&dir).set("pin", json!(["a"])))
        .refused()
        .await
        .code(2)
        .says(&["pin", "neither a slash nor a star"]);
}
