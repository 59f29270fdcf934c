//! Compressed forms of what is kept (issue 5, line 6): who gets which, what becomes of ranges and conditions, and that no form
//! outlives or mixes with another version of what it was made of.

use std::collections::HashSet;

use async_compression::tokio::write::{
    BrotliDecoder, BrotliEncoder, GzipDecoder, GzipEncoder, ZstdDecoder, ZstdEncoder,
};
use harness::origin::Seen;
use harness::prelude::*;
use tokio::io::AsyncWriteExt;

pub const CODINGS: [&str; 3] = ["br", "zstd", "gzip"];

/// A text of about so many bytes; another one for each seed.
pub fn text(seed: u64, length: usize) -> Vec<u8> {
    let words = (0u64..).map(|word| format!("{} ", (word * (seed + 7) * 2_654_435_761) % 10_007));
    let mut text: Vec<u8> = Vec::with_capacity(length + 8);
    words
        .take_while(|word| {
            text.extend_from_slice(word.as_bytes());
            text.len() < length
        })
        .for_each(drop);
    text
}

macro_rules! through {
    ($kind:ident, $bytes:expr) => {{
        let mut coder = $kind::new(Vec::new());
        coder.write_all($bytes).await.expect("it is taken");
        coder.shutdown().await.expect("it is whole");
        coder.into_inner()
    }};
}

pub async fn encoded(bytes: &[u8], coding: &str) -> Vec<u8> {
    match coding {
        "br" => through!(BrotliEncoder, bytes),
        "zstd" => through!(ZstdEncoder, bytes),
        _ => through!(GzipEncoder, bytes),
    }
}

pub async fn decoded(bytes: &[u8], coding: &str) -> Vec<u8> {
    match coding {
        "br" => through!(BrotliDecoder, bytes),
        "zstd" => through!(ZstdDecoder, bytes),
        "gzip" => through!(GzipDecoder, bytes),
        _ => bytes.to_vec(),
    }
}

pub fn page(body: Vec<u8>) -> Reply {
    tagged(body, "\"v1\"")
}

pub fn tagged(body: Vec<u8>, tag: &str) -> Reply {
    ok(body)
        .cache_control("max-age=600")
        .header("content-type", "text/html; charset=utf-8")
        .etag(tag)
        .conditional()
        .ranged()
}

pub async fn serving(reply: Reply) -> (Origin, Host) {
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin).set("compress", true)).await;
    (origin, host)
}

pub fn taking(host: &Host, method: &str, accept: &str) -> Call {
    host.call(method, "/a").header("accept-encoding", accept)
}

/// Asks until it comes in that form.
pub async fn form(host: &Host, accept: &str, coding: &str) -> Answer {
    form_of(host, "/a", accept, coding).await
}

async fn form_of(host: &Host, path: &str, accept: &str, coding: &str) -> Answer {
    for _ in 0..1000 {
        let answer = host.call("GET", path).header("accept-encoding", accept).send().await;
        if answer.headers.get("content-encoding").is_some_and(|value| value == coding) {
            return answer;
        }
        tokio::time::sleep(millis(20)).await;
    }
    panic!("{coding} does not come");
}

/// Waits until that many forms were begun and left.
async fn left(host: &Host, count: f64) {
    for _ in 0..1000 {
        if host.metric("proxyhost_proxy_not_compressed_total").await >= count {
            return;
        }
        tokio::time::sleep(millis(20)).await;
    }
    panic!("nothing is left as it is");
}

#[tokio::test]
async fn each_coding_is_made_once_and_goes_to_who_takes_it() {
    for length in [10_000, 3_000_000] {
        let body = text(1, length);
        let (origin, host) = serving(page(body.clone())).await;
        let first = taking(&host, "GET", "br, gzip, zstd").send().await;
        first
            .expect(200, &body)
            .cache("miss")
            .header("vary", "Accept-Encoding")
            .header("etag", "\"v1\"")
            .no_header("content-encoding");
        let mut tags = HashSet::from([first.field("etag")]);
        for coding in CODINGS {
            let answer = form(&host, coding, coding).await;
            answer
                .status(200)
                .cache("hit")
                .header("vary", "Accept-Encoding")
                .header("content-type", "text/html; charset=utf-8");
            assert_eq!(answer.number("content-length"), answer.body.len() as u64);
            assert!(answer.body.len() < body.len() * 3 / 4, "{coding}: {} of {}", answer.body.len(), body.len());
            assert_eq!(decoded(&answer.body, coding).await, body);
            assert!(tags.insert(answer.field("etag")), "{}", answer.field("etag"));
            let head = taking(&host, "HEAD", coding).send().await;
            head.expect(200, "").header("content-encoding", coding).header("etag", &answer.field("etag"));
            assert_eq!(head.number("content-length"), answer.body.len() as u64);
            taking(&host, "GET", coding).send().await.expect(200, &answer.body).header("etag", &answer.field("etag"));
        }
        for (accept, coding) in [
            ("br, zstd, gzip", "br"),
            ("gzip, br;q=0.9", "gzip"),
            ("gzip;q=0.5, zstd;q=0.8, br;q=0.3", "zstd"),
            ("x-gzip", "gzip"),
            ("*", "br"),
            ("*, br;q=0", "zstd"),
            ("identity;q=0, gzip;q=0.001", "gzip"),
        ] {
            let answer = taking(&host, "GET", accept).send().await;
            answer.header("content-encoding", coding);
            assert_eq!(decoded(&answer.body, coding).await, body, "{accept}");
        }
        for plain in ["", "identity", "deflate", "br;q=0", "gzip;q=x", "*;q=0", "identity, gzip;q=0.5"] {
            let answer = taking(&host, "GET", plain).send().await;
            answer
                .expect(200, &body)
                .no_header("content-encoding")
                .header("vary", "Accept-Encoding")
                .header("etag", "\"v1\"");
        }
        host.get("/a").await.expect(200, &body).no_header("content-encoding").header("vary", "Accept-Encoding");
        let no = taking(&host, "GET", "br").header("cache-control", "no-transform").send().await;
        no.expect(200, &body).no_header("content-encoding");
        assert_eq!(origin.requests(), 1);
        assert_eq!(host.metric("proxyhost_proxy_compressed_total").await, 3.0);
    }
}

#[tokio::test]
async fn a_client_that_has_any_form_is_told_so_by_the_tag_that_it_knows() {
    let (_origin, host) = serving(page(text(1, 20_000))).await;
    host.get("/a").await.status(200);
    let tags = [
        "\"v1\"".to_owned(),
        form(&host, "br", "br").await.field("etag"),
        form(&host, "gzip", "gzip").await.field("etag"),
    ];
    for accept in ["br", "gzip", "identity"] {
        for tag in &tags {
            for sent in [tag.clone(), format!("\"other\", {tag}")] {
                let answer = taking(&host, "GET", accept).header("if-none-match", &sent).send().await;
                answer
                    .expect(304, "")
                    .header("etag", tag)
                    .no_header("content-encoding")
                    .header("vary", "Accept-Encoding");
            }
        }
        for other in ["\"v2\"", "\"v2~br.1\"", "\"v1~deflate.1\""] {
            taking(&host, "GET", accept).header("if-none-match", other).send().await.status(200);
        }
    }
    for (tag, coding) in [(&tags[1], "br"), (&tags[2], "gzip")] {
        taking(&host, "GET", "br, gzip")
            .header("if-match", tag)
            .send()
            .await
            .status(200)
            .header("content-encoding", coding);
    }
    taking(&host, "GET", "br").header("if-match", "\"v1\"").send().await.status(200).no_header("content-encoding");
    taking(&host, "GET", "br").header("if-match", "\"v2\"").send().await.status(412);
}

#[tokio::test]
async fn a_range_is_of_the_form_that_the_client_has() {
    let body = text(1, 3_000_000);
    let (_origin, host) = serving(page(body.clone()).last_modified(std::time::SystemTime::now() - secs(9999))).await;
    host.get("/a").await.status(200);
    let whole = form(&host, "br", "br").await;
    let (tag, length) = (whole.field("etag"), whole.body.len());
    let ranged = async |range: &str, accept: &str, if_range: &str| {
        let call = taking(&host, "GET", accept).range(range);
        if if_range.is_empty() { call } else { call.header("if-range", if_range) }.send().await
    };
    for (range, expected) in [("0-99", 0..100), ("1000-", 1000..length), ("-7", length - 7..length)] {
        let part = ranged(range, "br", &tag).await;
        part.expect(206, &whole.body[expected.clone()]).header("content-encoding", "br").header("etag", &tag);
        part.header("content-range", &format!("bytes {}-{}/{length}", expected.start, expected.end - 1));
    }
    // Nothing says which form it is of, or it says the original.
    for if_range in ["", "\"v1\""] {
        let part = ranged("100-199", "br, gzip", if_range).await;
        part.expect(206, &body[100..200]).no_header("content-encoding").header("etag", "\"v1\"");
    }
    // A form that is not there, of another version, or that the client does not take any more.
    for (if_range, accept) in
        [("\"v1~br.ffffff\"", "br"), ("\"v0~br.1\"", "br"), ("\"v0\"", "br"), (tag.as_str(), "identity")]
    {
        let answer = ranged("5-9", accept, if_range).await;
        answer.status(200);
        assert_eq!(
            decoded(&answer.body, answer.headers.get("content-encoding").map_or("", |value| value.to_str().unwrap()))
                .await,
            body
        );
    }
    let date = whole.field("last-modified");
    ranged("5-9", "br", &date).await.expect(200, &body);
    ranged("5-9", "identity", &date).await.expect(206, &body[5..10]);
}

#[tokio::test]
async fn a_purge_takes_all_forms_and_a_restart_none() {
    let (origin, mut host) = serving(page(text(1, 50_000)).header("surrogate-key", "t")).await;
    for (round, purge) in [
        json!({ "host": "a.test", "path": "/a" }),
        json!({ "tag": "t" }),
        json!({ "host": "a.test" }),
        json!({ "all": true }),
    ]
    .into_iter()
    .enumerate()
    {
        let body = text(round as u64, 50_000);
        origin.set("/a", tagged(body.clone(), &format!("\"r{round}\"")).header("surrogate-key", "t"));
        host.purge(purge).await;
        let answer = taking(&host, "GET", "gzip").send().await;
        answer.expect(200, &body).cache("miss").no_header("content-encoding");
        let answer = form(&host, "gzip", "gzip").await;
        assert_eq!(decoded(&answer.body, "gzip").await, body);
    }
    let before = form(&host, "gzip", "gzip").await;
    tokio::time::sleep(secs(1)).await;
    host.restart().await;
    let after = taking(&host, "GET", "gzip").send().await;
    after
        .expect(200, &before.body)
        .cache("hit")
        .header("content-encoding", "gzip")
        .header("etag", &before.field("etag"));
    assert_eq!(host.metric("proxyhost_proxy_compressed_total").await, 0.0);
    assert_eq!(origin.requests(), 4);
}

#[tokio::test]
async fn a_soft_purge_and_a_304_leave_the_form_and_a_new_version_does_not() {
    let body = text(1, 50_000);
    let (origin, host) = serving(page(body.clone())).await;
    host.get("/a").await.status(200);
    let made = form(&host, "br", "br").await;
    host.purge(json!({ "host": "a.test", "path": "/a", "mode": "soft" })).await;
    let again = taking(&host, "GET", "br").send().await;
    again.expect(200, &made.body).cache("revalidated").header("content-encoding", "br");
    assert!(again.number("age") < 5);
    let new = text(2, 50_000);
    origin.set("/a", tagged(new.clone(), "\"v2\""));
    host.purge(json!({ "host": "a.test", "path": "/a", "mode": "soft" })).await;
    let answer = taking(&host, "GET", "br").header("if-none-match", &made.field("etag")).send().await;
    answer.expect(200, &new).no_header("content-encoding");
    let answer = form(&host, "br", "br").await;
    assert_eq!(decoded(&answer.body, "br").await, new);
    assert_ne!(answer.field("etag"), made.field("etag"));
    // Forms are not what is asked for again.
    host.purge(json!({ "host": "a.test", "path": "/a", "mode": "refresh" })).await;
    while host.stats().await["refetches"] != 0 {
        tokio::time::sleep(millis(20)).await;
    }
    assert_eq!(host.metric("proxyhost_purge_refetched_total").await, 1.0);
    assert_eq!(host.metric("proxyhost_purge_not_refetched_total").await, 0.0);
    taking(&host, "GET", "br").send().await.expect(200, &answer.body).header("etag", &answer.field("etag"));
}

#[tokio::test]
async fn versions_that_change_under_load_never_mix() {
    let origin = Origin::start().await;
    let host = Host::with(vhost("a.test").origin(&origin).set("compress", true)).await;
    for version in 0..30u64 {
        let body = text(version, 40_000);
        let tag = format!("\"v{version}\"");
        origin.set("/a", tagged(body.clone(), &tag));
        host.purge(json!({ "host": "a.test", "path": "/a" })).await;
        for accept in ["gzip", "br", "identity", "zstd", "gzip", "br"] {
            let answer = taking(&host, "GET", accept).send().await;
            let coding = answer.headers.get("content-encoding").map_or("", |value| value.to_str().unwrap());
            assert_eq!(decoded(&answer.body, coding).await, body, "version {version} as {coding}");
            assert!(answer.field("etag").starts_with(tag.trim_end_matches('"')), "{}", answer.field("etag"));
        }
    }
}

#[tokio::test]
async fn what_is_not_to_be_touched_is_not() {
    let body = text(1, 20_000);
    let html = |body: Vec<u8>| ok(body).cache_control("max-age=600").header("content-type", "text/html");
    let origin = Origin::serving("/transform", html(body.clone()).header("cache-control", "No-Transform")).await;
    origin.set("/small", html(text(1, 300)));
    origin.set("/picture", ok(body.clone()).cache_control("max-age=600").header("content-type", "image/png"));
    origin.set("/untyped", ok(body.clone()).cache_control("max-age=600").header("content-type", ""));
    origin.set("/chain", html(body.clone()).header("content-encoding", "gzip, br"));
    origin.set("/unknown", html(body.clone()).header("content-encoding", "dcb"));
    origin.set("/missing", reply(404, body.clone()).cache_control("max-age=600").header("content-type", "text/html"));
    origin.set("/a", ok(generated(1, 20_000)).cache_control("max-age=600").header("content-type", "text/plain"));
    let plain = vhost("b.test").origin(&origin);
    let host = setup().vhost(vhost("a.test").origin(&origin).set("compress", true)).vhost(plain).start().await;
    for path in ["/transform", "/small", "/picture", "/untyped", "/chain", "/unknown", "/missing"] {
        let before = host.get(path).await;
        for _ in 0..5 {
            let answer = host.call("GET", path).header("accept-encoding", "br, gzip").send().await;
            assert_eq!(answer.body, before.body, "{path}");
            assert_eq!(answer.headers.get("content-encoding"), before.headers.get("content-encoding"), "{path}");
            answer.no_header("vary");
            tokio::time::sleep(millis(20)).await;
        }
    }
    // What does not get smaller is tried once.
    for _ in 0..3 {
        taking(&host, "GET", "gzip").send().await.expect(200, pattern(1, 0..20_000)).no_header("content-encoding");
    }
    left(&host, 1.0).await;
    taking(&host, "GET", "gzip").send().await.expect(200, pattern(1, 0..20_000)).no_header("content-encoding");
    assert_eq!(host.metric("proxyhost_proxy_not_compressed_total").await, 1.0);
    // Not this host's wish.
    for _ in 0..3 {
        host.call("GET", "/a").host("b.test").header("accept-encoding", "gzip").send().await.no_header("vary");
    }
}

#[tokio::test]
async fn strangers_make_no_more_than_a_few_variants() {
    let origin = Origin::answering(|request: &Seen| {
        let accept = request.header("accept-encoding").to_owned();
        ok(accept).cache_control("max-age=600").vary("Accept-Encoding")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin).set("compress", true)).await;
    for number in 0..60 {
        for accept in [
            format!("gzip;q=0.{number:03}1").replace("0.0", "0."),
            format!("br, x{number}"),
            format!("gzip, br;q=0.{}, x{number};q=0.3", number % 9 + 1),
            format!("*;q=0.{}", number % 9 + 1),
            format!("{number}"),
            format!("malformed {number}"),
        ] {
            taking(&host, "GET", &accept).send().await.status(200);
        }
    }
    assert!(origin.requests() <= 9, "{}", origin.requests());
    taking(&host, "GET", "zstd;q=0.3, gzip").send().await.expect(200, "zstd, gzip");
    host.call("GET", "/b").send().await.expect(200, "");
}

#[tokio::test]
async fn a_large_body_is_compressed_without_lying_in_memory() {
    let body = text(3, 60_000_000);
    let origin = Origin::serving("/a", page(body.clone())).await;
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).set("compress", json!({ "encodings": ["gzip"] })))
        .config(json!({ "cache": { "memory": "8MiB" } }))
        .start()
        .await;
    host.get("/a").await.expect(200, &body);
    let before = host.memory();
    let answer = form(&host, "gzip, br", "gzip").await;
    assert_eq!(decoded(&answer.body, "gzip").await, body);
    let grown = host.memory().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes");
}

#[tokio::test]
async fn rules_say_by_path_what_is_compressed() {
    let body = text(1, 20_000);
    let origin = Origin::serving("/a/x", page(body.clone())).await;
    origin.set("/b/x", page(body.clone()));
    origin.set("/c/x", page(body.clone()));
    let rules = json!([
        { "path": "/b/*", "compress": false },
        { "path": "/c/*", "compress": { "encodings": ["gzip"] } },
    ]);
    let host = Host::with(vhost("a.test").origin(&origin).set("compress", true).set("rules", rules)).await;
    let ask = |path: &str| host.call("GET", path).header("accept-encoding", "gzip, br").send();
    for path in ["/a/x", "/b/x", "/c/x"] {
        ask(path).await.expect(200, &body);
    }
    for (path, coding) in [("/a/x", "br"), ("/c/x", "gzip")] {
        let answer = form_of(&host, path, "gzip, br", coding).await;
        assert_eq!(decoded(&answer.body, coding).await, body);
    }
    ask("/b/x").await.expect(200, &body).no_header("content-encoding").no_header("vary");
}

#[tokio::test]
async fn of_several_tags_one_whose_form_is_there_counts() {
    let (_origin, host) = serving(page(text(1, 50_000))).await;
    let made = form(&host, "gzip", "gzip").await;
    let tag = made.field("etag");
    let gone = tag.replace("gzip.", "gzip.f");
    let other = tag.replace("~gzip", "~br");
    for tags in
        [format!("\"nope\", {tag}"), format!("{tag}, {gone}"), format!("{gone}, {tag}"), format!("{other}, {tag}")]
    {
        let answer = taking(&host, "GET", "gzip, br").header("if-match", &tags).send().await;
        answer.expect(200, &made.body).header("etag", &tag);
    }
    for tags in [format!("\"nope\", {gone}"), format!("{gone}, {other}")] {
        taking(&host, "GET", "gzip").header("if-match", &tags).send().await.status(412);
    }
    taking(&host, "GET", "gzip").header("if-match", &format!("{gone}, \"v1\"")).send().await.status(200);
}

/// Bytes that the process has read so far, from files and sockets.
fn bytes_read(host: &Host) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", host.pid())).expect("it runs");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a count");
    line.parse().expect("a number")
}

#[tokio::test]
async fn no_more_of_a_form_is_read_than_goes_out() {
    let body = text(5, 24_000_000);
    let origin = Origin::serving("/a", page(body.clone())).await;
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).set("compress", json!({ "encodings": ["gzip"] })))
        .config(json!({ "cache": { "memory": "1MiB" } }))
        .start()
        .await;
    host.get("/a").await.expect(200, &body);
    let made = form(&host, "gzip", "gzip").await;
    assert!(made.body.len() > 4 << 20, "{}", made.body.len());
    let tag = made.field("etag");
    let last = made.body.len() - 1;
    let before = bytes_read(&host);
    for _ in 0..10 {
        taking(&host, "HEAD", "gzip").send().await.expect(200, "").header("etag", &tag);
        taking(&host, "GET", "gzip").header("if-none-match", &tag).send().await.expect(304, "");
        let part = taking(&host, "GET", "gzip").range(&format!("{last}-")).header("if-range", &tag).send().await;
        part.expect(206, &made.body[last..]);
    }
    // Ten times the slice in which the byte lies, checked and read.
    let read = bytes_read(&host) - before;
    assert!(read < 24 << 20, "{read} bytes");
}
