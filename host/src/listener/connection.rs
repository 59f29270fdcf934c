//! One connection from its first byte to its last: the protocol, hyper's limits, and the timer that ends what takes too long.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::activity::{Activity, Flight, Limits, Overdue, Verdict};
use super::address::LOCAL;
use super::admission::Admission;
use super::drain::{Drain, Phase};
use super::frames::{self, Frames};
use super::framing::{self, Guard};
use super::handshake::{self, Shaken};
use super::outbox::Outbox;
use super::request_body::{RequestBody, Source};
use super::sniff::{Prefix, Protocol, sniff};
use super::socket::Socket;
use super::stream::{Away, Stream, Watching, peer, unsent};
use super::turns::Turns;
use super::via::{self, Via};
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

/// The largest piece of an answer that goes to a stream of HTTP/2 at once.
const PIECE_BYTES: usize = 64 << 10;

/// Streams that a client may open and reset before they were handed to the service (CVE-2023-44487), and errors of its making
/// for which we reset streams, before the connection is closed: the second counts over its whole life. Floods of both are
/// `frames`' to end.
const PENDING_RESETS: usize = STREAMS as usize;
const ERROR_RESETS: usize = 4096;

/// How often a silent HTTP/2 peer is asked whether it is there, and how long it has to answer: the question stands behind all that
/// the kernel holds for it, which are megabytes, and a slow client takes minutes for those.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(600);

/// Time for an idle connection to say goodbye after it was told to go.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all connections of a listener share.
pub(super) struct Server<S> {
    service: Arc<S>,
    http1: http1::Builder,
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
            http1,
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
        let Opened { socket, session, protocol, prefix, via } = match opened {
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
            Protocol::Http1 => (socket, None),
            Protocol::Http2 => {
                let outbox = Outbox::around(socket);
                (Socket::Collected(Arc::clone(&outbox)), Some(outbox))
            }
        };
        let (alive, gone) = tokio::sync::oneshot::channel();
        let stream = Stream::new(socket, prefix, activity.clone(), region, guard, alive);
        let refused = Arc::clone(&activity);
        let descriptor = stream.descriptor();
        let io = TokioIo::new(stream);
        let end = match protocol {
            Protocol::Http1 => {
                let connection = self.http1.serve_connection(io, adapter).with_upgrades();
                self.watch(connection, activity, descriptor, None).await
            }
            Protocol::Http2 => {
                let connection = self.http2(&activity).serve_connection(io, adapter);
                self.watch(connection, activity, descriptor, outbox).await
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
        descriptor: RawFd,
        outbox: Option<Arc<Outbox>>,
    ) -> Watched<C> {
        Watched {
            connection,
            outbox,
            activity,
            descriptor,
            unsent: None,
            pace: Pace::default(),
            metrics: self.metrics.clone(),
            limits: self.limits,
            timer: Box::pin(tokio::time::sleep(self.limits.shortest())),
            drain: self.drain.clone(),
            advance: advance(self.drain.clone(), Phase::Draining),
            waker: None,
            away: None,
            drains: false,
            leaving: None,
        }
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

/// How a connection ended.
enum End {
    Closed(hyper::Result<()>),
    Overdue(Overdue),
    Aborted,
}

/// hyper's connections, as far as they are alike.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<S: Service> Graceful for http1::UpgradeableConnection<TokioIo<Stream>, Adapter<S>> {
    fn graceful_shutdown(self: Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

impl<S: Service> Graceful for http2::Connection<TokioIo<Stream>, Adapter<S>, StreamExecutor> {
    fn graceful_shutdown(self: Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

fn advance(drain: Arc<Drain>, phase: Phase) -> BoxFuture<'static, ()> {
    Box::pin(async move { drain.reached(phase).await })
}

pin_project! {
    /// A connection with a timer and an ear for the drain.
    ///
    /// A connection is polled several times for each request, the timer and the drain have something to say hardly ever.
    /// They are asked by plain loads and polled only to leave a waker with them: again when they have rung, or when the task
    /// is woken by another waker than before.
    struct Watched<C> {
        #[pin]
        connection: C,
        // What the connection has written goes out when it has nothing more to say for now.
        outbox: Option<Arc<Outbox>>,
        activity: Arc<Activity>,
        // Of the socket inside `connection`, open as long as that is.
        descriptor: RawFd,
        // What the kernel held when the timer last looked, while the socket took nothing.
        unsent: Option<usize>,
        // How fast the peer takes what the socket is full of.
        pace: Pace,
        metrics: Arc<Metrics>,
        limits: Limits,
        timer: Pin<Box<Sleep>>,
        drain: Arc<Drain>,
        advance: BoxFuture<'static, ()>,
        waker: Option<Waker>,
        // The piece that a client waits for who has closed its sending side, and since when that is known.
        away: Option<(u64, Instant)>,
        // The drain was heard of.
        drains: bool,
        // Why and since when the connection is asked to end.
        leaving: Option<(Option<Overdue>, Instant)>,
    }
}

impl<C: Graceful> Future for Watched<C> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let mut this = self.project();
        let mut leave_waker = !this.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if leave_waker {
            *this.waker = Some(cx.waker().clone());
            this.activity.line().lives_in(cx.waker());
        }

        match this.drain.phase() {
            Phase::Serving => {}
            Phase::Draining => {
                if !std::mem::replace(this.drains, true) && this.leaving.is_none() {
                    let patient = this.drain.is_patient();
                    if !patient {
                        this.activity.hurry();
                    }
                    // Whoever closes between two requests may close on one that is on its way.
                    if !(patient && this.activity.tell_last()) {
                        this.connection.as_mut().graceful_shutdown();
                        *this.leaving = Some((None, Instant::now()));
                    }
                    *this.advance = advance(this.drain.clone(), Phase::Closed);
                    leave_waker = true;
                }
            }
            Phase::Closed => return Poll::Ready(End::Aborted),
        }
        if leave_waker && this.advance.as_mut().poll(cx).is_ready() {
            // It advanced just now: look again.
            cx.waker().wake_by_ref();
        }

        if leave_waker || this.timer.is_elapsed() {
            while this.timer.as_mut().poll(cx).is_ready() {
                match (this.activity.waits_for_us(), peer(*this.descriptor)) {
                    (Some(_), Away::Gone) => return Poll::Ready(End::Aborted),
                    // It may have closed its sending side only and still wait, for as long as others may take to read.
                    (Some(pieces), Away::Silent) => match this.away {
                        Some((known, since)) if *known == pieces => {
                            if since.elapsed() >= this.limits.stall {
                                return Poll::Ready(End::Aborted);
                            }
                        }
                        _ => *this.away = Some((pieces, Instant::now())),
                    },
                    _ => *this.away = None,
                }
                let held = if this.activity.is_blocked() { unsent(*this.descriptor) } else { None };
                if matches!((held, &this.unsent), (Some(now), Some(before)) if now < *before) {
                    this.activity.unblocked();
                }
                *this.unsent = held;
                if let Some(unsent) = held
                    && this.pace.is_too_slow(this.activity.taken().saturating_sub(unsent as u64), this.limits)
                {
                    return Poll::Ready(End::Overdue(Overdue::Write));
                }
                if held.is_none() {
                    *this.pace = Pace::default();
                }
                let (stalled, next) = this.activity.end_stalled();
                this.metrics
                    .connection_timeouts
                    .get_or_create(&TimeoutLabels { limit: Overdue::Window.word() })
                    .inc_by(stalled as u64);
                let pause = match (this.activity.verdict(this.limits), &this.leaving) {
                    (Verdict::Wait(pause), _) => next.map_or(pause, |next| pause.min(Duration::from_millis(next))),
                    (Verdict::Over(Overdue::Idle), None) => {
                        this.connection.as_mut().graceful_shutdown();
                        *this.leaving = Some((Some(Overdue::Idle), Instant::now()));
                        FAREWELL
                    }
                    (Verdict::Over(Overdue::Idle), Some((_, since))) if since.elapsed() < FAREWELL => {
                        FAREWELL - since.elapsed().min(FAREWELL)
                    }
                    (Verdict::Over(overdue), _) => return Poll::Ready(End::Overdue(overdue)),
                };
                this.timer.as_mut().reset(Instant::now() + pause);
            }
        }

        let Poll::Ready(closed) = this.connection.poll(cx) else {
            if let Some(outbox) = this.outbox {
                match outbox.poll_round(cx) {
                    Poll::Pending => this.activity.blocked(),
                    Poll::Ready(Ok(())) => this.activity.sent(0),
                    // Whoever reads or writes next finds out, too.
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Aborted),
                }
            }
            return Poll::Pending;
        };
        Poll::Ready(match this.leaving {
            Some((Some(overdue), _)) => End::Overdue(*overdue),
            _ => End::Closed(closed),
        })
    }
}

/// How fast a peer takes what the socket is full of.
#[derive(Debug, Default)]
struct Pace(Option<(Instant, u64)>);

impl Pace {
    /// Whether it was too slow over a whole stretch of time. `taken`: bytes that it has by now.
    fn is_too_slow(&mut self, taken: u64, limits: &Limits) -> bool {
        let Some((since, before)) = self.0 else {
            self.0 = Some((Instant::now(), taken));
            return false;
        };
        if since.elapsed() < limits.stall {
            return false;
        }
        self.0 = Some((Instant::now(), taken));
        taken.saturating_sub(before) < limits.least_rate * since.elapsed().as_millis() as u64 / 1000
    }
}

/// Runs the streams of one HTTP/2 connection, so that each can be ended alone.
#[derive(Clone)]
struct StreamExecutor(Arc<Activity>);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        // hyper has called the service for the same stream just now.
        self.0.streams().lives_in(tokio::spawn(future).abort_handle());
    }
}

/// Our service as hyper calls it.
struct Adapter<S> {
    service: Arc<S>,
    connection: Arc<Connection>,
    activity: Arc<Activity>,
    limits: Limits,
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Adapter<S> {
    type Response = Response<Answer<S::Body>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let flight = self.activity.begin();
        if request.method() == Method::CONNECT {
            // Refused, and what follows could be meant for the tunnel that is not there.
            flight.is_now_last();
        }
        let request = request.map(|body| RequestBody::new(Source::Hyper(body), self.limits));
        Answering { inner: self.service.call(&self.connection, request), flight: Some(flight), limits: self.limits }
    }
}

pin_project! {
    /// A request that the service works on.
    struct Answering<F> {
        #[pin]
        inner: F,
        flight: Option<Flight>,
        limits: Limits,
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let mut flight = this.flight.take();
        if let Some(flight) = &mut flight {
            flight.head_is_there(this.limits);
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                flight.upgrades();
            } else if flight.is_last() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        let limits = *this.limits;
        Poll::Ready(Ok(response.map(|inner| Answer { inner, rest: Bytes::new(), flight, limits })))
    }
}

pin_project! {
    /// The body of an answer, which tells whose turn it is. With HTTP/2 it comes in pieces that are not too large to tell by them
    /// how the client takes it, and of which h2 keeps one for each stream.
    struct Answer<B> {
        #[pin]
        inner: B,
        rest: Bytes,
        flight: Option<Flight>,
        limits: Limits,
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error = io::Error>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.project();
        let mut frame = match this.rest.is_empty() {
            true => this.inner.poll_frame(cx),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.rest))))),
        };
        if this.flight.as_ref().is_some_and(Flight::is_of_a_stream)
            && let Poll::Ready(Some(Ok(piece))) = &mut frame
            && let Some(data) = piece.data_mut().filter(|data| data.len() > PIECE_BYTES)
        {
            *this.rest = data.split_off(PIECE_BYTES);
        }
        if let Some(flight) = this.flight {
            match &frame {
                Poll::Pending => flight.waits_for_us(),
                Poll::Ready(piece) => {
                    let piece = piece.as_ref().and_then(|piece| piece.as_ref().ok()?.data_ref());
                    flight.waits_for_peer(piece.map_or(0, Bytes::len), this.limits);
                }
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole
    }
}
