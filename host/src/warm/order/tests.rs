use proptest::prelude::*;

use super::*;

fn read(body: &str) -> Result<Order, String> {
    parse_request(body.as_bytes())
}

#[test]
fn paths_are_of_the_host_and_urls_of_their_own() {
    let order = read(
        r#"{"host": "a.test:8080", "paths": ["/a?x=1", "https://b.test/ü b#c", "HTTP://B.test?x"], "prefixes": ["/"], "jobs": 9}"#,
    )
    .expect("an order");
    let urls: Vec<String> = order.wanted.iter().map(Wanted::url).collect();
    assert_eq!(urls, ["a.test:8080/a?x=1", "https://b.test/%C3%BC%20b", "http://B.test/?x"]);
    assert_eq!((order.prefixes[0].target.as_str(), order.jobs), ("/", 9));
    assert_eq!(item(None, "b.test/x").expect("a URL").url(), "b.test/x");
    assert_eq!(read(r#"{"sitemaps": ["http://a.test/s.xml"]}"#).expect("an order").jobs, JOBS);
}

#[test]
fn what_is_not_clear_is_refused_with_its_place() {
    for (body, why) in [
        ("", "JSON object"),
        ("[]", "JSON object"),
        ("{}", "nothing is named"),
        (r#"{"path": ["/a"]}"#, "unknown field `path`"),
        (r#"{"host": "a.test", "paths": ["/a", "/a/../b"]}"#, "\"paths[1]\" is no path: the path has a dot segment"),
        (r#"{"paths": ["/a"]}"#, "\"paths[0]\" is not a URL"),
        (r#"{"host": "a.test", "paths": ["img/a?u=http://b"]}"#, "begins with neither a slash nor a scheme"),
        (r#"{"host": "a.test", "paths": ["img/a"]}"#, "\"paths[0]\" begins with neither a slash nor a scheme"),
        (r#"{"paths": ["ftp://a.test/"]}"#, "\"paths[0]\" is not a URL of http or https"),
        (r#"{"host": "*.test", "paths": ["/a"]}"#, "\"host\" is a name as clients ask for it"),
        (r#"{"host": "a.test", "prefixes": ["/a?b"]}"#, "\"prefixes[0]\" has a query"),
        (r#"{"host": "a.test", "paths": ["/a"], "jobs": 0}"#, "\"jobs\" must be 1 to 64"),
        (r#"{"host": "a.test", "paths": ["/a"], "headers": {"Range": "bytes=0-1"}}"#, "\"headers.Range\""),
        (r#"{"host": "a.test", "paths": ["/a"], "headers": {"a b": "c"}}"#, "\"headers.a b\" is no field name"),
    ] {
        let refused = read(body).expect_err(body);
        assert!(refused.contains(why), "{body}: {refused}");
    }
    let many = format!(r#"{{"host": "a.test", "paths": ["/a"{}]}}"#, r#", "/a""#.repeat(WANTED_MOST));
    assert!(read(&many).expect_err("too many").contains("in parts"));
}

proptest! {
    #[test]
    fn any_text_is_an_item_or_not(text in "\\PC{0,40}", host in proptest::option::of(Just("a.test"))) {
        if let Ok(wanted) = item(host, &text) {
            prop_assert!(Target::parse(&wanted.target).is_ok() && wanted.target.starts_with('/'));
            prop_assert!(wanted.target.is_ascii());
        }
    }

    #[test]
    fn a_path_that_was_encoded_is_itself(path in "/([a-z ü?#%]|[.]{3}){0,10}") {
        let wanted = item(Some("a.test"), &crate::semantics::target::encode_path(&path)).expect("a path");
        let target = Target::parse(&wanted.target).expect("a target");
        prop_assert_eq!(target.path(), path);
    }
}
