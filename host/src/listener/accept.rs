//! The loop that accepts at a socket.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::LOCAL;
use super::admission::Admission;
use super::connection::Server;
use super::doors::{BACKLOG, Listener};
use super::drain::Phase;
use super::{Service, Workers};
use crate::telemetry::metrics::RefusedLabels;

/// How long accepting rests after an error that is not the connection's own. Such errors (out of files, out of memory) stay
/// until something is closed; without the rest the loop would spin.
const REST: Duration = Duration::from_millis(50);

/// At most one line about failing accepts in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

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
        // Whoever comes over a unix socket has no address of its own.
        let address = (peer != LOCAL).then(|| peer.ip());
        let admitted = match self.admission.as_ref().map(|admission| admission.admit(address)).transpose() {
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
    pub(super) async fn run(self, listener: Arc<Listener>, closing: CancellationToken) {
        let drain = self.server.drain().clone();
        let draining = drain.reached(Phase::Draining);
        tokio::pin!(draining);
        let mut complaints = Complaints::default();
        let mut spare = Spare::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut draining => return,
                () = closing.cancelled() => {
                    // Who waits in the queue of a socket that nobody else has would be reset.
                    let waiting = std::iter::from_fn(|| listener.accept_waiting());
                    waiting.take(BACKLOG as usize).for_each(|(stream, peer)| self.begin(stream, peer));
                    return;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.begin(stream, peer),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) if lacks_files(&error) && spare.shed(&listener).await => {
                    let labels = RefusedLabels { limit: "files" };
                    self.server.metrics().connections_refused.get_or_create(&labels).inc();
                    complaints.hear(&error);
                }
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

/// No more files can be opened: by us, or by anybody.
fn lacks_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// A file that is kept open to be closed when there is no other way to accept: then a client that can't be served learns it at
/// once, where it would wait in the backlog until it gives up.
struct Spare(Option<File>);

impl Default for Spare {
    fn default() -> Self {
        Self(File::open("/dev/null").ok())
    }
}

impl Spare {
    /// Accepts one connection and closes it. False if that could not be done.
    async fn shed(&mut self, listener: &Listener) -> bool {
        if self.0.take().is_none() {
            *self = Self::default();
            return false;
        }
        let accepted = listener.accept().now_or_never();
        let shed = matches!(&accepted, Some(Ok(_)));
        drop(accepted);
        *self = Self::default();
        shed
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
