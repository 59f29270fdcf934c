//! Ranges (RFC 9110 section 14), from whole entries, from partly filled ones, and past a huge object's other bytes.

use harness::prelude::*;

const LENGTH: u64 = 10_000_000;

async fn big() -> (Origin, Host) {
    let reply = ok(generated(1, LENGTH)).cache_control("max-age=600").etag("\"big\"").conditional().ranged();
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    (origin, host)
}

#[tokio::test]
async fn single_ranges_of_a_whole_entry() {
    let (origin, host) = big().await;
    host.get("/a").await.expect(200, pattern(1, 0..LENGTH));
    let ranged = async |range: &str| host.call("GET", "/a").range(range).send().await;
    let first = ranged("0-99").await;
    first.expect(206, pattern(1, 0..100)).cache("hit").header("content-range", "bytes 0-99/10000000");
    ranged("9999990-").await.expect(206, pattern(1, 9_999_990..LENGTH));
    ranged("-10").await.expect(206, pattern(1, 9_999_990..LENGTH));
    ranged("9999990-99999999").await.expect(206, pattern(1, 9_999_990..LENGTH));
    ranged("1048570-1048590").await.expect(206, pattern(1, 1_048_570..1_048_591));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn several_ranges_are_multipart() {
    let (_origin, host) = big().await;
    host.get("/a").await.status(200);
    let answer = host.call("GET", "/a").range("0-4,100000-100004,-5").send().await;
    answer.status(206);
    assert!(answer.field("content-type").starts_with("multipart/byteranges"), "{answer:?}");
    let parts = answer.parts();
    let expected = [(0, 5), (100_000, 100_005), (LENGTH - 5, LENGTH)];
    assert_eq!(parts.len(), expected.len(), "{answer:?}");
    for ((range, bytes), (start, end)) in parts.iter().zip(expected) {
        assert_eq!(*range, format!("bytes {start}-{}/{LENGTH}", end - 1));
        assert_eq!(*bytes, pattern(1, start..end));
    }
    assert_eq!(answer.number("content-length"), answer.body.len() as u64);
    // Ranges with less between them than a part's head costs come as one.
    let near = host.call("GET", "/a").range("0-4,20-24").send().await;
    near.expect(206, pattern(1, 0..25)).header("content-range", "bytes 0-24/10000000");
}

#[tokio::test]
async fn what_cannot_be_satisfied_is_416_and_what_is_nonsense_is_ignored() {
    let (_origin, host) = big().await;
    host.get("/a").await.status(200);
    let ranged = async |value: &str| host.call("GET", "/a").header("range", value).send().await;
    ranged("bytes=10000000-").await.status(416).header("content-range", "bytes */10000000");
    ranged("bytes=-0").await.status(416);
    for nonsense in ["bytes=5-2", "bytes=a-b", "chickens=0-1", "bytes", "bytes=", "bytes=--1"] {
        ranged(nonsense).await.status(200);
    }
}

#[tokio::test]
async fn absurd_ranges_cost_nothing() {
    let (_origin, host) = big().await;
    host.get("/a").await.status(200);
    let many = format!("bytes={}", (0..1000).map(|_| "0-").collect::<Vec<_>>().join(","));
    let answer = host.call("GET", "/a").header("range", &many).send().await;
    assert!(answer.body.len() as u64 <= LENGTH, "{} bytes for a thousand times the whole", answer.body.len());
    let overflow = host.call("GET", "/a").range("99999999999999999999999999-").send().await;
    assert!(matches!(overflow.status.as_u16(), 200 | 416), "{overflow:?}");
}

#[tokio::test]
async fn a_range_of_a_missing_object_does_not_fetch_all_of_it() {
    let (origin, host) = big().await;
    let ranged = async |range: &str| host.call("GET", "/a").range(range).send().await;
    ranged("5000000-5000099").await.expect(206, pattern(1, 5_000_000..5_000_100));
    assert!(origin.seen().iter().all(|seen| seen.has("range")), "{:?}", origin.seen());
    let before = origin.requests();
    ranged("5000010-5000019").await.expect(206, pattern(1, 5_000_010..5_000_020)).cache("hit");
    assert_eq!(origin.requests(), before);
    // All of it is put together from what is there and what is not yet.
    host.get("/a").await.expect(200, pattern(1, 0..LENGTH));
    host.get("/a").await.expect(200, pattern(1, 0..LENGTH)).cache("hit");
}

#[tokio::test]
async fn beyond_the_end_of_what_is_kept_in_part_nothing_is_asked_for() {
    let (origin, host) = big().await;
    host.call("GET", "/a").range("0-9").send().await.status(206);
    let before = origin.requests();
    for range in ["10000000-", "-0"] {
        let answer = host.call("GET", "/a").range(range).send().await;
        answer.status(416).cache("hit");
    }
    assert_eq!(origin.requests(), before);
}

#[tokio::test]
async fn further_pieces_are_asked_for_by_the_version_of_the_first() {
    let (origin, host) = big().await;
    host.call("GET", "/a").range("0-9").send().await.status(206);
    host.call("GET", "/a").range("9000000-9000009").send().await.expect(206, pattern(1, 9_000_000..9_000_010));
    assert_eq!(origin.last().header("if-match"), "\"big\"");
}

#[tokio::test]
async fn an_object_that_changed_between_two_pieces_is_never_mixed() {
    let (origin, host) = big().await;
    host.call("GET", "/a").range("0-9").send().await.expect(206, pattern(1, 0..10));
    origin.set("/a", ok(generated(2, LENGTH)).cache_control("max-age=600").etag("\"new\"").conditional().ranged());
    host.call("GET", "/a").range("9000000-9000009").send().await.expect(206, pattern(2, 9_000_000..9_000_010));
    host.call("GET", "/a").range("0-9").send().await.expect(206, pattern(2, 0..10));
    host.get("/a").await.expect(200, pattern(2, 0..LENGTH));
}

#[tokio::test]
async fn an_origin_without_ranges_still_gives_them_to_clients() {
    let origin = Origin::serving("/a", ok(generated(1, 500_000)).cache_control("max-age=600").etag("\"x\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let answer = host.call("GET", "/a").range("1000-1099").send().await;
    match answer.status.as_u16() {
        206 => answer.expect(206, pattern(1, 1000..1100)),
        _ => answer.expect(200, pattern(1, 0..500_000)),
    };
    host.get("/a").await.expect(200, pattern(1, 0..500_000));
    host.call("GET", "/a").range("1000-1099").send().await.expect(206, pattern(1, 1000..1100)).cache("hit");
}

#[tokio::test]
async fn without_a_strong_validator_parts_are_not_combined() {
    let weak = ok(generated(1, LENGTH)).cache_control("max-age=600").etag("W/\"x\"").ranged();
    let origin = Origin::serving("/a", weak).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a").range("0-9").send().await.expect(206, pattern(1, 0..10));
    origin.set("/a", ok(generated(2, LENGTH)).cache_control("max-age=600").etag("W/\"x\"").ranged());
    let whole = host.get("/a").await.status(200).body.clone();
    assert!(whole == pattern(1, 0..LENGTH) || whole == pattern(2, 0..LENGTH), "two versions in one body");
}

#[tokio::test]
async fn a_range_with_if_range_of_another_version_is_the_whole() {
    let (_origin, host) = big().await;
    host.get("/a").await.status(200);
    let ranged = async |validator: &str| host.call("GET", "/a").range("0-9").header("if-range", validator).send().await;
    ranged("\"big\"").await.expect(206, pattern(1, 0..10));
    ranged("\"other\"").await.expect(200, pattern(1, 0..LENGTH));
    ranged("W/\"big\"").await.expect(200, pattern(1, 0..LENGTH));
}

#[tokio::test]
async fn a_part_asked_for_beside_one_that_is_still_coming_is_of_the_same_object() {
    // The first part is held up in the middle of its way into the cache; its client has had what it wanted.
    let version = |seed: u64| {
        let reply = ok(generated(seed, LENGTH)).cache_control("max-age=600").etag(&format!("\"{seed}\""));
        reply.conditional().ranged()
    };
    let (held, gate) = version(1).gated(1000);
    let origin = Origin::serving("/a", held).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a").range("0-9").send().await.expect(206, pattern(1, 0..10));
    origin.set("/a", version(2));
    // Whoever follows the first one's fetch must not be promised bytes of an object that is no more.
    host.call("GET", "/a").range("9000000-9000009").send().await.expect(206, pattern(2, 9_000_000..9_000_010));
    gate.open();
    host.call("GET", "/a").range("0-9").send().await.expect(206, pattern(2, 0..10));
    host.get("/a").await.expect(200, pattern(2, 0..LENGTH));
}

/// A big object whose slice in the middle is kept, and nothing else of it.
async fn partly_kept() -> (Origin, Host) {
    let big = ok(generated(1, 5_000_000)).cache_control("max-age=600").etag("\"1\"").ranged();
    let origin = Origin::serving("/a", big).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a").range("3000000-3000009").send().await.status(206).cache("miss");
    host.call("GET", "/a").range("3000000-3000009").send().await.status(206).cache("hit");
    (origin, host)
}

#[tokio::test]
async fn of_a_partly_kept_object_nothing_is_fetched_that_the_client_does_not_get() {
    let (mut origin, host) = partly_kept().await;
    let before = origin.requests();
    let absent = host.call("GET", "/a").header("range", "bytes=0-9").header("cache-control", "only-if-cached");
    absent.send().await.status(504);
    origin.stop();
    host.call("GET", "/a").header("if-none-match", "\"1\"").send().await.status(304).cache("hit");
    host.call("GET", "/a").header("if-match", "\"2\"").send().await.status(412);
    assert_eq!(origin.requests(), before);
    // What can't be had is an error, and says nothing of being kept.
    let failed = host.get("/a").await;
    failed.status(502);
    assert!(!failed.cache_status().iter().any(|word| word == "stored"), "{failed:?}");
}

#[tokio::test]
async fn an_origin_that_has_no_time_for_a_part_costs_nothing_of_what_is_kept() {
    let (origin, host) = partly_kept().await;
    for status in [429, 408, 503] {
        origin.set("/a", reply(status, "not now").header("retry-after", "7"));
        let failed = host.get("/a").await;
        failed.expect(status, "not now").header("retry-after", "7");
        assert!(failed.cache_status().contains(&format!("fwd-status={status}")), "{failed:?}");
        host.call("GET", "/a").range("3000000-3000009").send().await.status(206).cache("hit");
    }
    origin.set("/a", ok(generated(1, 5_000_000)).cache_control("max-age=600").etag("\"1\"").ranged());
    host.get("/a").await.expect(200, pattern(1, 0..5_000_000));
}

#[tokio::test]
async fn readers_at_a_gap_of_a_silent_origin_are_cut_together_and_not_one_after_the_other() {
    let big = ok(generated(1, 5_000_000)).cache_control("max-age=600").etag("\"1\"").ranged();
    let origin = Origin::serving("/a", big).await;
    let stanza = origin.with(json!({ "timeouts": { "first_byte": "2s" } }));
    let host = Host::with(vhost("a.test").origin(&stanza)).await;
    host.call("GET", "/a").range("3000000-3000009").send().await.status(206).cache("miss");
    origin.set("/a", hang());
    let start = std::time::Instant::now();
    let readers = (0..16).map(|_| host.call("GET", "/a").attempt());
    for read in futures_util::future::join_all(readers).await {
        assert!(read.map_or(true, |answer| answer.status == 504), "nobody gets all of it");
    }
    assert!(start.elapsed() < secs(20), "sixteen in turns would take 32 s: {:?}", start.elapsed());
}

#[tokio::test]
async fn an_object_that_cannot_be_completed_in_parts_is_fetched_whole() {
    let (origin, host) = partly_kept().await;
    origin.set_handler("/a", |request| {
        let whole = ok(generated(1, 5_000_000)).cache_control("max-age=600").etag("\"1\"");
        if request.header("range").is_empty() { whole } else { reply(403, "no parts").etag("\"1\"") }
    });
    host.get("/a").await.expect(200, pattern(1, 0..5_000_000)).cache("miss");
    host.get("/a").await.expect(200, pattern(1, 0..5_000_000)).cache("hit");
}

#[tokio::test]
async fn a_range_of_what_is_not_kept_is_asked_for_as_it_is() {
    let big = ok(generated(1, 5_000_000)).cache_control("no-store").etag("\"1\"").ranged();
    let origin = Origin::serving("/a", big).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a").range("5-9").send().await.expect(206, pattern(1, 5..10));
    let before = origin.requests();
    host.call("GET", "/a").range("5-9").send().await.expect(206, pattern(1, 5..10));
    host.call("GET", "/a").range("-5").send().await.expect(206, pattern(1, 4_999_995..5_000_000));
    assert_eq!(origin.requests(), before + 2);
    assert_eq!(origin.last().header("range"), "bytes=-5");
}

#[tokio::test]
async fn of_a_hundred_ranges_at_once_of_a_huge_object_each_byte_is_fetched_once() {
    const HUGE: u64 = 5_000_000_000;
    const SLICE: u64 = 1 << 20;
    let reply = ok(generated(1, HUGE)).cache_control("max-age=600").etag("\"huge\"").conditional().ranged();
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    // Twenty places, around each of which five overlap, over the borders of slices.
    let starts = (0..100).map(|number| (number % 20) * 240_000_000 + 900_000 + (number / 20) * 70_000);
    let calls = starts.map(|start| {
        let call = host.call("GET", "/a").range(&format!("{start}-{}", start + 399_999));
        async move { (start, call.send().await) }
    });
    for (start, answer) in futures_util::future::join_all(calls).await {
        answer.expect(206, pattern(1, start..start + 400_000));
    }
    let mut fetched: Vec<(u64, u64)> = origin
        .seen()
        .iter()
        .filter_map(|seen| {
            let (first, last) = seen.header("range").strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        })
        .collect();
    assert_eq!(fetched.len(), origin.requests(), "nothing was asked for but ranges: {:?}", origin.seen());
    fetched.sort_unstable();
    assert!(fetched.windows(2).all(|pair| pair[0].1 < pair[1].0), "{fetched:?}");
    let bytes: u64 = fetched.iter().map(|(first, last)| last + 1 - first).sum();
    assert!(bytes <= 20 * 3 * SLICE, "{bytes} bytes for twenty places of two slices, mostly");
}
