//! The `signed-url` policy, both schemes, through the whole program.

use harness::prelude::*;
use harness::sign::{Own, Poormanscdn, epoch_in, own_link, poormanscdn, poormanscdn_query};

const SECRET: &str = "mysecretkey";

async fn host(config: Value) -> (Origin, Host) {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let stanza = json!({ "config": config, "secrets": { "sign": "env:SIGN" } });
    let a = vhost("a.test").origin(&origin).policy("signed-url", stanza);
    let host = setup().vhost(a).env("SIGN", SECRET).start().await;
    (origin, host)
}

#[tokio::test]
async fn our_own_scheme() {
    let (origin, host) = host(json!({})).await;
    let in_an_hour = epoch_in(3600);
    let what = Own { method: "GET", host: "a.test", path: "/f", expires: &in_an_hour, ..Own::default() };
    let good = own_link(SECRET, what);
    host.get(&good).await.expect(200, "/f").cache("miss");
    host.get(&good).await.expect(200, "/f").cache("hit");
    host.head(&good).await.status(200);
    // Another link to the same thing is a hit as well: what is signed with is no part of the key.
    let later = epoch_in(7200);
    host.get(&own_link(SECRET, Own { expires: &later, ..what })).await.expect(200, "/f").cache("hit");
    let before = origin.requests();
    for bad in [
        "/f".to_owned(),
        good.replace("/f", "/g"),
        good.replace("expires=", "expires=9"),
        format!("{good}&extra=1"),
        format!("{good}&sig=x"),
        own_link("other", what),
        own_link(SECRET, Own { host: "b.test", ..what }),
        own_link(SECRET, Own { expires: &epoch_in(-10), ..what }),
        own_link(SECRET, Own { ip: "192.0.2.0/24", ..what }),
        own_link(SECRET, Own { referer: "example.com", ..what }),
    ] {
        host.get(&bad).await.status(403);
    }
    assert_eq!(origin.requests(), before);
    host.get(&own_link(SECRET, Own { ip: "127.0.0.0/8", ..what })).await.expect(200, "/f");
    let referred = own_link(SECRET, Own { referer: "example.com", ..what });
    host.call("GET", &referred).header("referer", "https://www.example.com/x").send().await.expect(200, "/f");
    host.get(&own_link(SECRET, Own { rest: "w=1&h=2", ..what })).await.expect(200, "/f?w=1&h=2");
}

#[tokio::test]
async fn a_refusal_is_never_kept() {
    let (_origin, host) = host(json!({})).await;
    let expires = epoch_in(2);
    let link = own_link(SECRET, Own { method: "GET", host: "a.test", path: "/f", expires: &expires, ..Own::default() });
    host.get("/f").await.status(403);
    host.get(&link).await.expect(200, "/f");
    tokio::time::sleep(millis(3500)).await;
    host.get(&link).await.status(403);
}

#[tokio::test]
async fn poormanscdn_g2_and_g4() {
    let (_origin, g2) = host(json!({ "scheme": "poormanscdn", "generation": "g2" })).await;
    let in_an_hour = epoch_in(3600);
    let what =
        Poormanscdn { method: "GET", path: "/d/f", modified: "0", expires: &in_an_hour, ..Poormanscdn::default() };
    let link = |what: Poormanscdn<'_>| format!("/d/f?{}", poormanscdn_query(SECRET, what));
    g2.get(&link(what)).await.expect(200, "/d/f");
    g2.head(&link(what)).await.status(200);
    g2.get(&link(Poormanscdn { expires: "", ..what })).await.expect(200, "/d/f");
    g2.get(&link(Poormanscdn { expires: &epoch_in(-9), ..what })).await.status(403);
    g2.get(&link(Poormanscdn { host: "127.0.0.1", ..what })).await.expect(200, "/d/f");
    g2.get(&link(Poormanscdn { host: "192.0.2.1", ..what })).await.status(403);
    g2.get(&link(Poormanscdn { domain: "mysite.com", ..what })).await.status(403);
    let referred = link(Poormanscdn { domain: "mysite.com", ..what });
    g2.call("GET", &referred).header("referer", "http://mysite.com/p").send().await.expect(200, "/d/f");
    g2.get("/d/f").await.status(403);

    let (_origin, g4) = host(json!({ "scheme": "poormanscdn", "generation": "g4" })).await;
    let what = Poormanscdn { authority: Some("a.test"), ..what };
    g4.get(&link(what)).await.expect(200, "/d/f");
    g4.get(&link(Poormanscdn { authority: Some("b.test"), ..what })).await.status(403);
    g4.get(&link(Poormanscdn { authority: None, ..what })).await.status(403);
}

#[tokio::test]
async fn modified_asks_for_what_was_fetched_since() {
    let (origin, host) = host(json!({ "scheme": "poormanscdn", "generation": "g2" })).await;
    let link = |modified: &str| {
        let what = Poormanscdn { method: "GET", path: "/f", modified, ..Poormanscdn::default() };
        format!("/f?{}", poormanscdn_query(SECRET, what))
    };
    host.get(&link("0")).await.expect(200, "/f").cache("miss");
    host.get(&link(&epoch_in(-60))).await.expect(200, "/f").cache("hit");
    tokio::time::sleep(millis(2100)).await;
    host.get(&link(&epoch_in(0))).await.expect(200, "/f");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_signed_delete_purges() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let stanza = json!({
        "config": { "scheme": "poormanscdn", "generation": "g2" }, "secrets": { "sign": "env:SIGN" },
    });
    let a = vhost("a.test").origin(&origin).set("purge_method", "DELETE").set("purge_allow", "policy");
    let host = setup().vhost(a.policy("signed-url", stanza)).env("SIGN", SECRET).start().await;
    let query = |method: &str, path: &str| {
        let what = Poormanscdn { method, path, modified: "0", ..Poormanscdn::default() };
        format!("{path}?host=&domain=&modified=0&expires=&sig={}", poormanscdn(SECRET, what))
    };
    for path in ["/1", "/2"] {
        host.get(&query("GET", path)).await.expect(200, path);
    }
    host.call("DELETE", "/1").send().await.status(403);
    host.call("DELETE", &query("GET", "/1")).send().await.status(403);
    host.get(&query("GET", "/1")).await.cache("hit");
    host.call("DELETE", &query("DELETE", "/1")).send().await.expect(200, "");
    host.get(&query("GET", "/1")).await.cache("miss");
    host.get(&query("GET", "/2")).await.cache("hit");
    host.call("DELETE", &query("DELETE", "/")).send().await.expect(200, "");
    host.get(&query("GET", "/2")).await.cache("miss");
}
