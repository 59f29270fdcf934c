//! What a request's key and the origin's request become.

use cache_key::CacheKey;
use proxyhost_policy::testing::{HeaderEdit, Host, Play, Request, Response};
use proxyhost_policy::types::Decision;

fn run(config: &str, request: Request) -> Play<CacheKey> {
    let mut play = Host::new().config(config).play::<CacheKey>(request);
    assert_eq!(play.on_request(), Ok(Decision::Next));
    play
}

fn sent(play: &Play<CacheKey>, name: &str) -> Option<HeaderEdit> {
    play.edits().upstream_headers.last(name).cloned()
}

fn set(value: &str) -> Option<HeaderEdit> {
    Some(HeaderEdit::Set(value.to_owned()))
}

#[test]
fn the_language_that_is_keyed_is_the_one_that_the_origin_is_asked_for() {
    let config = r#"{"language": {"allow": ["en", "de"], "cookie": "lang"}}"#;
    let request = || Request::get("http://a.test/");
    for (request, language) in [
        (request(), "en"),
        (request().header("accept-language", "de-AT, en;q=0.5"), "de"),
        (request().header("accept-language", "ja"), "en"),
        (request().header("accept-language", "en").header("cookie", "x=1; lang=DE"), "de"),
        (request().header("accept-language", "de").header("cookie", "lang=ja"), "de"),
    ] {
        let play = run(config, request);
        assert_eq!(play.edits().key_part("language"), Some(language));
        assert_eq!(sent(&play, "accept-language"), set(language));
    }
}

#[test]
fn the_device_is_keyed_and_the_origin_told() {
    let request = Request::get("http://a.test/").header("user-agent", "Mozilla/5.0 (iPhone) Mobile");
    let play = run(r#"{"device": true}"#, request);
    assert_eq!(play.edits().key_part("device"), Some("mobile"));
    assert_eq!(sent(&play, "x-device"), set("mobile"));
    assert_eq!(sent(&play, "user-agent"), set("Mozilla/5.0 (compatible; proxyhost; mobile)"));
}

#[test]
fn parameters_that_are_not_listed_reach_neither_key_nor_origin() {
    let config = r#"{"query": ["page", "q"]}"#;
    let query = |query: &str| {
        let play = run(config, Request::get(&format!("http://a.test/{query}")));
        assert_eq!(play.origin_query(), play.key_query(), "what is keyed is what is fetched");
        play.origin_query()
    };
    assert_eq!(query("?q=a%20b&utm_source=x&page=2").as_deref(), Some("page=2&q=a%20b"));
    assert_eq!(query("?page=2&q=a%20b&fbclid=1").as_deref(), Some("page=2&q=a%20b"));
    assert_eq!(query("?q=2&q=1").as_deref(), Some("q=2&q=1"));
    assert_eq!(query("?%71=2").as_deref(), Some("%71=2"));
    assert_eq!(query("?utm_source=x"), None);
    assert_eq!(query("?"), None);
    assert_eq!(query(""), None);
    let all = run("{}", Request::get("http://a.test/?z=1"));
    assert_eq!(all.origin_query().as_deref(), Some("z=1"));
}

#[test]
fn cookies_that_are_not_listed_do_not_reach_the_origin() {
    let config = r#"{"cookies": ["currency", "ab"]}"#;
    let play = run(config, Request::get("http://a.test/").header("cookie", "session=secret; ab=B; currency=NZD"));
    assert_eq!(play.edits().key_part("cookie.currency"), Some("NZD"));
    assert_eq!(play.edits().key_part("cookie.ab"), Some("B"));
    assert_eq!(sent(&play, "cookie"), set("currency=NZD; ab=B"));
    assert!(!play.edits().bypass);
    let play = run(config, Request::get("http://a.test/").header("cookie", "session=secret"));
    assert_eq!(sent(&play, "cookie"), Some(HeaderEdit::Remove));
    let long = format!("ab={}", "x".repeat(65));
    assert!(run(config, Request::get("http://a.test/").header("cookie", &long)).edits().bypass);
}

#[test]
fn caches_behind_are_told_what_the_answer_depends_on() {
    let vary = |config: &str, response: Response| {
        let mut play = run(config, Request::get("http://a.test/"));
        play.respond(response);
        play.on_deliver().expect("this policy has no errors of its own");
        play.response().headers.get("vary")
    };
    let config = r#"{"language": {"allow": ["en"]}, "device": true, "cookies": ["a"]}"#;
    let all = "accept-language, user-agent, sec-ch-ua-mobile, cookie";
    assert_eq!(vary(config, Response::new(200)).as_deref(), Some(all));
    let said = Response::new(200).header("vary", "Accept-Encoding, Accept-Language");
    assert_eq!(vary(r#"{"language": {"allow": ["en"]}}"#, said).as_deref(), Some("Accept-Encoding, Accept-Language"));
    assert_eq!(vary(config, Response::new(200).header("vary", "*")).as_deref(), Some("*"));
    assert_eq!(vary(r#"{"query": ["a"]}"#, Response::new(200)), None);
}

#[test]
fn a_configuration_that_can_not_be_meant_is_refused_at_load() {
    for (config, word) in [
        (r#"{"language": {"allow": []}}"#, "empty"),
        (r#"{"language": {"allow": ["english please"]}}"#, "english please"),
        (r#"{"language": {"allow": ["en"], "default": "de"}}"#, "default"),
        (r#"{"cookies": ["a=b"]}"#, "cookies"),
        (r#"{"languages": {}}"#, "languages"),
    ] {
        let error = Host::new().config(config).configure::<CacheKey>().err().expect(config);
        assert!(error.contains(word), "{error}");
    }
}
