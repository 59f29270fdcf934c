//! What the host traps on, the stand-in for it panics on.

use proxyhost_policy::prelude::*;
use proxyhost_policy::testing::{Host, Request, Response};

/// Does something wrong, as configured.
struct Wrong(String);

impl Policy for Wrong {
    fn configure() -> Result<Self, String> {
        let what = config::get("what").unwrap_or_default();
        if what == "request in configure" {
            let _ = request::path();
        }
        Ok(Self(what))
    }

    fn on_request(&self) -> Result<Decision, String> {
        match self.0.as_str() {
            "ttl" => cache_store::ttl_ms(1),
            "status" => response::set_status(200),
            "set" => drop(client::ip_in("nowhere")),
            "secret" => drop(secrets::get("sign")),
            "vars" => vars::set("seen", &request::path()),
            _ => {}
        }
        Ok(Decision::Next)
    }

    fn on_deliver(&self) -> Result<(), String> {
        response::set_header("x-seen", &vars::get("seen").unwrap_or_default());
        if self.0 == "key" {
            cache_lookup::add_key("a", "b");
        }
        Ok(())
    }
}

proxyhost_policy::export!(Wrong: on_request, on_deliver);

fn host(what: &str) -> Host {
    Host::new().config(format!(r#"{{"what": "{what}"}}"#)).secret("sign", "x")
}

fn on_request(what: &str) {
    let _ = host(what).play::<Wrong>(Request::get("http://a.test/x")).on_request();
}

#[test]
#[should_panic(expected = "cache-store.ttl-ms is only for on-origin-response, not on-request")]
fn a_function_of_another_phase() {
    on_request("ttl");
}

#[test]
#[should_panic(expected = "response.set-status is only for on-origin-response and on-deliver")]
fn a_response_before_there_is_one() {
    on_request("status");
}

#[test]
#[should_panic(expected = "no address set is named \"nowhere\"")]
fn a_name_that_hosts_json_does_not_have() {
    on_request("set");
}

#[test]
#[should_panic(expected = "lacks the grant \"secrets\"")]
fn a_secret_without_the_grant() {
    on_request("secret");
}

#[test]
#[should_panic(expected = "there is no request while the policy is configured")]
fn a_request_while_the_policy_is_configured() {
    on_request("request in configure");
}

#[test]
fn vars_go_from_phase_to_phase_and_not_from_request_to_request() {
    let host = host("vars");
    for path in ["/a", "/b"] {
        let mut play = host.play::<Wrong>(Request::get(&format!("http://a.test{path}")));
        assert_eq!(play.edits().var("seen"), None);
        play.on_request().expect("no error");
        play.respond(Response::new(200));
        play.on_deliver().expect("no error");
        assert_eq!(play.response().headers.get("x-seen").as_deref(), Some(path));
    }
}
