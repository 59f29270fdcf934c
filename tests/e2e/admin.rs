//! The admin listener and the command line beside it (issue line 10).

use std::os::unix::fs::PermissionsExt as _;

use harness::prelude::*;

async fn host() -> (Origin, Host) {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    (origin, host)
}

#[tokio::test]
async fn all_but_health_wants_the_token() {
    let (_origin, host) = host().await;
    for path in ["/healthz", "/readyz"] {
        host.admin_without_token("GET", path).send().await.status(200);
    }
    let all = [("GET", "/stats"), ("GET", "/metrics"), ("POST", "/purge"), ("POST", "/reload"), ("GET", "/policies")];
    for (method, path) in all {
        host.admin_without_token(method, path).send().await.status(401);
        let wrong = host.admin_without_token(method, path).header("authorization", "Bearer wrong");
        wrong.send().await.status(401);
    }
    host.admin("GET", "/stats").send().await.status(200);
    host.admin("GET", "/nothing").send().await.status(404);
    host.admin("GET", "/purge").send().await.status(405);
}

#[tokio::test]
async fn the_generated_token_is_for_its_owner_alone_and_stays() {
    let (_origin, mut host) = host().await;
    let mode = std::fs::metadata(host.path("cache/admin-token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = host.token();
    assert!(token.len() >= 32, "{token}");
    host.restart().await;
    assert_eq!(host.token(), token);
}

#[tokio::test]
async fn the_admin_endpoints_are_not_served_to_clients() {
    let (_origin, host) = host().await;
    host.call("GET", "/metrics").header("authorization", &format!("Bearer {}", host.token())).send().await.status(404);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let (_origin, host) = host().await;
    host.get("/a").await.status(200);
    host.get("/a").await.status(200);
    let answer = host.admin("GET", "/metrics").send().await;
    answer.status(200);
    let text = answer.text();
    assert!(text.contains("# TYPE proxyhost_proxy_requests"), "{text}");
    assert_eq!(host.metric("proxyhost_proxy_requests_total").await, 2.0);
    assert!(text.contains("a.test"), "{text}");
}

#[tokio::test]
async fn explain_tells_host_key_and_freshness() {
    let (_origin, host) = host().await;
    let url = "http://a.test/a";
    host.explain(url).await.code(0);
    host.get("/a").await.status(200);
    let told = host.explain(url).await;
    told.code(0);
    for word in ["a.test", "/a", "fresh"] {
        assert!(told.stdout.contains(word), "{word:?} is not told: {}", told.stdout);
    }
    // Explaining is not asking.
    assert_eq!(host.metric("proxyhost_proxy_requests_total").await, 1.0);
}

#[tokio::test]
async fn the_start_is_told_in_lines_that_a_person_can_read() {
    let (_origin, host) = host().await;
    let said = format!("{}\n{}", host.stdout().join("\n"), host.stderr().join("\n"));
    assert!(said.contains("a.test") && said.contains("cache"), "{said}");
}

#[tokio::test]
async fn sigterm_drains() {
    let (reply, gate) = ok(generated(1, 200_000)).cache_control("max-age=60").gated(1000);
    let origin = Origin::serving("/a", reply).await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut stream = host.call("GET", "/a").open().await.unwrap();
    let first = stream.read(1).await.unwrap();
    host.signal(libc::SIGTERM);
    tokio::time::sleep(millis(300)).await;
    assert!(host.call("GET", "/a").attempt().await.is_err(), "no new connections while draining");
    gate.open();
    assert_eq!(first.len() + stream.read(usize::MAX).await.unwrap().len(), 200_000);
    assert_eq!(host.ended().await, 0);
}
