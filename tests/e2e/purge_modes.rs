//! Purges: scopes that need more than a name, modes, lists, dry runs, and what a crash right behind the answer leaves of them.

use harness::prelude::*;

const PATHS: [&str; 4] = ["/img/a/thumb-1.jpg", "/img/a/b/thumb-1.jpg", "/img/a/large.jpg", "/"];

/// An origin with a validator and a tag for everything.
async fn tagged() -> (Origin, Host) {
    let origin = Origin::answering(|request| {
        let tag = if request.target.contains("thumb") { "thumb" } else { "page" };
        let reply = ok(request.target.clone()).cache_control("max-age=600").etag("\"1\"").conditional();
        reply.header("surrogate-key", &format!("all {tag}"))
    })
    .await;
    let a = vhost("a.test").origin(&origin).set("purge_method", "PURGE").set("purge_allow", json!(["127.0.0.0/8"]));
    let host = setup().vhost(a).vhost(vhost("b.test").origin(&origin)).start().await;
    for name in ["a.test", "b.test"] {
        for path in PATHS {
            host.get_from(name, path).await.expect(200, path).cache("miss").no_header("surrogate-key");
        }
    }
    (origin, host)
}

/// What a path of a host is: `hit`, `revalidated` or `miss`.
async fn state(host: &Host, name: &str, path: &str) -> &'static str {
    let answer = host.get_from(name, path).await;
    answer.expect(200, path);
    let said = answer.cache_status();
    let has = |parameter: &str| said.iter().any(|said| said == parameter);
    match (has("hit"), has("fwd-status=304")) {
        (true, _) => "hit",
        (_, true) => "revalidated",
        _ => "miss",
    }
}

async fn states(host: &Host, name: &str) -> Vec<&'static str> {
    let mut states = Vec::new();
    for path in PATHS {
        states.push(state(host, name, path).await);
    }
    states
}

/// Every kind of purge, and which paths of `a.test` it hits; the last member is whether it hits `b.test` too.
fn kinds() -> Vec<(Value, [bool; 4], bool)> {
    vec![
        (json!({ "host": "a.test", "path": PATHS[0] }), [true, false, false, false], false),
        (json!({ "host": "a.test", "prefix": "/img/a/b" }), [false, true, false, false], false),
        (json!({ "host": "a.test", "glob": "/img/*/thumb-?.jpg" }), [true, false, false, false], false),
        (json!({ "host": "a.test", "glob": "/img/**-?.jpg" }), [true, true, false, false], false),
        (json!({ "host": "a.test", "tag": "thumb" }), [true, true, false, false], false),
        (json!({ "tag": "page" }), [false, false, true, true], true),
        (json!({ "host": "a.test" }), [true; 4], false),
        (json!({ "all": true }), [true; 4], true),
    ]
}

#[tokio::test]
async fn every_kind_is_in_force_when_it_is_answered_and_after_a_kill_right_behind_the_answer() {
    let (_origin, mut host) = tagged().await;
    for (purge, hits, everywhere) in kinds() {
        for (mode, word) in [("hard", "miss"), ("soft", "revalidated")] {
            for crash in [false, true] {
                for name in ["a.test", "b.test"] {
                    states(&host, name).await;
                }
                // What is kept is on disk before the crash.
                tokio::time::sleep(millis(300)).await;
                let mut asked = purge.clone();
                asked["mode"] = json!(mode);
                host.purge(asked).await;
                if crash {
                    host.crash_and_restart().await;
                }
                let expected = hits.map(|hit| if hit { word } else { "hit" });
                assert_eq!(states(&host, "a.test").await, expected, "{purge} {mode}, crash: {crash}");
                let other = hits.map(|hit| if hit && everywhere { word } else { "hit" });
                assert_eq!(states(&host, "b.test").await, other, "{purge} {mode}, crash: {crash}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_stale_by_a_purge_is_served_when_the_origin_is_gone() {
    let (mut origin, host) = tagged().await;
    host.purge(json!({ "host": "a.test", "mode": "soft" })).await;
    origin.stop();
    host.get(PATHS[0]).await.expect(200, PATHS[0]).cache("stale");
    host.purge(json!({ "host": "a.test", "path": PATHS[1] })).await;
    assert!(host.get(PATHS[1]).await.status.is_server_error(), "a hard purge leaves nothing");
    origin.restart().await;
    host.get_until(PATHS[0], |answer| answer.cache_status().iter().any(|said| said == "fwd-status=304")).await;
    host.get(PATHS[0]).await.cache("hit");
}

#[tokio::test]
async fn what_is_stale_by_a_purge_is_used_while_it_is_asked_about() {
    let reply = |body: &'static str| ok(body).cache_control("max-age=600, stale-while-revalidate=60").etag(body);
    let origin = Origin::serving("/a", reply("\"1\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "\"1\"");
    origin.set("/a", reply("\"2\""));
    host.purge(json!({ "host": "a.test", "tag": "none", "mode": "soft" })).await;
    host.get("/a").await.expect(200, "\"1\"").cache("hit");
    host.purge(json!({ "host": "a.test", "mode": "soft" })).await;
    host.get("/a").await.expect(200, "\"1\"").cache("stale");
    host.get_until("/a", |answer| answer.text() == "\"2\"").await;
    host.get("/a").await.expect(200, "\"2\"").cache("hit");
}

#[tokio::test]
async fn a_fill_that_a_soft_purge_overtakes_is_stale() {
    let (reply, gate) = ok(generated(1, 200_000)).cache_control("max-age=600").etag("\"1\"").gated(1000);
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut stream = host.call("GET", "/a").open().await.unwrap();
    let first = stream.read(1).await.unwrap();
    host.purge(json!({ "host": "a.test", "path": "/a", "mode": "soft" })).await;
    gate.open();
    let rest = stream.read(usize::MAX).await.unwrap();
    assert_eq!(first.len() + rest.len(), 200_000);
    origin.set("/a", ok(generated(1, 200_000)).cache_control("max-age=600").etag("\"1\"").conditional());
    host.get("/a").await.expect(200, pattern(1, 0..200_000)).cache("revalidated");
    host.get("/a").await.expect(200, pattern(1, 0..200_000)).cache("hit");
}

#[tokio::test]
async fn a_refresh_asks_again_for_what_was_kept_and_for_nothing_else() {
    let origin = Origin::answering(|request| {
        let reply = ok(format!("{} {}", request.target, request.header("accept-language")));
        reply.cache_control("max-age=600").header("vary", "accept-language")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for path in ["/x/1?q=a%20b", "/x/%C3%BC", "/y"] {
        for language in ["de", "fr"] {
            host.call("GET", path).header("accept-language", language).send().await.status(200);
        }
    }
    tokio::time::sleep(millis(300)).await;
    let before = origin.requests();
    let order = json!({ "host": "a.test", "prefix": "/x/", "mode": "refresh" });
    for _ in 0..2 {
        host.purge(order.clone()).await;
    }
    let deadline = std::time::Instant::now() + secs(20);
    while host.stats().await["refetches"] != 0 {
        assert!(std::time::Instant::now() < deadline, "{}", host.stats().await);
        tokio::time::sleep(millis(50)).await;
    }
    let asked = origin.seen().split_off(before);
    assert!((4..=8).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|seen| seen.target.starts_with("/x/")), "{asked:?}");
    for path in ["/x/1?q=a%20b", "/x/%C3%BC", "/y"] {
        for language in ["de", "fr"] {
            host.call("GET", path).header("accept-language", language).send().await.status(200).cache("hit");
        }
    }
    assert_eq!(origin.requests(), before + asked.len());
}

#[tokio::test]
async fn a_path_is_purged_with_its_index_and_tells_how_much_that_was() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let paths = ["/d/", "/d/?a=1", "/d/index.html", "/d/index.htm", "/d"];
    for purged in ["/d/", "/d/index.html"] {
        for path in paths {
            host.get(path).await.status(200);
        }
        tokio::time::sleep(millis(300)).await;
        let order = |dry_run: bool| json!({ "host": "a.test", "path": purged, "dry_run": dry_run }).to_string();
        let dry = host.admin("POST", "/purge").body(order(true)).send().await.status(200).json();
        assert_eq!((&dry["entries"], &dry["complete"], &dry["purged"]), (&json!(3), &json!(true), &json!(0)), "{dry}");
        for path in paths {
            host.get(path).await.cache("hit");
        }
        let done = host.admin("POST", "/purge").body(order(false)).send().await.status(200).json();
        assert_eq!((&done["entries"], &done["purged"]), (&json!(3), &json!(1)), "{done}");
        for (path, word) in paths.iter().zip(["miss", "miss", "miss", "hit", "hit"]) {
            host.get(path).await.cache(word);
        }
    }
}

#[tokio::test]
async fn many_things_at_once_and_a_dry_run_of_them() {
    let (_origin, host) = tagged().await;
    tokio::time::sleep(millis(300)).await;
    let mut order = json!({
        "files": [format!("http://a.test{}", PATHS[2]), "b.test/?x=1"],
        "prefixes": ["b.test/img/a/b"],
        "globs": ["a.test/img/a/?/*"],
        "tags": ["none"],
        "hosts": ["c.test"],
        "dry_run": true,
    });
    let dry = host.admin("POST", "/purge").body(order.to_string()).send().await.status(200).json();
    let counts: Vec<u64> =
        dry["scopes"].as_array().unwrap().iter().map(|one| one["entries"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 1, 1, 1, 0, 0], "{dry}");
    assert_eq!(states(&host, "a.test").await, ["hit"; 4]);
    order["dry_run"] = json!(false);
    assert_eq!(host.purge(order).await, 7, "one for each, and one for the index");
    assert_eq!(states(&host, "a.test").await, ["hit", "miss", "miss", "hit"]);
    assert_eq!(states(&host, "b.test").await, ["hit", "miss", "hit", "miss"]);
}

#[tokio::test]
async fn a_list_with_a_mistake_or_too_long_a_list_purges_nothing_and_says_where() {
    let (_origin, host) = tagged().await;
    let million = format!(r#"{{"host":"a.test","paths":[{}"/"]}}"#, r#""/","#.repeat(1_000_000));
    for (body, status, part) in [
        (r#"{"host":"a.test","paths":["/","x"]}"#.to_owned(), 400, "paths[1]"),
        (r#"{"host":"a.test","globs":[]}"#.to_owned(), 400, "globs"),
        (json!({ "host": "a.test", "paths": vec!["/"; 10_001] }).to_string(), 400, "10000"),
        (million, 400, "10000"),
    ] {
        let answer = host.admin("POST", "/purge").body(body).send().await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
        assert!(answer.text().contains(part), "{}", answer.text());
    }
    assert_eq!(states(&host, "a.test").await, ["hit"; 4]);
}

#[tokio::test]
async fn tags_of_every_field_purge_and_none_reaches_a_client() {
    let fields = [("surrogate-key", "t x"), ("cache-tag", "x, t"), ("xkey", "x,t"), ("x-amz-meta-cache-tag", "t")];
    for (name, value) in fields {
        for cache_control in ["max-age=600", "no-store", "private"] {
            let origin = Origin::serving("/a", ok("a").cache_control(cache_control).header(name, value)).await;
            let host = Host::with(vhost("a.test").origin(&origin)).await;
            for _ in 0..2 {
                host.get("/a").await.expect(200, "a").no_header(name);
            }
            host.head("/a").await.no_header(name);
            if cache_control == "max-age=600" {
                host.purge(json!({ "host": "a.test", "tag": "t" })).await;
                host.get("/a").await.cache("miss");
            }
        }
    }
}

#[tokio::test]
async fn an_origin_with_too_many_tags_is_kept_by_some_of_them_and_by_its_path() {
    // As much as fits into the head of an answer that is taken at all.
    let many: String = (0..1_500).map(|number| format!("t{number:05} ")).collect();
    let origin = Origin::serving("/a", ok("a").cache_control("max-age=600").header("surrogate-key", &many)).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for (purge, word) in [
        (json!({ "host": "a.test", "tag": "t00000" }), "miss"),
        (json!({ "host": "a.test", "tag": "t01499" }), "hit"),
        (json!({ "host": "a.test", "path": "/a" }), "miss"),
    ] {
        host.get("/a").await.expect(200, "a");
        host.purge(purge).await;
        host.get("/a").await.expect(200, "a").cache(word);
    }
    assert!(host.metric("proxyhost_cache_tags_left_out_total").await >= 900.0);
}

#[tokio::test]
async fn the_purge_method_knows_the_headers_of_others_and_answers_in_json() {
    let (_origin, host) = tagged().await;
    tokio::time::sleep(millis(300)).await;
    let soft = host.call("PURGE", PATHS[0]).header("fastly-soft-purge", "1").send().await;
    let said = soft.status(200).json();
    assert_eq!((&said["entries"], &said["mode"], &said["sequence"]), (&json!(1), &json!("soft"), &json!(1)), "{said}");
    assert_eq!(states(&host, "a.test").await, ["revalidated", "hit", "hit", "hit"]);
    host.call("PURGE", "/").header("surrogate-key", "thumb none").send().await.status(200);
    assert_eq!(states(&host, "a.test").await, ["miss", "miss", "hit", "hit"]);
    host.call("PURGE", "/").header("xkey", "page").header("fastly-soft-purge", "1").send().await.status(200);
    assert_eq!(states(&host, "a.test").await, ["hit", "hit", "revalidated", "revalidated"]);
    host.call("PURGE", "/").header("xkey", " ").send().await.status(400);
    assert_eq!(states(&host, "a.test").await, ["hit"; 4]);
    assert_eq!(states(&host, "b.test").await, ["hit"; 4]);
}

#[tokio::test]
async fn the_command_line_takes_many_arguments_and_lists_of_any_length() {
    let (_origin, host) = tagged().await;
    tokio::time::sleep(millis(300)).await;
    let admin = host.admin_address().to_string();
    let purge = async |arguments: &[&str]| host.cli(&[&["purge", "--admin", &admin], arguments].concat()).await;
    let dry = purge(&["--host", "a.test", "--glob", "/img/**", "--tag", "page", "--dry-run"]).await;
    assert_eq!(dry.code(0).stdout, "would purge 5 entries\n");
    let soft = purge(&["--host", "a.test", "--path", PATHS[0], "--path", "/", "--soft", "--json"]).await;
    let soft: Value = serde_json::from_str(&soft.code(0).stdout).unwrap();
    assert_eq!((&soft["entries"], &soft["mode"]), (&json!(2), &json!("soft")), "{soft}");
    assert_eq!(states(&host, "a.test").await, ["revalidated", "hit", "hit", "revalidated"]);

    let mut list: String = (0..12_000).map(|number| format!("http://a.test/none/{number}\n")).collect();
    list += &format!("# the last\n\n  https://a.test{}\r\nb.test/", PATHS[1]);
    host.write("list.txt", list.as_bytes());
    let sent = purge(&["--from", "list.txt", "--json"]).await;
    let sent: Value = serde_json::from_str(&sent.code(0).stdout).unwrap();
    assert_eq!((&sent["purged"], &sent["entries"]), (&json!(12_002), &json!(2)), "{sent}");
    assert_eq!(states(&host, "a.test").await, ["hit", "miss", "hit", "hit"]);
    assert_eq!(states(&host, "b.test").await, ["hit", "hit", "hit", "miss"]);

    host.write("list.txt", b"thumb\n\nnone\n");
    purge(&["--from", "list.txt", "--each", "tag", "--host", "b.test"]).await.code(0);
    assert_eq!(states(&host, "b.test").await, ["miss", "miss", "hit", "hit"]);

    host.write("list.txt", b"# nothing\na.test/\nx y/\n");
    purge(&["--from", "list.txt"]).await.code(2).says(&["line 3"]);
    host.write("list.txt", b"# nothing\n");
    purge(&["--from", "list.txt"]).await.code(2).says(&["names nothing"]);
    purge(&["--from", "no-such-list"]).await.code(2).says(&["no-such-list"]);
    purge(&["--path", "/x"]).await.code(2).says(&["host"]);
    purge(&["--soft", "--refresh", "--all"]).await.code(2);
    assert_eq!(states(&host, "a.test").await, ["hit"; 4]);
}
