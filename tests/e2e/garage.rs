//! The bucket's plays against a real S3 server: `garage`, which `cargo xtask test` installs.

use harness::garage::Garage;
use harness::prelude::*;

/// A server with the bucket `site`. It is set up by commands that are waited for, so not on the runtime's thread.
async fn garage() -> Garage {
    tokio::task::spawn_blocking(|| Garage::with_bucket("site")).await.expect("garage starts")
}

async fn host(garage: &Garage) -> Host {
    Host::with(vhost("a.test").origin(&garage.bucket("site")).set("prefix", "my")).await
}

#[tokio::test]
async fn a_private_bucket_of_a_real_server() {
    let garage = garage().await;
    let text = [("content-type", "text/plain"), ("cache-control", "max-age=1")];
    garage.put("site", "my/a.txt", "hello", &text).await;
    garage.put("site", "my/a%20b", "a b", &[]).await;
    let host = host(&garage).await;

    let first = host.get("/a.txt").await;
    first.expect(200, "hello").cache("miss").header("content-type", "text/plain");
    host.get("/a.txt").await.expect(200, "hello").cache("hit");
    tokio::time::sleep(millis(2100)).await;
    host.get("/a.txt").await.expect(200, "hello").cache("revalidated");
    host.get("/a%20b").await.expect(200, "a b");

    garage.put("site", "my/a.txt", "changed", &text).await;
    tokio::time::sleep(millis(2100)).await;
    host.get("/a.txt").await.expect(200, "changed");
    host.get("/nothing").await.status(404);
}

#[tokio::test]
async fn conditions_of_clients_are_answered_for_a_real_server() {
    let garage = garage().await;
    garage.put("site", "my/a", "hello", &[("cache-control", "max-age=600")]).await;
    let host = host(&garage).await;
    let etag = host.get("/a").await.status(200).field("etag");
    let modified = host.get("/a").await.field("last-modified");
    assert!(etag.starts_with('"') && !modified.is_empty(), "{etag} {modified}");
    let with = async |name: &str, value: &str| host.call("GET", "/a").header(name, value).send().await;
    with("if-none-match", &etag).await.expect(304, "");
    with("if-none-match", "\"other\"").await.expect(200, "hello");
    with("if-modified-since", &modified).await.expect(304, "");
    with("if-match", "\"other\"").await.status(412);
    host.head("/a").await.expect(200, "").cache("hit").header("content-length", "5");
}

#[tokio::test]
async fn ranges_of_a_real_server() {
    const LENGTH: u64 = 5_000_000;
    let garage = garage().await;
    garage.put("site", "my/big", pattern(1, 0..LENGTH), &[]).await;
    let host = host(&garage).await;
    let ranged = async |range: &str| host.call("GET", "/big").range(range).send().await;
    ranged("4000000-4000099").await.expect(206, pattern(1, 4_000_000..4_000_100));
    ranged("-100").await.expect(206, pattern(1, LENGTH - 100..LENGTH));
    ranged("5000000-").await.status(416);
    host.get("/big").await.expect(200, pattern(1, 0..LENGTH));
    host.get("/big").await.expect(200, pattern(1, 0..LENGTH)).cache("hit");
    ranged("1000000-1000009,3000000-3000009").await.status(206);
    host.head("/big").await.expect(200, "").header("content-length", "5000000");
}

#[tokio::test]
async fn what_a_real_server_refuses_is_no_404() {
    let garage = garage().await;
    garage.put("site", "my/a", "hello", &[]).await;
    let wrong = |member: &str, value: Value| {
        let mut bucket = garage.bucket("site");
        bucket["s3"][member] = value;
        bucket
    };
    for (what, bucket) in [
        ("a bucket that is not there", garage.bucket("nowhere")),
        ("a wrong secret", wrong("secret_access_key", json!("0".repeat(64)))),
        ("an unknown key", wrong("access_key_id", json!("GK0123456789abcdef01234567"))),
    ] {
        let host = Host::with(vhost("a.test").origin(&bucket).set("prefix", "my")).await;
        let answer = host.get("/a").await;
        assert!(matches!(answer.status.as_u16(), 403 | 502 | 503), "{what}: {answer:?}");
    }
    // Nobody reads a private bucket without credentials.
    let mut anonymous = garage.bucket("site");
    anonymous["s3"]["anonymous"] = json!(true);
    for member in ["access_key_id", "secret_access_key"] {
        anonymous["s3"].as_object_mut().expect("a bucket is an object").remove(member);
    }
    let host = Host::with(vhost("a.test").origin(&anonymous).set("prefix", "my")).await;
    let answer = host.get("/a").await;
    assert!(matches!(answer.status.as_u16(), 403 | 502 | 503), "{answer:?}");
}
