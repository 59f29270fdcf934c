//! hosts.json: what is refused, how, and what a minimal one gives (issue line 3).

use harness::prelude::*;

fn with(config: &Value) -> Setup {
    setup().file("hosts.json", config.to_string()).file("site/index.html", "home")
}

fn minimal() -> Value {
    json!({ "origins": { "o": { "dir": { "path": "site" } } }, "hosts": { "a.test": { "origin": "o" } } })
}

/// The minimal file with these members laid over it.
fn but(members: Value) -> Value {
    let mut config = minimal();
    harness::setup::merge(&mut config, &members);
    config
}

#[tokio::test]
async fn a_minimal_file_is_right_and_defaults_are_shown() {
    let setup = with(&minimal());
    setup.clone().run(&["check", "--config", "hosts.json"]).await.code(0);
    let shown = setup.run(&["config", "show", "--config", "hosts.json"]).await;
    shown.code(0);
    for default in ["127.0.0.1:8080", "127.0.0.1:9900", "policies", "cache"] {
        assert!(shown.stdout.contains(default), "{default} is not shown: {}", shown.stdout);
    }
}

#[tokio::test]
async fn each_mistake_is_named_by_its_path() {
    let leaf = Certificate::for_names(&["client.test"]);
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (but(json!({ "origns": {} })), vec!["origns", "origins"]),
        (but(json!({ "hosts": { "a.test": { "origine": "o" } } })), vec!["hosts", "a.test", "origine", "origin"]),
        (but(json!({ "hosts": { "a.test": { "origin": "other" } } })), vec!["a.test", "origin", "other"]),
        (but(json!({ "hosts": { "a.test": { "ttl": "soon" } } })), vec!["a.test", "ttl", "soon"]),
        (but(json!({ "hosts": { "a.test": { "ttl": -1 } } })), vec!["a.test", "ttl", "-1"]),
        (but(json!({ "hosts": { "a.test": { "methods": "some" } } })), vec!["methods", "some", "read", "all"]),
        (but(json!({ "hosts": { "a.test": { "purge_method": "PURGE" } } })), vec!["a.test", "purge_allow"]),
        (but(json!({ "hosts": { "a.test": { "policy": "gone.wasm" } } })), vec!["a.test", "policy", "gone.wasm"]),
        (but(json!({ "hosts": { "a b": { "origin": "o" } } })), vec!["a b"]),
        (but(json!({ "hosts": { "a.*.test": { "origin": "o" } } })), vec!["a.*.test"]),
        (but(json!({ "cache": { "disk": "many" } })), vec!["cache", "disk", "many"]),
        (but(json!({ "cache": { "scrub": "never" } })), vec!["cache", "scrub", "never", "off"]),
        (but(json!({ "cache": { "scrub": "10ms" } })), vec!["cache", "scrub", "10ms"]),
        (but(json!({ "cache": { "free": "some" } })), vec!["cache", "free", "some"]),
        (but(json!({ "cache": { "disk": true } })), vec!["cache", "disk", "true"]),
        (but(json!({ "listen": { "http": "127.0.0.1:80" } })), vec!["listen", "http"]),
        (but(json!({ "listen": { "http": ["localhost"] } })), vec!["listen", "http", "localhost"]),
        (but(json!({ "listen": { "admin": "0.0.0.0:9900" } })), vec!["admin"]),
        (but(json!({ "listen": { "http": ["unix:"] } })), vec!["listen", "http", "unix:"]),
        (but(json!({ "listen": { "http": ["unix:s", "unix:./s"] } })), vec!["listen", "http", "a second time"]),
        (but(json!({ "listen": { "http3": true } })), vec!["listen.http3", "listen.https"]),
        (but(json!({ "hosts": { "a.test": { "https": "static" } } })), vec!["a.test", "https", "listen.https"]),
        (
            but(json!({ "listen": { "https": ["127.0.0.1:0"] }, "hosts": { "a.test": { "https": "static" } } })),
            vec!["hosts.\"a.test\".https", "tls.certificates"],
        ),
        (
            but(json!({
                "listen": { "https": ["127.0.0.1:0"] },
                "hosts": { "a.test": { "client_ca": leaf.files()["cert"] } },
            })),
            vec!["hosts.\"a.test\".client_ca", "of no CA", "a PEM file of a CA"],
        ),
        (
            but(json!({ "hosts": {
                "a.test": { "canonical": "b.test" },
                "b.test": { "origin": "o", "canonical": "a.test" },
            } })),
            vec!["canonical", "a.test", "b.test"],
        ),
        (
            but(json!({ "hosts": { "a.test": { "https": "off", "redirect_http": true } } })),
            vec!["redirect_http", "off"],
        ),
        (but(json!({ "acme": { "directory": "letsencrypt" } })), vec!["acme", "listen.https"]),
        (but(json!({ "trusted_proxies": ["10.0.0.0/33"] })), vec!["trusted_proxies", "10.0.0.0/33"]),
        (but(json!({ "origins": { "o": { "s3": { "bucket": "b" } } } })), vec!["origins", "o"]),
        (but(json!({ "origins": { "p": {} } })), vec!["origins", "p"]),
        (but(json!({ "origins": { "p": { "http": { "url": "ftp://x" } } } })), vec!["origins", "p", "url", "ftp://x"]),
        (
            but(json!({ "origins": { "p": { "http": { "url": "http://x" }, "timeouts": { "conect": 1 } } } })),
            vec!["conect", "connect"],
        ),
        // A folder that would give away hosts.json and the cache.
        (but(json!({ "origins": { "o": { "dir": { "path": "." } } } })), vec!["origins", "o", "path"]),
        (but(json!({ "addresses": { "office": ["300.1.1.1"] } })), vec!["addresses", "office", "300.1.1.1"]),
        (but(json!({ "rates": { "r": { "rate": 0, "per": "1s" } } })), vec!["rates", "r"]),
        (but(json!({ "tables": { "t": "gone.json" } })), vec!["tables", "t", "gone.json"]),
        (but(json!({ "admin": { "token": "env:NOT_SET_ANYWHERE" } })), vec!["admin", "token", "NOT_SET_ANYWHERE"]),
    ];
    for (config, words) in cases {
        let refused = with(&config).run(&["check", "--config", "hosts.json"]).await;
        assert_eq!(refused.code, 2, "{config}: {}", refused.stderr);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        for word in words {
            assert!(said.contains(word), "{config}: nobody says {word:?}: {said}");
        }
    }
}

#[tokio::test]
async fn all_mistakes_are_told_in_one_go_and_nothing_is_served() {
    let config = but(json!({ "wrong": 1, "cache": { "disk": "many" }, "hosts": { "a.test": { "origin": "other" } } }));
    with(&config).refused().await.code(2).says(&["wrong", "many", "other"]);
}

#[tokio::test]
async fn two_hosts_alike_are_refused() {
    let text = r#"{"origins":{"o":{"dir":{"path":"."}}},"hosts":{"a.test":{"origin":"o"},"A.Test":{"origin":"o"}}}"#;
    let refused = setup().file("hosts.json", text).run(&["check", "--config", "hosts.json"]).await;
    refused.code(2).says(&["A.Test"]);
    let text = r#"{"origins":{"o":{"dir":{"path":"."}}},"hosts":{"a.test":{"origin":"o"},"a.test":{"origin":"o"}}}"#;
    setup().file("hosts.json", text).run(&["check", "--config", "hosts.json"]).await.code(2).says(&["a.test"]);
}

#[tokio::test]
async fn what_is_no_json_or_no_file_is_said_so() {
    let check = &["check", "--config", "hosts.json"];
    setup().file("hosts.json", "{ \"hosts\": ").run(check).await.code(2).says(&["hosts.json"]);
    setup().file("hosts.json", "").run(check).await.code(2).says(&["hosts.json"]);
    setup().run(&["check", "--config", "elsewhere.json"]).await.code(2).says(&["elsewhere.json"]);
}

#[tokio::test]
async fn secrets_are_never_shown() {
    let origin = json!({ "s3": { "bucket": "b", "region": "r", "access_key_id": "AKIDVISIBLE", "secret_access_key": "hush-hush" } });
    let config = but(json!({ "origins": { "p": origin }, "admin": { "token": "hush-token" } }));
    let shown = with(&config).run(&["config", "show", "--config", "hosts.json"]).await;
    shown.code(0);
    assert!(!shown.stdout.contains("hush"), "{}", shown.stdout);
    let wrong = but(json!({ "admin": { "token": ["hush-token"] } }));
    with(&wrong).run(&["check", "--config", "hosts.json"]).await.code(2).never_says("hush");
}

#[tokio::test]
async fn the_schema_is_printed() {
    let printed = setup().run(&["config", "schema"]).await;
    printed.code(0);
    let schema: Value = serde_json::from_str(&printed.stdout).expect("the schema is JSON");
    assert!(schema.to_string().contains("purge_method"));
}

#[tokio::test]
async fn secrets_come_from_environment_and_files() {
    let folder = harness::temp_dir("site");
    let a = setup().vhost(vhost("a.test").origin(&folder)).config(json!({ "admin": { "token": "file:token.txt" } }));
    let host = a.file("token.txt", "from-a-file\n").start().await;
    let stats = host.admin_without_token("GET", "/stats").header("authorization", "Bearer from-a-file").send().await;
    stats.status(200);
}
