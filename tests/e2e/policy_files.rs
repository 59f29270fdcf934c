//! What becomes of hosts when the files of their policies, or what hosts.json says of them, are not as they should be (issue
//! lines 4 and 5).

use harness::policies;
use harness::prelude::*;

async fn origin() -> Origin {
    Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await
}

fn guarded(origin: &Origin, deny: &str) -> Setup {
    let config = json!({ "config": { "addresses": { "deny": [deny] } } });
    setup().vhost(vhost("a.test").origin(origin).policy("access-list", config)).vhost(vhost("b.test").origin(origin))
}

#[tokio::test]
async fn a_reload_with_a_configuration_that_the_policy_refuses_changes_nothing() {
    let origin = origin().await;
    let mut host = guarded(&origin, "127.0.0.1").start().await;
    host.get("/x").await.status(403);
    let stanza = |config: Value, on_failure: &str| json!({ "hosts": { "a.test": { "policy": { "config": config, "on_failure": on_failure } } } });
    for on_failure in ["closed", "open"] {
        host.rewrite(stanza(json!({ "addresses": { "deny": ["127.0.0.l"] } }), on_failure));
        let answer = host.reload().await;
        answer.status(422);
        assert!(answer.text().contains("127.0.0.l") && answer.text().contains("a.test"), "{}", answer.text());
        host.get("/x").await.status(403);
        host.cli(&["check", "--config", "hosts.json"]).await.code(2).says(&["127.0.0.l"]);
        host.cli(&["reload", "--config", "hosts.json"]).await.code(1);
    }
    // Mended, it is in force, and nothing is said of what is over.
    host.rewrite(stanza(json!({ "addresses": { "deny": ["198.51.100.1"] } }), "closed"));
    let answer = host.reload().await;
    assert!(!answer.status(200).text().contains("127.0.0.l"), "{}", answer.text());
    host.get("/x").await.expect(200, "/x");
    let status = host.stats().await["policies"].clone();
    assert_eq!(status["hosts"].as_array().map(Vec::len), Some(1), "{status}");
}

#[tokio::test]
async fn a_named_file_that_vanishes_is_the_trouble_of_its_own_host() {
    let origin = origin().await;
    let mut host = guarded(&origin, "127.0.0.1").start().await;
    std::fs::remove_file(host.path("policies/access-list.wasm")).unwrap();
    host.rewrite(json!({ "hosts": { "c.test": { "origin": "origin1" } } }));
    host.reload().await.status(200);
    host.get("/x").await.status(403);
    host.get_from("c.test", "/x").await.expect(200, "/x");
    host.restart().await;
    host.get("/x").await.status(503);
    host.get_from("b.test", "/x").await.expect(200, "/x");
    host.cli(&["check", "--config", "hosts.json"]).await.code(2).says(&["access-list.wasm"]);
    // One that never was in service is a mistake like any other.
    host.rewrite(json!({ "hosts": { "d.test": { "origin": "origin1", "policy": "nowhere.wasm" } } }));
    host.reload().await.status(422);
}

#[tokio::test]
async fn a_file_that_no_host_goes_by_is_told() {
    let origin = origin().await;
    let host =
        setup().vhost(vhost("a.test").origin(&origin)).file("policies/www.a.test.wasm", policies::deny()).start().await;
    host.stderr_line("www.a.test.wasm is no host's policy").await;
    let unused = host.stats().await["policies"]["unused_files"].to_string();
    assert!(unused.contains("www.a.test.wasm"), "{unused}");
    let checked = host.cli(&["check", "--config", "hosts.json"]).await;
    assert!(checked.code(0).stdout.contains("www.a.test.wasm is no host's policy"), "{}", checked.stdout);
}

#[tokio::test]
async fn a_domain_of_a_star_has_the_policy_of_its_file() {
    let origin = origin().await;
    let mut host = setup().vhost(vhost("*").origin(&origin)).start().await;
    host.get_from("a.test", "/x").await.expect(200, "/x");
    std::fs::create_dir_all(host.path("policies")).unwrap();
    std::fs::write(host.path("policies/a.test.wasm"), policies::deny()).unwrap();
    host.stderr_line("policy is in service").await;
    for _ in 0..100 {
        if host.get_from("a.test", "/x").await.status == 403 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    host.get_from("A.Test:8080", "/x").await.status(403);
    host.get_from("b.test", "/x").await.expect(200, "/x");
    let checked = host.cli(&["check", "--config", "hosts.json"]).await;
    assert!(checked.code(0).stdout.contains("a.test.wasm of a.test loads"), "{}", checked.stdout);
    // A reload that would take it out of force is refused, like that of any host.
    std::fs::create_dir_all(host.path("elsewhere")).unwrap();
    let mut other = host.config().clone();
    other["policies"] = json!("elsewhere");
    let before = host.config().clone();
    host.write_config(&other);
    host.reload().await.status(422);
    host.write_config(&before);
    host.get_from("a.test", "/x").await.status(403);
    // While the file is there, nothing is forgotten.
    let forget = json!({ "host": "a.test" }).to_string();
    let forgotten = host.admin("POST", "/policies/forget").body(forget).send().await;
    assert!(forgotten.status(200).text().contains("false"), "{}", forgotten.text());
    // As for any host: a file that is missing at start is a lost one.
    std::fs::remove_file(host.path("policies/a.test.wasm")).unwrap();
    host.restart().await;
    host.cli(&["check", "--config", "hosts.json"]).await.code(2).says(&["a.test.wasm"]);
    host.get_from("a.test", "/x").await.status(503);
    host.get_from("b.test", "/x").await.expect(200, "/x");
    host.rewrite(json!({ "hosts": { "a.test": { "origin": "origin1", "policy": null } } }));
    host.reload().await.status(200);
    host.get_from("a.test", "/x").await.expect(200, "/x");
}

#[tokio::test]
async fn what_is_remembered_of_policies_opens_no_door_when_it_is_damaged() {
    let origin = origin().await;
    let deny = policies::deny();
    let mut host = setup()
        .vhost(vhost("a.test").origin(&origin))
        .vhost(vhost("b.test").origin(&origin).set("policy", Value::Null))
        .file("policies/a.test.wasm", deny)
        .start()
        .await;
    host.get("/x").await.status(403);
    std::fs::remove_file(host.path("policies/a.test.wasm")).unwrap();
    std::fs::write(host.path("cache/policy/hosts-with-policies.json"), "").unwrap();
    host.restart().await;
    host.get("/x").await.status(503);
    host.get_from("b.test", "/x").await.expect(200, "/x");
    host.stderr_line("which hosts had policies can't be read").await;
}

#[tokio::test]
async fn a_policy_that_may_take_long_gives_way_to_other_hosts() {
    let origin = origin().await;
    let stanza = |time_ms: u32| json!({ "limits": { "time_ms": time_ms } });
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).wasm("short.wasm", &policies::next(), stanza(20)))
        .vhost(vhost("b.test").origin(&origin).wasm("long.wasm", &policies::next(), stanza(500)))
        .start()
        .await;
    host.get("/x").await.expect(200, "/x");
    host.get_from("b.test", "/x").await.expect(200, "/x");
    let status = host.stats().await["policies"]["hosts"].clone();
    let lane = |number: usize| status[number]["policies"][0]["lane"].as_str().unwrap_or_default().to_owned();
    assert_eq!((lane(0), lane(1)), ("direct".to_owned(), "fiber".to_owned()), "{status}");
}
