//! HTTPS with certificates in files: which one is shown, to whom, and what a connection is good for (issue 4, lines 2 to 4).

use harness::prelude::*;

async fn origin() -> Origin {
    Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=60")).await
}

fn over_tls(certificates: &[&Certificate]) -> Setup {
    let certificates: Vec<Value> = certificates.iter().map(|certificate| certificate.files()).collect();
    setup().config(json!({ "listen": { "https": ["127.0.0.1:0"] }, "tls": { "certificates": certificates } }))
}

#[tokio::test]
async fn a_site_is_served_over_tls_in_both_versions_of_http_and_of_tls() {
    let (origin, certificate) = (origin().await, Certificate::for_names(&["a.test"]));
    let host = over_tls(&[&certificate]).vhost(vhost("a.test").origin(&origin)).start().await;
    let new = Secure::trusting(&certificate, "a.test");
    host.tls(&new, "a.test", "/x").send().await.expect(200, "/x").cache("miss");
    host.tls(&new, "a.test", "/x").send().await.expect(200, "/x");
    host.tls(&new, "a.test", "/x").http2().send().await.expect(200, "/x");
    let old = Secure::old(&certificate, "a.test");
    host.tls(&old, "a.test", "/x").send().await.expect(200, "/x");
    let metrics = host.metrics().await;
    assert!(metrics.contains("proxyhost_tls_handshakes_total{outcome=\"full\"}"), "{metrics}");
    assert!(metrics.contains("proxyhost_tls_certificate_expiry_timestamp_seconds{name=\"a.test\"}"), "{metrics}");
}

#[tokio::test]
async fn the_name_in_the_hello_chooses_the_certificate() {
    let origin = origin().await;
    let (a, wild) = (Certificate::for_names(&["a.test"]), Certificate::for_names(&["*.b.test"]));
    let setup = over_tls(&[&a, &wild]).vhost(vhost("a.test").origin(&origin)).vhost(vhost("*.b.test").origin(&origin));
    let host = setup.vhost(vhost("c.test").origin(&origin)).start().await;
    host.tls(&Secure::trusting(&a, "a.test"), "a.test", "/x").send().await.status(200);
    host.tls(&Secure::trusting(&wild, "x.b.test"), "x.b.test", "/x").send().await.status(200);
    // No certificate is for these: a clear alert, and no other's certificate.
    for name in ["c.test", "b.test", "x.y.b.test", "unknown.test"] {
        let error = host.tls(&Secure::trusting(&a, name), name, "/x").attempt().await.unwrap_err();
        assert!(format!("{error:#}").contains("UnrecognisedName"), "{name}: {error:#}");
    }
    // Whoever names no host is shown the first, and may go anywhere that asks for nothing more.
    let nameless = Secure::trusting(&a, "a.test").without_name();
    host.tls(&nameless, "a.test", "/x").send().await.status(200);
}

#[tokio::test]
async fn a_connection_is_good_for_the_host_it_was_made_for() {
    let (origin, certificate) = (origin().await, Certificate::for_names(&["a.test", "b.test", "x.c.test", "y.c.test"]));
    let setup = over_tls(&[&certificate]).vhost(vhost("a.test").origin(&origin)).vhost(vhost("b.test").origin(&origin));
    let host = setup.vhost(vhost("*.c.test").origin(&origin)).start().await;
    let a = Secure::trusting(&certificate, "a.test");
    host.tls(&a, "a.test", "/x").send().await.status(200);
    host.tls(&a, "b.test", "/x").send().await.status(421);
    host.tls(&a, "b.test", "/x").http2().send().await.status(421);
    // One site under several names: one connection does for all of them.
    host.tls(&Secure::trusting(&certificate, "x.c.test"), "y.c.test", "/x").send().await.status(200);
}

#[tokio::test]
async fn certificates_are_replaced_while_requests_run_and_a_bad_file_takes_nothing_away() {
    let (origin, first) = (origin().await, Certificate::for_names(&["a.test"]));
    let host = over_tls(&[&first]).vhost(vhost("a.test").origin(&origin)).start().await;
    let (file, second) = (first.directory().join("cert.pem"), Certificate::for_names(&["a.test"]));
    std::fs::write(&file, "junk").unwrap();
    host.stderr_line("previous one stays in service").await;
    host.tls(&Secure::trusting(&first, "a.test"), "a.test", "/x").send().await.status(200);
    // The new certificate comes before its key: it does not fit, and is taken when it does.
    std::fs::copy(second.directory().join("cert.pem"), &file).unwrap();
    host.stderr_line("does not belong").await;
    host.tls(&Secure::trusting(&first, "a.test"), "a.test", "/x").send().await.status(200);
    std::fs::copy(second.directory().join("key.pem"), first.directory().join("key.pem")).unwrap();
    host.stderr_line("the new certificate is in service").await;
    host.tls(&Secure::trusting(&second, "a.test"), "a.test", "/x").send().await.status(200);
}

#[tokio::test]
async fn bad_certificates_are_refused_at_start() {
    let (origin, good, other) =
        (origin().await, Certificate::for_names(&["a.test"]), Certificate::for_names(&["a.test"]));
    let mixed = json!({ "cert": good.files()["cert"], "key": other.files()["key"] });
    for (entry, says) in [
        (mixed, "does not belong"),
        (json!({ "cert": "/nowhere.pem", "key": good.files()["key"] }), "/nowhere.pem"),
        (json!({ "cert": good.files()["key"] }), "no certificate"),
    ] {
        let config = json!({ "listen": { "https": ["127.0.0.1:0"] }, "tls": { "certificates": [entry] } });
        let setup = setup().vhost(vhost("a.test").origin(&origin)).config(config);
        setup.refused().await.code(2).says(&["tls.certificates", says]);
    }
}

#[tokio::test]
async fn http_is_redirected_once_there_is_a_certificate() {
    let (origin, certificate) = (origin().await, Certificate::for_names(&["a.test", "b.test", "d.test"]));
    let setup = over_tls(&[&certificate])
        .vhost(vhost("a.test").origin(&origin).set("hsts", "1d"))
        .vhost(vhost("b.test").origin(&origin).set("redirect_http", false))
        .vhost(vhost("c.test").origin(&origin))
        .vhost(vhost("d.test").origin(&origin).set("https", "off"));
    let host = setup.vhost(vhost("*").origin(&origin)).start().await;
    let port = host.tls_address().port();
    let ours = format!("a.test:{}", host.address().port());
    let redirect = host.get_from(&ours, "/x?y=%20z").await;
    redirect.status(301).header("location", &format!("https://a.test:{port}/x?y=%20z"));
    // Whoever came by another port than ours came through somebody who maps ports.
    host.get("/x").await.status(301).header("location", "https://a.test/x");
    redirect.no_header("strict-transport-security");
    host.call("POST", "/x").send().await.status(308);
    // The target * names no place to go to.
    let star = host.raw("OPTIONS * HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    assert!(!star.text().to_ascii_lowercase().contains("location:"), "{}", star.text());
    for name in ["b.test", "c.test", "d.test", "e.test"] {
        host.get_from(name, "/x").await.expect(200, "/x");
    }
    // The way of ACME servers stays open, for the origin's own too.
    host.get("/.well-known/acme-challenge/abc").await.expect(200, "/.well-known/acme-challenge/abc");
    let a = Secure::trusting(&certificate, "a.test");
    let answer = host.tls(&a, "a.test", "/x").send().await;
    answer.status(200).header("strict-transport-security", "max-age=86400");
    // Behind a proxy that ends TLS, what it says counts.
    let trusted = over_tls(&[&certificate]).config(json!({ "trusted_proxies": ["127.0.0.0/8"] }));
    let behind = trusted.vhost(vhost("a.test").origin(&origin)).start().await;
    behind.call("GET", "/x").header("x-forwarded-proto", "https").send().await.expect(200, "/x");
    behind.call("GET", "/x").send().await.status(301);
}

#[tokio::test]
async fn other_names_are_redirected_to_the_canonical_one() {
    let origin = origin().await;
    let host = setup().vhost(vhost("*").origin(&origin).set("canonical", "www.a.test")).start().await;
    host.get_from("a.test", "/x?y").await.status(301).header("location", "http://www.a.test/x?y");
    host.get_from("A.test:8080", "/x").await.status(301).header("location", "http://www.a.test:8080/x");
    host.get_from("www.a.test", "/x").await.expect(200, "/x");
}

#[tokio::test]
async fn a_host_for_clients_with_certificates_answers_no_others() {
    let (origin, certificate) = (origin().await, Certificate::for_names(&["a.test", "b.test"]));
    let (known, stranger) = (Certificate::for_names(&["client.test"]), Certificate::for_names(&["client.test"]));
    let ca = known.authority_file();
    let setup = over_tls(&[&certificate])
        .vhost(vhost("a.test").origin(&origin).set("client_ca", json!(ca)))
        .vhost(vhost("b.test").origin(&origin));
    let host = setup.start().await;
    let verified = Secure::showing(&certificate, "a.test", &known);
    host.tls(&verified, "a.test", "/x").send().await.expect(200, "/x");
    host.tls(&verified, "a.test", "/x").http2().send().await.expect(200, "/x");
    assert!(host.tls(&Secure::trusting(&certificate, "a.test"), "a.test", "/x").attempt().await.is_err());
    assert!(host.tls(&Secure::showing(&certificate, "a.test", &stranger), "a.test", "/x").attempt().await.is_err());
    // By way of another host, without a name, and in clear text there is no way in.
    let b = Secure::trusting(&certificate, "b.test");
    host.tls(&b, "a.test", "/x").send().await.status(421);
    host.tls(&b.clone().without_name(), "a.test", "/x").send().await.status(421);
    host.tls(&b, "b.test", "/x").send().await.status(200);
    host.get("/x").await.status(301);
    host.get("/.well-known/acme-challenge/abc").await.status(404);
    let clear = vhost("a.test").origin(&origin).set("client_ca", json!(ca)).set("redirect_http", false);
    over_tls(&[&certificate]).vhost(clear).start().await.get("/x").await.status(421);
}

#[tokio::test]
async fn silent_clients_keep_nobody_from_a_handshake() {
    let (origin, certificate) = (origin().await, Certificate::for_names(&["a.test"]));
    let host = over_tls(&[&certificate]).vhost(vhost("a.test").origin(&origin)).start().await;
    let mut silent = Vec::new();
    // More than may be under way at once.
    for _ in 0..1100 {
        silent.push(tokio::net::TcpStream::connect(host.tls_address()).await.unwrap());
    }
    let a = Secure::trusting(&certificate, "a.test");
    // They have ten seconds each; this one is through long before.
    let answer = tokio::time::timeout(secs(5), host.tls(&a, "a.test", "/x").send()).await;
    answer.expect("it is served while they are silent").status(200);
    assert!(host.metrics().await.contains("proxyhost_tls_handshakes_total{outcome=\"crowded-out\"}"));
}

#[tokio::test]
async fn a_client_certificate_that_has_expired_opens_nothing_any_more() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (origin, certificate) = (origin().await, Certificate::for_names(&["a.test"]));
    let client = Certificate::ending_in(&["client.test"], secs(4));
    let a = vhost("a.test").origin(&origin).set("client_ca", json!(client.authority_file()));
    let host = over_tls(&[&certificate]).vhost(a).start().await;
    let secure = Secure::showing(&certificate, "a.test", &client);
    let stream = tokio::net::TcpStream::connect(host.tls_address()).await.unwrap();
    let mut kept = secure.connect(stream, &[b"http/1.1"]).await.unwrap();
    // All of an answer, which may come in several records.
    let mut ask = async |end: &str| {
        kept.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(end.as_bytes()) {
            assert!(kept.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let first = ask("\r\n\r\n/x").await;
    assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
    tokio::time::sleep(secs(5)).await;
    let later = ask("with a certificate\n").await;
    assert!(later.starts_with("HTTP/1.1 421 "), "{later}");
}

#[tokio::test]
async fn a_reload_takes_no_certificate_that_cannot_be_shown() {
    let (origin, good, other) =
        (origin().await, Certificate::for_names(&["a.test"]), Certificate::for_names(&["b.test"]));
    let mut host = over_tls(&[&good]).vhost(vhost("a.test").origin(&origin)).start().await;
    let wrong = json!({ "cert": other.directory().join("cert.pem"), "key": good.directory().join("key.pem") });
    host.rewrite(json!({ "tls": { "certificates": [wrong] } }));
    let answer = host.reload().await;
    answer.status(422);
    assert!(answer.text().contains("does not belong"), "{}", answer.text());
    host.tls(&Secure::trusting(&good, "a.test"), "a.test", "/x").send().await.status(200);
}

#[tokio::test]
async fn security_fields_are_said_where_they_count() {
    let certificate = Certificate::for_names(&["a.test", "b.test"]);
    let origin = Origin::serving("/x", ok("x").header("strict-transport-security", "max-age=1")).await;
    let a = vhost("a.test").origin(&origin).set("hsts", "1d").set("canonical", "b.test");
    let b = vhost("b.test").origin(&origin).set("redirect_http", false);
    let host = over_tls(&[&certificate]).vhost(a).vhost(b).start().await;
    // RFC 6797 section 7.2: over http nobody says it, the origin neither.
    host.get_from("b.test", "/x").await.expect(200, "x").no_header("strict-transport-security");
    // Section 7.1: a redirect says it too.
    let redirect = host.tls(&Secure::trusting(&certificate, "a.test"), "a.test", "/x").send().await;
    redirect.status(301).header("location", "https://b.test/x").header("strict-transport-security", "max-age=86400");
}
