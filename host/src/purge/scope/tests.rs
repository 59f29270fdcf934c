use proptest::prelude::*;
use serde_json::json;

use super::*;

fn host() -> String {
    "a.example".to_owned()
}

fn path(path: &str) -> PurgeScope {
    PurgeScope::Path { host: host(), path: path.into() }
}

fn scopes(body: &str) -> Vec<PurgeScope> {
    parse_request(body.as_bytes()).expect(body).scopes
}

#[test]
fn each_form_is_read() {
    let prefix = |prefix: &str| PurgeScope::Prefix { host: host(), prefix: prefix.into() };
    let tag = |tag: &str| PurgeScope::Tag { host: host(), tag: tag.into() };
    let cases = [
        (r#"{"host":"A.Example.:8080"}"#, vec![PurgeScope::Host { host: host() }]),
        (r#" {"host":"a.example","path":"/a%20b"}"#, vec![path("/a b")]),
        (r#"{"path":"https://a.example:8443/a%20b"}"#, vec![path("/a b")]),
        (r#"{"host":"a.example","prefix":"/a/."}"#, vec![prefix("/a/.")]),
        (r#"{"host":"a.example","prefix":"/"}"#, vec![prefix("/")]),
        (r#"{"host":"a.example","glob":"/a/*?"}"#, vec![PurgeScope::Glob { host: host(), glob: "/a/*?".into() }]),
        (r#"{"tag":"news","host":"a.example"}"#, vec![tag("news")]),
        (r#"{"tag":"news"}"#, vec![PurgeScope::TagEverywhere { tag: "news".into() }]),
        (r#"{"all":true}"#, vec![PurgeScope::All]),
        (r#"{"purge_everything":true}"#, vec![PurgeScope::All]),
        (r#"{"host":"a.example","paths":["/a","/b"],"tags":["c"]}"#, vec![path("/a"), path("/b"), tag("c")]),
        (
            r#"{"files":["http://a.example/a?b","a.example"],"prefixes":["a.example/c"]}"#,
            vec![path("/a"), path("/"), prefix("/c")],
        ),
        (
            r#"{"hosts":["b.example","a.example"],"tags":["c"]}"#,
            vec![
                PurgeScope::TagEverywhere { tag: "c".into() },
                PurgeScope::Host { host: "b.example".into() },
                PurgeScope::Host { host: host() },
            ],
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(scopes(body), expected, "{body}");
    }
    let order = parse_request(br#"{"all":true,"mode":"refresh","dry_run":true}"#).expect("an order");
    assert_eq!((order.action, order.dry_run), (Action::Refresh, true));
}

#[test]
fn what_is_not_clear_is_refused_and_said() {
    let cases = [
        ("", "JSON object"),
        ("[]", "JSON object"),
        ("{", "EOF"),
        ("{}", "\"host\" is missing"),
        (r#"{"path":"/a"}"#, "\"host\" is missing"),
        (r#"{"mode":"soft"}"#, "\"host\" is missing"),
        (r#"{"host":"a.example","path":null}"#, "null"),
        (r#"{"host":"a.example","paths":null}"#, "null"),
        (r#"{"host":"a.example","paths":["/a",null]}"#, "null"),
        (r#"{"host":"a.example","pth":"/a"}"#, "pth"),
        (r#"{"host":"a.example","host":"b.example"}"#, "duplicate"),
        (r#"{"host":"a.example","path":"/a","tag":"b"}"#, "only one"),
        (r#"{"host":"a.example","path":"/a","tags":["b"]}"#, "only one"),
        (r#"{"host":"a.example","all":true}"#, "alone"),
        (r#"{"all":true,"tag":"x"}"#, "alone"),
        (r#"{"purge_everything":true,"files":["a.example/"]}"#, "alone"),
        (r#"{"all":false}"#, "only be true"),
        (r#"{"host":"a.example","all":false}"#, "only be true"),
        (r#"{"host":"*.example"}"#, "pattern"),
        (r#"{"host":"a b"}"#, "\"host\""),
        (r#"{"host":"a.example","path":"a"}"#, "begin with a slash"),
        (r#"{"host":"a.example","path":"/a?b"}"#, "query"),
        (r#"{"host":"a.example","path":"/a/../b"}"#, "dot segment"),
        (r#"{"host":"a.example","path":"/a%2fb"}"#, "slash"),
        (r#"{"host":"a.example","prefix":"/a%2"}"#, "percent"),
        (r#"{"host":"a.example","glob":"*"}"#, "begin with a slash"),
        (r#"{"host":"a.example","tag":""}"#, "bytes"),
        (r#"{"host":"a.example","tags":[]}"#, "\"tags\" is empty"),
        (r#"{"host":"a.example","paths":["/a","b"]}"#, "\"paths[1]\" must begin with a slash"),
        (r#"{"host":"a.example","globs":["/%zz"]}"#, "\"globs[0]\" has a percent sign"),
        (r#"{"files":["/a"]}"#, "\"files[0]\" is not a URL"),
        (r#"{"files":["ftp://a/"]}"#, "\"files[0]\""),
        (r#"{"hosts":["a.example","*.b"]}"#, "\"hosts[1]\" is a name"),
        (r#"{"all":true,"mode":"harder"}"#, "harder"),
        (r#"{"all":true} x"#, "trailing"),
    ];
    for (body, part) in cases {
        let error = parse_request(body.as_bytes()).expect_err(body);
        assert!(error.contains(part), "{body}: {error}");
    }
}

#[test]
fn a_list_has_a_longest_length() {
    let body = |length: usize| json!({ "host": "a", "paths": vec!["/a"; length] }).to_string();
    assert!(parse_request(body(SCOPES_MOST).as_bytes()).is_ok());
    assert!(parse_request(body(SCOPES_MOST + 1).as_bytes()).expect_err("too long").contains("in parts"));
}

#[test]
fn a_request_purges_its_tags_or_its_path_and_the_root_purges_the_host() {
    let name = Hostname::parse("a.example").expect("a name");
    let of = |path: &str, fields: &[(&'static str, &'static str)]| {
        let fields =
            fields.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        of_request(&name, path, &HeaderMap::from_iter(fields))
    };
    assert_eq!(of("/", &[]), Ok(Order::hard(vec![PurgeScope::Host { host: host() }])));
    assert_eq!(of("/a", &[("fastly-soft-purge", "0")]), Ok(Order::hard(vec![path("/a")])));
    let soft = of("/a", &[("fastly-soft-purge", "1")]).expect("an order");
    assert_eq!((soft.scopes, soft.action), (vec![path("/a")], Action::Soft));
    let tag = |tag: &str| PurgeScope::Tag { host: host(), tag: tag.into() };
    assert_eq!(of("/", &[("surrogate-key", "a b")]), Ok(Order::hard(vec![tag("a"), tag("b")])));
    assert_eq!(of("/", &[("xkey", "a,b")]), Ok(Order::hard(vec![tag("a"), tag("b")])));
    assert!(of("/", &[("surrogate-key", " ")]).is_err(), "not all of the host");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64), path in ".{0,24}") {
        let _ = parse_request(&body);
        let _ = parse_request(json!({ "host": "a", "prefix": format!("/{path}") }).to_string().as_bytes());
        let _ = parse_request(json!({ "files": [path, "a/b"], "globs": [path] }).to_string().as_bytes());
    }
}
