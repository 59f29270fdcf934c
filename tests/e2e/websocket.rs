//! WebSocket through to an http origin (issue 4, line 5): the policy decides first, other hosts refuse, bytes go both ways.

use harness::policies;
use harness::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// An origin that agrees to every handshake and says back whatever comes, or refuses with 403 when asked for `/no`.
async fn echo() -> (String, tokio::task::JoinHandle<()>) {
    let (url, serving, _) = listening_echo().await;
    (url, serving)
}

/// The same, which tells what came after it had closed its own side, when asked for `/half`.
async fn listening_echo() -> (String, tokio::task::JoinHandle<()>, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heard = heard.clone();
            tokio::spawn(async move {
                let head = head(&mut stream).await.to_ascii_lowercase();
                if head.starts_with("get /no ") {
                    let refusal = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
                    return drop(stream.write_all(refusal.as_bytes()).await);
                }
                if head.starts_with("get /h2c ") {
                    let other = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
                    return drop(stream.write_all(other.as_bytes()).await);
                }
                if head.starts_with("get /half ") {
                    let agreed =
                        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbye";
                    let _ = stream.write_all(agreed.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    let mut all = Vec::new();
                    let _ = stream.read_to_end(&mut all).await;
                    return drop(heard.send(all));
                }
                let asked = head.contains("upgrade: websocket\r\n") && head.contains("sec-websocket-key: abc\r\n");
                let accept = if asked { "abc" } else { "nothing" };
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-accept: {accept}\r\n\r\nhello"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let mut buffer = vec![0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let _ = stream.write_all(&buffer[..read]).await;
                }
            });
        }
    });
    (url, serving, hears)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn shake(host: &Host, path: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: abc\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut stream).await;
    (stream, head)
}

async fn told(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut told = vec![0; bytes];
    tokio::time::timeout(secs(10), stream.read_exact(&mut told)).await.expect("it is answered").expect("it is whole");
    told
}

#[tokio::test]
async fn bytes_go_both_ways_once_the_origin_agrees() {
    let (url, _origin) = echo().await;
    let origin = json!({ "http": { "url": url } });
    let mut host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    let (mut stream, head) = shake(&host, "/chat").await;
    let lower = head.to_ascii_lowercase();
    assert!(head.starts_with("HTTP/1.1 101 ") && lower.contains("sec-websocket-accept: abc\r\n"), "{head}");
    assert!(lower.contains("upgrade: websocket\r\n") && lower.contains("connection: upgrade\r\n"), "{head}");
    assert_eq!(told(&mut stream, 5).await, b"hello");
    // What is no HTTP at all passes, in large pieces too.
    let frames = generated(7, 300_000);
    let sent = pattern(7, 0..300_000);
    drop(frames);
    let (mut read, mut write) = stream.split();
    let writing = async { write.write_all(&sent).await.unwrap() };
    let reading = async {
        let mut back = vec![0; 300_000];
        read.read_exact(&mut back).await.unwrap();
        back
    };
    let ((), back) = tokio::time::timeout(secs(20), async { tokio::join!(writing, reading) }).await.unwrap();
    assert!(back == sent, "it came back as it was sent");
    host.stdout_line("\"GET /chat HTTP/1.1\" 101").await;
    assert!(host.metric("proxyhost_listener_connections").await >= 1.0, "a tunnel counts as a connection");
    // The end of one side is the end of the other.
    write.shutdown().await.unwrap();
    assert_eq!(read.read(&mut [0; 16]).await.unwrap(), 0);
    // What the origin refuses is its answer.
    let (_, refused) = shake(&host, "/no").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    // A tunnel does not keep the program from ending.
    let (_open, _) = shake(&host, "/chat").await;
    host.signal(libc::SIGTERM);
    host.signal(libc::SIGKILL);
    host.ended().await;
}

#[tokio::test]
async fn the_policy_decides_first_and_hosts_that_are_only_read_refuse() {
    let (url, _origin) = echo().await;
    let origin = json!({ "http": { "url": url } });
    let denied = vhost("a.test").origin(&origin).set("methods", "all").wasm("deny.wasm", &policies::deny(), json!({}));
    let (_, head) = shake(&Host::with(denied).await, "/chat").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let (_, head) = shake(&Host::with(vhost("a.test").origin(&origin)).await, "/chat").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    // CONNECT is no way through either, and a handshake brings no body.
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    let shake = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    let answer = host.raw(format!("{shake}Content-Length: 5\r\n\r\nhello")).await;
    assert_eq!(answer.status(), 400, "{}", answer.text());
    let answer = host.raw("CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n").await;
    assert_eq!(answer.status(), 405, "{}", answer.text());
}

#[tokio::test]
async fn one_side_may_end_before_the_other_and_nothing_is_lost() {
    let (url, _origin, mut heard) = listening_echo().await;
    let origin = json!({ "http": { "url": url } });
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    let (mut stream, head) = shake(&host, "/half").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(told(&mut stream, 3).await, b"bye");
    for number in 0..8 {
        stream.write_all(format!("data{number};").as_bytes()).await.unwrap();
        tokio::time::sleep(millis(30)).await;
    }
    stream.shutdown().await.unwrap();
    let all = tokio::time::timeout(secs(10), heard.recv()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&all), "data0;data1;data2;data3;data4;data5;data6;data7;");
}

#[tokio::test]
async fn an_origin_that_changes_to_another_protocol_is_broken() {
    let (url, _origin) = echo().await;
    let origin = json!({ "http": { "url": url } });
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    let (_stream, head) = shake(&host, "/h2c").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}
