//! A scripted HTTP origin on loopback, written on the bare socket so that it can misbehave in every way an origin does.
//!
//! Replies are values or closures by path; each says what goes out, how it is framed and what goes wrong on the way. Over TLS
//! the same replies are served by hyper, for HTTP/2.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::certs::Certificate;
use crate::content::Content;
use crate::host::AsOrigin;

/// One request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Request target as it came, or `:path` of HTTP/2.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Field lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
}

impl Seen {
    /// The first value of a field, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Whether the field was sent at all.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(n, _)| n == name)
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
    Claim(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterwards {
    Keep,
    SayClose,
    CloseSilently,
    SwallowNext,
}

/// What the origin answers.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    content: Content,
    framing: Framing,
    conditional: bool,
    ranged: bool,
    early: Vec<u8>,
    late: Option<Duration>,
    hang: bool,
    piece: usize,
    pause: Option<Duration>,
    cut_after: Option<u64>,
    gate: Option<(u64, watch::Receiver<bool>)>,
    garbage: Bytes,
    raw: Option<Bytes>,
    afterwards: Afterwards,
    no_date: bool,
}

/// Opens the way for a reply that waits in the middle of its body (or before its head).
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Lets the rest through, now and for all further requests.
    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

/// A reply of this status with this body.
pub fn reply(status: u16, content: impl Into<Content>) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        content: content.into(),
        framing: Framing::Length,
        conditional: false,
        ranged: false,
        early: Vec::new(),
        late: None,
        hang: false,
        piece: 64 * 1024,
        pause: None,
        cut_after: None,
        gate: None,
        garbage: Bytes::new(),
        raw: None,
        afterwards: Afterwards::Keep,
        no_date: false,
    }
}

/// 200 with this body.
pub fn ok(content: impl Into<Content>) -> Reply {
    reply(200, content)
}

/// A redirect.
pub fn redirect(status: u16, location: &str) -> Reply {
    reply(status, "").header("location", location)
}

/// An answer that never comes: the request is read and the connection stays open.
pub fn hang() -> Reply {
    let mut reply = ok("");
    reply.hang = true;
    reply
}

/// These bytes and the end of the connection, whatever they are.
pub fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
    let mut reply = ok("");
    reply.raw = Some(Bytes::from(bytes.into()));
    reply
}

impl Reply {
    /// Adds a field line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds Cache-Control.
    #[must_use]
    pub fn cache_control(self, value: &str) -> Self {
        self.header("cache-control", value)
    }

    /// Adds an entity tag, given with its quotes.
    #[must_use]
    pub fn etag(self, value: &str) -> Self {
        self.header("etag", value)
    }

    /// Adds Vary.
    #[must_use]
    pub fn vary(self, value: &str) -> Self {
        self.header("vary", value)
    }

    /// Adds Last-Modified.
    #[must_use]
    pub fn last_modified(self, at: SystemTime) -> Self {
        self.header("last-modified", &httpdate::fmt_http_date(at))
    }

    /// Answers If-None-Match, If-Modified-Since and If-Match by its own ETag and Last-Modified.
    #[must_use]
    pub fn conditional(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// Answers Range (one range) and If-Range.
    #[must_use]
    pub fn ranged(mut self) -> Self {
        self.ranged = true;
        self.header("accept-ranges", "bytes")
    }

    /// Sends no Date (an answer has one otherwise).
    #[must_use]
    pub fn no_date(mut self) -> Self {
        self.no_date = true;
        self
    }

    /// Sends the body in chunks.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Says no length: the body ends with the connection.
    #[must_use]
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// Claims this Content-Length, whatever the body is.
    #[must_use]
    pub fn claim_length(mut self, length: u64) -> Self {
        self.framing = Framing::Claim(length);
        self
    }

    /// Sends these bytes before the head: interim responses.
    #[must_use]
    pub fn early(mut self, bytes: &str) -> Self {
        self.early.extend_from_slice(bytes.as_bytes());
        self
    }

    /// Waits before the head.
    #[must_use]
    pub fn late(mut self, by: Duration) -> Self {
        self.late = Some(by);
        self
    }

    /// Sends the body in pieces of this size with this pause before each.
    #[must_use]
    pub fn slowly(mut self, piece: usize, pause: Duration) -> Self {
        self.piece = piece;
        self.pause = Some(pause);
        self
    }

    /// Sends so many bytes of the body and cuts the connection.
    #[must_use]
    pub fn cut_after(mut self, bytes: u64) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    /// Stops after so many bytes of the body until the gate is opened.
    #[must_use]
    pub fn gated(mut self, after: u64) -> (Self, Gate) {
        let (sender, receiver) = watch::channel(false);
        self.gate = Some((after, receiver));
        (self, Gate(Arc::new(sender)))
    }

    /// Sends these bytes after the end of the answer.
    #[must_use]
    pub fn garbage(mut self, bytes: &str) -> Self {
        self.garbage = Bytes::copy_from_slice(bytes.as_bytes());
        self
    }

    /// Says `Connection: close` and does so.
    #[must_use]
    pub fn say_close(mut self) -> Self {
        self.afterwards = Afterwards::SayClose;
        self
    }

    /// Closes the connection after the answer without having said so: a pooled connection that is dead.
    #[must_use]
    pub fn close_silently(mut self) -> Self {
        self.afterwards = Afterwards::CloseSilently;
        self
    }

    /// Reads the next request on this connection and closes it without an answer: a pooled connection that dies in use.
    #[must_use]
    pub fn swallow_next(mut self) -> Self {
        self.afterwards = Afterwards::SwallowNext;
        self
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The status, the range of the content and the extra fields that this request gets (RFC 9110 sections 13 and 14, as
    /// much of it as a sane origin does).
    fn settle(&self, request: &Seen) -> (u16, std::ops::Range<u64>, Option<String>) {
        let length = self.content.len();
        if self.status != 200 {
            return (self.status, 0..length, None);
        }
        let etag = self.field("etag");
        let modified = self.field("last-modified");
        if self.conditional {
            let among = |list: &str| {
                list.split(',')
                    .map(|tag| tag.trim().trim_start_matches("W/"))
                    .any(|tag| tag == "*" || etag.is_some_and(|etag| etag.trim_start_matches("W/") == tag))
            };
            if request.has("if-match") && !among(request.header("if-match")) {
                return (412, 0..0, None);
            }
            let unchanged = if request.has("if-none-match") {
                among(request.header("if-none-match"))
            } else {
                let since = httpdate::parse_http_date(request.header("if-modified-since")).ok();
                let at = modified.and_then(|text| httpdate::parse_http_date(text).ok());
                matches!((since, at), (Some(since), Some(at)) if at <= since)
            };
            if unchanged {
                return (304, 0..0, None);
            }
        }
        if self.ranged && request.method == "GET" {
            let holds = !request.has("if-range")
                || etag == Some(request.header("if-range"))
                || modified == Some(request.header("if-range"));
            if let Some(range) = request.header("range").strip_prefix("bytes=").filter(|_| holds) {
                let bounds = range.split_once('-').unwrap_or_default();
                let (start, end) = match (bounds.0.parse::<u64>(), bounds.1.parse::<u64>()) {
                    (Ok(start), Ok(last)) => (start, last.saturating_add(1).min(length)),
                    (Ok(start), Err(_)) => (start, length),
                    (Err(_), Ok(suffix)) => (length.saturating_sub(suffix), length),
                    (Err(_), Err(_)) => (0, length),
                };
                if start >= end {
                    return (416, 0..0, Some(format!("bytes */{length}")));
                }
                return (206, start..end, Some(format!("bytes {start}-{}/{length}", end - 1)));
            }
        }
        (200, 0..length, None)
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

#[derive(Default)]
struct Script {
    /// Exact path (or path and query), `*` for all others. The last one that fits counts.
    routes: Vec<(String, Handler)>,
    /// Answers that go first, one request each.
    once: VecDeque<(String, Reply)>,
    seen: Vec<Seen>,
}

#[derive(Default)]
struct State {
    script: Mutex<Script>,
    connections: AtomicU64,
    active: AtomicUsize,
    most_active: AtomicUsize,
    drop_idle: watch::Sender<u64>,
}

impl State {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes the request and finds its reply.
    fn answer(&self, request: &Seen) -> Reply {
        let mut script = self.script();
        script.seen.push(request.clone());
        let fits = |path: &str| path == request.target || path == request.path() || path == "*";
        if let Some(index) = script.once.iter().position(|(path, _)| fits(path))
            && let Some((_, reply)) = script.once.remove(index)
        {
            return reply;
        }
        let exact = script.routes.iter().rev().find(|(path, _)| path != "*" && fits(path));
        let handler =
            exact.or_else(|| script.routes.iter().rev().find(|(path, _)| path == "*")).map(|(_, h)| h.clone());
        drop(script);
        handler.map_or_else(|| reply(404, "the origin knows no such path"), |handler| handler(request))
    }
}

/// A running origin. It stops when it is dropped.
pub struct Origin {
    state: Arc<State>,
    address: SocketAddr,
    accepting: Option<AbortHandle>,
    tls: Option<Certificate>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Origin {
    /// Starts with one path.
    pub async fn serving(path: &str, reply: Reply) -> Self {
        Self::start().await.and(path, reply)
    }

    /// Starts with a closure that answers everything.
    pub async fn answering(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let origin = Self::start().await;
        origin.set_handler("*", handler);
        origin
    }

    /// Starts with no path at all: everything is 404.
    pub async fn start() -> Self {
        let (listener, address) = bind("127.0.0.1:0".parse().expect("a literal address")).await;
        let state = Arc::new(State::default());
        let accepting = Some(tokio::spawn(accept(listener, state.clone())).abort_handle());
        Self { state, address, accepting, tls: None }
    }

    /// Starts over TLS, with HTTP/2 and HTTP/1.1 by ALPN, with a certificate for `localhost` and 127.0.0.1. Of what a reply
    /// can do wrong, only lateness and gates work here.
    pub async fn start_tls() -> Self {
        let certificate = Certificate::for_names(&["localhost", "127.0.0.1"]);
        let (listener, address) = bind("127.0.0.1:0".parse().expect("a literal address")).await;
        let state = Arc::new(State::default());
        let task = accept_tls(listener, certificate.acceptor(&[b"h2", b"http/1.1"]), state.clone());
        let accepting = Some(tokio::spawn(task).abort_handle());
        Self { state, address, accepting, tls: Some(certificate) }
    }

    /// Adds a path, while the story is being set up.
    #[must_use]
    pub fn and(self, path: &str, reply: Reply) -> Self {
        self.set(path, reply);
        self
    }

    /// From now on this path (`*`: every path without a reply of its own) answers so.
    pub fn set(&self, path: &str, reply: Reply) {
        self.set_handler(path, move |_| reply.clone());
    }

    /// From now on this path is answered by the closure.
    pub fn set_handler(&self, path: &str, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        let mut script = self.state.script();
        script.routes.retain(|(known, _)| known != path);
        script.routes.push((path.to_owned(), Arc::new(handler)));
    }

    /// The next request for this path (`*`: any) is answered so, once.
    pub fn once(&self, path: &str, reply: Reply) {
        self.state.script().once.push_back((path.to_owned(), reply));
    }

    /// Takes no connections any more and cuts those that are open: connection refused.
    pub fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }

    /// Listens again, at the same address, after [`Self::stop`].
    pub async fn restart(&mut self) {
        self.stop();
        let (listener, _) = bind(self.address).await;
        self.accepting = Some(tokio::spawn(accept(listener, self.state.clone())).abort_handle());
    }

    /// Closes every connection that waits for its next request.
    pub fn drop_idle_connections(&self) {
        self.state.drop_idle.send_modify(|count| *count += 1);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a path.
    pub fn url(&self) -> String {
        match self.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// The certificate that it shows, if it speaks TLS.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.tls.as_ref()
    }

    /// How many requests came, all told.
    pub fn requests(&self) -> usize {
        self.state.script().seen.len()
    }

    /// How many requests came for this path.
    pub fn requests_to(&self, path: &str) -> usize {
        self.state.script().seen.iter().filter(|seen| seen.path() == path).count()
    }

    /// All requests.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.script().seen.clone()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.state.script().seen.last().cloned().expect("a request has reached the origin")
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The most requests that were being answered at one time.
    pub fn most_at_once(&self) -> usize {
        self.state.most_active.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have come.
    pub async fn wait_for_requests(&self, count: usize) {
        crate::eventually("the origin is asked", || self.requests() >= count).await;
    }

    /// Sets `timeouts` and other members of the origin in hosts.json.
    pub fn with(&self, members: Value) -> Value {
        let mut value = self.as_origin();
        crate::host::merge(&mut value, &members);
        value
    }
}

impl AsOrigin for Origin {
    fn as_origin(&self) -> Value {
        match &self.tls {
            None => json!({ "http": { "url": self.url() } }),
            Some(certificate) => json!({ "http": { "url": self.url(), "ca": certificate.authority_file() } }),
        }
    }
}

async fn bind(address: SocketAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    (listener, address)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
        // Pieces must leave when they are written, not when there are enough of them.
        let _ = stream.set_nodelay(true);
        let state = state.clone();
        connections.spawn(async move {
            // An error here is a connection that the proxy has closed.
            let _ = converse(stream, &state, number).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

struct Counted<'a>(&'a State);

impl<'a> Counted<'a> {
    fn new(state: &'a State) -> Self {
        let now = state.active.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_active.fetch_max(now, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, state: &State, number: u64) -> std::io::Result<()> {
    let mut wire = Wire { stream, buffer: BytesMut::new() };
    let mut drop_idle = state.drop_idle.subscribe();
    let mut swallow = false;
    loop {
        drop_idle.borrow_and_update();
        let head = tokio::select! {
            head = wire.head() => head?,
            _ = drop_idle.changed() => return Ok(()),
        };
        let Some(mut request) = head else { return Ok(()) };
        request.connection = number;
        if swallow {
            state.script().seen.push(request);
            return Ok(());
        }
        // With Expect, the interim answer goes out before the body is read, unless the script has other plans for it.
        if request.header("expect").eq_ignore_ascii_case("100-continue") {
            wire.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = wire.body(&request).await?;
        let _counted = Counted::new(state);
        let reply = state.answer(&request);
        if !send(&mut wire.stream, &reply, &request).await? {
            return Ok(());
        }
        swallow = reply.afterwards == Afterwards::SwallowNext;
    }
}

struct Wire<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + Unpin> Wire<S> {
    async fn more(&mut self) -> std::io::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// The next head, or none when the peer has closed between two requests.
    async fn head(&mut self) -> std::io::Result<Option<Seen>> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        let head = self.buffer.split_to(end + 4);
        let text = String::from_utf8_lossy(&head[..end]).into_owned();
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let mut part = || first.next().unwrap_or_default();
        let (method, target, version) = (part(), part(), part());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Some(Seen { method, target, version, headers, body: Bytes::new(), connection: 0 }))
    }

    async fn body(&mut self, request: &Seen) -> std::io::Result<Bytes> {
        if request.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            let mut body = BytesMut::new();
            loop {
                let line = loop {
                    if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                        let line = self.buffer.split_to(end + 2);
                        break String::from_utf8_lossy(&line[..end]).into_owned();
                    }
                    self.more().await?;
                };
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
                while self.buffer.len() < size + 2 {
                    self.more().await?;
                }
                body.extend_from_slice(&self.buffer.split_to(size));
                let _line_end = self.buffer.split_to(2);
                if size == 0 {
                    return Ok(body.freeze());
                }
            }
        }
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }
}

/// Sends a reply; whether the connection can be used again.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, reply: &Reply, request: &Seen) -> std::io::Result<bool> {
    if reply.hang {
        std::future::pending::<()>().await;
    }
    if let Some(by) = reply.late {
        tokio::time::sleep(by).await;
    }
    if let Some(raw) = &reply.raw {
        stream.write_all(raw).await?;
        stream.flush().await?;
        return Ok(false);
    }
    stream.write_all(&reply.early).await?;
    let (status, range, content_range) = reply.settle(request);
    let bodiless = request.method == "HEAD" || matches!(status, 204 | 304) || status < 200;
    let mut head = format!(
        "HTTP/1.1 {status} {}\r\n",
        http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Other")
    );
    if !reply.no_date && reply.field("date").is_none() {
        head += &format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()));
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(content_range) = content_range {
        head += &format!("content-range: {content_range}\r\n");
    }
    let length = range.end - range.start;
    match reply.framing {
        _ if status == 304 || status == 204 => {}
        Framing::Length => head += &format!("content-length: {length}\r\n"),
        Framing::Claim(claimed) => head += &format!("content-length: {claimed}\r\n"),
        Framing::Chunked => head += "transfer-encoding: chunked\r\n",
        Framing::UntilClose => {}
    }
    if reply.afterwards == Afterwards::SayClose {
        head += "connection: close\r\n";
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).await?;
    if !bodiless {
        let cut = reply.cut_after.unwrap_or(u64::MAX);
        let mut sent = 0u64;
        let piece = (reply.piece.max(1)) as u64;
        let mut at = range.start;
        loop {
            if let Some((after, gate)) = &reply.gate
                && sent >= *after
            {
                stream.flush().await?;
                // The sender only goes away with the test.
                let _ = gate.clone().wait_for(|open| *open).await;
            }
            if at >= range.end || sent >= cut {
                break;
            }
            if let Some(pause) = reply.pause {
                tokio::time::sleep(pause).await;
            }
            let mut end = (at + piece).min(range.end).min(at.saturating_add(cut - sent));
            if let Some((after, _)) = &reply.gate
                && sent < *after
            {
                end = end.min(at + (after - sent));
            }
            let bytes = reply.content.slice(at..end);
            if reply.framing == Framing::Chunked {
                stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
                stream.write_all(&bytes).await?;
                stream.write_all(b"\r\n").await?;
            } else {
                stream.write_all(&bytes).await?;
            }
            stream.flush().await?;
            sent += end - at;
            at = end;
        }
        if reply.cut_after.is_some_and(|cut| cut < length) {
            return Ok(false);
        }
        if reply.framing == Framing::Chunked {
            stream.write_all(b"0\r\n\r\n").await?;
        }
    }
    stream.write_all(&reply.garbage).await?;
    stream.flush().await?;
    let short = matches!(reply.framing, Framing::Claim(claimed) if claimed > length);
    let last = reply.framing == Framing::UntilClose
        || short
        || matches!(reply.afterwards, Afterwards::SayClose | Afterwards::CloseSilently);
    Ok(!last)
}

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

async fn accept_tls(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (state, acceptor) = (state.clone(), acceptor.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let serve = hyper::service::service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(answer_tls(&state, number, request).await) }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), serve).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer_tls(
    state: &State,
    connection: u64,
    request: http::Request<hyper::body::Incoming>,
) -> http::Response<AnyBody> {
    let (head, body) = request.into_parts();
    let mut headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    if let Some(authority) = head.uri.authority().filter(|_| !head.headers.contains_key("host")) {
        headers.insert(0, ("host".to_owned(), authority.to_string()));
    }
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: format!("{:?}", head.version),
        headers,
        body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
        connection,
    };
    let reply = state.answer(&seen);
    if reply.hang {
        std::future::pending::<()>().await;
    }
    if let Some(by) = reply.late {
        tokio::time::sleep(by).await;
    }
    let (status, range, content_range) = reply.settle(&seen);
    let mut response = http::Response::builder().status(status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    if let Some(content_range) = content_range {
        response = response.header("content-range", content_range);
    }
    if status != 304 && status != 204 && reply.framing == Framing::Length {
        response = response.header("content-length", range.end - range.start);
    }
    let gate = reply.gate.clone();
    let mut left = gate.as_ref().map_or(u64::MAX, |(after, _)| *after);
    let pieces = futures_util::stream::iter(reply.content.chunks(range)).then(move |piece| {
        let wait = left < piece.len() as u64;
        left = left.saturating_sub(piece.len() as u64);
        let gate = gate.clone().filter(|_| wait);
        async move {
            if let Some((_, mut gate)) = gate {
                let _ = gate.wait_for(|open| *open).await;
            }
            Ok(Frame::data(piece))
        }
    });
    response.body(StreamBody::new(pieces).boxed_unsync()).expect("the script's fields are valid")
}

#[cfg(test)]
mod tests;
