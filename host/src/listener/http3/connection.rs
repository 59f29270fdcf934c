//! One QUIC connection from its first packet to its last.
//!
//! Times: QUIC itself ends a connection on which nothing came for the idle time (RFC 9000 section 10.1); one whose
//! client says something now and then, but asks for nothing, is closed here. A head has its time from when its stream
//! appears, a body and an answer as long as they go on (`RequestBody`, `quic.rs`). We do not keep connections alive:
//! clients do that while they wait (RFC 9114 section 5.1).

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::Code;
use quinn::crypto::rustls::HandshakeData;
use quinn::{ConnectionError, Incoming, TransportErrorCode};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::activity::{Limits, Overdue};
use super::super::address::canonical;
use super::super::admission::{Admission, Admitted};
use super::super::drain::{Drain, Phase};
use super::super::frames::Resets;
use super::super::{Connection, Service, Settings};
use super::quic::{Quic, code};
use super::request::{self, End};
use super::streams::Streams;
use crate::clock::monotonic_ms;
use crate::telemetry::metrics::{FloodLabels, HandshakeLabels, Metrics, RefusedLabels, TimeoutLabels};
use crate::tls::Session;

/// Streams without a readable request, whoever is to blame, before the connection is closed: h3 remembers each of them.
const EMPTY_STREAMS: usize = 256;

/// How long a connection that has nothing under way stays after GOAWAY: three times there and back, so that requests
/// that were on their way are turned away by name.
const FAREWELL_ROUNDS: u32 = 3;
const FAREWELL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The alert that rustls sends when there is no certificate for a name (RFC 8446 section 6): access_denied.
const ACCESS_DENIED: u8 = 49;

/// What all connections of a listener share.
pub(super) struct Server<S> {
    service: Arc<S>,
    limits: Limits,
    head_bytes: usize,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
    admission: Option<Arc<Admission>>,
}

impl<S: Service> Server<S> {
    pub(super) fn new(settings: &Settings, service: Arc<S>, drain: Arc<Drain>, metrics: Arc<Metrics>) -> Self {
        let (limits, head_bytes, admission) = (Limits::of(settings), settings.head_bytes, settings.admission.clone());
        Self { service, limits, head_bytes, drain, metrics, admission }
    }

    pub(super) fn service(&self) -> &S {
        &self.service
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    /// Whether a peer has to say whom it speaks for.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.admission.as_ref().is_some_and(|admission| admission.is_proxy(address))
    }

    /// A place for a client. None: it was turned away.
    fn admit(&self, connection: &quinn::Connection) -> Option<Option<Admitted>> {
        let address = canonical(connection.remote_address()).ip();
        match self.admission.as_ref().map(|admission| admission.admit(Some(address))).transpose() {
            Ok(admitted) => Some(admitted),
            Err(full) => {
                self.metrics.connections_refused.get_or_create(&RefusedLabels { limit: full.word() }).inc();
                connection.close(code(Code::H3_EXCESSIVE_LOAD), b"too many connections");
                None
            }
        }
    }

    pub(super) fn count(&self, overdue: Overdue) {
        self.metrics.connection_timeouts.get_or_create(&TimeoutLabels { limit: overdue.word() }).inc();
    }

    pub(super) fn count_handshake(&self, outcome: &'static str) {
        self.metrics.handshakes.get_or_create(&HandshakeLabels { outcome }).inc();
    }

    /// Serves one connection until it ends, by whomever. `turn` is its turn to make a handshake.
    pub(super) async fn serve<T>(self: Arc<Self>, incoming: Incoming, local: SocketAddr, turn: T) {
        let _open = Open::new(&self.metrics);
        let Some(connection) = self.shake(incoming).await else { return };
        drop(turn);
        let Some(_admitted) = self.admit(&connection) else { return };
        let local = SocketAddr::new(connection.local_ip().map_or(local.ip(), |ip| ip.to_canonical()), local.port());
        self.drive(connection, local).await;
    }

    /// The handshake. Dropping what is not finished closes it.
    async fn shake(&self, incoming: Incoming) -> Option<quinn::Connection> {
        let shaking = async { incoming.accept()?.await };
        let shaken = tokio::select! {
            biased;
            () = self.drain.reached(Phase::Draining) => return None,
            shaken = tokio::time::timeout(self.limits.head, shaking) => shaken,
        };
        match shaken {
            Ok(Ok(connection)) => {
                self.count_handshake("full");
                Some(connection)
            }
            Ok(Err(ConnectionError::TransportError(error)))
                if error.code == TransportErrorCode::crypto(ACCESS_DENIED) =>
            {
                self.count_handshake("unknown-name");
                None
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "handshake failed");
                self.count_handshake("failed");
                None
            }
            Err(_) => {
                self.count(Overdue::Head);
                None
            }
        }
    }

    /// Serves requests until the end.
    async fn drive(self: &Arc<Self>, quic: quinn::Connection, local: SocketAddr) {
        let data = quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let name = data.as_ref().and_then(|data| data.server_name.as_deref());
        let session = Some(Arc::new(Session::of_quic(name)));
        let of = |peer| Arc::new(Connection { peer, local, scheme: "https", tls: session.clone(), interim: None });
        let streams = Arc::new(Streams::new(self.limits, self.head_bytes));
        let mut builder = h3::server::builder();
        builder.max_field_section_size(self.head_bytes as u64).send_grease(false);
        let built = builder.build::<_, Bytes>(Quic::new(quic.clone(), Arc::clone(&streams)));
        // A client that gives no room for our control streams is none.
        let Ok(Ok(mut h3)) = tokio::time::timeout(self.limits.head, built).await else {
            quic.close(code(Code::H3_GENERAL_PROTOCOL_ERROR), b"");
            return;
        };
        let ended = self.accept(&quic, &mut h3, &streams, of).await;
        // Before h3 is dropped, which would close the connection in its own way. Nobody hears it if the client is gone.
        quic.close(code(ended), b"");
    }

    /// Accepts requests until the end. Returns what to say then.
    async fn accept(
        self: &Arc<Self>,
        quic: &quinn::Connection,
        h3: &mut h3::server::Connection<Quic, Bytes>,
        streams: &Streams,
        of: impl Fn(SocketAddr) -> Arc<Connection>,
    ) -> Code {
        let mut connection = of(canonical(quic.remote_address()));
        let mut requests: JoinSet<End> = JoinSet::new();
        let mut empty = 0;
        let mut resets = Resets::new();
        // Until when the connection stays that was asked to end.
        let mut leaving: Option<Instant> = None;
        let mut idle = pin!(tokio::time::sleep(self.limits.idle));
        let mut drained = pin!(self.drain.reached(Phase::Draining));
        let mut closed = pin!(self.drain.reached(Phase::Closed));
        let (shortest, longest) = FAREWELL;
        let farewell = || Instant::now() + (quic.rtt() * FAREWELL_ROUNDS).clamp(shortest, longest);
        loop {
            let leave = tokio::select! {
                biased;
                () = &mut closed => return Code::H3_NO_ERROR,
                () = &mut drained, if leaving.is_none() => true,
                Some(ended) = requests.join_next() => {
                    if let Err(error) = &ended
                        && error.is_panic()
                    {
                        tracing::error!(%error, "answering a request panicked");
                    }
                    match ended {
                        Ok(End::Request) => resets.answered(),
                        Ok(End::Cancelled) => {
                            if let Err(flood) = resets.cancelled(monotonic_ms()) {
                                self.metrics.floods.get_or_create(&FloodLabels { kind: flood.as_str() }).inc();
                                return Code::H3_EXCESSIVE_LOAD;
                            }
                        }
                        Ok(End::Nothing) | Err(_) => {
                        empty += 1;
                        if empty > EMPTY_STREAMS {
                            return Code::H3_EXCESSIVE_LOAD;
                        }
                    }
                    }
                    if requests.is_empty() {
                        leaving = leaving.map(|_| farewell());
                        idle.as_mut().reset(leaving.unwrap_or_else(|| Instant::now() + self.limits.idle));
                    }
                    false
                }
                () = &mut idle, if requests.is_empty() => {
                    if leaving.is_some() {
                        return Code::H3_NO_ERROR;
                    }
                    self.count(Overdue::Idle);
                    true
                }
                accepted = h3.accept() => match accepted {
                    Ok(Some(resolver)) => {
                        let peer = canonical(quic.remote_address());
                        if peer != connection.peer {
                            // It has moved (RFC 9000 section 9), and has shown that it is there.
                            connection = of(peer);
                        }
                        let id = resolver.frame_stream.id().into_inner();
                        if let Some(accepted) = streams.take(id) {
                            let (server, connection) = (Arc::clone(self), Arc::clone(&connection));
                            requests.spawn(request::serve(server, connection, resolver, accepted));
                        }
                        false
                    }
                    Ok(None) => return Code::H3_NO_ERROR,
                    Err(error) => {
                        tracing::debug!(peer = %connection.peer, %error, "connection ended");
                        return Code::H3_NO_ERROR;
                    }
                }
            };
            if leave {
                streams.close();
                // The number is that of the next stream: h3 would say that of the last, as if that was not answered.
                // A client may give no room even for that.
                let said = tokio::select! {
                    () = &mut closed => return Code::H3_NO_ERROR,
                    said = tokio::time::timeout(longest, h3.shutdown(1)) => matches!(said, Ok(Ok(()))),
                };
                if !said && requests.is_empty() {
                    return Code::H3_NO_ERROR;
                }
                let until = farewell();
                leaving = Some(until);
                idle.as_mut().reset(until);
            }
        }
    }
}

/// Counts a connection while it is open.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections_accepted.inc();
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
