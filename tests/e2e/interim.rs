//! Interim responses of an origin (issue 4, line 5): passed on to whoever waits over HTTP/1.1, kept by nobody.

use harness::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n";

/// An origin that says 102 and 103 before it answers, and answers when it is told to.
async fn hinting() -> (Value, tokio::sync::mpsc::UnboundedSender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (go, goes) = tokio::sync::mpsc::unbounded_channel();
    let goes = std::sync::Arc::new(tokio::sync::Mutex::new(goes));
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let goes = goes.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(1..) = stream.read(&mut bytes).await {
                    let _ = stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await;
                    let _ = stream.write_all(HINTS.as_bytes()).await;
                    goes.lock().await.recv().await;
                    let answer = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\n\r\nfinal";
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    (json!({ "http": { "url": url } }), go, serving)
}

async fn until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = tokio::time::timeout(secs(10), stream.read_u8()).await;
        match byte.unwrap_or_else(|_| panic!("{end:?} never comes: {text:?}")) {
            Ok(byte) => text.push(char::from(byte)),
            Err(_) => panic!("the end before {end:?}: {text:?}"),
        }
    }
    text
}

#[tokio::test]
async fn hints_go_to_whoever_waits_before_the_answer_and_are_kept_by_nobody() {
    let certificate = Certificate::for_names(&["a.test"]);
    let (origin, go, _serving) = hinting().await;
    let tls = json!({ "listen": { "https": ["127.0.0.1:0"] }, "tls": { "certificates": [certificate.files()] } });
    let host = setup().config(tls).vhost(vhost("a.test").origin(&origin).set("redirect_http", false)).start().await;
    let ask = |path: &str, version: &str| format!("GET {path} HTTP/{version}\r\nHost: a.test\r\n\r\n");

    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    // The second request waits behind the first: its hints do not come into the first answer.
    stream.write_all((ask("/a", "1.1") + &ask("/b", "1.1")).as_bytes()).await.unwrap();
    for _ in 0..2 {
        let hints = until(&mut stream, "rel=preload\r\n\r\n").await;
        assert_eq!(hints.matches("HTTP/1.1 10").count(), 2, "{hints}");
        assert!(hints.starts_with("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n"), "{hints}");
        assert!(!hints.contains("x-hop"), "{hints}");
        go.send(()).unwrap();
        let answer = until(&mut stream, "final").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("preload"), "{answer}");
    }
    // Kept is the answer alone.
    stream.write_all(ask("/a", "1.1").as_bytes()).await.unwrap();
    let hit = until(&mut stream, "final").await;
    assert!(hit.starts_with("HTTP/1.1 200 OK\r\n") && hit.contains("hit"), "{hit}");

    // Over TLS as well, where other bytes go out.
    let secure = Secure::trusting(&certificate, "a.test");
    let tcp = TcpStream::connect(host.tls_address()).await.unwrap();
    let mut stream = secure.connect(tcp, &[b"http/1.1"]).await.unwrap();
    stream.write_all(ask("/c", "1.1").as_bytes()).await.unwrap();
    assert!(until(&mut stream, "rel=preload\r\n\r\n").await.starts_with("HTTP/1.1 102 "));
    go.send(()).unwrap();
    assert!(until(&mut stream, "final").await.starts_with("HTTP/1.1 200 OK\r\n"));

    // Those who do not know them, or could not take them, get the answer.
    go.send(()).unwrap();
    let mut old = TcpStream::connect(host.address()).await.unwrap();
    old.write_all(ask("/d", "1.0").as_bytes()).await.unwrap();
    let answer = until(&mut old, "final").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") || answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    go.send(()).unwrap();
    host.tls(&secure, "a.test", "/e").http2().send().await.expect(200, "final");
}
