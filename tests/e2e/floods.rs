//! Floods of HTTP/2 frames (issue 4, line 5): the attacker is cut off and told of in metrics, others notice nothing.

use harness::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame: type, flags, stream, payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, (payload.len() >> 8) as u8, payload.len() as u8, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A head that asks for `/x` of `a.test`, in HPACK without the dynamic table: stream after stream.
fn request(stream: u32, flags: u8) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, 2];
    block.extend_from_slice(b"/x");
    block.extend_from_slice(&[0x01, 6]);
    block.extend_from_slice(b"a.test");
    frame(1, flags, stream, &block)
}

/// Sends a preface and pieces until the server closes; tells how many pieces went out.
async fn flood(host: &Host, piece: impl Fn(u32) -> Vec<u8>, most: u32) -> u32 {
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let mut first = PREFACE.to_vec();
    first.extend_from_slice(&frame(4, 0, 0, &[]));
    stream.write_all(&first).await.unwrap();
    let (mut read, mut write) = stream.split();
    let reading = async {
        let mut waste = vec![0; 64 << 10];
        while let Ok(1..) = read.read(&mut waste).await {}
    };
    let sent = std::cell::Cell::new(0);
    let writing = async {
        for number in 0..most {
            if write.write_all(&piece(number)).await.is_err() {
                return;
            }
            sent.set(number);
            if number % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::time::timeout(secs(20), async {
        tokio::select! { () = reading => {}, () = writing => {} }
    })
    .await
    .expect("the connection is closed");
    sent.get()
}

#[tokio::test]
async fn floods_end_their_connection_and_no_other() {
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=600")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/x").await.expect(200, "x");
    let opaque = [7; 8];
    type Piece = Box<dyn Fn(u32) -> Vec<u8>>;
    let floods: Vec<(&str, Piece)> = vec![
        ("ping", Box::new(move |_| frame(6, 0, 0, &opaque))),
        ("settings", Box::new(|_| frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]))),
        ("priority", Box::new(|number| frame(2, 0, 2 * number + 1, &[0, 0, 0, 0, 1]))),
        ("window-update", Box::new(|_| frame(8, 0, 0, &[0, 0, 0, 1]))),
        ("unknown", Box::new(|_| frame(0xee, 0, 0, &[]))),
        (
            "reset",
            Box::new(|number| {
                let stream = 2 * number + 1;
                [request(stream, 5), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
            }),
        ),
    ];
    for (kind, piece) in floods {
        let sent = flood(&host, piece, 100_000).await;
        assert!(sent < 99_000, "{kind}: {sent} went through");
        host.get("/x").await.expect(200, "x").cache("hit");
        host.call("GET", "/x").http2().send().await.expect(200, "x");
    }
    // Streams that are reset before we have taken them are the protocol's own to count.
    for kinds in [&["ping"][..], &["settings"], &["unknown"], &["reset", "protocol"]] {
        counted(&host, kinds).await;
    }
}

/// Waits until a flood of one of these kinds is counted: that is done when its connection has gone, a moment behind its end.
async fn counted(host: &Host, kinds: &[&str]) {
    let mut metrics = String::new();
    for _ in 0..1000 {
        metrics = host.metrics().await;
        if kinds.iter().any(|kind| metrics.contains(&format!("floods_total{{kind=\"{kind}\"}}"))) {
            return;
        }
        tokio::time::sleep(millis(10)).await;
    }
    panic!("no flood of {kinds:?} is counted: {metrics}");
}

#[tokio::test]
async fn a_head_of_too_many_fields_gets_431_in_either_version() {
    let origin = Origin::serving("/x", ok("x")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let many = |mut call: Call, fields: usize| {
        for number in 0..fields {
            call = call.header(&format!("x-{number}"), "y");
        }
        call
    };
    many(host.call("GET", "/x").http2(), 150).send().await.status(431);
    many(host.call("GET", "/x"), 150).send().await.status(431);
    many(host.call("GET", "/x").http2(), 90).send().await.status(200);
}
