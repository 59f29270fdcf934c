//! Who comes in and who doesn't.

use access_list::AccessList;
use proxyhost_policy::testing::{Host, Request};
use proxyhost_policy::types::Decision;

fn decide(config: &str, request: Request) -> Decision {
    let host = Host::new().config(config).addresses("office", &["198.51.100.0/24", "2001:db8:1::/48"]);
    host.play::<AccessList>(request).on_request().expect("this policy has no errors of its own")
}

fn comes_in(config: &str, request: Request) -> bool {
    match decide(config, request) {
        Decision::Next => true,
        Decision::Deny(403) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_are_let_in_by_block_and_by_set() {
    let config = r#"{"addresses": {"allow": ["10.0.0.0/8", "2001:db8:2::1", "@office"]}}"#;
    let from = |ip: &str| Request::get("http://a.test/").from(ip);
    for ip in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:2::1", "198.51.100.7", "2001:db8:1::9"] {
        assert!(comes_in(config, from(ip)), "{ip}");
    }
    for ip in ["11.0.0.1", "2001:db8:2::2", "198.51.101.1", "::1"] {
        assert!(!comes_in(config, from(ip)), "{ip}");
    }
}

#[test]
fn deny_comes_before_allow() {
    let config = r#"{"addresses": {"allow": ["10.0.0.0/8"], "deny": ["10.6.6.0/24", "@office"]}}"#;
    let from = |ip: &str| Request::get("http://a.test/").from(ip);
    assert!(comes_in(config, from("10.1.2.3")));
    assert!(!comes_in(config, from("10.6.6.6")));
    let config = r#"{"addresses": {"deny": ["@office"]}}"#;
    assert!(comes_in(config, from("203.0.113.1")));
    assert!(!comes_in(config, from("198.51.100.1")));
    assert!(!comes_in(r#"{"addresses": {"allow": []}}"#, from("203.0.113.1")), "an empty allow list lets nobody in");
}

#[test]
fn referers_are_let_in_by_host() {
    let config = r#"{"referers": {"allow": ["Example.com", "*.example.com"], "deny": ["bad.example.com"]}}"#;
    let from = |referer: &str| Request::get("http://a.test/").header("referer", referer);
    for good in ["https://example.com/a", "http://EXAMPLE.com:81", "https://x.y.example.com/"] {
        assert!(comes_in(config, from(good)), "{good}");
    }
    for bad in [
        "https://bad.example.com/",
        "https://badexample.com/",
        "https://example.com.evil.test/",
        "https://example.com@evil.test/",
        "https://evil.test/?example.com",
        "null",
        "example.com",
    ] {
        assert!(!comes_in(config, from(bad)), "{bad}");
    }
    assert!(!comes_in(r#"{"referers": {"allow": ["*.example.com"]}}"#, from("https://example.com/")));
}

#[test]
fn a_missing_referer_comes_in_unless_that_is_denied() {
    let bare = || Request::get("http://a.test/");
    assert!(comes_in(r#"{"referers": {"allow": ["example.com"]}}"#, bare()));
    let strict = r#"{"referers": {"allow": ["example.com"]}, "empty_referer": "deny"}"#;
    assert!(!comes_in(strict, bare()));
    assert!(!comes_in(strict, bare().header("referer", " ")));
    assert!(comes_in(r#"{"referers": {"deny": ["bad.test"]}}"#, bare().header("referer", "about:blank")));
}

#[test]
fn address_and_referer_must_both_fit_and_other_paths_are_open() {
    let config = r#"{
        "paths": ["/private/*"], "status": 404,
        "addresses": {"allow": ["10.0.0.0/8"]}, "referers": {"allow": ["example.com"]}
    }"#;
    let request = |path: &str, ip: &str, referer: &str| {
        Request::get(&format!("http://a.test{path}")).from(ip).header("referer", referer)
    };
    assert_eq!(decide(config, request("/private/a", "10.0.0.1", "https://example.com/")), Decision::Next);
    assert_eq!(decide(config, request("/private/a", "11.0.0.1", "https://example.com/")), Decision::Deny(404));
    assert_eq!(decide(config, request("/private/a", "10.0.0.1", "https://evil.test/")), Decision::Deny(404));
    assert_eq!(decide(config, request("/open", "11.0.0.1", "https://evil.test/")), Decision::Next);
}

#[test]
fn the_log_says_which_list_it_was() {
    let host = Host::new().config(r#"{"addresses": {"allow": []}}"#);
    let mut play = host.play::<AccessList>(Request::get("http://a.test/"));
    assert_eq!(play.on_request(), Ok(Decision::Deny(403)));
    assert_eq!(play.edits().var("access-list"), Some("address"));
}

#[test]
fn a_configuration_that_can_not_be_meant_is_refused_at_load() {
    for (config, word) in [
        (r#"{"addresses": {"allow": ["10.1.0.0/8"]}}"#, "10.0.0.0/8"),
        (r#"{"addresses": {"deny": ["@"]}}"#, "no set"),
        (r#"{"referers": {"allow": ["https://example.com/"]}}"#, "referers.allow"),
        (r#"{"referers": {"allow": ["*"]}}"#, "*.example.com"),
        (r#"{"status": 200}"#, "status"),
        (r#"{"empty_referer": "deny"}"#, "empty_referer"),
        (r#"{"adresses": {}}"#, "adresses"),
    ] {
        let error = Host::new().config(config).configure::<AccessList>().err().expect(config);
        assert!(error.contains(word), "{error}");
    }
}
