//! What came compressed, for clients that do not take it so: never as it came, however much there is to do, and never as a
//! connection that closes without an answer.

use harness::prelude::*;

use crate::compression::{CODINGS, encoded, page, serving, tagged, taking, text};

#[tokio::test]
async fn what_came_compressed_is_decompressed_for_who_does_not_take_it() {
    let body = text(1, 2_000_000);
    for coding in CODINGS {
        let coded = encoded(&body, coding).await;
        let (origin, host) = serving(page(coded.clone()).header("content-encoding", coding)).await;
        for round in ["miss", "hit"] {
            let answer = taking(&host, "GET", "identity").send().await;
            answer.expect(200, &body).cache(round).no_header("content-encoding");
            answer.header("etag", "W/\"v1\"").header("vary", "Accept-Encoding").header("accept-ranges", "none");
        }
        host.get("/a").await.expect(200, &body).cache("hit");
        let head = host.head("/a").await;
        head.expect(200, "").no_header("content-encoding").no_header("content-length").header("etag", "W/\"v1\"");
        host.call("GET", "/a").range("0-9").send().await.expect(200, &body);
        host.call("GET", "/a").header("if-none-match", "W/\"v1\"").send().await.expect(304, "");
        let answer = taking(&host, "GET", &format!("{coding};q=0.1")).send().await;
        answer
            .expect(200, &coded)
            .header("content-encoding", coding)
            .header("etag", "\"v1\"")
            .header("vary", "Accept-Encoding");
        taking(&host, "GET", coding).range("0-9").send().await.expect(206, &coded[..10]);
        assert_eq!(origin.requests(), 1);
    }
}

#[tokio::test]
async fn a_bomb_breaks_off_and_is_known_from_then_on() {
    let bomb = encoded(&vec![0; 300 << 20], "gzip").await;
    assert!(bomb.len() < 1 << 20);
    let origin = Origin::serving("/a", page(bomb.clone()).header("content-encoding", "gzip")).await;
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).set("compress", true))
        .config(json!({ "cache": { "memory": "8MiB" } }))
        .start()
        .await;
    taking(&host, "GET", "gzip").send().await.expect(200, &bomb);
    let before = host.memory();
    host.call("GET", "/a").attempt().await.expect_err("it breaks off");
    let grown = host.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    for _ in 0..2 {
        let answer = host.get("/a").await;
        answer.status(502).header("proxy-status", "proxyhost; error=http_response_content_coding; coding=gzip");
    }
    taking(&host, "GET", "gzip").send().await.expect(200, &bomb);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_is_not_what_it_says_is_answered_and_fetched_again() {
    let (origin, host) = serving(page(b"this is no gzip".to_vec()).header("content-encoding", "gzip")).await;
    taking(&host, "GET", "gzip").send().await.expect(200, "this is no gzip");
    let answer = host.get("/a").await;
    answer.status(502).header("proxy-status", "proxyhost; error=http_response_content_coding; coding=gzip");
    answer.header("cache-control", "no-store").no_header("content-encoding").no_header("etag");
    assert_eq!(host.metric("proxyhost_proxy_not_decompressed_total").await, 1.0);
    origin.set("/a", tagged(encoded(b"mended", "gzip").await, "\"v2\"").header("content-encoding", "gzip"));
    // What is forgotten while it is still being written down comes back, once.
    let mended = host.get_until("/a", |answer| answer.status == 200).await;
    mended.expect(200, "mended").no_header("content-encoding").header("etag", "W/\"v2\"");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn nothing_at_all_and_what_is_padded_are_decompressed() {
    let (origin, host) = serving(page(Vec::new()).header("content-encoding", "gzip")).await;
    for _ in 0..2 {
        host.get("/a").await.expect(200, "").no_header("content-encoding");
    }
    let padded = [encoded(b"one, ", "gzip").await, encoded(b"two", "gzip").await, vec![0; 512]].concat();
    origin.set("/a", tagged(padded, "\"v2\"").header("content-encoding", "gzip"));
    host.purge(json!({ "all": true })).await;
    for _ in 0..2 {
        host.get("/a").await.expect(200, "one, two").no_header("content-encoding");
    }
}

#[tokio::test]
async fn other_statuses_and_what_is_not_kept_are_decompressed_too() {
    let body = text(4, 300_000);
    let coded = encoded(&body, "gzip").await;
    for status in [200, 404, 500] {
        for control in ["max-age=600", "private, max-age=600", "no-store"] {
            let reply = reply(status, coded.clone()).header("content-encoding", "gzip").cache_control(control);
            let (_origin, host) = serving(reply).await;
            for _ in 0..2 {
                let answer = host.get("/a").await;
                answer.expect(status, &body).no_header("content-encoding").header("vary", "Accept-Encoding");
                let answer = taking(&host, "GET", "gzip").send().await;
                answer.expect(status, &coded).header("content-encoding", "gzip").header("vary", "Accept-Encoding");
            }
        }
    }
}

#[tokio::test]
async fn clients_that_do_not_read_take_nothing_from_others() {
    let body = text(6, 30_000_000);
    let coded = encoded(&body, "br").await;
    let (origin, host) = serving(page(coded.clone()).header("content-encoding", "br")).await;
    let small = text(7, 1_000_000);
    origin.set("/b", tagged(encoded(&small, "gzip").await, "\"b\"").header("content-encoding", "gzip"));
    taking(&host, "GET", "br").send().await.expect(200, &coded);
    let before = host.memory();
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let streaming = host.call("GET", "/a").open().await.expect("an answer");
        stalled.push(streaming);
    }
    for _ in 0..3 {
        host.get("/b").await.expect(200, &small).no_header("content-encoding");
        host.get("/a").await.expect(200, &body).no_header("content-encoding");
    }
    let grown = host.memory().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown} bytes");
    assert_eq!(host.metric("proxyhost_proxy_not_decompressed_total").await, 0.0);
    drop(stalled);
    assert_eq!(origin.requests(), 2);
}
