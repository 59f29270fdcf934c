//! What an HTTP/2 connection writes, put together.
//!
//! h2 flushes after every frame that it does not copy, which makes a call of the kernel, and of TLS a record or two, out of each
//! small answer and of each 16 KiB of a large one. But nobody reads before the connection has said all it has to say for now. So
//! small frames are collected here and encrypted together, TLS keeps what is encrypted until its buffer is full, and when the
//! connection's task has done what was ready, the rest goes out at once (`poll_round`).

use std::io::{self, IoSlice, Write};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;

/// Up to this, frames are copied together: a TLS record of its own costs more.
const SMALL_BYTES: usize = 4 << 10;

/// The most that is collected: a full TLS record.
const OUT_BYTES: usize = 16 << 10;

/// A socket behind the frames that wait to go out. The connection and whoever polls it share it.
#[derive(Debug)]
pub(super) struct Outbox(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    socket: Socket,
    out: Vec<u8>,
    /// Of `out`.
    written: usize,
}

impl Outbox {
    /// Around a socket.
    pub(super) fn around(socket: Socket) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { socket, out: Vec::new(), written: 0 })))
    }

    /// The socket's number.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.lock().socket.descriptor()
    }

    /// Reads from the socket.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().socket).poll_read(cx, buf)
    }

    /// Takes pieces of frames; when they go out is left open.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let bytes: usize = bufs.iter().map(|piece| piece.len()).sum();
        if inner.out.len() + bytes > OUT_BYTES || bytes > SMALL_BYTES {
            ready!(inner.poll_push_out(cx))?;
        }
        if bytes <= SMALL_BYTES {
            for piece in bufs {
                inner.out.extend_from_slice(piece);
            }
            return Poll::Ready(Ok(bytes));
        }
        inner.socket.poll_push(cx, bufs)
    }

    /// Sends what is left of this round. Pending: the socket takes no more now.
    pub(super) fn poll_round(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_push_out(cx))?;
        Pin::new(&mut inner.socket).poll_flush(cx)
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
    /// Hands what was collected on.
    fn poll_push_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = IoSlice::new(&self.out[self.written..]);
            match ready!(self.socket.poll_push(cx, &[rest]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.written += bytes,
            }
        }
        // An idle connection holds no buffer.
        (self.out, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    /// Writes pieces; under TLS what is encrypted stays there until its buffer is full.
    fn poll_push(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Self::Tls(stream) = self else { return Pin::new(self).poll_write_vectored(cx, bufs) };
        loop {
            match stream.get_mut().1.writer().write_vectored(bufs)? {
                0 => ready!(Pin::new(&mut **stream).poll_flush(cx))?,
                bytes => return Poll::Ready(Ok(bytes)),
            }
        }
    }
}
