//! Accepts connections and drives any service over HTTP/1.1 and cleartext HTTP/2, within limits.
//!
//! hyper parses and frames (RFC 9112, RFC 9113); what it leaves open is decided here: which protocol a connection speaks
//! (`sniff.rs`: hyper-util's own sniffing waits for ever), how long a peer may take for what (`activity.rs` keeps the times,
//! `watched.rs` enforces them, `request_body.rs` watches bodies that come in), and how connections end (`drain.rs`, and the
//! lingering close in `stream.rs`, without which a refusal is lost when the client is still sending). What hyper reads too
//! loosely never gets to it: `framing/` looks at the bytes of HTTP/1.x first.
//!
//! The number of connections is bounded (`admission.rs`). When open files run out all the same, who comes is turned away and
//! what is open goes on. Deliberately absent: what a request means (Host, CONNECT, upgrades), which is the service's.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::region::Region;
use crate::semantics::interim::InterimWriter;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Session, Tls};

mod accept;
mod activity;
mod adapter;
mod address;
pub mod admission;
mod connection;
mod doors;
mod drain;
mod frames;
mod framing;
mod handshake;
mod http1;
pub mod http3;
pub mod inherited;
mod interim;
mod outbox;
mod patience;
mod proxy_protocol;
mod request_body;
mod sending;
mod sniff;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod turns;
mod via;
mod watched;
mod wire;
mod workers;

pub use address::Address;
pub use http3::Http3;
pub use request_body::RequestBody;
pub use workers::Workers;

/// For `host/fuzz`.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::framing::{Guard, Limits, Refused};
}

use accept::Accepting;
use admission::Admission;
use connection::Server;
use doors::{FileId, Listener};
use drain::{Drain, Phase};
use inherited::Handed;

/// How long `drain` waits for tasks to go that it has told to go at once.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// How long a new program accepts at sockets that it does not go on with: longer than the program before it keeps them open.
const LEAVING: Duration = Duration::from_secs(15);

/// The same where the new addresses are fewer.
const NARROWED: Duration = Duration::from_secs(1);

/// Limits of connections; each has a default with a reason.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What this listener is called between programs that hand sockets over.
    pub name: &'static str,
    /// Where to listen.
    pub addresses: Vec<Address>,
    /// The longest head, request line and fields together. Default 64 KiB: longer ones get 431.
    pub head_bytes: usize,
    /// Time for a whole head. Default 10 s.
    pub head_timeout: Duration,
    /// Time between requests on a kept connection. Default 75 s.
    pub idle_timeout: Duration,
    /// Time in which a peer must take or send something while a message is under way. Default 60 s.
    pub stall_timeout: Duration,
    /// The least that a peer has to take or send of a body, in bytes a second, over each `stall_timeout` in which we wait for it.
    /// Default 500: modems have done more, and whoever does less holds a connection and what is behind it for no use.
    pub least_rate: u64,
    /// Bodies that lie here are sent from their file instead of being copied.
    pub region: Option<Arc<Region>>,
    /// Connections are TLS ones.
    pub tls: Option<Arc<Tls>>,
    /// Handshakes at once. Default 1,024: one more, and the oldest is closed.
    pub handshakes: usize,
    /// How many connections may be open.
    pub admission: Option<Arc<Admission>>,
    /// Where connections live; with none, in the runtime that `bind` is called in.
    pub workers: Option<Arc<Workers>>,
}

impl Settings {
    /// The defaults, at these addresses.
    pub fn at(name: &'static str, addresses: Vec<Address>) -> Self {
        Self {
            name,
            addresses,
            head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            least_rate: 500,
            region: None,
            tls: None,
            handshakes: 1024,
            admission: None,
            workers: None,
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The peer's address. An IPv4 client of an IPv6 socket appears with its IPv4 address, and whoever comes over a unix socket
    /// as 127.0.0.1.
    pub peer: SocketAddr,
    /// Our address; of a unix socket the loopback address, as for its peers.
    pub local: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What is known of its TLS.
    pub tls: Option<Arc<Session>>,
    /// Writes interim responses; none where there is no such way.
    pub interim: Option<Arc<dyn InterimWriter>>,
}

/// What answers requests: the proxy, the admin endpoints, or a test's closure.
pub trait Service: Send + Sync + 'static {
    /// The body of answers.
    type Body: http_body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static;
    /// What the future is.
    type Future: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;
    /// Answers one request.
    fn call(&self, connection: &Arc<Connection>, request: Request<RequestBody>) -> Self::Future;
    /// What came in could not be read as a request and was answered with this status, without a body.
    fn unreadable(&self, _connection: &Connection, _status: http::StatusCode) {}
}

/// A listener at work. Dropping it closes all its connections at once.
pub struct Listening {
    name: &'static str,
    doors: Mutex<Vec<Door>>,
    /// Accepts at a socket until it is told to stop.
    open: Box<dyn Fn(Arc<Listener>, CancellationToken) + Send + Sync>,
    drain: Arc<Drain>,
    tasks: TaskTracker,
    /// Ends accepting at sockets that only the program before this one had.
    leaving: CancellationToken,
}

/// One address at which connections are accepted.
struct Door {
    /// As configured: port 0 is any.
    asked: Address,
    /// An IPv6 address that leaves IPv4 to another one beside it.
    beside: bool,
    bound: Address,
    /// The file of a unix socket, which goes when nobody listens there any more.
    file: Option<FileId>,
    socket: Arc<Listener>,
    closing: CancellationToken,
}

/// Other addresses for a listener, bound and ready. Nothing comes of it when it is dropped.
pub struct Change {
    new: Vec<Door>,
    wanted: Vec<(Address, bool)>,
}

impl Listening {
    /// Binds all addresses; the error names the one that failed.
    pub async fn bind<S: Service>(settings: Settings, service: Arc<S>, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let drain = Arc::new(Drain::default());
        let tasks = TaskTracker::new();
        let server = Arc::new(Server::new(&settings, service, drain.clone(), metrics));
        let open = {
            let (tasks, workers, admission) = (tasks.clone(), settings.workers, settings.admission);
            Box::new(move |socket, closing| {
                let accepting = Accepting {
                    server: server.clone(),
                    tasks: tasks.clone(),
                    workers: workers.clone(),
                    admission: admission.clone(),
                };
                tasks.spawn(accepting.run(socket, closing));
            })
        };
        let leaving = CancellationToken::new();
        let listening = Self { name: settings.name, doors: Mutex::default(), open, drain, tasks, leaving };
        listening.apply(listening.prepare(&settings.addresses)?);
        listening.accept_covered(&settings.addresses);
        Ok(listening)
    }

    /// Accepts for a while at sockets that the program before this one had, where other ones take their clients now.
    fn accept_covered(&self, addresses: &[Address]) {
        let covered = inherited::take_covered(addresses);
        if covered.is_empty() {
            return;
        }
        for (socket, address, all) in covered {
            match doors::over(socket, &address) {
                Ok(socket) if all => (self.open)(Arc::new(socket), self.leaving.clone()),
                Ok(socket) => {
                    // Nobody asks for its other addresses any more: only who waits in its queue is let in.
                    let narrowed = self.leaving.child_token();
                    (self.open)(Arc::new(socket), narrowed.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(NARROWED).await;
                        narrowed.cancel();
                    });
                }
                Err(error) => tracing::warn!(%error, %address, "a socket that was handed over is of no use"),
            }
        }
        let leaving = self.leaving.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LEAVING, leaving.cancelled()).await;
            leaving.cancel();
        });
    }

    /// Binds those of the addresses that are not listened at yet; the error names the one that failed.
    pub fn prepare(&self, addresses: &[Address]) -> std::io::Result<Change> {
        let doors = self.doors.lock();
        let mut new = Vec::new();
        for address in addresses {
            let beside = doors::leaves_ipv4(address, addresses);
            if doors.iter().any(|door| (&door.asked, door.beside) == (address, beside)) {
                continue;
            }
            let (socket, file) = doors::listen(self.name, address, addresses).map_err(|error| {
                let port = |address: &Address| address.ip().map(|ip| ip.port());
                let own = doors.iter().any(|door| port(&door.asked).is_some() && port(&door.asked) == port(address));
                if own && error.kind() == std::io::ErrorKind::AddrInUse {
                    let reason =
                        "the port is still ours at an address that this one would take in, or as it was: restart";
                    return std::io::Error::new(error.kind(), format!("{error} ({reason})"));
                }
                error
            })?;
            new.push(Door {
                asked: address.clone(),
                beside,
                bound: socket.bound(address)?,
                file,
                socket: Arc::new(socket),
                closing: CancellationToken::new(),
            });
        }
        let wanted =
            addresses.iter().map(|address| (address.clone(), doors::leaves_ipv4(address, addresses))).collect();
        Ok(Change { new, wanted })
    }

    /// Accepts at the new addresses, and no longer at those that are not wanted any more; their connections go on.
    pub fn apply(&self, change: Change) {
        let mut doors = self.doors.lock();
        for door in change.new {
            (self.open)(Arc::clone(&door.socket), door.closing.clone());
            doors.push(door);
        }
        doors.retain(|door| {
            let wanted = change.wanted.iter().any(|(asked, beside)| (asked, *beside) == (&door.asked, door.beside));
            if !wanted {
                door.close();
            }
            wanted
        });
    }

    /// The addresses that were bound (port 0 resolved).
    pub fn addresses(&self) -> Vec<Address> {
        self.doors.lock().iter().map(|door| door.bound.clone()).collect()
    }

    /// Stops accepting and gives the sockets away, for another program to accept at. They stay open here too: who connects
    /// from now on waits, until the other one or `take_back` accepts.
    pub fn hand_over(&self) -> std::io::Result<Vec<Handed>> {
        let doors = self.doors.lock();
        let handed = doors.iter().map(|door| {
            Ok(Handed {
                listener: Some(self.name.to_owned()),
                asked: door.asked.clone(),
                beside: door.beside,
                file: door.file,
                socket: door.socket.duplicate()?,
            })
        });
        let handed = handed.collect::<std::io::Result<Vec<_>>>()?;
        doors.iter().for_each(|door| door.closing.cancel());
        self.leaving.cancel();
        Ok(handed)
    }

    /// Accepts again where `hand_over` had stopped.
    pub fn take_back(&self) {
        for door in self.doors.lock().iter_mut().filter(|door| door.closing.is_cancelled()) {
            door.closing = CancellationToken::new();
            door.socket.share_no_more();
            (self.open)(Arc::clone(&door.socket), door.closing.clone());
        }
    }

    /// Stops accepting, lets requests in flight finish (HTTP/1.1 `Connection: close`, HTTP/2 GOAWAY), and returns when all
    /// connections are closed or the time is over.
    pub fn drain(&self, at_most: Duration) -> BoxFuture<'_, ()> {
        self.doors.lock().drain(..).for_each(|door| door.close());
        self.drain_connections(at_most)
    }

    /// The same for a listener whose sockets were handed over. A client of HTTP/1.1 that has nothing under way may be about to
    /// ask: it is told with its next answer that this was the last.
    pub fn drain_handed_over(&self, at_most: Duration) -> BoxFuture<'_, ()> {
        self.drain.be_patient();
        // The other program has them: should it end, nobody shall wait here in vain. Their files are its, too.
        self.doors.lock().clear();
        self.drain_connections(at_most)
    }

    fn drain_connections(&self, at_most: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.leaving.cancel();
            self.drain.advance(Phase::Draining);
            self.tasks.close();
            if tokio::time::timeout(at_most, self.tasks.wait()).await.is_err() {
                tracing::warn!(connections = self.tasks.len(), "time to drain is over, the rest is closed");
                self.drain.advance(Phase::Closed);
                let _ = tokio::time::timeout(ABORT_GRACE, self.tasks.wait()).await;
            }
        })
    }
}

impl Door {
    /// Accepts no more, for good.
    fn close(&self) {
        self.closing.cancel();
        doors::remove_file(&self.bound, self.file);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.drain.advance(Phase::Closed);
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
