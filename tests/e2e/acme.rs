//! Automatic certificates through the real binary, by a real ACME server (issue 4, line 1). What an order goes through is played
//! in `tests/acme` with a clock that can be turned; here it is seen that the listeners answer, and that hosts come and go.

use harness::pebble::{Pebble, Ways, free_tcp_ports};
use harness::prelude::*;

async fn origin() -> Origin {
    Origin::answering(|request| ok(request.target.clone())).await
}

/// A pebble that looks for challenges at these ports, and a setup that listens there.
fn stage(http: u16, https: u16) -> (Pebble, Setup) {
    let pebble = Pebble::place(Ways::default(), http, https);
    let setup = setup().config(json!({
        "listen": { "http": [format!("127.0.0.1:{http}")], "https": [format!("127.0.0.1:{https}")] },
        "acme": { "contact": ["mailto:ops@a.test"], "directory": pebble.directory(), "ca": pebble.ca() },
    }));
    (pebble, setup)
}

async fn until_issued(host: &Host, name: &str) {
    host.stderr_line(&format!("\"certificate is in service\",\"name\":\"{name}\"")).await;
}

#[tokio::test]
async fn a_host_gets_a_certificate_by_itself_and_a_new_one_at_run_time_too() {
    let origin = origin().await;
    let [http, https] = free_tcp_ports();
    let (mut pebble, setup) = stage(http, https);
    pebble.start();
    let mut host = setup.vhost(vhost("a.test").origin(&origin)).vhost(vhost("*.b.test").origin(&origin)).start().await;
    until_issued(&host, "a.test").await;
    let root = pebble.root().await;
    let a = Secure::trusting_authority(root.clone(), "a.test");
    host.tls(&a, "a.test", "/x").send().await.expect(200, "/x");
    let ours = format!("a.test:{http}");
    host.get_from(&ours, "/x").await.status(301).header("location", &format!("https://a.test:{https}/x"));
    host.get_from("x.b.test", "/x").await.expect(200, "/x");

    host.rewrite(json!({ "hosts": { "c.test": { "origin": "origin1" } } }));
    host.reload().await.status(200);
    until_issued(&host, "c.test").await;
    let c = Secure::trusting_authority(root.clone(), "c.test");
    host.tls(&c, "c.test", "/x").send().await.expect(200, "/x");
    host.tls(&a, "a.test", "/x").send().await.expect(200, "/x");
    assert_eq!(pebble.accounts(), 1);
    // No order but for names that are configured, and none after a restart: the store has them.
    let orders = pebble.orders();
    pebble.stop();
    host.restart().await;
    host.tls(&c, "c.test", "/x").send().await.expect(200, "/x");
    let status = host.stats().await["certificates"]["automatic"].clone();
    let names: Vec<&str> = status.as_array().unwrap().iter().filter_map(|name| name["name"].as_str()).collect();
    assert_eq!(names, ["a.test", "c.test"], "{status}");
    assert!(orders >= 2 && status[0]["state"] == "valid", "{orders} orders: {status}");
    // A host that goes takes its certificate along, and nobody else's.
    let mut config = host.config().clone();
    config["hosts"].as_object_mut().unwrap().remove("c.test");
    host.write_config(&config);
    host.reload().await.status(200);
    let gone = host.tls(&c, "c.test", "/x").attempt().await.unwrap_err();
    assert!(format!("{gone:#}").contains("UnrecognisedName"), "{gone:#}");
    host.tls(&a, "a.test", "/x").send().await.expect(200, "/x");
}

#[tokio::test]
async fn where_one_challenge_fails_the_other_is_tried_at_once() {
    let origin = origin().await;
    let [http, https, nobody] = free_tcp_ports();
    for (seen_http, seen_https) in [(http, nobody), (nobody, https)] {
        let (_, setup) = stage(http, https);
        let mut pebble = Pebble::place(Ways::default(), seen_http, seen_https);
        pebble.start();
        let acme = json!({ "acme": { "directory": pebble.directory(), "ca": pebble.ca() } });
        let host = setup.config(acme).vhost(vhost("a.test").origin(&origin)).start().await;
        until_issued(&host, "a.test").await;
        let a = Secure::trusting_authority(pebble.root().await, "a.test");
        host.tls(&a, "a.test", "/x").send().await.expect(200, "/x");
    }
}

#[tokio::test]
async fn without_its_acme_server_a_host_answers_on_http_and_gives_a_clear_alert() {
    let origin = origin().await;
    let [http, https] = free_tcp_ports();
    let (_absent, setup) = stage(http, https);
    let own = Certificate::for_names(&["b.test"]);
    let setup = setup.config(json!({ "tls": { "certificates": [own.files()] } }));
    let host = setup.vhost(vhost("a.test").origin(&origin)).vhost(vhost("b.test").origin(&origin)).start().await;
    host.stderr_line("no certificate yet").await;
    host.get("/x").await.expect(200, "/x");
    let refused = host.tls(&Secure::trusting(&own, "a.test"), "a.test", "/x").attempt().await.unwrap_err();
    assert!(format!("{refused:#}").contains("UnrecognisedName"), "{refused:#}");
    host.tls(&Secure::trusting(&own, "b.test"), "b.test", "/x").send().await.expect(200, "/x");
    assert!(host.metric("proxyhost_tls_certificate_failures_total").await >= 1.0);
}
