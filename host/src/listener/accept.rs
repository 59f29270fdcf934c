//! Sockets that listen, and the loop that accepts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::connection::Server;
use super::drain::Phase;
use super::inherited;
use super::{Service, Workers};
use crate::telemetry::metrics::RefusedLabels;

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long accepting rests after an error that is not the connection's own. Such errors (out of files, out of memory) stay
/// until something is closed; without the rest the loop would spin.
const REST: Duration = Duration::from_millis(50);

/// At most one line about failing accepts in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// Whether an IPv6 address leaves IPv4 to another one of these.
pub(super) fn is_beside(address: SocketAddr, all: &[SocketAddr]) -> bool {
    address.is_ipv6() && all.iter().any(|other| other.is_ipv4() && other.port() == address.port() && other.port() != 0)
}

/// A socket that listens at `address`: one that was handed over, or a new one. `all` are the addresses of the listener: an IPv6 wildcard takes IPv4 clients too,
/// unless an IPv4 address at the same port is asked for beside it.
pub(super) fn listen(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    if let Some(socket) = inherited::take(address) {
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        return TcpListener::from_std(socket.into());
    }
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(is_beside(address, all))?;
        }
        // So that a restart needs not wait for old connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// What accepting at one address takes.
pub(super) struct Accepting<S> {
    pub(super) server: Arc<Server<S>>,
    pub(super) tasks: TaskTracker,
    pub(super) workers: Option<Arc<Workers>>,
    pub(super) admission: Option<Arc<Admission>>,
}

impl<S: Service> Accepting<S> {
    /// Puts a connection where it will live.
    fn begin(&self, stream: TcpStream, peer: SocketAddr) {
        let admitted = match self.admission.as_ref().map(|admission| admission.admit(peer.ip())).transpose() {
            Ok(admitted) => admitted,
            Err(full) => {
                let labels = RefusedLabels { limit: full.word() };
                self.server.metrics().connections_refused.get_or_create(&labels).inc();
                return;
            }
        };
        let server = self.server.clone();
        let Some(place) = self.workers.as_ref().and_then(|workers| workers.place()) else {
            self.tasks.spawn(async move {
                let _admitted = admitted;
                server.serve(stream, peer).await;
            });
            return;
        };
        // A socket belongs to the epoll of the runtime that it was made in.
        let Ok(stream) = stream.into_std() else { return };
        let handle = place.handle().clone();
        let serve = async move {
            let (_place, _admitted) = (place, admitted);
            if let Ok(stream) = TcpStream::from_std(stream) {
                server.serve(stream, peer).await;
            }
        };
        self.tasks.spawn_on(serve, &handle);
    }

    /// Accepts until the listener drains or this address is given up.
    pub(super) async fn run(self, listener: TcpListener, closing: CancellationToken) {
        let drain = self.server.drain().clone();
        let draining = drain.reached(Phase::Draining);
        tokio::pin!(draining);
        let mut complaints = Complaints::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut draining => return,
                () = closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.begin(stream, canonical(peer)),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.server.metrics().accept_errors.inc();
                    complaints.hear(&error);
                    tokio::select! {
                        biased;
                        () = &mut draining => return,
                        () = closing.cancelled() => return,
                        () = tokio::time::sleep(REST) => {}
                    }
                }
            }
        }
    }
}

/// Errors that accept(2) reports on behalf of a connection that is already gone.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// An IPv4 client of an IPv6 socket is known by its IPv4 address, as in every list of addresses that people write.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, peer.port()),
        IpAddr::V6(_) => peer,
    }
}

/// Tells of errors without flooding the log.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    fn hear(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < COMPLAINT_INTERVAL) {
            self.unsaid += 1;
            return;
        }
        tracing::error!(%error, unsaid = self.unsaid, "cannot accept connections");
        self.last = Some(now);
        self.unsaid = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = listen("127.0.0.1:0".parse().expect("an address"), &[]).expect("a free port");
        let taken = first.local_addr().expect("bound");
        let error = listen(taken, &[taken]).expect_err("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let peer: SocketAddr = "[::ffff:192.0.2.7]:99".parse().expect("an address");
        assert_eq!(canonical(peer), "192.0.2.7:99".parse().expect("an address"));
        let six: SocketAddr = "[2001:db8::1]:99".parse().expect("an address");
        assert_eq!(canonical(six), six);
    }
}
