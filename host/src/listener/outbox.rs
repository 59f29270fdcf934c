//! What an HTTP/2 connection writes, put together.
//!
//! h2 flushes after every frame that it does not copy, which makes a call of the kernel, and of TLS a record or two, out of each
//! small answer and of each 16 KiB of a large one. But nobody reads before the connection has said all it has to say for now. So
//! what is written goes on in whole TLS records, whatever frames they hold, and what does not fill one is kept here. When the
//! connection's task has done what was ready, the rest goes out at once (`poll_round`).

use std::io::{self, IoSlice, Write};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;

/// What a full TLS record holds (RFC 8446 section 5.1), and so the most that is kept here.
const RECORD_BYTES: usize = 16 << 10;

/// What TLS may have encrypted before it goes out. Measured with answers of 100 KiB: with 64 KiB, a tenth more CPU time goes into
/// calls of the kernel and waking clients.
const ENCRYPTED_BYTES: usize = 16 * RECORD_BYTES;

/// A socket behind the frames that wait to go out. The connection and whoever polls it share it.
#[derive(Debug)]
pub(super) struct Outbox(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    socket: Socket,
    /// Less than a record.
    out: Vec<u8>,
    /// Of `out`.
    written: usize,
    /// What TLS was handed since all of it was out.
    encrypted: usize,
}

impl Outbox {
    /// Around a socket.
    pub(super) fn around(mut socket: Socket) -> Arc<Self> {
        if let Socket::Tls(stream) = &mut socket {
            // Its own limit would cut records to fit.
            stream.get_mut().1.set_buffer_limit(None);
        }
        Arc::new(Self(Mutex::new(Inner { socket, out: Vec::new(), written: 0, encrypted: 0 })))
    }

    /// The socket's number.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.lock().socket.descriptor()
    }

    /// Counts the bytes that the kernel has taken, of TLS.
    pub(super) fn taken(&self) -> Option<Arc<AtomicU64>> {
        self.0.lock().socket.taken()
    }

    /// Reads from the socket.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().socket).poll_read(cx, buf)
    }

    /// Waits until bytes of the peer are there.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().socket.poll_read_ready(cx)
    }

    /// Takes pieces of frames; when they go out is left open.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let bytes: usize = bufs.iter().map(|piece| piece.len()).sum();
        loop {
            let waiting = inner.out.len() - inner.written;
            let whole = (waiting + bytes) / RECORD_BYTES * RECORD_BYTES;
            if whole == 0 {
                inner.keep(bufs, 0);
                return Poll::Ready(Ok(bytes));
            }
            let pushed = ready!(inner.poll_push(cx, bufs, whole))?;
            if pushed < waiting {
                inner.written += pushed;
                continue;
            }
            (inner.out, inner.written) = (Vec::new(), 0);
            if pushed == whole {
                inner.keep(bufs, whole - waiting);
                return Poll::Ready(Ok(bytes));
            }
            if pushed > waiting {
                return Poll::Ready(Ok(pushed - waiting));
            }
        }
    }

    /// Sends what is left of this round. Pending: the socket takes no more now.
    pub(super) fn poll_round(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_push_out(cx))?;
        inner.poll_flush(cx)
    }

    /// Sends what is left, and ends.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_push_out(cx))?;
        Pin::new(&mut inner.socket).poll_shutdown(cx)
    }

    /// Reads below TLS, for what nobody wants any more.
    pub(super) fn poll_waste(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.lock().socket.poll_waste(cx, buf)
    }
}

impl Inner {
    /// Keeps the pieces from that byte on.
    fn keep(&mut self, bufs: &[IoSlice<'_>], mut from: usize) {
        for piece in bufs {
            let skipped = from.min(piece.len());
            from -= skipped;
            self.out.extend_from_slice(&piece[skipped..]);
        }
    }

    /// Hands what is kept on.
    fn poll_push_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = self.out.len() - self.written;
            self.written += ready!(self.poll_push(cx, &[], rest))?;
        }
        // An idle connection holds no buffer.
        (self.out, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Hands so many bytes on, of what is kept and then of the pieces; how many were taken, which are some. Under TLS what is
    /// encrypted stays there until it is enough for a call of the kernel.
    fn poll_push(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], bytes: usize) -> Poll<io::Result<usize>> {
        if self.encrypted + bytes > ENCRYPTED_BYTES {
            ready!(self.poll_flush(cx))?;
        }
        let mut left = bytes;
        let mut pieces: SmallVec<[IoSlice<'_>; 4]> = SmallVec::new();
        for piece in std::iter::once(&self.out[self.written..]).chain(bufs.iter().map(|piece| &**piece)) {
            let part = &piece[..left.min(piece.len())];
            left -= part.len();
            if !part.is_empty() {
                pieces.push(IoSlice::new(part));
            }
        }
        let pushed = match &mut self.socket {
            Socket::Tls(stream) => stream.get_mut().1.writer().write_vectored(&pieces)?,
            other => ready!(Pin::new(other).poll_write_vectored(cx, &pieces))?,
        };
        if pushed == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.encrypted += pushed;
        Poll::Ready(Ok(pushed))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.encrypted = 0;
        Poll::Ready(Ok(()))
    }
}
