//! The room as a whole: each kind of mistake, all of them in one go, secrets never told, defaults, and what is in force.

mod caching;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::origin::{HostField, Place, S3Credentials, Timeouts};
use crate::policy::settings::{ChainSource, Isolation, Limits, OnFailure};
use crate::vhost::{Methods, PurgeAllow, PurgeMethod};

const SECRET: &str = "sesame-open-9f3a";

/// A folder with a few files that the tests name.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for (name, text) in [
            ("site/index.html", "hello"),
            ("policies/a.wasm", ""),
            ("policies/dropped.example.wasm", ""),
            ("secret", &format!("{SECRET}\n")),
            ("empty", "\n"),
            ("nets", "\u{feff}10.0.0.0/8 # ours\n\n# all\n2001:db8::1\n"),
            ("badnets", "10.0.0.0/8\nnowhere\n"),
            ("table.json", r#"{"a":"b","n":1,"o":{"x":[true]}}"#),
            ("list.json", "[]"),
            (
                "jwks.json",
                r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"DZkOWc9OjD3R0MI__V6ZSeECUz7khjt0fbePbvVLvy8"}]}"#,
            ),
            ("no-keys.json", r#"{"keys":[]}"#),
            (
                "key.pem",
                "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEADZkOWc9OjD3R0MI//V6ZSeECUz7khjt0fbePbvVLvy8=\n-----END PUBLIC KEY-----\n",
            ),
            ("private.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        Self(folder)
    }

    fn read(&self, text: &str) -> Result<Resolved, Mistakes> {
        read(
            text.as_bytes(),
            &self.0.path().join("hosts.json"),
            &Surroundings {
                folder: self.0.path().to_owned(),
                variable: &|name| match name {
                    "SECRET" => Some(SECRET.into()),
                    "EMPTY" => Some(Vec::new()),
                    "BLANKS" => Some(b"a b".to_vec()),
                    _ => None,
                },
                disk_free: &|_| Some(6_000_000_000),
                memory: Some(2 << 30),
            },
        )
    }

    /// Reads a file with these members beside an origin and a host.
    fn with(&self, extra: Value) -> Result<Resolved, Mistakes> {
        let mut file = json!({
            "origins": { "site": { "dir": { "path": "site" } } },
            "hosts": { "a.example": { "origin": "site" } },
        });
        for (key, value) in extra.as_object().expect("an object") {
            file[key] = value.clone();
        }
        self.read(&file.to_string())
    }

    fn host(&self, host: Value) -> Result<Resolved, Mistakes> {
        self.with(json!({ "hosts": { "a.example": host } }))
    }

    fn origin(&self, origin: Value) -> Result<Resolved, Mistakes> {
        self.with(json!({ "origins": { "site": origin } }))
    }
}

/// The only mistake, as a line.
fn one(result: Result<Resolved, Mistakes>) -> String {
    let lines = result.expect_err("there is a mistake").lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.into_iter().next().unwrap_or_default()
}

#[track_caller]
fn refused(result: Result<Resolved, Mistakes>, path: &str, found: &str, expected: &str) {
    let line = one(result);
    assert!(line.starts_with(&format!("{path}: found ")), "{line}");
    assert!(line.contains(found), "{line} should tell {found}");
    assert!(line.contains(expected), "{line} should expect {expected}");
}

#[test]
fn an_origin_and_a_host_are_enough() {
    let folder = Folder::new();
    let resolved = folder.with(json!({})).expect("it serves");
    assert_eq!(resolved.http, [crate::listener::Address::parse("127.0.0.1:8080").expect("an address")]);
    assert_eq!(resolved.admin, "127.0.0.1:9900".parse().expect("an address"));
    assert_eq!(resolved.cache.dir, folder.0.path().join("cache"));
    assert_eq!(resolved.cache.disk_bytes, 3_000_000_000);
    assert_eq!(resolved.cache.memory_bytes, 512 << 20);
    assert_eq!(resolved.policies.folder, folder.0.path().join("policies"));
    assert_eq!(resolved.policies.state, folder.0.path().join("cache/policy"));
    assert!(resolved.admin_token.is_none() && resolved.trusted_proxies.is_empty());
    let host = &resolved.hosts[0];
    assert_eq!((host.caching.ttl.default, host.methods, host.max_body_bytes), (None, Methods::Read, 16 << 20));
    assert_eq!(host.chain.source, ChainSource::Dropped);
    assert_eq!(host.chain.host, "a.example");
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_rooms() {
    let folder = Folder::new();
    let resolved = folder.host(json!({ "origin": "site", "policy": "a.wasm" })).expect("it serves");
    let (told, own) = (resolved.origins[0].timeouts, Timeouts::default());
    assert_eq!((told.connect, told.first_byte, told.idle), (own.connect, own.first_byte, own.idle));
    let ChainSource::Named(list) = &resolved.hosts[0].chain.source else { panic!("a policy is named") };
    assert_eq!(list[0].limits, Limits::default());
    assert_eq!((list[0].on_failure, list[0].isolation), (OnFailure::default(), Isolation::default()));
    assert_eq!(list[0].file, folder.0.path().join("policies/a.wasm"));
}

#[test]
fn everything_that_can_be_written_is_read() {
    let folder = Folder::new();
    let resolved = folder
        .with(json!({
            "$schema": "hosts.schema.json",
            "listen": { "http": ["0.0.0.0:80", "[::]:80"], "admin": "0.0.0.0:9900" },
            "admin": { "token": "env:SECRET" },
            "trusted_proxies": ["10.0.0.1/8", "::1"],
            "cache": { "dir": "kept", "disk": "40GB", "memory": 1000 },
            "policies": "policies",
            "origins": {
                "bucket": { "s3": {
                    "bucket": "b", "region": "eu-central-1", "endpoint": "http://127.0.0.1:9000", "path_style": true,
                    "access_key_id": "literal", "secret_access_key": "file:secret"
                }, "timeouts": { "connect": "1s", "first_byte": 2, "idle": "3s" } },
                "public": { "s3": { "bucket": "b", "anonymous": true } },
                "chain": { "s3": { "bucket": "b" } },
                "app": { "http": { "url": "https://app.example/base", "host": "client" } },
                "other": { "http": { "url": "http://127.0.0.1:3000", "host": "www.example:81" } },
            },
            "hosts": {
                "A.Example.": { "origin": "bucket", "prefix": "/my/", "policy": [
                    "a.wasm",
                    { "wasm": "a.wasm", "config": { "x": [1] }, "secrets": { "sign": "file:secret", "old": "literal" },
                      "grants": ["secrets"], "limits": { "time_ms": 10, "memory_mib": 256, "calls": 5 },
                      "on_failure": "open", "isolation": "request" }
                ], "purge_method": "DELETE", "purge_allow": "policy" },
                "*.example": { "origin": "app", "methods": "all", "ttl": "1m", "policy": null, "max_body": "1MiB",
                    "purge_method": "PURGE", "purge_allow": ["127.0.0.1"] },
                "*": { "origin": "public", "ttl": 0 },
                "dropped.example": { "origin": "chain", "purge_method": "PURGE", "purge_allow": "policy" }
            },
            "addresses": { "file": "nets", "list": ["192.0.2.0/24"] },
            "tables": { "file": "table.json", "here": { "k": "v" } },
            "rates": { "r": { "rate": 5, "per": "1m", "burst": 20 }, "s": { "rate": 3 } },
            "keys": { "pem": "key.pem", "jwks": "file:jwks.json" },
        }))
        .expect("it serves");

    assert_eq!(resolved.admin_token.as_ref().map(|token| &*token.0), Some(SECRET));
    assert_eq!(resolved.trusted_proxies[0].to_string(), "10.0.0.0/8");
    assert_eq!((resolved.cache.disk_bytes, resolved.cache.memory_bytes), (40_000_000_000, 1000));
    let place = |name: &str| &resolved.origins.iter().find(|origin| origin.name == name).expect("it is there").place;
    let Place::S3(s3) = place("bucket") else { panic!("a bucket") };
    assert!(matches!(&s3.credentials,
        S3Credentials::Static { access_key_id, secret_access_key } if access_key_id == "literal" && secret_access_key == SECRET));
    assert!(matches!(place("public"), Place::S3(s3) if matches!(s3.credentials, S3Credentials::Anonymous)));
    assert!(matches!(place("chain"), Place::S3(s3) if matches!(s3.credentials, S3Credentials::Chain)));
    assert!(matches!(place("app"), Place::Http(http) if http.host == HostField::Client));
    assert!(matches!(place("other"), Place::Http(http) if http.host == HostField::Literal("www.example:81".into())));

    let host = |name: &str| resolved.hosts.iter().find(|host| host.name == name).expect("it is there");
    let first = host("A.Example.");
    assert_eq!((first.prefix.as_str(), first.caching.ttl.default), ("my", Some(Duration::from_secs(300))));
    assert_eq!(first.chain.host, "a.example");
    let ChainSource::Named(list) = &first.chain.source else { panic!("policies are named") };
    assert_eq!(&*list[1].secrets["sign"].0, SECRET.as_bytes());
    assert_eq!(list[1].limits, Limits { time_ms: 10, memory_mib: 256, calls: 5 });
    assert_eq!(list[1].grants, ["secrets"]);
    let second = host("*.example");
    assert_eq!(
        (second.methods, second.caching.ttl.default, second.max_body_bytes),
        (Methods::All, Some(Duration::from_secs(60)), 1 << 20)
    );
    assert_eq!(second.chain.source, ChainSource::None);
    assert!(matches!(&second.purge, Some(PurgeMethod { allow: PurgeAllow::Addresses(list), .. }) if list.len() == 1));
    assert_eq!(host("*").caching.ttl.default, Some(Duration::ZERO));

    let capabilities = &resolved.capabilities;
    assert_eq!(capabilities.addresses["file"].len(), 2);
    assert_eq!(capabilities.tables["file"]["o"], r#"{"x":[true]}"#);
    assert_eq!((capabilities.tables["file"]["n"].as_str(), capabilities.tables["here"]["k"].as_str()), ("1", "v"));
    assert_eq!((capabilities.rates["r"].burst, capabilities.rates["s"].burst), (20, 3));
    assert_eq!(capabilities.rates["s"].per, Duration::from_secs(1));
    assert!(capabilities.keys["pem"].text.contains("PUBLIC KEY"));
    assert_eq!(capabilities.origins, ["app", "bucket", "chain", "other", "public"]);

    let told = format!("{} {} {resolved:?}", resolved.show(), resolved.summary().join("\n"));
    assert!(!told.contains(SECRET) && !told.contains("literal"), "{told}");
    assert_eq!(resolved.show()["hosts"]["A.Example."]["policy"][1]["secrets"]["sign"], "(hidden)");
}

#[test]
fn all_mistakes_are_named_in_one_go() {
    let folder = Folder::new();
    let mistakes = folder
        .read(
            r#"{
              "listn": {}, "trusted_proxies": ["x"], "cache": { "disk": "many" },
              "origins": { "a": {}, "b": { "dir": { "path": "missing" } }, "c": { "dir": { "path": "site" } } },
              "hosts": {
                "a.example": { "origin": "d", "ttl": "5 minutes" },
                "bad name": { "origin": "c", "policy": "missing.wasm" },
                "c.example": { "origin": "c", "polcy": "a.wasm" }
              },
              "rates": { "r": { "per": "1s" } }
            }"#,
        )
        .expect_err("it is refused");
    let paths: Vec<&str> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
    for path in [
        "listn",
        "trusted_proxies[0]",
        "cache.disk",
        "origins.a",
        "origins.b.dir.path",
        r#"hosts."a.example".origin"#,
        r#"hosts."a.example".ttl"#,
        r#"hosts."bad name""#,
        r#"hosts."bad name".policy"#,
        r#"hosts."c.example".polcy"#,
        "rates.r.rate",
    ] {
        assert!(paths.contains(&path), "{path} is missing in {paths:#?}");
    }
    assert_eq!(paths.len(), 11, "{mistakes}");
}

#[test]
fn text_that_is_not_json_is_refused_with_line_and_column() {
    let line = one(Folder::new().read("{\n  \"origins\": {,\n}"));
    assert!(line.contains("hosts.json: found what is not JSON") && line.contains("line 2 column 15"), "{line}");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    let folder = Folder::new();
    refused(folder.with(json!({ "orgins": {} })), "orgins", "an unknown key", "\"origins\"");
    refused(folder.with(json!({ "acne": {} })), "acne", "an unknown key", "acme");
    refused(folder.host(json!({ "origin": "site", "tll": 5 })), r#"hosts."a.example".tll"#, "unknown", "\"ttl\"");
}

#[test]
fn wrong_types_tell_what_stood_there() {
    let folder = Folder::new();
    refused(folder.with(json!({ "listen": 5 })), "listen", "5", "an object");
    refused(folder.with(json!({ "listen": { "http": "127.0.0.1:80" } })), "listen.http", "127.0.0.1:80", "a list");
    refused(folder.with(json!({ "listen": { "http": [] } })), "listen.http", "an empty list", "not empty");
    refused(folder.with(json!({ "listen": { "http": ["localhost:80"] } })), "listen.http[0]", "localhost:80", "port");
    refused(folder.with(json!({ "cache": { "memory": -1 } })), "cache.memory", "-1", "a size");
    refused(folder.with(json!({ "hosts": {} })), "hosts", "an empty object", "at least one host");
    refused(
        folder.with(json!({ "origins": { "site": { "dir": { "path": "site" } } }, "hosts": [] })),
        "hosts",
        "a list",
        "an object",
    );
    refused(
        folder.host(json!({ "origin": "site", "methods": "some" })),
        r#"hosts."a.example".methods"#,
        "some",
        "\"read\"",
    );
    refused(folder.host(json!({ "origin": "site", "policy": 7 })), r#"hosts."a.example".policy"#, "7", "null");
    refused(folder.host(json!({ "origin": "site", "policy": [] })), r#"hosts."a.example".policy"#, "empty", "list");
    refused(folder.host(json!({})), r#"hosts."a.example".origin"#, "nothing", "the name of an origin");
    refused(
        folder.host(json!({ "origin": "site", "policy": { "wasm": "a.wasm", "limits": { "memory_mib": 257 } } })),
        r#"hosts."a.example".policy.limits.memory_mib"#,
        "257",
        "1 to 256",
    );
    refused(
        folder.host(json!({ "origin": "site", "policy": ["a.wasm", { "wasm": "a.wasm", "grants": ["fetch"] }] })),
        r#"hosts."a.example".policy[1].grants[0]"#,
        "fetch",
        "secrets",
    );
}

#[test]
fn hosts_alike_are_refused() {
    let folder = Folder::new();
    let alike = r#"{ "origins": { "s": { "dir": { "path": "site" } } },
        "hosts": { "a.example": { "origin": "s" }, "SECOND": { "origin": "s" } } }"#;
    refused(folder.read(&alike.replace("SECOND", "a.example")), r#"hosts."a.example""#, "twice", "once");
    refused(folder.read(&alike.replace("SECOND", "A.example")), r#"hosts."A.example""#, "the same host as", "once");
    refused(folder.read(&alike.replace("SECOND", "a.example.")), r#"hosts."a.example.""#, "the same host as", "once");
    let doubled = r#"{ "origins": { "t": { "dir": { "path": "site" } } }, "origins": { "s": { "dir": { "path": "site" } } }, "hosts": { "a": { "origin": "s" } } }"#;
    refused(folder.read(doubled), "origins", "twice", "once");
}

#[test]
fn an_origin_is_exactly_one_kind() {
    let folder = Folder::new();
    refused(folder.origin(json!({})), "origins.site", "none of them", "exactly one of s3, http, dir");
    let both = json!({ "dir": { "path": "site" }, "http": { "url": "http://a" } });
    refused(folder.origin(both), "origins.site", "http and dir", "exactly one of");
}

#[test]
fn buckets_are_signed_in_one_way() {
    let folder = Folder::new();
    let s3 = |extra: Value| {
        let mut s3 = json!({ "bucket": "b" });
        s3.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        folder.origin(json!({ "s3": s3 }))
    };
    let path = |name: &str| format!("origins.site.s3.{name}");
    let keys = json!({ "anonymous": true, "access_key_id": "a", "secret_access_key": "b" });
    refused(s3(keys), &path("anonymous"), "keys beside it", "either");
    refused(s3(json!({ "access_key_id": "a" })), &path("secret_access_key"), "nothing", "access_key_id");
    refused(s3(json!({ "secret_access_key": "a" })), &path("access_key_id"), "nothing", "secret_access_key");
    refused(s3(json!({ "endpoint": "127.0.0.1:9000" })), &path("endpoint"), "127.0.0.1", "a URL");
    refused(s3(json!({ "bucket": "a/b" })), &path("bucket"), "a/b", "bucket");
}

#[test]
fn places_of_origins_must_be_right() {
    let folder = Folder::new();
    let http = |url: &str| folder.origin(json!({ "http": { "url": url } }));
    refused(http("ftp://a.example"), "origins.site.http.url", "ftp://a.example", "a URL");
    refused(http("http://me:hunter2@a.example"), "origins.site.http.url", "(hidden)@a.example", "without user");
    let host = json!({ "http": { "url": "http://a", "host": "a b" } });
    refused(folder.origin(host), "origins.site.http.host", "a b", "host name");
    let ca = |file: &str| folder.origin(json!({ "http": { "url": "https://a", "ca": file } }));
    refused(ca("missing"), "origins.site.http.ca", "does not exist", "PEM");
    refused(ca("nets"), "origins.site.http.ca", "no certificate", "PEM");
    let dir = |path: &str| folder.origin(json!({ "dir": { "path": path } }));
    refused(dir("missing"), "origins.site.dir.path", "does not exist", "folder");
    refused(dir("nets"), "origins.site.dir.path", "not a folder", "folder");
    refused(dir("."), "origins.site.dir.path", "which holds the cache folder", "served");
    let timeouts = json!({ "dir": { "path": "site" }, "timeouts": { "idle": 0 } });
    refused(folder.origin(timeouts), "origins.site.timeouts.idle", "0", "at least");
}

#[test]
fn secrets_that_cannot_be_read_are_refused_and_none_is_ever_told() {
    let folder = Folder::new();
    let token = |token: Value| folder.with(json!({ "admin": { "token": token } }));
    refused(token(json!("env:NONE")), "admin.token", "env:NONE", "a secret that can be read");
    refused(token(json!("env:EMPTY")), "admin.token", "empty", "not empty");
    refused(token(json!("env:BLANKS")), "admin.token", "not shown", "ASCII");
    refused(token(json!("file:missing")), "admin.token", "does not exist", "a secret");
    refused(token(json!("file:empty")), "admin.token", "empty", "a secret");
    refused(token(json!("file:site")), "admin.token", "a folder", "a secret");
    refused(token(json!("")), "admin.token", "a string (not shown)", "a secret");
    assert!(token(json!("file:secret")).is_ok());
    let policy =
        |secrets: Value| folder.host(json!({ "origin": "site", "policy": { "wasm": "a.wasm", "secrets": secrets } }));
    let path = r#"hosts."a.example".policy.secrets"#;
    refused(policy(json!({ "k": "env:NONE" })), &format!("{path}.k"), "not set", "a secret");
    for wrong in [
        token(json!({ "x": SECRET })),
        token(json!([SECRET])),
        token(json!(format!("{SECRET} with blanks"))),
        policy(json!(SECRET)),
        policy(json!([SECRET])),
        policy(json!({ "k": { "x": SECRET } })),
        folder.with(json!({ "admin": SECRET })),
        folder.with(json!({ "admin": { "tokn": SECRET } })),
        folder.origin(json!({ "s3": SECRET })),
        folder.origin(json!({ "s3": { "bucket": "b", "access_key_id": SECRET, "secret_access_key": 7 } })),
        folder.origin(json!({ "s3": { "bucket": "b", "secret_access_key": SECRET, "anonymous": true } })),
    ] {
        let told = format!("{:?}", wrong.as_ref().expect_err("it is refused"));
        assert!(!told.contains(SECRET), "{told}");
    }
}

#[test]
fn an_admin_listener_that_others_reach_needs_a_token() {
    let folder = Folder::new();
    let admin = |address: &str| folder.with(json!({ "listen": { "admin": address } }));
    refused(admin("0.0.0.0:9900"), "listen.admin", "others can reach", "admin.token");
    refused(admin("[::]:9900"), "listen.admin", "others can reach", "admin.token");
    assert!(admin("127.0.0.2:9900").is_ok() && admin("[::1]:9900").is_ok());
    refused(admin("127.0.0.1:8080"), "listen.admin", "served at too", "its own");
    let twice = json!({ "listen": { "http": ["127.0.0.1:1", "127.0.0.1:1"] } });
    refused(folder.with(twice), "listen.http[1]", "second time", "once");
}

#[test]
fn hosts_that_cannot_work_are_refused() {
    let folder = Folder::new();
    let at = |name: &str| format!(r#"hosts."a.example".{name}"#);
    let host = |extra: Value| {
        let mut host = json!({ "origin": "site" });
        host.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        folder.host(host)
    };
    refused(host(json!({ "origin": "sitr" })), &at("origin"), "sitr", "\"site\"");
    refused(host(json!({ "methods": "all" })), &at("methods"), "only read", "http origin");
    refused(host(json!({ "prefix": "a/../b" })), &at("prefix"), "a/../b", "dot segments");
    refused(host(json!({ "policy": "b.wasm" })), &at("policy"), "does not exist", "folder of the policies");
    refused(
        host(json!({ "policy": { "wasm": "b.wasm" } })),
        &at("policy.wasm"),
        "does not exist",
        "folder of the policies",
    );
    refused(host(json!({ "purge_method": "PURGE" })), &at("purge_allow"), "nothing", "who may purge");
    refused(host(json!({ "purge_allow": ["::1"] })), &at("purge_allow"), "no purge_method", "purge_method");
    refused(host(json!({ "purge_method": "POST", "purge_allow": ["::1"] })), &at("purge_method"), "POST", "PURGE");
    refused(host(json!({ "purge_method": "PURGE", "purge_allow": [] })), &at("purge_allow"), "empty", "list");
    let open = json!({ "purge_method": "PURGE", "purge_allow": "policy" });
    refused(host(open), &at("purge_allow"), "without a policy", "a policy for this host");
    refused(
        folder.with(json!({ "hosts": { "a..b": { "origin": "site" } } })),
        r#"hosts."a..b""#,
        "a..b",
        "a host name such as",
    );
}

#[test]
fn what_policies_ask_for_must_be_readable() {
    let folder = Folder::new();
    let named = |room: &str, value: Value| folder.with(json!({ room: { "x": value } }));
    refused(named("addresses", json!("missing")), "addresses.x", "does not exist", "file");
    refused(named("addresses", json!("badnets")), "addresses.x", "line 2", "a network");
    refused(named("addresses", json!(["10.0.0.0/8", "x"])), "addresses.x[1]", "x", "a network");
    refused(named("tables", json!("missing")), "tables.x", "does not exist", "JSON object");
    refused(named("tables", json!("list.json")), "tables.x", "a list", "JSON object");
    refused(named("tables", json!("nets")), "tables.x", "not JSON", "JSON object");
    refused(named("tables", json!([])), "tables.x", "a list", "an object");
    refused(named("rates", json!({ "rate": 0 })), "rates.x.rate", "0", "1 to");
    refused(named("rates", json!({ "rate": 1, "per": "0s" })), "rates.x.per", "0s", "at least");
    refused(named("keys", json!("missing")), "keys.x", "does not exist", "public key");
    refused(named("keys", json!("nets")), "keys.x", "neither", "public key");
    refused(named("keys", json!("no-keys.json")), "keys.x", "can't be used", "public key");
    refused(named("keys", json!("private.pem")), "keys.x", "private key", "public key");
    refused(named("keys", json!("env:NONE")), "keys.x", "not set", "secret");
}

#[test]
fn folders_that_are_files_are_refused() {
    let folder = Folder::new();
    refused(folder.with(json!({ "policies": "nets" })), "policies", "not a folder", "a folder");
    refused(folder.with(json!({ "cache": { "dir": "nets" } })), "cache.dir", "not a folder", "a folder");
}

#[test]
fn a_file_that_is_missing_is_told() {
    let folder = Folder::new();
    let line = one(load(&folder.0.path().join("none.json")));
    assert!(line.contains("none.json: found a file which does not exist"), "{line}");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let folder = Folder::new();
    let mut first = folder.host(json!({ "origin": "site", "policy": ["a.wasm"], "ttl": "90s" })).expect("it serves");
    (first.cache.free_bytes, first.cache.scrub) = (Some(5 << 20), Some(Duration::from_secs(7 * 86_400)));
    let mut shown = first.show();
    shown["admin"] = json!({});
    let second = folder.read(&shown.to_string()).expect("it serves again");
    assert_eq!(first.show(), second.show());
}

#[test]
fn the_summary_is_a_few_lines() {
    let folder = Folder::new();
    let hosts: serde_json::Map<String, Value> =
        (0..50).map(|index| (format!("h{index}.example"), json!({ "origin": "site" }))).collect();
    let lines = folder.with(json!({ "hosts": hosts })).expect("it serves").summary();
    assert_eq!(lines.len(), 25);
    assert_eq!(lines[0], "serving   http://127.0.0.1:8080");
    assert!(lines[24].ends_with("and 30 more hosts"));
}

#[test]
fn the_door_is_found_in_a_file_with_mistakes_elsewhere() {
    let folder = Folder::new();
    let file = folder.0.path().join("hosts.json");
    std::fs::write(&file, r#"{ "listen": { "admin": "127.0.0.1:7" }, "hosts": 5 }"#).expect("a file");
    let door = door(&file).expect("it is found");
    assert_eq!(door.address, "127.0.0.1:7".parse().expect("an address"));
    assert!(door.token().expect_err("no token yet").contains("is the program running?"));
    std::fs::create_dir(folder.0.path().join("cache")).expect("a folder");
    std::fs::write(folder.0.path().join("cache/admin-token"), "t0ken\n").expect("a file");
    assert_eq!(door.token().as_deref(), Ok("t0ken"));
}

/// JSON that looks a little like hosts.json: known names in odd places.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("site"),
            Just("a.wasm"),
            Just("env:SECRET"),
            Just("nets"),
            Just("*"),
            Just("5m"),
            Just("policy"),
            Just("http://a")
        ]
        .prop_map(Value::from),
    ];
    let name = prop_oneof![
        4 => prop_oneof![
            Just("listen"), Just("http"), Just("admin"), Just("token"), Just("cache"), Just("dir"), Just("path"), Just("s3"),
            Just("bucket"), Just("policy"), Just("wasm"), Just("secrets"), Just("limits"), Just("origin"), Just("ttl"),
            Just("tables"), Just("rates"), Just("rate"), Just("keys"), Just("addresses"), Just("purge_method"), Just("purge_allow"),
        ].prop_map(str::to_owned),
        1 => ".{0,8}",
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_json_is_resolved_or_refused_with_reasons(origin in anything(), host in anything(), rest in anything()) {
        let folder = std::sync::LazyLock::force(&SHARED);
        let mut file = rest;
        if !file.is_object() {
            file = json!({});
        }
        file["origins"] = json!({ "site": origin });
        file["hosts"] = json!({ "a.example": host });
        match folder.read(&file.to_string()) {
            Ok(resolved) => { resolved.show(); }
            Err(mistakes) => prop_assert!(mistakes.iter().all(|one| one.found != "what could not be resolved"), "{}", file),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = std::sync::LazyLock::force(&SHARED).read(&text);
    }
}

static SHARED: std::sync::LazyLock<Folder> = std::sync::LazyLock::new(Folder::new);
