//! Requests to a site, and what the origin is asked.

use proxyhost_policy::testing::{Host, Play, Request, Response};
use proxyhost_policy::types::{Decision, Redirect};
use static_site::StaticSite;

fn request(target: &str) -> Request {
    Request::get(&format!("http://a.test{target}"))
}

fn run(config: &str, request: Request) -> (Decision, Play<StaticSite>) {
    let mut play = Host::new().config(config).play::<StaticSite>(request);
    (play.on_request().expect("this policy has no errors of its own"), play)
}

fn tried(config: &str, request: Request) -> Vec<String> {
    let (decision, play) = run(config, request);
    assert_eq!(decision, Decision::Next);
    play.edits().try_paths.clone()
}

fn location(config: &str, target: &str) -> Option<(u16, String)> {
    match run(config, request(target)).0 {
        Decision::Redirect(Redirect { status, location }) => Some((status, location)),
        Decision::Next => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn folders_have_an_index_and_pages_need_no_extension() {
    assert_eq!(tried("{}", request("/")), ["/index.html"]);
    assert_eq!(tried("{}", request("/about")), ["/about", "/about.html", "/about/index.html"]);
    assert_eq!(tried("{}", request("/docs/")), ["/docs/index.html", "/docs.html"]);
    assert_eq!(tried("{}", request("/a%20b")), ["/a b", "/a b.html", "/a b/index.html"]);
    assert!(tried("{}", request("/style.css")).is_empty(), "a plain file edits nothing");
    assert!(tried(r#"{"clean_urls": false}"#, request("/about")).is_empty());
    assert!(tried("{}", Request::new("POST", "http://a.test/")).is_empty());
}

#[test]
fn one_of_two_addresses_is_redirected_to_the_other() {
    let add = r#"{"trailing_slash": "add"}"#;
    assert_eq!(location(add, "/a?x=1"), Some((308, "/a/?x=1".to_owned())));
    assert_eq!(location(add, "/a/"), None);
    assert_eq!(location(add, "/a.css"), None);
    let remove = r#"{"trailing_slash": "remove"}"#;
    assert_eq!(location(remove, "/a%C3%A4/"), Some((308, "/a%C3%A4".to_owned())));
    assert_eq!(location(remove, "/"), None);
    assert_eq!(location(remove, "//"), Some((308, "/".to_owned())));
}

#[test]
fn no_redirect_leads_to_another_site() {
    for target in
        ["//evil.test", "///evil.test", "/%5Cevil.test", "//evil.test/", "/%5C%5Cevil.test/", "/%09/evil.test/"]
    {
        for config in
            [r#"{"trailing_slash": "add"}"#, r#"{"trailing_slash": "remove"}"#, r#"{"redirects": {"/*": "/*"}}"#]
        {
            if let Some((_, location)) = location(config, target) {
                assert!(location.starts_with('/') && !location.starts_with("//"), "{target}: {location}");
                assert!(!location.contains(['\\', '\t']), "{target}: {location}");
            }
        }
    }
}

#[test]
fn the_table_of_redirects_goes_by_the_exact_path_then_by_the_longest_prefix() {
    let config = r##"{"redirects": {
        "/old": "/new",
        "/gone": {"to": "https://archive.test/gone?from=us", "status": 302},
        "/blog/*": "/news/*",
        "/blog/2019/*": "/archive",
        "/docs/*": "https://docs.test/v2/*",
        "/faq": "/help#faq"
    }}"##;
    for (target, status, to) in [
        ("/old?a=%20", 308, "/new?a=%20"),
        ("/gone?a=1", 302, "https://archive.test/gone?from=us"),
        ("/blog/a%20b", 308, "/news/a%20b"),
        ("/blog/2019/x", 308, "/archive"),
        ("/docs/a/b?c=d", 308, "https://docs.test/v2/a/b?c=d"),
        ("/docs//evil.test", 308, "https://docs.test/v2/evil.test"),
        ("/faq?q=1", 308, "/help?q=1#faq"),
    ] {
        assert_eq!(location(config, target), Some((status, to.to_owned())), "{target}");
    }
    assert_eq!(location(config, "/blog"), None);
}

#[test]
fn what_is_not_there_gets_the_page_for_it_with_404() {
    let config = r#"{"not_found": "/404.html"}"#;
    assert_eq!(tried(config, request("/x")), ["/x", "/x.html", "/x/index.html", "/404.html"]);
    assert_eq!(tried(config, request("/x.png")), ["/x.png", "/404.html"]);
    let deliver = |target: &str, response: Response| {
        let (_, mut play) = run(config, request(target));
        play.respond(response);
        play.on_deliver().expect("this policy has no errors of its own");
        play.response().clone()
    };
    assert_eq!(deliver("/x", Response::new(200).origin_path("/404.html")).status, 404);
    assert_eq!(deliver("/x", Response::new(200).origin_path("/x.html")).status, 200);
    let part = deliver("/x", Response::new(206).header("content-range", "bytes 0-0/9").origin_path("/404.html"));
    assert_eq!((part.status, part.headers.get("content-range")), (404, None));
    assert_eq!(deliver("/x", Response::new(304).origin_path("/404.html")).status, 304);
    assert_eq!(deliver("/404.html", Response::new(200).origin_path("/404.html")).status, 200);
    assert_eq!(deliver("/404", Response::new(200).origin_path("/404.html")).status, 200);
    assert_eq!(deliver("/x", Response::new(502)).status, 502);
}

#[test]
fn an_application_s_page_answers_navigations_and_nothing_else() {
    let config = r#"{"spa": "/index.html", "spa_except": ["/api/*"], "not_found": "/404.html"}"#;
    let last = |request: Request| {
        let (_, play) = run(config, request);
        let key = play.edits().key_part("navigation").map(str::to_owned);
        (play.edits().try_paths.last().cloned().unwrap_or_default(), key)
    };
    let yes = ("/index.html".to_owned(), Some("yes".to_owned()));
    let no = ("/404.html".to_owned(), Some("no".to_owned()));
    assert_eq!(last(request("/cart").header("sec-fetch-mode", "navigate")), yes);
    assert_eq!(last(request("/cart").header("accept", "text/html,*/*;q=0.8")), yes);
    assert_eq!(last(request("/user/j.doe").header("sec-fetch-mode", "navigate")), yes);
    assert_eq!(last(request("/cart").header("sec-fetch-mode", "cors").header("accept", "text/html")), no);
    assert_eq!(last(request("/app.js").header("accept", "*/*")), no);
    assert_eq!(last(request("/cart")), no);
    let api = last(request("/api/x").header("sec-fetch-mode", "navigate"));
    assert_eq!(api, ("/404.html".to_owned(), None));

    let (_, mut play) = run(config, request("/cart").header("sec-fetch-mode", "navigate"));
    play.respond(Response::new(200).origin_path("/index.html"));
    play.on_deliver().expect("this policy has no errors of its own");
    assert_eq!(play.response().status, 200);
    assert_eq!(play.response().headers.get("vary").as_deref(), Some("Sec-Fetch-Mode, Accept"));
}

#[test]
fn a_configuration_that_can_not_be_meant_is_refused_at_load() {
    for (config, word) in [
        (r#"{"index": "a/b"}"#, "index"),
        (r#"{"not_found": "404.html"}"#, "not_found"),
        (r#"{"spa": "/"}"#, "spa"),
        (r#"{"spa_except": ["/api/*"]}"#, "spa_except"),
        (r#"{"redirects": {"old": "/new"}}"#, "slash"),
        (r#"{"redirects": {"/a*b": "/new"}}"#, "star"),
        (r#"{"redirects": {"/a": "//evil.test"}}"#, "leads to"),
        (r#"{"redirects": {"/a": "javascript:alert(1)"}}"#, "leads to"),
        (r#"{"redirects": {"/a/*": "https://a.test*"}}"#, "slash"),
        (r#"{"redirects": {"/a": "/b/*"}}"#, "star"),
        (r#"{"redirects": {"/a": "/a"}}"#, "itself"),
        (r#"{"redirects": {"/a": {"to": "/b", "status": 200}}}"#, "status"),
        (r#"{"trailing_slash": "maybe"}"#, "maybe"),
    ] {
        let error = Host::new().config(config).configure::<StaticSite>().err().expect(config);
        assert!(error.contains(word), "{config}: {error}");
    }
}
