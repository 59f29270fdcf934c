//! Interim responses (RFC 9110 section 15.2) to clients of HTTP/1.1, below hyper's server, which can't send them.
//!
//! They come from another task, the one that reads from the origin, while the connection waits for the answer. They are put into
//! line here and the connection's task is woken; hyper then flushes, and since it asks for that only when nothing of its own is
//! left to write, what is in line goes out between two responses and never into one. When the answer is there, what has not
//! begun to go out is dropped.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;

use crate::semantics::hop_by_hop;
use crate::semantics::interim::InterimWriter;

/// Interim responses to one request: more than anybody sends, and few enough that an origin can't keep a client busy.
const MOST: usize = 16;
/// The longest one.
const BYTES_MAX: usize = 16 << 10;

/// What is in line on one connection.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Odd while a request waits for its answer.
    turn: AtomicU64,
    /// There is something in line.
    any: AtomicBool,
    bytes: Mutex<Bytes>,
    /// Stays here when it is woken: it is left anew only when the task changes.
    task: Mutex<Option<Waker>>,
}

#[derive(Debug, Default)]
struct Bytes {
    all: Vec<u8>,
    written: usize,
    /// How many were taken for whose turn.
    count: (u64, usize),
}

impl Line {
    /// The task that polls the connection.
    pub(super) fn lives_in(&self, task: &Waker) {
        *self.task.lock() = Some(task.clone());
    }

    /// A request waits for its answer.
    pub(super) fn begin(&self) {
        self.turn.store(self.turn.load(Ordering::Relaxed) | 1, Ordering::SeqCst);
    }

    /// The answer is there.
    pub(super) fn answered(&self) {
        // Before the look: whoever puts something in line looks at the turn once more behind that.
        self.turn.store((self.turn.load(Ordering::Relaxed) | 1) + 1, Ordering::SeqCst);
        if self.any.load(Ordering::SeqCst) {
            self.drop_unbegun();
        }
    }

    fn drop_unbegun(&self) {
        let mut bytes = self.bytes.lock();
        if bytes.written == 0 {
            bytes.all.clear();
            self.any.store(false, Ordering::SeqCst);
        }
    }

    /// Whether something is in line.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Whether something has begun to go out: nothing else may, before its end.
    pub(super) fn is_half_written(&self) -> bool {
        self.is_waiting() && self.bytes.lock().written > 0
    }

    /// Writes what is in line.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let mut bytes = self.bytes.lock();
        while bytes.written < bytes.all.len() {
            let written = ready!(Pin::new(&mut *socket).poll_write(cx, &bytes.all[bytes.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.written += written;
        }
        bytes.all.clear();
        bytes.written = 0;
        self.any.store(false, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

impl InterimWriter for Line {
    fn write(&self, turn: u64, status: StatusCode, fields: &HeaderMap) {
        let Some(head) = head(status, fields) else { return };
        let mut bytes = self.bytes.lock();
        if bytes.count.0 != turn {
            bytes.count = (turn, 0);
        }
        if turn.is_multiple_of(2) || bytes.count.1 >= MOST || bytes.all.len() + head.len() > BYTES_MAX {
            return;
        }
        let before = bytes.all.len();
        bytes.all.extend_from_slice(&head);
        self.any.store(true, Ordering::SeqCst);
        if self.turn.load(Ordering::SeqCst) != turn {
            // The answer was quicker.
            bytes.all.truncate(before);
            self.any.store(before > 0, Ordering::SeqCst);
            return;
        }
        bytes.count.1 += 1;
        drop(bytes);
        if let Some(task) = &*self.task.lock() {
            task.wake_by_ref();
        }
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }
}

/// A whole interim response (RFC 9112 section 4), without what frames a message or ends at the next hop.
fn head(status: StatusCode, fields: &HeaderMap) -> Option<Vec<u8>> {
    let mut fields = fields.clone();
    hop_by_hop::strip(&mut fields);
    fields.remove(CONTENT_LENGTH);
    fields.remove(TRANSFER_ENCODING);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    (head.len() <= BYTES_MAX).then_some(head)
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;
    use http::HeaderValue;
    use http::header::{CONNECTION, LINK};

    use super::*;

    fn written(line: &Line) -> String {
        let mut out = Vec::new();
        let waker = noop_waker();
        assert!(line.poll_write(&mut Context::from_waker(&waker), &mut out).is_ready());
        String::from_utf8(out).unwrap()
    }

    fn hints() -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(LINK, HeaderValue::from_static("</a.css>; rel=preload"));
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        fields.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        fields
    }

    #[test]
    fn who_waits_is_told_and_nobody_else() {
        let line = Line::default();
        line.write(line.turn(), StatusCode::EARLY_HINTS, &hints());
        assert!(!line.is_waiting(), "nobody waits");
        line.begin();
        let first = line.turn();
        line.write(first, StatusCode::EARLY_HINTS, &hints());
        assert!(line.is_waiting() && !line.is_half_written());
        assert_eq!(written(&line), "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        line.write(first, StatusCode::PROCESSING, &HeaderMap::new());
        line.answered();
        assert_eq!(written(&line), "", "the answer was there before it");
        line.begin();
        line.write(first, StatusCode::EARLY_HINTS, &hints());
        assert!(!line.is_waiting(), "another waits by now");
    }

    #[test]
    fn the_task_is_woken_for_each() {
        struct Count(AtomicU64);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (line, count) = (Line::default(), std::sync::Arc::new(Count(AtomicU64::new(0))));
        line.lives_in(&Waker::from(count.clone()));
        // More than one request may have, over several.
        for told in 1..2 * MOST as u64 {
            line.begin();
            line.write(line.turn(), StatusCode::PROCESSING, &HeaderMap::new());
            written(&line);
            line.answered();
            assert_eq!(count.0.load(Ordering::SeqCst), told);
        }
    }

    #[test]
    fn what_has_begun_to_go_out_goes_on_and_there_is_a_limit() {
        let line = Line::default();
        line.begin();
        for _ in 0..2 * MOST {
            line.write(line.turn(), StatusCode::PROCESSING, &HeaderMap::new());
        }
        let one = "HTTP/1.1 102 Processing\r\n\r\n";
        assert_eq!(line.bytes.lock().all.len(), MOST * one.len());
        line.bytes.lock().written = 3;
        line.answered();
        assert!(line.is_half_written());
        assert_eq!(written(&line), one.repeat(MOST)[3..]);
        assert!(!line.is_waiting());
    }
}
