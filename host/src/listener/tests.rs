//! The listener with real sockets: what clients do to it, and what they get.

use std::io;

use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::telemetry::metrics::TimeoutLabels;

const HEAD: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(800);
const STALL: Duration = Duration::from_millis(600);

/// Far more than any wait here needs, on a machine that does much else.
const LONG: Duration = Duration::from_secs(20);

/// Answers by path.
pub(super) struct Testing;

impl Service for Testing {
    type Body = BoxBody<Bytes, io::Error>;
    type Future = BoxFuture<'static, Result<Response<Self::Body>, Infallible>>;

    fn call(&self, connection: &Arc<Connection>, request: Request<RequestBody>) -> Self::Future {
        let peer = connection.peer;
        Box::pin(async move {
            let full = |text: String| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
            let body = match request.uri().path() {
                "/slow" => {
                    sleep(STALL * 2).await;
                    full("slow".to_owned())
                }
                "/huge" => {
                    let piece = Bytes::from(vec![b'x'; 1 << 20]);
                    let pieces = futures_util::stream::repeat(piece).take(256);
                    BodyExt::boxed(StreamBody::new(pieces.map(|piece| Ok(http_body::Frame::data(piece)))))
                }
                "/echo" => match request.into_body().collect().await {
                    Ok(body) => full(format!("{} bytes", body.to_bytes().len())),
                    Err(error) => full(format!("failed: {error}")),
                },
                "/early" => {
                    let body = request.into_body();
                    tokio::spawn(async move {
                        sleep(LONG).await;
                        drop(body);
                    });
                    full("early".to_owned())
                }
                "/never" => {
                    std::future::pending::<()>().await;
                    full(String::new())
                }
                _ => full(format!("hello {}", peer.ip())),
            };
            Ok(Response::new(body))
        })
    }
}

struct Host {
    listening: Listening,
    metrics: Arc<Metrics>,
}

impl Host {
    async fn start() -> Self {
        Self::asking_for(1).await
    }

    /// With this least rate.
    async fn asking_for(least_rate: u64) -> Self {
        Self::with(least_rate, IDLE).await
    }

    async fn with(least_rate: u64, idle_timeout: Duration) -> Self {
        let settings = Settings {
            least_rate,
            head_timeout: HEAD,
            idle_timeout,
            stall_timeout: STALL,
            ..Settings::at("test", vec![Address::parse("127.0.0.1:0").expect("an address")])
        };
        let (metrics, _registry) = Metrics::new();
        let listening = Listening::bind(settings, Arc::new(Testing), metrics.clone()).await.expect("a free port");
        Self { listening, metrics }
    }

    fn address(&self) -> SocketAddr {
        self.listening.addresses()[0].ip().expect("an address")
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.expect("the listener accepts")
    }

    fn timeouts(&self, limit: &'static str) -> u64 {
        self.metrics.connection_timeouts.get_or_create(&TimeoutLabels { limit }).get()
    }

    async fn until_none_is_open(&self) {
        let begun = Instant::now();
        while self.metrics.connections.get() > 0 {
            assert!(begun.elapsed() < LONG, "connections stay open");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    stream.write_all(bytes.as_ref()).await.expect("the listener reads");
}

/// Reads until the end of the connection, in whatever way it comes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the connection is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until the text has come.
async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    timeout(LONG, async {
        loop {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).await.expect("readable");
            seen.extend_from_slice(&piece[..read]);
            let so_far = String::from_utf8_lossy(&seen).into_owned();
            if so_far.contains(text) {
                return so_far;
            }
            assert!(read > 0, "closed after {so_far:?}");
        }
    })
    .await
    .expect("the text comes in time")
}

#[tokio::test]
async fn requests_share_a_connection_and_may_be_pipelined() {
    let host = Host::start().await;
    let mut stream = host.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let seen = until(&mut stream, "slow").await;
    assert!(seen.contains("hello 127.0.0.1"), "{seen}");
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(rest(&mut stream).await.contains("hello 127.0.0.1"));
    host.until_none_is_open().await;
    assert_eq!(host.metrics.connections_accepted.get(), 1);
}

#[tokio::test]
async fn a_silent_and_a_slow_head_are_closed_in_time() {
    let host = Host::start().await;
    let begun = Instant::now();
    let mut silent = host.connect().await;
    let mut slow = host.connect().await;
    let dribble = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Padding: aaaaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle() {
            sleep(HEAD / 20).await;
            if slow.write_all(&[*byte]).await.is_err() || begun.elapsed() > LONG {
                break;
            }
        }
    };
    let (silent, ()) = tokio::join!(rest(&mut silent), dribble);
    assert_eq!(silent, "");
    assert!(begun.elapsed() >= HEAD && begun.elapsed() < LONG);
    host.until_none_is_open().await;
    assert_eq!(host.timeouts("head"), 2);
}

#[tokio::test]
async fn a_head_that_is_slow_on_a_kept_connection_is_closed_too() {
    let host = Host::start().await;
    let mut stream = host.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut stream, "hello").await;
    send(&mut stream, "GET / HT").await;
    assert_eq!(rest(&mut stream).await, "");
    host.until_none_is_open().await;
    assert_eq!(host.timeouts("head"), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let host = Host::start().await;
    let mut stream = host.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut stream, "hello").await;
    let begun = Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(begun.elapsed() >= IDLE - Duration::from_millis(100));
    drop(stream);
    host.until_none_is_open().await;
    assert_eq!(host.timeouts("idle"), 1);
}

#[tokio::test]
async fn a_reader_that_stalls_is_cut_off_and_a_slow_one_is_not() {
    let host = Host::start().await;
    let mut stalled = host.connect().await;
    send(&mut stalled, "GET /huge HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut stalled, "200 OK").await;
    host.until_none_is_open().await;
    assert_eq!(host.timeouts("write"), 1);

    let mut slow = host.connect().await;
    send(&mut slow, "GET /huge HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let begun = Instant::now();
    let mut piece = vec![0; 1 << 20];
    while begun.elapsed() < STALL * 4 {
        let read = slow.read(&mut piece).await.expect("still open");
        assert!(read > 0, "still under way");
        sleep(STALL / 10).await;
    }
    assert_eq!(host.timeouts("write"), 1);
}

#[tokio::test]
async fn what_is_left_of_an_answered_upload_is_never_read_as_a_request() {
    let host = Host::with(1, LONG).await;
    let rest = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = host.connect().await;
    let head = format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 10 + rest.len());
    send(&mut client, format!("{head}0123456789")).await;
    until(&mut client, "early").await;
    // Long enough for a connection to rest, if it were idle.
    sleep(Duration::from_secs(3)).await;
    send(&mut client, rest).await;
    let mut more = [0; 64];
    let read = timeout(Duration::from_secs(1), client.read(&mut more)).await;
    assert!(read.is_err() || read.is_ok_and(|read| read.is_ok_and(|bytes| bytes == 0)), "{more:?}");
}

#[tokio::test]
async fn an_upload_that_stalls_fails_and_one_that_goes_on_does_not() {
    let host = Host::start().await;
    let mut stalled = host.connect().await;
    send(&mut stalled, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    until(&mut stalled, "failed: the client stopped sending its request body").await;

    let mut slow = host.connect().await;
    send(&mut slow, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n").await;
    until(&mut slow, "100 Continue").await;
    for _ in 0..6 {
        sleep(STALL / 3).await;
        send(&mut slow, "x").await;
    }
    until(&mut slow, "6 bytes").await;
}

#[tokio::test]
async fn heads_that_are_too_long_get_431_even_while_they_are_still_sent() {
    let host = Host::start().await;
    let mut stream = host.connect().await;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    send(&mut stream, head).await;
    assert!(until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 431 "));

    let mut stream = host.connect().await;
    send(&mut stream, format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101))).await;
    assert!(until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn nonsense_gets_400_or_the_door() {
    let host = Host::start().await;
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut stream = host.connect().await;
        send(&mut stream, nonsense).await;
        let seen = rest(&mut stream).await;
        let refused = ["HTTP/1.1 400 ", "HTTP/1.1 505 "].iter().any(|head| seen.starts_with(head));
        assert!(seen.is_empty() || refused, "{nonsense:?}: {seen}");
    }
    let mut stream = host.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut stream, "hello").await;
}

type H2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn h2(host: &Host) -> H2 {
    h2_with_window(host, 64 << 10).await
}

/// With a window of so many bytes for each stream.
async fn h2_with_window(host: &Host, window: u32) -> H2 {
    let io = TokioIo::new(host.connect().await);
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = client.initial_stream_window_size(window).handshake(io).await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://a.test{path}")).body(Empty::new()).expect("a legal request")
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let host = Host::start().await;
    let mut sender = h2(&host).await;
    let answers = futures_util::future::join_all((0..50).map(|_| sender.send_request(get("/")))).await;
    for answer in answers {
        let answer = answer.expect("answered");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "hello 127.0.0.1");
    }
    assert_eq!(host.metrics.connections_accepted.get(), 1);
    let mut big = get("/");
    let mut fields = HeaderMap::new();
    fields.insert("x", "x".repeat(70 << 10).parse().expect("a legal value"));
    big.headers_mut().extend(fields);
    let answer = timeout(LONG, sender.send_request(big)).await.expect("answered in time");
    // The client may also refuse by itself, for it knows our limit from our settings.
    assert!(
        answer.is_err() || answer.is_ok_and(|answer| answer.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    );
}

#[tokio::test]
async fn http2_streams_without_windows_are_cut_off() {
    let host = Host::asking_for(1 << 20).await;
    let mut sender = h2(&host).await;
    let answer = sender.send_request(get("/huge")).await.expect("answered");
    // Not read: the stream's window stays shut, whatever else goes on.
    let begun = Instant::now();
    while host.timeouts("window") == 0 {
        assert!(begun.elapsed() < LONG, "the stream stays");
        let other = sender.send_request(get("/")).await.expect("others go on");
        assert!(other.into_body().collect().await.is_ok());
        sleep(STALL / 4).await;
    }
    assert!(answer.into_body().collect().await.is_err());
    host.until_none_is_open().await;
}

#[tokio::test]
async fn http2_clients_that_do_not_take_a_last_piece_lose_the_connection() {
    let host = Host::asking_for(1 << 20).await;
    let mut sender = h2_with_window(&host, 1).await;
    let answer = sender.send_request(get("/")).await.expect("answered");
    let begun = Instant::now();
    while host.timeouts("window") == 0 {
        assert!(begun.elapsed() < LONG, "what the stream's window has no room for stays with h2");
        // The connection is not idle.
        let _ = sender.send_request(get("/slow")).await;
        sleep(STALL / 4).await;
    }
    assert!(answer.into_body().collect().await.is_err());
    host.until_none_is_open().await;
}

#[tokio::test]
async fn http2_connections_that_are_idle_are_closed_and_busy_ones_are_not() {
    let host = Host::start().await;
    let mut sender = h2(&host).await;
    let answer = sender.send_request(get("/slow")).await.expect("answered, however long it takes us");
    assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "slow");
    host.until_none_is_open().await;
    assert_eq!(host.timeouts("idle"), 1);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let host = Host::start().await;
    let address = host.address();
    let mut idle = host.connect().await;
    send(&mut idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut idle, "hello").await;
    let mut silent = host.connect().await;
    let mut busy = host.connect().await;
    send(&mut busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut second = h2(&host).await;
    let streaming = tokio::spawn(async move { second.send_request(get("/slow")).await });
    sleep(STALL / 2).await;

    let Host { listening, metrics } = host;
    let drained = tokio::spawn(async move { listening.drain(LONG).await });
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    let last = rest(&mut busy).await;
    assert!(last.to_lowercase().contains("connection: close") && last.ends_with("slow"), "{last}");
    let answer = streaming.await.expect("no panic").expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);
    drop(answer);
    timeout(LONG, drained).await.expect("drained in time").expect("no panic");
    assert_eq!(metrics.connections.get(), 0);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn addresses_change_while_connections_go_on() {
    let host = Host::start().await;
    let old = host.address();
    let mut open = host.connect().await;
    send(&mut open, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut open, "hello").await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = Address::Ip(holder.local_addr().expect("bound"));
    let error = host.listening.prepare(std::slice::from_ref(&taken)).err().expect("refused");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    TcpStream::connect(old).await.expect("nothing has changed");
    // Another loopback address, so that it is another door.
    let change = host.listening.prepare(&[Address::parse("127.0.0.2:0").expect("an address")]).expect("a free port");
    host.listening.apply(change);
    assert_eq!(host.listening.addresses().len(), 1);
    let mut fresh = TcpStream::connect(host.address()).await.expect("the new address accepts");
    send(&mut fresh, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut fresh, "hello").await;
    send(&mut open, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut open, "hello").await;
    for _ in 0..100 {
        if TcpStream::connect(old).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the old address still accepts");
}

#[tokio::test]
async fn sockets_that_were_handed_over_let_nobody_wait_in_vain_when_they_are_taken_back() {
    let host = Host::start().await;
    let handed = host.listening.hand_over().expect("it can be duplicated");
    assert_eq!((handed.len(), handed[0].listener.as_deref()), (1, Some("test")));
    // Who waits by then is let in.
    sleep(Duration::from_millis(100)).await;
    // Accepted by the kernel, and by nobody else yet.
    let mut waiting = TcpStream::connect(host.address()).await.expect("the socket is open");
    send(&mut waiting, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut byte = [0];
    assert!(timeout(STALL, waiting.peek(&mut byte)).await.is_err(), "nobody answers");
    host.listening.take_back();
    until(&mut waiting, "hello").await;
}

#[tokio::test]
async fn after_a_hand_over_whoever_has_nothing_under_way_may_ask_once() {
    let host = Host::start().await;
    let (mut idle, mut silent) = (host.connect().await, host.connect().await);
    send(&mut idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut idle, "hello").await;
    let mut second = h2(&host).await;
    second.ready().await.expect("it is up");
    let Host { listening, metrics } = host;
    let _handed = listening.hand_over().expect("it can be duplicated");
    let drained = tokio::spawn(async move { listening.drain_handed_over(LONG).await });
    assert!(timeout(STALL / 4, idle.peek(&mut [0])).await.is_err(), "it is not closed before it could ask");
    send(&mut idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let last = rest(&mut idle).await;
    assert!(last.to_lowercase().contains("connection: close") && last.contains("hello"), "{last}");
    send(&mut silent, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(rest(&mut silent).await.contains("hello"));
    timeout(LONG, drained).await.expect("drained in time").expect("no panic");
    assert_eq!(metrics.connections.get(), 0);
}

#[tokio::test]
async fn a_drain_ends_when_its_time_is_over() {
    let host = Host::start().await;
    let mut stuck = host.connect().await;
    send(&mut stuck, "GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut second = h2(&host).await;
    let stream = tokio::spawn(async move { second.send_request(get("/never")).await });
    sleep(STALL / 2).await;
    let Host { listening, metrics } = host;
    timeout(LONG, listening.drain(Duration::from_millis(200))).await.expect("drained in time");
    assert_eq!(metrics.connections.get(), 0);
    assert_eq!(rest(&mut stuck).await, "");
    assert!(stream.await.expect("no panic").is_err());
}
