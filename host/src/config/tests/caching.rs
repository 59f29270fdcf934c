//! What hosts and their rules say of caching.

use super::*;
use crate::vhost::{CacheUse, Caching, ClientCacheControl, Compress};

const HOST: &str = r#"hosts."a.example""#;

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn a_host_that_says_nothing_has_the_defaults() {
    let resolved = Folder::new().host(json!({ "origin": "site" })).expect("it serves");
    assert_eq!(resolved.hosts[0].caching, Caching::default());
    assert!(resolved.hosts[0].rules.is_empty());
}

#[test]
fn what_is_absent_in_a_bucket_lives_shorter() {
    let lives = |ttl: serde_json::Value| {
        let mut host = json!({ "origin": "b" });
        if !ttl.is_null() {
            host["ttl"] = ttl;
        }
        let resolved = Folder::new()
            .with(json!({ "origins": { "b": { "s3": { "bucket": "b" } } }, "hosts": { "a.example": host } }))
            .expect("it serves");
        let lives = &resolved.hosts[0].caching.ttl;
        (lives.default, lives.of_named(404), lives.of_named(410), lives.of_named(403))
    };
    assert_eq!(lives(json!(null)), (secs(300), secs(10), secs(10), None));
    assert_eq!(lives(json!("1h")), (secs(3600), None, None, None));
    assert_eq!(lives(json!({ "404": "1s" })), (secs(300), secs(1), secs(10), None));
    assert_eq!(lives(json!({ "default": 7, "4xx": 3, "403": 2 })), (secs(7), secs(3), secs(3), secs(2)));
}

#[test]
fn budgets_of_hosts_reach_the_cache() {
    let resolved = Folder::new().host(json!({ "origin": "site", "cache_disk": "5GB" })).expect("it serves");
    let [host] = &resolved.cache.hosts[..] else { panic!("{:?}", resolved.cache.hosts) };
    assert_eq!((host.name.as_str(), host.disk_bytes), ("a.example", Some(5_000_000_000)));
    assert!(resolved.summary().iter().any(|line| line.contains("at most 4.7 GiB on disk")), "{:?}", resolved.summary());
    let mistakes = Folder::new().host(json!({ "origin": "site", "cache_disk": "much" })).expect_err("no size");
    assert!(mistakes.to_string().contains("cache_disk"), "{mistakes}");
}

#[test]
fn pins_and_mirrors_are_read() {
    let resolved =
        Folder::new().host(json!({ "origin": "site", "pin": ["/a/*", "*.css"], "mirror": true })).expect("it serves");
    let host = &resolved.hosts[0];
    let mirror = host.mirror.expect("a mirror");
    assert_eq!((mirror.interval, mirror.jobs), (Duration::from_secs(300), 4));
    assert!(host.is_pinned("/anything"), "a mirror is kept whole");
    let written = json!({ "origin": "site", "pin": ["/a/*", "*.css"], "mirror": false });
    let resolved = Folder::new().host(written).expect("it serves");
    let host = &resolved.hosts[0];
    assert_eq!(host.mirror, None);
    assert_eq!(["/a/b", "/x.css", "/b"].map(|path| host.is_pinned(path)), [true, true, false]);
    let resolved = Folder::new().host(json!({ "origin": "site", "mirror": { "interval": "30s", "jobs": 8 } }));
    let mirror = resolved.expect("it serves").hosts[0].mirror.expect("a mirror");
    assert_eq!((mirror.interval, mirror.jobs), (Duration::from_secs(30), 8));
    for bad in [json!({ "interval": 0 }), json!({ "jobs": 65 }), json!("yes"), json!({ "every": "1m" })] {
        assert!(Folder::new().host(json!({ "origin": "site", "mirror": bad })).is_err(), "{bad}");
    }
    assert!(Folder::new().host(json!({ "origin": "site", "mirror": true, "cache": "off" })).is_err());
}

#[test]
fn rules_have_from_the_host_what_they_do_not_say() {
    let written = json!({
        "origin": "site", "ttl": { "default": "5m", "404": "10s" }, "ttl_min": "1s", "ttl_max": "1d", "browser_ttl": "1m",
        "stale_while_revalidate": 5, "stale_if_error": { "for": "1h", "statuses": [500, 404] }, "max_object": "1MiB",
        "query": { "allow": ["page", "q_*"], "unlisted": "reject", "sort": true }, "client_cache_control": "honor",
        "compress": { "types": ["text/*"] }, "rules": [
            { "path": ["/live/*", "/api/*"], "cache": "off" },
            { "path": "*.jpg", "ttl": { "404": "1m" }, "ttl_override": "1h", "query": "ignore", "stale_if_error": "2h",
              "client_cache_control": "ignore", "compress": false }
        ]
    });
    let resolved = Folder::new().host(written).expect("it serves");
    let host = &resolved.hosts[0];
    let [live, pictures] = &host.rules[..] else { panic!("two rules: {:?}", host.rules) };
    assert_eq!(live.caching, Caching { cache: CacheUse::Off, ..host.caching.clone() });
    let of = &pictures.caching;
    assert_eq!((of.ttl.default, of.ttl.of_named(404)), (secs(300), secs(60)));
    assert_eq!((of.life_in_any_case(200), host.caching.life_in_any_case(200)), (secs(3600), None));
    assert_eq!((of.ttl_min, of.browser_ttl, of.max_object_bytes), (secs(1), secs(60), Some(1 << 20)));
    assert_eq!((of.stale_if_error, of.is_error(404), of.is_error(503)), (secs(7200), true, false));
    assert_eq!(of.client_cache_control, ClientCacheControl::Ignore);
    assert!(host.caching.compress.is_some() && of.compress.is_none());
    assert_eq!((host.rule_for("//live/a"), host.rule_for("/x.jpg"), host.rule_for("/x")), (Some(0), Some(1), None));

    // What is shown can be written.
    let shown = resolved.show()["hosts"]["a.example"].clone();
    let again = Folder::new().host(shown.clone()).unwrap_or_else(|mistakes| panic!("{shown}: {mistakes}"));
    assert_eq!((&again.hosts[0].caching, &again.hosts[0].rules), (&host.caching, &host.rules));
    assert!(resolved.summary().iter().any(|line| line.contains("2 rules") && line.contains("ttl 5m")));
}

#[test]
fn compression_is_off_unless_it_is_said_and_shown_as_it_can_be_written() {
    let compress = |value: serde_json::Value| {
        let resolved = Folder::new().host(json!({ "origin": "site", "compress": value })).expect("it serves");
        (resolved.hosts[0].caching.compress.clone(), resolved.show()["hosts"]["a.example"]["compress"].clone())
    };
    assert_eq!(Folder::new().host(json!({ "origin": "site" })).expect("it serves").hosts[0].caching.compress, None);
    assert_eq!(compress(json!(false)), (None, json!(false)));
    assert_eq!(compress(json!(true)).0, Some(Compress::default()));
    let (some, shown) =
        compress(json!({ "types": ["Text/*"], "min_size": "1KiB", "encodings": ["gzip", "br", "gzip"] }));
    assert_eq!(shown, json!({ "types": ["text/*"], "min_size": 1024, "encodings": ["gzip", "br"] }));
    for shown in [shown, compress(json!(true)).1] {
        assert_eq!(compress(shown.clone()).1, shown);
    }
    assert!(some.is_some());
}

#[test]
fn mistakes_are_named_where_they_are() {
    let folder = Folder::new();
    for (member, value, path, found, expected) in [
        ("cache", json!(false), "cache", "false", "\"off\""),
        ("ttl", json!({}), "ttl", "an empty object", "\"default\""),
        ("ttl", json!({ "4040": 1 }), "ttl.4040", "4040", "a status"),
        ("ttl", json!({ "206": 1 }), "ttl.206", "206", "that can be kept"),
        ("ttl", json!({ "404": "soon" }), "ttl.404", "soon", "a duration"),
        ("ttl", json!([1]), "ttl", "a list", "a duration"),
        ("ttl_override", json!({ "xx": 1 }), "ttl_override.xx", "xx", "a class"),
        ("ttl_min", json!(-1), "ttl_min", "-1", "a duration"),
        ("stale_if_error", json!({ "statuses": [200] }), "stale_if_error.statuses[0]", "200", "400 to 599"),
        ("stale_if_error", json!({ "four": 1 }), "stale_if_error.four", "unknown", "\"for\""),
        ("max_object", json!("big"), "max_object", "big", "a size"),
        ("compress", json!("gzip"), "compress", "gzip", "true or false"),
        (
            "compress",
            json!({ "types": ["text/html; q=1"] }),
            "compress.types[0]",
            "text/html; q=1",
            "without parameters",
        ),
        ("compress", json!({ "types": [] }), "compress.types", "an empty list", "not empty"),
        ("compress", json!({ "encodings": ["deflate"] }), "compress.encodings[0]", "deflate", "zstd"),
        ("compress", json!({ "min_size": -1 }), "compress.min_size", "-1", "a size"),
        ("query", json!("drop"), "query", "drop", "\"ignore\""),
        ("query", json!({}), "query", "none of them", "allow and deny"),
        ("query", json!({ "allow": [], "deny": [] }), "query", "both", "exactly one"),
        ("query", json!({ "deny": ["a"], "unlisted": "reject" }), "query.unlisted", "with deny", "allow"),
        ("query", json!({ "allow": ["a", "b*c"] }), "query.allow[1]", "b*c", "a star"),
        ("rules", json!({}), "rules", "object", "a list"),
        ("rules", json!([{ "ttl": 1 }]), "rules[0].path", "nothing", "/assets/*"),
        ("rules", json!([{ "path": [] }]), "rules[0].path", "an empty list", "not empty"),
        ("rules", json!([{ "path": "/a" }, { "path": ["/b", "c"] }]), "rules[1].path[1]", "neither a slash", "pattern"),
        ("rules", json!([{ "path": "/a%20b" }]), "rules[0].path", "encoded", "decoded"),
        ("rules", json!([{ "path": "/a", "prefix": "x" }]), "rules[0].prefix", "unknown", ""),
        ("rules", json!([{ "path": "/a", "ttl_min": 2, "ttl_max": 1 }]), "rules[0].ttl_min", "over ttl_max", "at most"),
    ] {
        let mut host = json!({ "origin": "site" });
        host[member] = value;
        refused(folder.host(host), &format!("{HOST}.{path}"), found, expected);
    }
    let host = json!({ "origin": "site", "ttl_max": 5, "rules": [{ "path": "/a", "ttl_min": 6 }] });
    refused(folder.host(host), &format!("{HOST}.rules[0].ttl_min"), "over ttl_max", "at most");
}

#[test]
fn a_rule_that_can_never_count_is_a_mistake() {
    let found = |rules: serde_json::Value| {
        let read = Folder::new().host(json!({ "origin": "site", "rules": rules }));
        read.err().map(|mistakes| mistakes.iter().map(|mistake| mistake.path.clone()).collect::<Vec<_>>())
    };
    let off = |path: serde_json::Value| json!({ "path": path, "cache": "off" });
    assert_eq!(found(json!([off(json!("/img/*")), off(json!("/*"))])), None);
    assert_eq!(found(json!([off(json!("*.jpg")), off(json!("/img/*")), off(json!(["/a", "/a"]))])), None);
    let mistakes = found(json!([off(json!("/*")), off(json!("/img/*"))]));
    assert_eq!(mistakes, Some(vec![format!("{HOST}.rules[1].path")]));
    assert_eq!(found(json!([off(json!("/img/*")), off(json!(["/img/a", "/css/*"]))])), None);
    let many: Vec<_> = (0..5000).map(|number| off(json!(format!("*/{number}.jpg")))).collect();
    assert_eq!(found(json!(many)), None);
    let mistakes = found(json!([off(json!(["/a", "/img/*"])), off(json!("*")), off(json!(["/b", "/img/x", "*.css"]))]));
    assert_eq!(mistakes, Some([0, 1, 2].iter().map(|at| format!("{HOST}.rules[2].path[{at}]")).collect()));
}
