//! What h3 has no place for: how far each request's stream has come, and from which stream on requests are turned away.
//!
//! h3 makes its own objects of our streams, so that who answers a request cannot ask the stream itself. It finds it
//! here, by its number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use h3::error::Code;
use http::StatusCode;
use parking_lot::Mutex;
use quinn::{StoppedError, VarInt};

use super::super::activity::Limits;

/// Becomes ready when the client wants no more of an answer (with its reason), or has all of it.
pub(super) type Stopped = BoxFuture<'static, Result<Option<VarInt>, StoppedError>>;

/// The streams of one connection that requests come on.
pub(super) struct Streams {
    limits: Limits,
    head_bytes: usize,
    /// Accepted, and not yet taken by who answers: one at most, unless h3 drops one.
    accepted: Mutex<HashMap<u64, Accepted>>,
    /// The number of the next stream.
    next: AtomicU64,
    /// Streams from this number on are turned away.
    end: AtomicU64,
}

/// A request's stream.
pub(super) struct Accepted {
    pub(super) progress: Arc<Progress>,
    pub(super) stopped: Stopped,
}

/// How far an answer has come.
#[derive(Debug)]
pub(super) struct Progress {
    stage: AtomicU8,
    refused: AtomicU16,
}

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const READABLE: u8 = 2;
const STALLED: u8 = 3;

impl Streams {
    pub(super) fn new(limits: Limits, head_bytes: usize) -> Self {
        let (next, end) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self { limits, head_bytes, accepted: Mutex::default(), next, end }
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        self.limits.stall
    }

    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// A stream came. None: it is turned away.
    pub(super) fn begin(&self, send: &quinn::SendStream) -> Option<Arc<Progress>> {
        let id = u64::from(send.id());
        if id >= self.end.load(Ordering::Relaxed) {
            return None;
        }
        // The next of the same kind: two bits of a number say who opened the stream and which way it goes.
        self.next.fetch_max(id + 4, Ordering::Relaxed);
        let progress = Arc::new(Progress { stage: AtomicU8::new(WAITING), refused: AtomicU16::new(0) });
        let accepted = Accepted { progress: Arc::clone(&progress), stopped: Box::pin(send.stopped()) };
        self.accepted.lock().insert(id, accepted);
        Some(progress)
    }

    /// The stream that h3 has accepted as this one.
    pub(super) fn take(&self, id: u64) -> Option<Accepted> {
        self.accepted.lock().remove(&id)
    }

    /// Turns away what comes from now on.
    pub(super) fn close(&self) {
        self.end.store(self.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Progress {
    /// Something of the answer went out.
    pub(super) fn began(&self) {
        let _ = self.stage.compare_exchange(WAITING, BEGUN, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The head of the request was read: from now on the answer is ours, not h3's.
    pub(super) fn readable(&self) {
        self.stage.store(READABLE, Ordering::Relaxed);
    }

    /// The client took nothing for too long.
    pub(super) fn stalled(&self) {
        self.stage.store(STALLED, Ordering::Relaxed);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == STALLED
    }

    /// What came in is refused, with this status.
    pub(super) fn refuse(&self, status: StatusCode) {
        self.refused.store(status.as_u16(), Ordering::Relaxed);
    }

    /// The status that what came in was refused with.
    pub(super) fn refused(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.refused.load(Ordering::Relaxed)).ok()
    }

    /// The reason to give for an answer that ends here, without its end. None: that was all of it.
    pub(super) fn unfinished(&self) -> Option<Code> {
        match self.stage.load(Ordering::Relaxed) {
            WAITING => Some(Code::H3_REQUEST_INCOMPLETE),
            // h3 has answered by itself, with 431, and does not end the stream.
            BEGUN => None,
            STALLED => Some(Code::H3_REQUEST_CANCELLED),
            _ => Some(Code::H3_INTERNAL_ERROR),
        }
    }
}
