//! Sends what the connections of a worker have written, together.
//!
//! Whatever is ready is worked off, and then the answers go out one after the other. A client on this machine is woken by the first
//! of them and mostly takes the core from the worker to read it; so it finds several. And the kernel's code and ours do not drive
//! each other out of the core's caches with each answer. Nobody waits for more than what was ready anyway, and hyper and TLS need
//! not be asked again for what is only to be sent.
//!
//! A worker has a task for it. Whoever has something to send wakes that task, which gets its turn behind all that are ready by then.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker, ready};

use parking_lot::Mutex;
use rustix::net::SendFlags;

/// What is little: a record with an answer of 4 KiB and its head.
const LITTLE_BYTES: usize = 5 << 10;

/// The most that a connection has waiting here, of many answers.
const KEPT_BYTES: usize = 16 << 10;

#[derive(Default)]
struct Sending {
    /// Those that have something to send.
    connections: Vec<Arc<Kept>>,
    /// The task's; none: no task of this thread sends.
    waker: Option<Waker>,
}

thread_local! {
    static SENDING: RefCell<Sending> = RefCell::default();
}

/// Sends for all connections of this thread, as long as it is polled there.
pub(super) async fn run() {
    let _ends = Ends;
    poll_fn(|cx| {
        let connections = SENDING.with_borrow_mut(|sending| {
            if !sending.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                sending.waker = Some(cx.waker().clone());
            }
            std::mem::take(&mut sending.connections)
        });
        connections.iter().for_each(|kept| kept.send());
        SENDING.with_borrow_mut(|sending| {
            if sending.connections.is_empty() {
                // It has grown to what is usual.
                sending.connections = connections;
                sending.connections.clear();
            }
        });
        Poll::<()>::Pending
    })
    .await;
}

struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        // The thread may be at its end.
        let _ = SENDING.try_with(|sending| *sending.borrow_mut() = Sending::default());
    }
}

/// Keeps bytes for the task that sends on this thread. False where there is none, or they have to go out now.
pub(super) fn keep(kept: &Arc<Kept>, bytes: &[u8], waker: &Waker) -> bool {
    if bytes.len() > LITTLE_BYTES || kept.stuck.load(Ordering::Relaxed) {
        return false;
    }
    SENDING.with_borrow_mut(|sending| {
        let Some(task) = &sending.waker else { return false };
        let mut inner = kept.inner.lock();
        if inner.bytes.len() + bytes.len() > KEPT_BYTES || inner.descriptor.is_none() {
            return false;
        }
        if inner.bytes.is_empty() {
            kept.waits.store(true, Ordering::Relaxed);
            if sending.connections.is_empty() {
                task.wake_by_ref();
            }
            sending.connections.push(Arc::clone(kept));
        }
        if !inner.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
        inner.bytes.extend_from_slice(bytes);
        true
    })
}

/// What a connection has written and not sent.
#[derive(Debug)]
pub(super) struct Kept {
    /// There is something.
    waits: AtomicBool,
    /// The socket did not take it all: whoever flushes waits for it.
    stuck: AtomicBool,
    inner: Mutex<Inner>,
    /// Bytes that the kernel has taken of this connection.
    taken: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    /// The socket's number, as long as it is open.
    descriptor: Option<RawFd>,
    /// Of the connection's task.
    waker: Option<Waker>,
}

impl Kept {
    /// Nothing yet, of the connection whose socket has this number. It says when that is closed.
    pub(super) fn of(descriptor: RawFd) -> Arc<Self> {
        let inner = Inner { bytes: Vec::new(), descriptor: Some(descriptor), waker: None };
        Arc::new(Self {
            waits: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            inner: Mutex::new(inner),
            taken: Arc::default(),
        })
    }

    /// Bytes that the kernel has taken.
    pub(super) fn taken(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }

    /// The kernel took so many.
    pub(super) fn count(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether something waits.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Whether what waits, if anything does, is sent without any more doing.
    pub(super) fn is_in_hand(&self) -> bool {
        !self.stuck.load(Ordering::Relaxed) && SENDING.with_borrow(|sending| sending.waker.is_some())
    }

    /// Sends what waits by this call, in its order.
    pub(super) fn poll_send(&self, mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        while !inner.bytes.is_empty() {
            match ready!(write(&inner.bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.went_out(&mut inner, bytes),
            }
        }
        self.stuck.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// The socket is about to be closed: what it takes of what waits goes out, and nothing after that.
    pub(super) fn close(&self) {
        if self.waits() {
            self.send();
        }
        let mut inner = self.inner.lock();
        inner.descriptor = None;
        inner.waker = None;
    }

    /// Sends what waits. If the socket does not take all of it now, the connection's task is woken, to wait for that.
    fn send(&self) {
        let mut inner = self.inner.lock();
        let Some(descriptor) = inner.descriptor.filter(|_| !inner.bytes.is_empty()) else { return };
        #[expect(unsafe_code, reason = "the connection is elsewhere, and the descriptor known by its number")]
        // SAFETY: it is open until `close` has taken it away, for which this lock is needed.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = rustix::net::send(socket, &inner.bytes, flags).unwrap_or(0);
        self.went_out(&mut inner, sent);
        if !inner.bytes.is_empty() {
            self.stuck.store(true, Ordering::Relaxed);
            if let Some(waker) = &inner.waker {
                waker.wake_by_ref();
            }
        }
    }

    fn went_out(&self, inner: &mut Inner, bytes: usize) {
        self.count(bytes);
        if bytes == inner.bytes.len() {
            // An idle connection holds no buffer.
            inner.bytes = Vec::new();
            self.waits.store(false, Ordering::Relaxed);
        } else {
            inner.bytes.drain(..bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::wire::Wire;
    use super::*;

    async fn pair() -> (TcpStream, Wire) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wire = Wire::over(listener.accept().await.unwrap().0);
        wire.keep_little();
        (client, wire)
    }

    fn waiting() -> usize {
        SENDING.with_borrow(|sending| sending.connections.len())
    }

    /// Begins to send on this thread.
    async fn start() -> tokio::task::JoinHandle<()> {
        let task = tokio::spawn(run());
        tokio::task::yield_now().await;
        task
    }

    #[tokio::test]
    async fn without_a_task_that_sends_all_goes_out_at_once() {
        let (mut client, mut wire) = pair().await;
        wire.write_all(b"at once").await.unwrap();
        let mut seen = [0; 7];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"at once");
    }

    #[tokio::test]
    async fn a_little_waits_for_its_turn_and_goes_before_what_follows() {
        let task = start().await;
        let (mut client, mut wire) = pair().await;
        let (_other_client, mut other) = pair().await;
        wire.write_all(b"one ").await.unwrap();
        wire.write_all(b"two ").await.unwrap();
        wire.flush().await.unwrap();
        other.write_all(b"another").await.unwrap();
        assert_eq!(waiting(), 2);
        assert_eq!(wire.taken().load(Ordering::Relaxed), 0);
        tokio::task::yield_now().await;
        assert_eq!(waiting(), 0);
        assert_eq!(wire.taken().load(Ordering::Relaxed), 8);

        wire.write_all(b"with ").await.unwrap();
        wire.write_all(&[b'x'; LITTLE_BYTES + 1]).await.unwrap();
        wire.write_all(b" and an end").await.unwrap();
        wire.shutdown().await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, format!("one two with {} and an end", "x".repeat(LITTLE_BYTES + 1)));
        assert_eq!(wire.taken().load(Ordering::Relaxed), all.len() as u64);
        task.abort();
    }

    #[tokio::test]
    async fn a_full_socket_keeps_the_order_and_nobody_piles_up() {
        let task = start().await;
        let (mut client, mut wire) = pair().await;
        let mut written = 0u64;
        let mut piece = [0; 1000];
        // Whatever is offered, no more than the socket's own buffers and a little is taken.
        loop {
            piece.iter_mut().enumerate().for_each(|(at, byte)| *byte = ((written + at as u64) % 251) as u8);
            match wire.write(&piece).now_or_never() {
                Some(bytes) => written += bytes.unwrap() as u64,
                None => break,
            }
            tokio::task::yield_now().await;
        }
        let unsent = written - wire.taken().load(Ordering::Relaxed);
        assert!(unsent <= KEPT_BYTES as u64, "{unsent}");
        assert!(wire.flush().now_or_never().is_none(), "it is stuck, and says so");
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            all
        });
        wire.shutdown().await.unwrap();
        let all = reading.await.unwrap();
        assert_eq!(all.len() as u64, written);
        assert!(all.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
        task.abort();
    }

    #[tokio::test]
    async fn one_that_goes_away_sends_what_it_can_and_nothing_after_that() {
        let task = start().await;
        let (mut client, mut wire) = pair().await;
        wire.write_all(b"goodbye").await.unwrap();
        let kept = SENDING.with_borrow(|sending| sending.connections[0].clone());
        drop(wire);
        // Its number may be another's by now.
        kept.inner.lock().bytes.extend_from_slice(b"late");
        tokio::task::yield_now().await;
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "goodbye");
        task.abort();
    }

    #[tokio::test]
    async fn what_waits_when_the_task_ends_goes_out_with_the_next_flush() {
        let task = start().await;
        let (mut client, mut wire) = pair().await;
        wire.write_all(b"kept ").await.unwrap();
        task.abort();
        let _ = task.await;
        wire.flush().await.unwrap();
        wire.write_all(b"sent").await.unwrap();
        let mut seen = [0; 9];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"kept sent");
    }
}
