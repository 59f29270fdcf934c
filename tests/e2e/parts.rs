//! Parts that an origin sends in whatever pieces it likes (RFC 9111 sections 3.3 and 3.4, RFC 9110 section 15.3.7): kept as they
//! came, put together under one strong validator, and completed.

use harness::origin::Seen;
use harness::prelude::*;

const WHOLE: &str = "0123456789";

/// A 206 with these bytes of the whole.
fn part(range: std::ops::Range<usize>) -> Reply {
    let content = format!("bytes {}-{}/{}", range.start, range.end - 1, WHOLE.len());
    reply(206, &WHOLE[range]).cache_control("max-age=600").header("content-range", &content)
}

/// Answers with what is asked for, whether that is slices or not; a range with an If-Range that does not hold, or none, with all.
fn exact(seen: &Seen, etag: &str) -> Reply {
    let asked = seen.header("range").strip_prefix("bytes=").map(str::to_owned);
    let holds = !seen.has("if-range") || seen.header("if-range") == etag;
    let Some((first, last)) = asked.as_deref().and_then(|asked| asked.split_once('-')).filter(|_| holds) else {
        return ok(WHOLE).cache_control("max-age=600").etag(etag);
    };
    let length = WHOLE.len();
    let range = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Err(_), Ok(suffix)) => length - suffix..length,
        (Ok(first), last) => first..last.map_or(length, |last| (last + 1).min(length)),
        _ => return reply(416, ""),
    };
    part(range).etag(etag)
}

async fn ranged(host: &Host, range: &str) -> Answer {
    host.call("GET", "/a").range(range).send().await
}

#[tokio::test]
async fn a_part_serves_the_ranges_inside_it() {
    for etag in ["\"strong\"", "W/\"weak\"", ""] {
        let answer = if etag.is_empty() { part(4..10) } else { part(4..10).etag(etag) };
        let origin = Origin::serving("/a", answer).await;
        let host = Host::with(vhost("a.test").origin(&origin)).await;
        // The origin gives this whatever it is asked for.
        ranged(&host, "4-9").await.expect(206, "456789").header("content-range", "bytes 4-9/10");
        for (range, bytes, content) in
            [("4-9", "456789", "4-9"), ("6-8", "678", "6-8"), ("5-", "56789", "5-9"), ("-3", "789", "7-9")]
        {
            let answer = ranged(&host, range).await;
            answer.expect(206, bytes).cache("hit").header("content-range", &format!("bytes {content}/10"));
        }
        assert_eq!(origin.requests(), 1, "{etag}");
    }
}

#[tokio::test]
async fn a_client_gets_the_bytes_it_asked_for_and_no_others() {
    let origin = Origin::serving("/a", part(2..9).cache_control("no-store")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    // More came than was asked for, and nothing of it may be kept.
    ranged(&host, "4-5").await.expect(206, "45").header("content-range", "bytes 4-5/10");
    ranged(&host, "4-5").await.expect(206, "45");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn what_lies_outside_is_asked_for() {
    let origin = Origin::answering(|seen| exact(seen, "W/\"weak\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    ranged(&host, "-3").await.expect(206, "789").cache("miss");
    ranged(&host, "-4").await.expect(206, "6789").cache("miss");
    ranged(&host, "-3").await.expect(206, "789").cache("hit");
    host.get("/a").await.expect(200, WHOLE).cache("miss");
    assert!(!origin.last().has("range"), "without a strong validator nothing is completed");
    ranged(&host, "0-3").await.expect(206, "0123").cache("hit");
}

#[tokio::test]
async fn a_suffix_is_asked_for_as_it_is() {
    let origin = Origin::answering(|seen| exact(seen, "\"1\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    ranged(&host, "-5").await.expect(206, "56789").cache("miss");
    assert_eq!((origin.requests(), origin.last().header("range")), (1, "bytes=-5"));
    ranged(&host, "-5").await.expect(206, "56789").cache("hit");
    ranged(&host, "7-").await.expect(206, "789").cache("hit");
}

#[tokio::test]
async fn a_part_is_completed_by_what_is_missing() {
    let origin = Origin::answering(|seen| exact(seen, "\"1\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    ranged(&host, "-5").await.expect(206, "56789");
    let whole = host.get("/a").await;
    whole.expect(200, WHOLE).no_header("content-range").header("content-length", "10");
    assert!(whole.field("cache-status").contains("fwd=partial"), "{whole:?}");
    let asked = origin.last();
    assert_eq!((asked.header("range"), asked.header("if-range")), ("bytes=0-4", "\"1\""));
    host.get("/a").await.expect(200, WHOLE).cache("hit");
    ranged(&host, "2-7").await.expect(206, "234567").cache("hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_part_of_another_version_is_never_mixed_in() {
    let origin = Origin::answering(|seen| exact(seen, "\"1\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    ranged(&host, "-5").await.expect(206, "56789");
    origin.set("/a", ok("abcdefghij").cache_control("max-age=600").etag("\"2\""));
    host.get("/a").await.expect(200, "abcdefghij");
    ranged(&host, "-5").await.expect(206, "fghij").cache("hit");

    // An origin that does not know If-Range, and one that sends another piece than the one that is missing.
    for wrong in [part(0..5).etag("\"2\""), part(0..4).etag("\"1\""), part(0..5)] {
        let origin = Origin::answering(|seen| exact(seen, "\"1\"")).await;
        let host = Host::with(vhost("a.test").origin(&origin)).await;
        ranged(&host, "-5").await.expect(206, "56789");
        origin.once("/a", wrong);
        host.get("/a").await.expect(200, WHOLE);
        assert!(!origin.last().has("range"));
    }
}

#[tokio::test]
async fn parts_that_touch_become_one() {
    let origin = Origin::serving("/a", part(4..7).etag("\"1\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    ranged(&host, "4-6").await.expect(206, "456");
    origin.set("/a", part(6..10).etag("\"1\""));
    ranged(&host, "7-8").await.expect(206, "78");
    ranged(&host, "4-9").await.expect(206, "456789").cache("hit");
    origin.set("/a", part(0..4).etag("\"1\""));
    ranged(&host, "0-2").await.expect(206, "012");
    assert_eq!(origin.requests(), 3);
    // All of it is there now.
    host.get("/a").await.expect(200, WHOLE).cache("hit");
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn a_part_that_breaks_off_or_lies_about_its_length_is_not_kept() {
    let origin = Origin::serving("/a", part(4..10).etag("\"1\"").cut_after(3)).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    assert!(host.call("GET", "/a").range("4-9").attempt().await.is_err());
    origin.set("/a", part(4..10).etag("\"1\""));
    ranged(&host, "4-9").await.expect(206, "456789").cache("miss");

    let short = reply(206, "45").header("content-range", "bytes 4-9/10").etag("\"1\"").cache_control("max-age=600");
    let origin = Origin::serving("/a", short).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    ranged(&host, "4-9").await.expect(206, "45").header("content-range", "bytes 4-9/10");
    origin.set("/a", part(4..10).etag("\"1\""));
    ranged(&host, "4-9").await.expect(206, "456789").cache("miss");
}

#[tokio::test]
async fn conditions_count_for_parts() {
    let origin = Origin::serving("/a", part(4..10).etag("\"1\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    ranged(&host, "4-9").await.status(206);
    let with = async |name: &str, value: &str| host.call("GET", "/a").range("5-6").header(name, value).send().await;
    with("if-none-match", "\"1\"").await.status(304).no_header("content-range");
    with("if-match", "\"2\"").await.status(412);
    with("if-range", "\"1\"").await.expect(206, "56").cache("hit");
    assert_eq!(origin.requests(), 1);
    origin.set("/a", ok(WHOLE).cache_control("max-age=600").etag("\"1\""));
    with("if-range", "\"2\"").await.expect(200, WHOLE);
}

#[tokio::test]
async fn a_purge_of_the_path_takes_its_parts() {
    let origin = Origin::answering(|seen| exact(seen, "\"1\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    ranged(&host, "-5").await.expect(206, "56789");
    host.purge(json!({ "host": "a.test", "path": "/a" })).await;
    ranged(&host, "-5").await.expect(206, "56789").cache("miss");
}

#[tokio::test]
async fn a_part_that_ends_early_is_no_whole() {
    // Without a length of its own, and closed after half of it.
    let head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nCache-Control: max-age=600\r\nConnection: close\r\n";
    for rest in ["\r\n01234", "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\n\r\n"] {
        let origin = Origin::serving("/a", raw(format!("{head}{rest}"))).await;
        let host = Host::with(vhost("a.test").origin(&origin)).await;
        assert!(host.call("GET", "/a").range("0-9").attempt().await.is_err(), "{rest:?}");
        origin.set("/a", ok(WHOLE).cache_control("max-age=600"));
        host.get("/a").await.expect(200, WHOLE).cache("miss");
    }
    // And one that goes on is cut off where it should have ended, or breaks off.
    let long = "Transfer-Encoding: chunked\r\n\r\nf\r\n0123456789abcde\r\n0\r\n\r\n";
    let origin = Origin::serving("/a", raw(format!("{head}{long}"))).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let _ = host.call("GET", "/a").range("0-9").attempt().await;
    origin.set("/a", ok(WHOLE).cache_control("max-age=600"));
    host.get("/a").await.expect(200, WHOLE);
    ranged(&host, "5-").await.expect(206, "56789");
}

#[tokio::test]
async fn a_part_that_the_origin_has_no_more_is_not_served_any_more() {
    for answer in [ok("another").etag("\"2\"").cache_control("no-store"), reply(410, "").cache_control("no-store")] {
        let origin = Origin::answering(|seen| exact(seen, "\"1\"")).await;
        let host = Host::with(vhost("a.test").origin(&origin)).await;
        ranged(&host, "-5").await.expect(206, "56789");
        origin.set("/a", answer);
        host.get("/a").await;
        let asked = origin.requests();
        ranged(&host, "-3").await;
        assert!(origin.requests() > asked, "{:?}", origin.seen());
    }
}
