//! What is pinned stays when the disk is full, and is asked about before it is stale.

use harness::prelude::*;

#[tokio::test]
async fn a_crawl_does_not_push_out_what_is_pinned_and_a_stranger_cannot_pin() {
    let origin = Origin::answering(|request| match request.path() {
        "/kept/gone" => reply(404, "no").cache_control("max-age=600"),
        path => ok(generated(path.len() as u64, 300_000)).cache_control("max-age=600").etag("\"1\""),
    })
    .await;
    let a = vhost("a.test").origin(&origin).set("pin", json!(["/kept/*"]));
    let host = setup().vhost(a).config(json!({ "cache": { "disk": "12MiB", "memory": "1MiB" } })).start().await;
    let kept: Vec<String> = (0..5).map(|number| format!("/kept/{number}")).collect();
    for path in &kept {
        host.get(path).await.status(200).cache("miss");
    }
    host.get("/kept/gone").await.status(404);
    for number in 0..60 {
        host.get(&format!("/crawled/{number}")).await.status(200);
        host.get(&format!("/kept/0?made-up={number}")).await.status(200);
    }
    eventually_evicted(&host).await;
    for path in &kept {
        host.get(path).await.status(200).cache("hit");
    }
    assert!(host.metric("proxyhost_cache_evictions_total").await > 20.0);
    assert_eq!(host.metric("proxyhost_cache_pinned_evictions_total").await, 0.0);
}

async fn eventually_evicted(host: &Host) {
    for _ in 0..200 {
        let cache = host.stats().await["cache"].clone();
        if cache["disk_bytes"].as_u64() <= cache["disk_budget_bytes"].as_u64() {
            return;
        }
        tokio::time::sleep(millis(50)).await;
    }
    panic!("the disk stays over its budget: {}", host.stats().await["cache"]);
}

#[tokio::test]
async fn pins_that_are_too_much_are_told_and_give_way_to_each_other() {
    let origin = Origin::answering(|request| {
        ok(generated(request.target.len() as u64, 900_000)).cache_control("max-age=600").etag("\"1\"")
    })
    .await;
    let a = vhost("a.test").origin(&origin).set("pin", json!(["*"]));
    let host = setup().vhost(a).config(json!({ "cache": { "disk": "12MiB", "memory": "1MiB" } })).start().await;
    for number in 0..40 {
        host.get(&format!("/{number}")).await.status(200);
    }
    eventually_evicted(&host).await;
    assert!(host.metric("proxyhost_cache_pinned_evictions_total").await > 0.0);
    host.get("/39").await.status(200);
}

#[tokio::test]
async fn what_is_pinned_is_asked_about_before_it_is_stale() {
    let reply = |body: &'static str| ok(body).cache_control("max-age=60").etag(body).conditional();
    let origin = Origin::serving("/kept", reply("\"1\"")).await.and("/other", reply("\"1\""));
    let host = Host::with(vhost("a.test").origin(&origin).set("pin", json!(["/kept"]))).await;
    host.get("/kept").await.status(200);
    host.get("/other").await.status(200);
    // A round comes every ten seconds, and asks about what has less than half of its life.
    for _ in 0..60 {
        if origin.requests_to("/kept") > 1 {
            break;
        }
        tokio::time::sleep(secs(1)).await;
    }
    assert_eq!(origin.last().header("if-none-match"), "\"1\"");
    assert_eq!(origin.requests_to("/other"), 1);
    let answer = host.get("/kept").await;
    answer.expect(200, "\"1\"").cache("hit");
    assert!(answer.number("age") < 30, "it is fresh again: {answer:?}");
    assert_eq!(host.stats().await["pins"]["entries"], 1);
}
