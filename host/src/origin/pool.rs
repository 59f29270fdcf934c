//! Connections to one origin, between requests.
//!
//! HTTP/1.1 connections are taken out for a request and put back at the end of its response, the last one first, so that
//! those that are not needed grow old. HTTP/2 connections are shared. Both are given up after a while even if they work,
//! so that a changed address in the DNS is followed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::OutBody;

/// Idle HTTP/1.1 connections kept: more than any one origin needs at once under the cap on concurrency, few enough for
/// the usual limit on open files.
const MAX_IDLE: usize = 256;
/// An idle connection older than this is closed: most servers close theirs after 60 to 75 seconds.
const MAX_IDLE_AGE: Duration = Duration::from_secs(60);
/// A connection takes no more requests after this, so that a changed address is found.
const MAX_LIFE: Duration = Duration::from_secs(300);
/// HTTP/2 connections kept.
const MAX_SHARED: usize = 16;
/// Requests at once on one HTTP/2 connection, if the server allows as many: bounds what its window has to hold.
pub(super) const MAX_STREAMS: usize = 64;
/// How long a connection may take to become ready after a response that ended.
const SETTLE: Duration = Duration::from_secs(10);

/// A way to send one request.
pub(super) enum Connection {
    /// For one request at a time.
    One(http1::SendRequest<OutBody>),
    /// For many at once.
    Many(http2::SendRequest<OutBody>),
}

/// A connection that is in use, with what is needed to give it back.
pub(super) struct Lease {
    connection: Option<Connection>,
    /// On a shared connection.
    _stream: Option<StreamCount>,
    pool: Arc<Pool>,
    born: Instant,
    /// Another request was on it before.
    pooled: bool,
}

/// Counts one request on a shared connection for as long as it lives.
struct StreamCount(Arc<AtomicUsize>);

impl StreamCount {
    fn new(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Idle {
    sender: http1::SendRequest<OutBody>,
    born: Instant,
    since: Instant,
}

struct Shared {
    sender: http2::SendRequest<OutBody>,
    streams: Arc<AtomicUsize>,
    /// What the server allows at the moment.
    limit: Arc<AtomicUsize>,
    born: Instant,
}

/// The connections of one origin.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Shared>>,
    reaping: AtomicUsize,
}

impl Pool {
    /// A connection that seems to be alive.
    pub(super) fn take(self: &Arc<Self>) -> Option<Lease> {
        let now = Instant::now();
        if let Some(lease) = self.take_shared(now) {
            return Some(lease);
        }
        let mut idle = self.idle.lock();
        while let Some(Idle { sender, born, since }) = idle.pop() {
            let fresh = now.duration_since(since) < MAX_IDLE_AGE && now.duration_since(born) < MAX_LIFE;
            if fresh && sender.is_ready() && !sender.is_closed() {
                return Some(Lease {
                    connection: Some(Connection::One(sender)),
                    _stream: None,
                    pool: Arc::clone(self),
                    born,
                    pooled: true,
                });
            }
        }
        None
    }

    fn take_shared(self: &Arc<Self>, now: Instant) -> Option<Lease> {
        let mut shared = self.shared.lock();
        shared.retain(|s| !s.sender.is_closed() && now.duration_since(s.born) < MAX_LIFE);
        let free = shared.iter().find(|s| {
            let limit = s.limit.load(Ordering::Relaxed).min(MAX_STREAMS);
            s.sender.is_ready() && s.streams.load(Ordering::Relaxed) < limit
        })?;
        let connection = Connection::Many(free.sender.clone());
        let stream = StreamCount::new(&free.streams);
        Some(Lease {
            connection: Some(connection),
            _stream: Some(stream),
            pool: Arc::clone(self),
            born: free.born,
            pooled: true,
        })
    }

    /// A new HTTP/1.1 connection, in use.
    pub(super) fn lease_one(self: &Arc<Self>, sender: http1::SendRequest<OutBody>) -> Lease {
        Lease {
            connection: Some(Connection::One(sender)),
            _stream: None,
            pool: Arc::clone(self),
            born: Instant::now(),
            pooled: false,
        }
    }

    /// A new HTTP/2 connection: in use, and open to others at once, as many as `limit` says.
    pub(super) fn lease_many(self: &Arc<Self>, sender: http2::SendRequest<OutBody>, limit: Arc<AtomicUsize>) -> Lease {
        let born = Instant::now();
        let streams = Arc::new(AtomicUsize::new(0));
        let stream = Some(StreamCount::new(&streams));
        let mut shared = self.shared.lock();
        if shared.len() < MAX_SHARED {
            shared.push(Shared { sender: sender.clone(), streams, limit, born });
        }
        drop(shared);
        self.reap();
        Lease {
            connection: Some(Connection::Many(sender)),
            _stream: stream,
            pool: Arc::clone(self),
            born,
            pooled: false,
        }
    }

    fn put(self: &Arc<Self>, sender: http1::SendRequest<OutBody>, born: Instant) {
        let since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE && since.duration_since(born) < MAX_LIFE {
            idle.push(Idle { sender, born, since });
        }
        drop(idle);
        self.reap();
    }

    /// Sees to it that what nobody asks for any more is closed: one task while there is something to close.
    fn reap(self: &Arc<Self>) {
        if self.reaping.swap(1, Ordering::AcqRel) == 0 {
            tokio::spawn(reaper(Arc::downgrade(self)));
        }
    }

    /// Closes what is too old. Returns whether anything is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        idle.retain(|i| now.duration_since(i.since) < MAX_IDLE_AGE && !i.sender.is_closed());
        let mut left = !idle.is_empty();
        drop(idle);
        let mut shared = self.shared.lock();
        shared.retain(|s| !s.sender.is_closed() && now.duration_since(s.born) < MAX_LIFE);
        left |= !shared.is_empty();
        left
    }
}

async fn reaper(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(MAX_IDLE_AGE / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.sweep() {
            // Whoever puts one from here on starts the next task.
            pool.reaping.store(0, Ordering::Release);
            if pool.sweep() {
                pool.reap();
            }
            return;
        }
    }
}

impl Lease {
    /// Whether it was used before, and so may have died since.
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// The connection; always there until `release`.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// Gives the connection back after a response that was read to its end. To drop a lease instead closes an HTTP/1.1
    /// connection, for nobody knows what is still on it.
    pub(super) fn release(mut self) {
        let Some(Connection::One(mut sender)) = self.connection.take() else { return };
        let (pool, born) = (Arc::clone(&self.pool), self.born);
        // The connection's own task has to see the end before it takes the next request.
        tokio::spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(SETTLE, sender.ready()).await {
                pool.put(sender, born);
            }
        });
    }
}
