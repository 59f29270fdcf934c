//! The bucket's plays against a real S3 server: `garage`, which `cargo xtask test` installs.

use harness::garage::Garage;
use harness::prelude::*;

#[tokio::test]
async fn a_private_bucket_of_a_real_server() {
    let garage = tokio::task::spawn_blocking(|| Garage::with_bucket("site")).await.unwrap();
    let text = [("content-type", "text/plain"), ("cache-control", "max-age=1")];
    garage.put("site", "my/a.txt", "hello", &text).await;
    let big = pattern(1, 0..5_000_000);
    garage.put("site", "my/big", big.clone(), &[]).await;
    let host = Host::with(vhost("a.test").origin(&garage.bucket("site")).set("prefix", "my")).await;

    host.get("/a.txt").await.expect(200, "hello").cache("miss").header("content-type", "text/plain");
    host.get("/a.txt").await.expect(200, "hello").cache("hit");
    tokio::time::sleep(millis(2100)).await;
    host.get("/a.txt").await.expect(200, "hello").cache("revalidated");

    host.call("GET", "/big").range("4000000-4000099").send().await.expect(206, &big[4_000_000..4_000_100]);
    host.get("/big").await.expect(200, &big);
    host.get("/big").await.expect(200, &big).cache("hit");
    host.head("/big").await.expect(200, "").header("content-length", "5000000");

    host.get("/nothing").await.status(404);
    garage.put("site", "my/a.txt", "changed", &text).await;
    tokio::time::sleep(millis(2100)).await;
    host.get("/a.txt").await.expect(200, "changed");

    let nowhere = Host::with(vhost("a.test").origin(&garage.bucket("nowhere"))).await;
    let answer = nowhere.get("/a").await;
    assert!(matches!(answer.status.as_u16(), 403 | 502 | 503), "{answer:?}");
}
