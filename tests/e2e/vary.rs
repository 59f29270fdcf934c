//! Variants (RFC 9111 section 4.1).

use futures_util::StreamExt as _;
use harness::prelude::*;

#[tokio::test]
async fn each_value_of_a_nominated_field_has_its_own_entry() {
    let origin = Origin::answering(|request| {
        ok(request.header("accept-language").to_owned()).cache_control("max-age=60").vary("Accept-Language")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for _ in 0..2 {
        for language in ["de", "en"] {
            host.call("GET", "/a").header("accept-language", language).send().await.expect(200, language);
        }
        host.get("/a").await.expect(200, "");
    }
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn another_variant_is_a_vary_miss() {
    let origin =
        Origin::answering(|request| ok(request.header("accept").to_owned()).cache_control("max-age=60").vary("accept"))
            .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a").header("accept", "text/html").send().await.cache("fwd=uri-miss");
    host.call("GET", "/a").header("accept", "image/png").send().await.cache("fwd=vary-miss");
}

#[tokio::test]
async fn vary_star_is_never_used_again() {
    let origin = Origin::serving("/a", ok("x").cache_control("max-age=60").vary("*")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "x");
    host.get("/a").await.expect(200, "x").cache("miss");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn those_who_waited_for_another_variant_get_their_own() {
    let origin = Origin::answering(|request| {
        ok(request.header("accept-language").to_owned())
            .cache_control("max-age=60")
            .vary("accept-language")
            .late(millis(300))
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let languages = ["de", "en", "fr", "de", "en", "fr"];
    let calls = languages.map(|language| host.call("GET", "/a").header("accept-language", language).send());
    let answers = futures_util::future::join_all(calls).await;
    for (answer, language) in answers.iter().zip(languages) {
        answer.expect(200, language);
    }
}

#[tokio::test]
async fn a_purge_takes_all_variants() {
    let origin =
        Origin::answering(|request| ok(request.header("accept").to_owned()).cache_control("max-age=60").vary("accept"))
            .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for accept in ["a/a", "b/b"] {
        host.call("GET", "/a").header("accept", accept).send().await.expect(200, accept);
    }
    host.purge(json!({ "host": "a.test", "path": "/a" })).await;
    for accept in ["a/a", "b/b"] {
        host.call("GET", "/a").header("accept", accept).send().await.expect(200, accept).cache("miss");
    }
}

#[tokio::test]
async fn a_field_that_ends_at_this_hop_is_none_that_an_answer_varies_by() {
    let origin = Origin::answering(|request| {
        ok(request.header("accept-language").to_owned()).cache_control("max-age=60").vary("Accept-Language")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    // The origin never hears of German, so its answer must not be kept as the German one.
    let call = host.call("GET", "/a").header("accept-language", "de").header("connection", "accept-language");
    call.send().await.expect(200, "");
    host.call("GET", "/a").header("accept-language", "de").send().await.expect(200, "de");
}

#[tokio::test]
async fn what_a_stranger_claims_of_itself_is_none_that_an_answer_varies_by() {
    let origin = Origin::answering(|request| {
        ok(request.header("x-forwarded-proto").to_owned()).cache_control("max-age=60").vary("X-Forwarded-Proto")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "http");
    host.call("GET", "/a").header("x-forwarded-proto", "https").send().await.expect(200, "http").cache("hit");
}

#[tokio::test]
async fn an_origin_that_makes_ten_thousand_variants_crowds_out_nobody() {
    let origin =
        Origin::answering(|request| ok(request.header("x-a").to_owned()).cache_control("max-age=600").vary("x-a"))
            .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let ask = |value: String| host.call("GET", "/a").header("x-a", &value).send();
    host.get("/other").await.status(200);
    let mut took = Vec::new();
    let hits = std::sync::atomic::AtomicUsize::new(0);
    for part in 0..5 {
        let begun = std::time::Instant::now();
        let hits = &hits;
        let calls = (part * 2000..(part + 1) * 2000).map(|number| async move {
            let asked = format!("v{number}");
            ask(asked.clone()).await.expect(200, &asked);
            if number % 50 == 0 {
                let used = ask("used".to_owned()).await;
                used.expect(200, "used");
                if used.cache_status().iter().any(|word| word == "hit") {
                    hits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
        futures_util::stream::iter(calls).buffer_unordered(16).collect::<Vec<()>>().await;
        took.push(begun.elapsed());
    }
    // Neither with the number of variants that there are nor with that of those that there were.
    assert!(took[4] < took[0] * 4 + secs(5), "{took:?}");
    // What is used stays, all but at first and where two ask for it in one moment.
    let hits = hits.into_inner();
    assert!(hits >= 190, "{hits} of 200");
    host.get("/other").await.cache("hit");
    let begun = std::time::Instant::now();
    loop {
        let entries = host.stats().await["cache"]["entries"].as_u64().expect("a number");
        // An estimate of what is in the index, which counts some of what was replaced and removed.
        if entries <= 1000 {
            break;
        }
        assert!(begun.elapsed() < secs(20), "{entries} entries");
        tokio::time::sleep(millis(200)).await;
    }
}

#[tokio::test]
async fn after_a_restart_it_is_not_known_what_a_miss_lacks() {
    let origin =
        Origin::answering(|request| ok(request.header("accept").to_owned()).cache_control("max-age=60").vary("accept"))
            .await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a").header("accept", "text/html").send().await.cache("fwd=uri-miss").cache("stored");
    host.restart().await;
    host.call("GET", "/a").header("accept", "image/png").send().await.cache("fwd=miss");
    host.call("GET", "/a").header("accept", "text/html").send().await.expect(200, "text/html").cache("hit");
}
