//! What policies can ask of the host (issue line 5): address sets, tables, rates, keys by name; other paths, other origins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::policies::{bytes_at, only_if, text_at};
use harness::prelude::*;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};

const QUERY_PARAM: &str =
    r#"(import "proxyhost:policy/request@0.1.0" "query-param" (func $param (param i32 i32 i32)))"#;

async fn origin() -> Origin {
    Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await
}

#[tokio::test]
async fn an_address_set_names_clients_behind_trusted_proxies() {
    let origin = origin().await;
    let imports = r#"(import "proxyhost:policy/client@0.1.0" "ip-in" (func $in (param i32 i32) (result i32)))"#;
    let policy = only_if(&format!("{imports}{}", text_at(2112, "office")), "(call $in (i32.const 2112) (i32.const 6))");
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).wasm("in.wasm", &policy, json!({})))
        .config(json!({
            "addresses": { "office": "office.txt" },
            "trusted_proxies": ["127.0.0.1/32"],
        }))
        .file("office.txt", "198.51.100.0/24\n2001:db8:1::/48\n")
        .start()
        .await;
    let from =
        async |client: &str| host.call("GET", "/x").header("x-forwarded-for", client).send().await.status.as_u16();
    assert_eq!(from("198.51.100.7").await, 200);
    assert_eq!(from("2001:db8:1::7").await, 200);
    assert_eq!(from("198.51.101.7").await, 403);
    assert_eq!(from("2001:db8:2::7").await, 403);
    // The last one that a trusted proxy saw counts, not what the client wrote before it.
    assert_eq!(from("198.51.100.7, 203.0.113.1").await, 403);
    assert_eq!(host.get("/x").await.status.as_u16(), 403);
}

#[tokio::test]
async fn what_is_delivered_has_its_length_wherever_it_comes_from() {
    let origin = origin().await;
    let imports = format!(
        r#"(import "proxyhost:policy/response@0.1.0" "header" (func $header (param i32 i32 i32)))
        (import "proxyhost:policy/response@0.1.0" "set-header" (func $set (param i32 i32 i32 i32)))
        {}{}"#,
        text_at(2112, "content-length"),
        text_at(2176, "x-length")
    );
    let body = "(call $header (i32.const 2112) (i32.const 14) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then
            (call $set (i32.const 2176) (i32.const 8) (i32.load (i32.const 516)) (i32.load (i32.const 520)))))";
    let policy = harness::policies::component("site", &harness::policies::on_deliver(&imports, body));
    let host = setup().vhost(vhost("a.test").origin(&origin).wasm("length.wasm", &policy, json!({}))).start().await;
    // The first is a miss; after some more a worker has its own copy.
    for _ in 0..40 {
        host.get("/four").await.expect(200, "/four").header("x-length", "5");
    }
    // The policy sees the whole representation.
    host.call("GET", "/four").header("range", "bytes=1-2").send().await.expect(206, "fo").header("x-length", "5");
}

#[tokio::test]
async fn a_table_is_looked_up_and_read_again_at_a_reload() {
    let origin = origin().await;
    let imports = format!(
        r#"{QUERY_PARAM}
        (import "proxyhost:policy/tables@0.1.0" "lookup" (func $lookup (param i32 i32 i32 i32 i32)))
        {}{}"#,
        text_at(2112, "tenants"),
        text_at(2176, "tenant")
    );
    let condition = "(call $param (i32.const 2176) (i32.const 6) (i32.const 512))
        (call $lookup (i32.const 2112) (i32.const 7)
            (i32.load (i32.const 516)) (i32.load (i32.const 520)) (i32.const 528))
        ;; Without the parameter its place still has what an earlier call of this instance left there.
        (i32.and (i32.load8_u (i32.const 512)) (i32.load8_u (i32.const 528)))";
    let policy = only_if(&imports, condition);
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).wasm("table.wasm", &policy, json!({})))
        .config(json!({ "tables": { "tenants": "tenants.json" } }))
        .file("tenants.json", r#"{ "acme": "gold" }"#)
        .start()
        .await;
    host.get("/x?tenant=acme").await.status(200);
    host.get("/x?tenant=evil").await.status(403);
    host.get("/x").await.status(403);
    host.write("tenants.json", br#"{ "evil": "pays now" }"#);
    host.reload().await.status(200);
    host.get("/x?tenant=evil").await.status(200);
    host.get("/x?tenant=acme").await.status(403);
}

#[tokio::test]
async fn a_rate_lets_through_what_it_says_and_outlives_a_reload() {
    let origin = origin().await;
    let imports = format!(
        r#"{QUERY_PARAM}
        (import "proxyhost:policy/rate@0.1.0" "take" (func $take (param i32 i32 i32 i32 i32 i32)))
        {}{}"#,
        text_at(2112, "slow"),
        text_at(2176, "who")
    );
    let condition = "(call $param (i32.const 2176) (i32.const 3) (i32.const 512))
        (call $take (i32.const 2112) (i32.const 4)
            (i32.load (i32.const 516)) (i32.load (i32.const 520)) (i32.const 1) (i32.const 528))
        (i32.eqz (i32.load8_u (i32.const 528)))";
    let policy = only_if(&imports, condition);
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).wasm("rate.wasm", &policy, json!({})))
        .config(json!({ "rates": { "slow": { "rate": 3, "per": "1h", "burst": 3 } } }))
        .start()
        .await;
    let statuses = async |who: &str| {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(host.get(&format!("/x?who={who}")).await.status.as_u16());
        }
        statuses
    };
    assert_eq!(statuses("a").await, [200, 200, 200, 403, 403]);
    // Each key has a bucket of its own.
    assert_eq!(statuses("b").await, [200, 200, 200, 403, 403]);
    host.reload().await.status(200);
    assert_eq!(statuses("a").await, [403; 5], "a reload fills no bucket");
}

#[tokio::test]
async fn a_token_is_verified_by_a_key_of_hosts_json() {
    let origin = origin().await;
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("the system gives random numbers");
    let other = KeyPair::generate_for(&PKCS_ED25519).expect("the system gives random numbers");
    let token = |key: &KeyPair, header: &Value, claims: &Value| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = key.sign(signed.as_bytes()).expect("a key signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let imports = format!(
        r#"{QUERY_PARAM}
        (import "proxyhost:policy/crypto@0.1.0" "verify-jwt" (func $verify (param i32 i32 i32 i32 i32)))
        {}{}"#,
        text_at(2112, "issuer"),
        text_at(2176, "token")
    );
    let condition = "(call $param (i32.const 2176) (i32.const 5) (i32.const 512))
        (call $verify (i32.const 2112) (i32.const 6)
            (i32.load (i32.const 516)) (i32.load (i32.const 520)) (i32.const 528))
        (i32.eqz (i32.load8_u (i32.const 528)))";
    let policy = only_if(&imports, condition);
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).wasm("jwt.wasm", &policy, json!({})))
        .config(json!({ "keys": { "issuer": "issuer.pem" } }))
        .file("issuer.pem", key.public_key_pem())
        .start()
        .await;
    let now = harness::sign::epoch_in(0).parse::<i64>().expect("seconds are a number");
    let eddsa = json!({ "alg": "EdDSA", "typ": "JWT" });
    let status = async |token: String| host.get(&format!("/x?token={token}")).await.status.as_u16();
    assert_eq!(status(token(&key, &eddsa, &json!({ "exp": now + 600 }))).await, 200);
    for (what, bad) in [
        ("expired", token(&key, &eddsa, &json!({ "exp": now - 600 }))),
        ("not yet", token(&key, &eddsa, &json!({ "exp": now + 600, "nbf": now + 300 }))),
        ("signed by another", token(&other, &eddsa, &json!({ "exp": now + 600 }))),
        ("of no algorithm", token(&key, &json!({ "alg": "none" }), &json!({ "exp": now + 600 }))),
        ("of another algorithm", token(&key, &json!({ "alg": "HS256" }), &json!({ "exp": now + 600 }))),
        ("nonsense", "a.b.c".to_owned()),
        ("nothing", String::new()),
    ] {
        assert_eq!(status(bad).await, 403, "{what}");
    }
    let good = token(&key, &eddsa, &json!({ "exp": now + 600 }));
    let (claims, signature) = good.rsplit_once('.').expect("a token has three parts");
    assert_eq!(status(format!("{claims}x.{signature}")).await, 403);
}

#[tokio::test]
async fn paths_are_tried_in_order_until_one_is_there() {
    let s3 = S3Server::with_bucket("site").await;
    s3.put("site", "my/a/index.html", object("index"));
    let first = "/a.html";
    let second = "/a/index.html";
    let list: Vec<u8> =
        [2176, first.len() as u32, 2240, second.len() as u32].into_iter().flat_map(u32::to_le_bytes).collect();
    let imports = format!(
        r#"(import "proxyhost:policy/upstream@0.1.0" "try-paths" (func $try (param i32 i32)))
        {}{}{}"#,
        bytes_at(2112, &list),
        text_at(2176, first),
        text_at(2240, second)
    );
    let policy = only_if(&imports, "(call $try (i32.const 2112) (i32.const 2)) (i32.const 1)");
    let a = vhost("a.test").origin(&s3.bucket("site")).set("prefix", "my").wasm("try.wasm", &policy, json!({}));
    let host = Host::with(a).await;
    host.get("/a").await.expect(200, "index").cache("miss");
    host.get("/a").await.expect(200, "index").cache("hit");
    let asked: Vec<String> = s3.seen().into_iter().map(|seen| seen.key).collect();
    assert_eq!(asked, ["my/a.html", "my/a/index.html"]);
}

#[tokio::test]
async fn another_origin_of_hosts_json_is_used_and_no_other() {
    let (one, two) = (Origin::serving("/a", ok("one")).await, Origin::serving("/a", ok("two")).await);
    let imports = format!(
        r#"{QUERY_PARAM}
        (import "proxyhost:policy/upstream@0.1.0" "use-origin" (func $use (param i32 i32 i32)))
        {}"#,
        text_at(2112, "to")
    );
    let condition = "(call $param (i32.const 2112) (i32.const 2) (i32.const 512))
        (call $use (i32.load (i32.const 516)) (i32.load (i32.const 520)) (i32.const 528))
        (i32.eqz (i32.load8_u (i32.const 528)))";
    let a = vhost("a.test").origin(&one).wasm("use.wasm", &only_if(&imports, condition), json!({}));
    let host = setup().vhost(a).origin("second", &two).start().await;
    host.get("/a?to=second").await.expect(200, "two");
    host.get("/a?to=origin1").await.expect(200, "one");
    host.get("/a?to=third").await.status(403);
    assert_eq!((one.requests(), two.requests()), (1, 1));
}

#[tokio::test]
async fn a_policy_that_asks_for_what_hosts_json_does_not_name_is_told_so() {
    let origin = origin().await;
    let imports = r#"(import "proxyhost:policy/client@0.1.0" "ip-in" (func $in (param i32 i32) (result i32)))"#;
    let policy = only_if(&format!("{imports}{}", text_at(2112, "office")), "(call $in (i32.const 2112) (i32.const 6))");
    let host = Host::with(vhost("a.test").origin(&origin).wasm("in.wasm", &policy, json!({}))).await;
    let answer = host.get("/x").await;
    assert!(matches!(answer.status.as_u16(), 403 | 503), "{answer:?}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_list_of_who_may_come_in_before_an_http_origin() {
    let origin = origin().await;
    let stanza = json!({ "config": {
        "paths": ["/private/*"],
        "addresses": { "allow": ["@office"], "deny": ["198.51.100.66"] },
        "referers": { "allow": ["example.com"] },
    }});
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).policy("access-list", stanza))
        .config(json!({
            "addresses": { "office": ["198.51.100.0/24", "2001:db8::/32"] },
            "trusted_proxies": ["127.0.0.0/8"],
        }))
        .start()
        .await;
    let asked = async |client: &str, referer: &str| {
        let call = host.call("GET", "/private/x").header("x-forwarded-for", client);
        let call = if referer.is_empty() { call } else { call.header("referer", referer) };
        call.send().await.status.as_u16()
    };
    assert_eq!(asked("198.51.100.1", "").await, 200);
    assert_eq!(asked("2001:db8::1", "https://example.com/page").await, 200);
    assert_eq!(asked("198.51.100.66", "").await, 403);
    assert_eq!(asked("203.0.113.1", "").await, 403);
    assert_eq!(asked("198.51.100.1", "https://evil.test/").await, 403);
    assert_eq!(asked("198.51.100.1", "https://example.com.evil.test/").await, 403);
    host.get("/open").await.expect(200, "/open");
}

#[tokio::test]
async fn a_cache_key_of_language_device_and_listed_parameters() {
    let origin = Origin::answering(|request| {
        let said = format!("{} {} {}", request.target, request.header("accept-language"), request.header("x-device"));
        ok(said).cache_control("max-age=600")
    })
    .await;
    let stanza = json!({ "config": {
        "language": { "allow": ["en", "de"], "default": "en" }, "device": true, "query": ["page"],
    }});
    let host = Host::with(vhost("a.test").origin(&origin).policy("cache-key", stanza)).await;
    let get = async |target: &str, language: &str| {
        host.call("GET", target).header("accept-language", language).header("user-agent", "curl/8").send().await
    };
    let first = get("/x?utm=1&page=2", "de-CH, en;q=0.5").await;
    first.status(200).cache("miss");
    assert!(first.text().starts_with("/x?page=2 de "), "{}", first.text());
    get("/x?page=2&utm=other", "de").await.expect(200, &first.body).cache("hit");
    get("/x?page=2", "fr, en;q=0.1").await.cache("miss");
    get("/x?page=2", "ja").await.cache("hit");
    get("/x?page=3", "de").await.cache("miss");
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn two_policies_in_a_chain_do_the_work_of_both() {
    let origin = Origin::answering(|_| ok("x").cache_control("max-age=600").header("server", "old")).await;
    let a = vhost("a.test")
        .origin(&origin)
        .policy(
            "access-list",
            json!({ "config": { "paths": ["/private/*"], "addresses": { "allow": ["192.0.2.1"] } } }),
        )
        .policy(
            "headers",
            json!({ "config": { "security": {}, "rules": [{ "remove": ["server"], "browser_ttl": "1h" }] } }),
        );
    let host = Host::with(a).await;
    for word in ["miss", "hit"] {
        let answer = host.get("/open").await;
        answer.expect(200, "x").cache(word).header("x-content-type-options", "nosniff").no_header("server");
        assert!(answer.field("cache-control").contains("max-age=36"), "{answer:?}");
    }
    host.get("/private/x").await.status(403);
    assert_eq!(origin.requests(), 1);
}
