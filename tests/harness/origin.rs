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
use crate::setup::AsOrigin;

mod reply;
mod tls;
mod wire;

use reply::{Afterwards, Framing};
pub use reply::{Gate, Reply, hang, ok, raw, redirect, reply};
use tls::accept_tls;
use wire::{Wire, send};

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
    /// All values of a field.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

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
        crate::setup::merge(&mut value, &members);
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

#[cfg(test)]
mod tests;
