//! One connection from its first byte to its last: the handshake, the protocol, hyper's limits, and how it ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::activity::{Activity, Limits, Overdue};
use super::adapter::{Adapter, StreamExecutor};
use super::address::LOCAL;
use super::admission::Admission;
use super::drain::{Drain, Phase};
use super::frames::{self, Frames};
use super::framing::{self, Guard};
use super::handshake::{self, Shaken};
use super::http1::Http1;
use super::outbox::Outbox;
use super::sniff::{Prefix, Protocol, sniff};
use super::socket::Socket;
use super::stream::{Stream, Watching};
use super::turns::Turns;
use super::via::{self, Via};
use super::watched::{Below, End, Watch, Watched};
use super::{Connection, Service, Settings};
use crate::clock::monotonic_ms;
use crate::region::Region;
use crate::semantics::interim::InterimWriter;
use crate::telemetry::metrics::{FloodLabels, HandshakeLabels, Metrics, RefusedLabels, TimeoutLabels};
use crate::tls::{Session, Tls};

/// Requests at once on an HTTP/2 connection (RFC 9113 section 5.1.2 recommends at least 100).
const STREAMS: u32 = 128;

/// What a stream and a connection may send of request bodies before somebody reads them.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// What an HTTP/2 stream may have waiting for the peer's window.
const STREAM_SEND_BYTES: usize = 256 << 10;

/// Streams that a client may open and reset before they were handed to the service (CVE-2023-44487), and errors of its making
/// for which we reset streams, before the connection is closed: the second counts over its whole life. Floods of both are
/// `frames`' to end.
const PENDING_RESETS: usize = STREAMS as usize;
const ERROR_RESETS: usize = 4096;

/// How often a silent HTTP/2 peer is asked whether it is there, and how long it has to answer: the question stands behind all that
/// the kernel holds for it, which are megabytes, and a slow client takes minutes for those.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(600);

/// What all connections of a listener share.
pub(super) struct Server<S> {
    service: Arc<S>,
    http1: Arc<http1::Builder>,
    head_bytes: usize,
    limits: Limits,
    framing: framing::Limits,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
    region: Option<Arc<Region>>,
    tls: Option<Arc<Tls>>,
    handshakes: Arc<Turns>,
    admission: Option<Arc<Admission>>,
}

impl<S: Service> Server<S> {
    pub(super) fn new(settings: &Settings, service: Arc<S>, drain: Arc<Drain>, metrics: Arc<Metrics>) -> Self {
        let mut http1 = http1::Builder::new();
        // Time limits are the timer's below: hyper's own counts a pause between requests as part of the head, and makes and
        // drops a timer for every request. `pipeline_flush` stays off: it copies every body once more. Fields of a head stay at
        // hyper's own limit of 100 (more get 431), which it parses without an allocation.
        // `half_close` keeps hyper from reading ahead while an answer is under way: each time it would take a new buffer of
        // 8 KiB. Whether the client is still there is the timer's to see.
        http1.header_read_timeout(None).max_header_size(settings.head_bytes).half_close(true);
        Self {
            service,
            http1: Arc::new(http1),
            head_bytes: settings.head_bytes,
            limits: Limits::of(settings),
            framing: framing::Limits { head_bytes: settings.head_bytes, ..framing::Limits::default() },
            drain,
            metrics,
            region: settings.region.clone(),
            tls: settings.tls.clone(),
            handshakes: Turns::new(settings.handshakes),
            admission: settings.admission.clone(),
        }
    }

    pub(super) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn http2(&self, activity: &Arc<Activity>) -> http2::Builder<StreamExecutor> {
        let mut http2 = http2::Builder::new(StreamExecutor(activity.clone()));
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.head_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(STREAM_SEND_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(ERROR_RESETS)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        http2
    }

    /// Serves one connection until it ends, by whomever.
    pub(super) async fn serve(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let _open = Open::new(self.metrics.clone());
        let accepted = monotonic_ms();
        // A socket that cannot do this still serves; one that is gone fails at the next read.
        let _ = socket.set_nodelay(true);
        // A unix socket has no such address.
        let local = socket.local_addr().unwrap_or(LOCAL);
        let opened = tokio::select! {
            biased;
            opened = tokio::time::timeout(self.limits.head, Box::pin(self.open(socket, peer))) => opened,
            () = self.drain.gives_up_waiting() => return,
        };
        let Opened { mut socket, session, protocol, prefix, via } = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(_) => return self.count(Overdue::Head),
        };
        // The time for the head of the first request begins when it can be sent.
        let accepted = if session.is_some() { monotonic_ms() } else { accepted };
        let activity = Activity::new(accepted, protocol);
        // A proxy's client came to an address of the proxy.
        let local = if via.is_some() { LOCAL } else { local };
        let secured = session.is_some() || via.is_some_and(|via| via.secure);
        let scheme = if secured { "https" } else { "http" };
        let spoken_for = via.and_then(|via| via.source);
        let peer = spoken_for.unwrap_or(peer);
        let counted = self.admission.as_ref().filter(|_| spoken_for.is_some()).map(|all| all.count(peer.ip()));
        let _counted = match counted.transpose() {
            Ok(counted) => counted,
            Err(full) => {
                self.metrics.connections_refused.get_or_create(&RefusedLabels { limit: full.word() }).inc();
                return;
            }
        };
        let interim = (protocol == Protocol::Http1).then(|| activity.line().clone() as Arc<dyn InterimWriter>);
        let connection = Arc::new(Connection { peer, local, scheme, tls: session, interim });
        let adapter = Adapter {
            service: self.service.clone(),
            connection: Arc::clone(&connection),
            activity: activity.clone(),
            limits: self.limits,
        };
        // HTTP/2 cuts bodies into frames of its own and copies them.
        let region = self.region.clone().filter(|_| protocol == Protocol::Http1);
        let guard = match protocol {
            Protocol::Http1 => Watching::Http1(Guard::new(self.framing)),
            Protocol::Http2 => Watching::Http2(Box::new(Frames::new(&frames::Limits::default()))),
        };
        let (socket, outbox) = match protocol {
            Protocol::Http1 => {
                socket.keep_little();
                (socket, None)
            }
            Protocol::Http2 => {
                let outbox = Outbox::around(socket);
                (Socket::Collected(Arc::clone(&outbox)), Some(outbox))
            }
        };
        let (alive, gone) = tokio::sync::oneshot::channel();
        let stream = Stream::new(socket, prefix, activity.clone(), region, guard, alive);
        let refused = Arc::clone(&activity);
        let below = Below { descriptor: stream.descriptor(), taken: stream.taken() };
        let end = match protocol {
            Protocol::Http1 => {
                let connection = Http1::new(self.http1.clone(), stream, adapter);
                self.watch(connection, activity, below, None).await
            }
            Protocol::Http2 => {
                let connection = self.http2(&activity).serve_connection(TokioIo::new(stream), adapter);
                self.watch(connection, activity, below, outbox).await
            }
        };
        if refused.is_upgraded() {
            // It goes on under another protocol, and counts for as long as it lives.
            tokio::select! {
                _ = gone => {}
                () = self.drain.reached(Phase::Closed) => {}
            }
            return;
        }
        if let Some(flood) = refused.flooded() {
            tracing::debug!(%peer, flood = flood.as_str(), "connection ended for a flood of frames");
            self.metrics.floods.get_or_create(&FloodLabels { kind: flood.as_str() }).inc();
            return;
        }
        match end {
            End::Closed(Ok(())) | End::Aborted => {
                if let Some(status) = refused.refused() {
                    self.service.unreadable(&connection, status);
                }
            }
            // Clients that leave in the middle or speak nonsense are everyday; whoever looks into one asks for debug lines.
            End::Closed(Err(error)) => {
                if is_flood(&error) {
                    self.metrics.floods.get_or_create(&FloodLabels { kind: "protocol" }).inc();
                }
                tracing::debug!(%peer, %error, "connection ended");
                if let Some(status) = refused.refused().or_else(|| answered(&error)) {
                    self.service.unreadable(&connection, status);
                }
            }
            End::Overdue(overdue) => {
                tracing::debug!(%peer, limit = overdue.word(), "connection took too long");
                self.count(overdue);
            }
        }
    }

    /// Carries a connection to where its first request can be read: the handshake, and the protocol. None if there is no more
    /// to be done for it.
    async fn open(&self, mut socket: TcpStream, peer: SocketAddr) -> Option<Opened> {
        let via = match &self.admission {
            Some(admission) if admission.is_proxy(peer.ip()) => Some(via::read(&mut socket).await?),
            _ => None,
        };
        let Some(tls) = &self.tls else {
            let (protocol, prefix) = sniff(&mut socket).await.ok()??;
            return Some(Opened { socket: Socket::Plain(socket), session: None, protocol, prefix, via });
        };
        let mut turn = self.handshakes.begin();
        let count = |outcome| self.metrics.handshakes.get_or_create(&HandshakeLabels { outcome }).inc();
        let shaken = tokio::select! {
            biased;
            () = turn.lost() => {
                count("crowded-out");
                return None;
            }
            shaken = handshake::shake(socket, tls) => shaken,
        };
        match shaken {
            Ok(Shaken::Up(stream, session)) => {
                count(if session.resumed { "resumed" } else { "full" });
                let protocol = if session.alpn == Some("h2") { Protocol::Http2 } else { Protocol::Http1 };
                let socket = Socket::Tls(stream);
                Some(Opened { socket, session: Some(session), protocol, prefix: Prefix::default(), via })
            }
            Ok(Shaken::Challenge) => {
                count("challenge");
                None
            }
            Ok(Shaken::Refused) => {
                count("unknown-name");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "handshake failed");
                count("failed");
                None
            }
        }
    }

    fn watch<C>(
        &self,
        connection: C,
        activity: Arc<Activity>,
        below: Below,
        outbox: Option<Arc<Outbox>>,
    ) -> Box<Watched<C>> {
        let (limits, drain, metrics) = (self.limits, self.drain.clone(), self.metrics.clone());
        Box::new(Watched::new(connection, Watch { activity, below, outbox, limits, drain, metrics }))
    }

    fn count(&self, overdue: Overdue) {
        self.metrics.connection_timeouts.get_or_create(&TimeoutLabels { limit: overdue.word() }).inc();
    }
}

/// A connection whose first request can be read.
struct Opened {
    socket: Socket,
    session: Option<Arc<Session>>,
    protocol: Protocol,
    prefix: Prefix,
    via: Option<Via>,
}

/// Whether h2 itself has found that the peer asks for too much (RFC 9113 section 7: ENHANCE_YOUR_CALM).
fn is_flood(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// The status that hyper has answered with by itself. Of HTTP/2 it says nothing: there such requests are reset.
fn answered(error: &hyper::Error) -> Option<StatusCode> {
    if error.is_parse_too_large() {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else if error.is_parse() {
        Some(StatusCode::BAD_REQUEST)
    } else {
        None
    }
}

/// Counts a connection while it is open.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections_accepted.inc();
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
