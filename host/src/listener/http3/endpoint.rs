//! A UDP socket, and the loop that takes in connections at it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::address::canonical;
use super::super::doors::is_beside;
use super::super::drain::Phase;
use super::super::{Service, Workers};
use super::connection::Server;

/// Handshakes under way from which on a client first has to show that it is where it says (RFC 9000 section 8.1.2): one
/// more round for it, and a flood from invented addresses costs us a packet each and nothing else.
const RETRY_FROM: usize = 64;

/// Connections at once, those in their handshake too. No limit of open files bounds them, as with TCP; idle ones take
/// some 50 KiB. What is configured (`Admission`) counts once a client has shown that it is where it says: before,
/// anybody could take the places of others.
const CONNECTIONS: usize = 16_384;

/// Room for packets in the kernel, for when we are busy; it gives what it allows (`net.core.rmem_max`).
const SOCKET_BYTES: usize = 2 << 20;

/// Opens a socket at `address`; `all` as for TCP.
pub(super) fn open(address: SocketAddr, all: &[SocketAddr], config: &quinn::ServerConfig) -> io::Result<Endpoint> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(is_beside(address, all.iter().copied()))?;
        }
        // Without that room packets are lost sooner, no more.
        let _ = (socket.set_recv_buffer_size(SOCKET_BYTES), socket.set_send_buffer_size(SOCKET_BYTES));
        socket.bind(&address.into())?;
        Endpoint::new(EndpointConfig::default(), Some(config.clone()), socket.into(), Arc::new(TokioRuntime))
    };
    open().map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on UDP {address}: {error}")))
}

/// How accepting at one address ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    /// The address is given up.
    pub(super) closing: CancellationToken,
    /// It is wanted again after all: somebody else accepts at the same socket.
    pub(super) revived: CancellationToken,
}

/// What accepting takes.
pub(super) struct Accepting<S> {
    pub(super) server: Arc<Server<S>>,
    pub(super) tasks: TaskTracker,
    pub(super) workers: Option<Arc<Workers>>,
    pub(super) turns: Arc<Turns>,
}

/// How many connections may be open, and how many of them in their handshake.
pub(super) struct Turns {
    handshakes: Arc<Semaphore>,
    /// With so few left, or fewer, clients have to show where they are.
    free: usize,
    connections: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new(handshakes: usize) -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(handshakes)),
            free: handshakes - RETRY_FROM.min(handshakes / 2),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    fn are_many(&self) -> bool {
        self.handshakes.available_permits() <= self.free
    }
}

impl<S: Service> Accepting<S> {
    /// Accepts until the listener drains or this address is given up; then turns clients away, so that they need not
    /// wait, for as long as the socket is open for connections that go on.
    pub(super) async fn run(self, endpoint: Endpoint, local: SocketAddr, ends: Ends) {
        let drain = Arc::clone(self.server.drain());
        let draining = drain.reached(Phase::Draining);
        tokio::pin!(draining);
        loop {
            let incoming = tokio::select! {
                biased;
                () = &mut draining => break,
                () = ends.closing.cancelled() => break,
                incoming = endpoint.accept() => incoming,
            };
            match incoming {
                Some(incoming) => self.begin(incoming, local),
                None => return,
            }
        }
        loop {
            let incoming = tokio::select! {
                biased;
                () = drain.reached(Phase::Closed) => break,
                () = ends.revived.cancelled() => return,
                () = endpoint.wait_idle() => break,
                incoming = endpoint.accept() => incoming,
            };
            match incoming {
                Some(incoming) => incoming.refuse(),
                None => return,
            }
        }
        endpoint.set_server_config(None);
    }

    /// Puts a connection where it will live, or turns it away.
    fn begin(&self, incoming: Incoming, local: SocketAddr) {
        if self.turns.are_many() && !incoming.remote_address_validated() && incoming.may_retry() {
            self.server.count_handshake("retry");
            // It may retry: that was asked.
            let _ = incoming.retry();
            return;
        }
        let turn = Arc::clone(&self.turns.handshakes).try_acquire_owned();
        let place = Arc::clone(&self.turns.connections).try_acquire_owned();
        // It could not say whom it speaks for: that is for TCP.
        let is_proxy = self.server.is_proxy(canonical(incoming.remote_address()).ip());
        let (Ok(turn), Ok(room), false) = (turn, place, is_proxy) else {
            self.server.count_handshake("refused");
            incoming.refuse();
            return;
        };
        let server = Arc::clone(&self.server);
        let place = self.workers.as_ref().and_then(|workers| workers.place());
        let handle = place.as_ref().map(|place| place.handle().clone());
        // quinn's own task for a connection is started where it is accepted, which is in there.
        let serve = async move {
            let _held = (room, place);
            server.serve(incoming, local, turn).await;
        };
        match handle {
            Some(handle) => self.tasks.spawn_on(serve, &handle),
            None => self.tasks.spawn(serve),
        };
    }
}
