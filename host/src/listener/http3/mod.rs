//! HTTP/3 (RFC 9114) over QUIC (RFC 9000), for the same service as HTTP/1.1 and HTTP/2, at the same addresses, over
//! UDP.
//!
//! ```text
//! endpoint      a UDP socket; who may begin a handshake, and where a connection lives
//!   transport   QUIC's limits, which quinn keeps
//! connection    one connection: handshake, requests, idleness, GOAWAY
//!   quic        quinn as h3 sees it
//!     framing   which frames h3 gets to see, and of what length
//!     fields    pseudo-header fields while they can still be counted
//!   streams     how far each request's stream has come
//!   request     one request and the way of its answer
//!     head      what else RFC 9114 forbids in a head
//!     body      the body as it comes in
//! ```
//!
//! quinn does QUIC and rustls the handshake; h3 decodes field sections, speaks on the control stream and writes
//! answers. What h3 0.0.8 reads too loosely, or without a limit, never gets to it.
//!
//! TLS is 1.3 with the certificates of the other versions. quinn chooses its settings before it has read a hello, so
//! that no host can ask for a client's certificate: such hosts show none of theirs either, and clients stay with TCP.
//! No early data (a request in it could be played again), no resumption, no push, no WebTransport, no datagrams.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderValue;
use parking_lot::Mutex;
use quinn::Endpoint;
use tokio_util::task::TaskTracker;

use super::doors::is_beside;
use super::drain::{Drain, Phase};
use super::{ABORT_GRACE, Address, Service, Settings};
use crate::telemetry::metrics::Metrics;

mod body;
mod connection;
mod endpoint;
mod fields;
mod framing;
mod head;
mod quic;
mod request;
mod streams;
#[cfg(test)]
mod tests;
mod transport;

pub use body::Body;

use connection::Server;
use endpoint::{Accepting, Ends, Turns};

/// How long clients may rely on what `alt_svc` says. Default of most servers: a day.
const ALTERNATIVE_SECONDS: u32 = 86_400;

/// How long quinn may take to close a socket that nobody uses any more.
const CLOSED_WITHIN: Duration = Duration::from_millis(500);

/// How long the last packets may take to leave.
const LAST_PACKETS: Duration = Duration::from_millis(200);

/// The value of Alt-Svc (RFC 7838) that tells clients of HTTP/3 at the same host.
pub fn alt_svc(port: u16) -> HeaderValue {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma={ALTERNATIVE_SECONDS}")).expect("digits and ASCII characters")
}

/// A listener at work. Dropping it closes all its connections at once.
pub struct Http3 {
    doors: Arc<Mutex<Doors>>,
    /// Accepts at a socket until it is told to stop.
    open: Box<dyn Fn(Endpoint, SocketAddr, Ends) + Send + Sync>,
    config: quinn::ServerConfig,
    drain: Arc<Drain>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Doors {
    open: Vec<Door>,
    /// Addresses that were given up; their connections still use the sockets.
    shut: Vec<Door>,
}

/// One address at which connections are accepted.
struct Door {
    /// As configured: port 0 is any.
    asked: SocketAddr,
    /// An IPv6 address that leaves IPv4 to another one beside it.
    beside: bool,
    bound: SocketAddr,
    endpoint: Endpoint,
    ends: Ends,
}

/// Other addresses for a listener, bound and ready. Nothing comes of it when it is dropped.
pub struct Change {
    new: Vec<Door>,
    wanted: Vec<(SocketAddr, bool)>,
}

impl Http3 {
    /// Binds all addresses; the error names the one that failed. `region` of the settings is not used: everything is
    /// encrypted.
    pub async fn bind<S: Service>(settings: Settings, service: Arc<S>, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let config = transport::config(&settings)?;
        let drain = Arc::new(Drain::default());
        let tasks = TaskTracker::new();
        let server = Arc::new(Server::new(&settings, service, Arc::clone(&drain), metrics));
        let turns = Arc::new(Turns::new(settings.handshakes));
        let open = {
            let (tasks, workers) = (tasks.clone(), settings.workers);
            Box::new(move |endpoint, local, ends| {
                let (server, turns) = (Arc::clone(&server), Arc::clone(&turns));
                let accepting = Accepting { server, tasks: tasks.clone(), workers: workers.clone(), turns };
                tasks.spawn(accepting.run(endpoint, local, ends));
            })
        };
        let listening = Self { doors: Arc::default(), open, config, drain, tasks };
        let addresses: Vec<SocketAddr> = settings.addresses.iter().filter_map(Address::ip).collect();
        listening.apply(listening.prepare(&addresses).await?);
        Ok(listening)
    }

    /// Binds those of the addresses that are not listened at yet; the error names the one that failed.
    pub async fn prepare(&self, addresses: &[SocketAddr]) -> std::io::Result<Change> {
        let beside = |address: SocketAddr| is_beside(address, addresses.iter().copied());
        let wanted: Vec<_> = addresses.iter().map(|address| (*address, beside(*address))).collect();
        let mut new = Vec::new();
        for (asked, beside) in &wanted {
            let is = |door: &&Door| (door.asked, door.beside) == (*asked, *beside);
            let still_there = {
                let doors = self.doors.lock();
                if doors.open.iter().any(|door| is(&door)) {
                    continue;
                }
                doors.shut.iter().find(is).map(|door| door.endpoint.clone())
            };
            let endpoint = match still_there {
                Some(endpoint) => endpoint,
                None => self.open_soon(*asked, addresses).await?,
            };
            let (bound, ends) = (endpoint.local_addr()?, Ends::default());
            new.push(Door { asked: *asked, beside: *beside, bound, endpoint, ends });
        }
        Ok(Change { new, wanted })
    }

    /// A socket that was given up just now is closed by quinn in its own time.
    async fn open_soon(&self, address: SocketAddr, all: &[SocketAddr]) -> std::io::Result<Endpoint> {
        let deadline = tokio::time::Instant::now() + CLOSED_WITHIN;
        loop {
            match endpoint::open(address, all, &self.config) {
                Err(error)
                    if error.kind() == std::io::ErrorKind::AddrInUse && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(CLOSED_WITHIN / 20).await;
                }
                other => return other,
            }
        }
    }

    /// Accepts at the new addresses, and no longer at those that are not wanted any more; their connections go on.
    pub fn apply(&self, change: Change) {
        let mut doors = self.doors.lock();
        let Change { new, wanted } = change;
        for door in new {
            doors.shut.retain(|shut| {
                if shut.bound == door.bound {
                    shut.ends.revived.cancel();
                }
                shut.bound != door.bound
            });
            door.endpoint.set_server_config(Some(self.config.clone()));
            (self.open)(door.endpoint.clone(), door.bound, door.ends.clone());
            doors.open.push(door);
        }
        let (open, shut) = doors.open.drain(..).partition(|door| wanted.contains(&(door.asked, door.beside)));
        doors.open = open;
        for door in shut {
            door.ends.closing.cancel();
            let (all, endpoint, bound, ends) =
                (self.doors.clone(), door.endpoint.clone(), door.bound, door.ends.clone());
            doors.shut.push(door);
            // The socket is closed with the last connection, so that who comes then is refused and does not wait.
            self.tasks.spawn(async move {
                endpoint.wait_idle().await;
                if !ends.revived.is_cancelled() {
                    all.lock().shut.retain(|door| door.bound != bound);
                }
            });
        }
    }

    /// The addresses that were bound (port 0 resolved).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.doors.lock().open.iter().map(|door| door.bound).collect()
    }

    /// Stops accepting, lets requests in flight finish (GOAWAY), and returns when all connections are closed or the
    /// time is over.
    pub fn drain(&self, at_most: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.drain.advance(Phase::Draining);
            self.tasks.close();
            if tokio::time::timeout(at_most, self.tasks.wait()).await.is_err() {
                tracing::warn!(connections = self.tasks.len(), "time to drain is over, the rest is closed");
                self.drain.advance(Phase::Closed);
                let _ = tokio::time::timeout(ABORT_GRACE, self.tasks.wait()).await;
            }
            let doors = std::mem::take(&mut *self.doors.lock());
            let all = doors.open.iter().chain(&doors.shut).map(|door| door.endpoint.wait_idle());
            let _ = tokio::time::timeout(LAST_PACKETS, futures_util::future::join_all(all)).await;
        })
    }
}

impl Drop for Http3 {
    fn drop(&mut self) {
        self.drain.advance(Phase::Closed);
    }
}

impl fmt::Debug for Http3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http3").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
