//! Responses before and after.

use headers::Headers;
use proxyhost_policy::testing::{Host, Request, Response};

fn deliver(config: &str, path: &str, response: Response) -> Response {
    let mut play = Host::new().config(config).play::<Headers>(Request::get(&format!("http://a.test{path}")));
    play.respond(response);
    play.on_deliver().expect("this policy has no errors of its own");
    play.response().clone()
}

fn get(response: &Response, name: &str) -> Option<String> {
    response.headers.get(name)
}

#[test]
fn rules_go_by_path_and_in_order() {
    let config = r#"{"rules": [
        {"remove": ["Server", "x-gone"], "set": {"X-A": "all"}, "add": {"link": "</b>"}},
        {"paths": ["/api/*", "*.json"], "set": {"x-a": "api"}}
    ]}"#;
    let origin =
        || Response::new(200).header("server", "s3").header("x-gone", "1").header("link", "</a>").header("x-a", "o");
    let page = deliver(config, "/index.html", origin());
    assert_eq!(get(&page, "server"), None);
    assert_eq!(get(&page, "x-gone"), None);
    assert_eq!(get(&page, "x-a").as_deref(), Some("all"));
    assert_eq!(get(&page, "link").as_deref(), Some("</a>, </b>"));
    assert_eq!(get(&deliver(config, "/api/x", origin()), "x-a").as_deref(), Some("api"));
    assert_eq!(get(&deliver(config, "/a.json", origin()), "x-a").as_deref(), Some("api"));
}

#[test]
fn browsers_keep_for_the_whole_of_their_own_time() {
    let config = r#"{"rules": [{"paths": ["/assets/*"], "browser_ttl": "1h"}, {"paths": ["*.hash.js"], "browser_ttl": 60, "immutable": true}]}"#;
    let origin =
        Response::new(200).header("cache-control", "public, max-age=5").header("expires", "soon").header("age", "30");
    let asset = deliver(config, "/assets/a.css", origin.clone());
    assert_eq!(get(&asset, "cache-control").as_deref(), Some("max-age=3630"));
    assert_eq!(get(&asset, "expires"), None);
    let hashed = deliver(config, "/a.hash.js", Response::new(200));
    assert_eq!(get(&hashed, "cache-control").as_deref(), Some("max-age=60, immutable"));
    assert_eq!(deliver(config, "/other", origin.clone()), origin);
}

#[test]
fn errors_and_private_responses_keep_what_they_say() {
    let config = r#"{"rules": [{"browser_ttl": "1d"}]}"#;
    for response in [
        Response::new(404),
        Response::new(503).header("cache-control", "no-cache"),
        Response::new(200).header("cache-control", "max-age=5, Private"),
        Response::new(200).header("cache-control", "NO-STORE"),
        Response::new(200).header("cache-control", "private=\"set-cookie\""),
    ] {
        assert_eq!(deliver(config, "/", response.clone()), response);
    }
    assert!(get(&deliver(config, "/", Response::new(304)), "cache-control").is_some());
}

#[test]
fn the_security_headers_have_sound_defaults_and_rules_come_after_them() {
    let page = deliver(r#"{"security": {}}"#, "/", Response::new(200).header("x-frame-options", "ALLOWALL"));
    assert_eq!(get(&page, "x-content-type-options").as_deref(), Some("nosniff"));
    assert_eq!(get(&page, "x-frame-options").as_deref(), Some("SAMEORIGIN"));
    assert_eq!(get(&page, "referrer-policy").as_deref(), Some("strict-origin-when-cross-origin"));
    assert_eq!(get(&page, "strict-transport-security"), None);
    let config = r#"{
        "security": {"hsts": "max-age=63072000", "frame": false, "csp": "default-src 'self'"},
        "rules": [{"paths": ["/embed/*"], "remove": ["content-security-policy"]}]
    }"#;
    let page = deliver(config, "/", Response::new(200));
    assert_eq!(get(&page, "strict-transport-security").as_deref(), Some("max-age=63072000"));
    assert_eq!(get(&page, "content-security-policy").as_deref(), Some("default-src 'self'"));
    assert_eq!(get(&page, "x-frame-options"), None);
    assert_eq!(get(&deliver(config, "/embed/x", Response::new(200)), "content-security-policy"), None);
}

#[test]
fn a_configuration_that_can_not_be_sent_is_refused_at_load() {
    for (config, word) in [
        (r#"{"rules": [{"set": {"bad name": "x"}}]}"#, "rules[0]"),
        (r#"{"rules": [{}, {"set": {"x": "a\r\nset-cookie: b"}}]}"#, "rules[1]"),
        (r#"{"rules": [{"remove": ["Content-Length"]}]}"#, "connection"),
        (r#"{"rules": [{"browser_ttl": "soon"}]}"#, "length of time"),
        (r#"{"rules": [{"browser_ttl": "+5m"}]}"#, "length of time"),
        (r#"{"rules": [{"immutable": true}]}"#, "browser_ttl"),
        (r#"{"security": {"hsts": "a\nb"}}"#, "security"),
        (r#"{"rules": [{"path": ["/"]}]}"#, "path"),
    ] {
        let error = Host::new().config(config).configure::<Headers>().err().expect(config);
        assert!(error.contains(word), "{error}");
    }
    assert!(Host::new().config(r#"{"security": {"hsts": true}}"#).configure::<Headers>().is_err());
}
