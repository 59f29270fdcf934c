//! A TCP connection below TLS.
//!
//! Of HTTP/1.x what is written is kept for a moment, if it is little, and sent when the worker's other connections have had their
//! turn (`sending.rs`).

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::sending::{self, Kept};

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    kept: Arc<Kept>,
    /// Little things are kept.
    keeps: bool,
}

impl Wire {
    pub(super) fn over(socket: TcpStream) -> Self {
        let kept = Kept::of(socket.as_raw_fd());
        Self { socket, kept, keeps: false }
    }

    /// The connection itself.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Bytes that the kernel has taken by now: TLS has more in hand than those.
    pub(super) fn taken(&self) -> Arc<AtomicU64> {
        self.kept.taken()
    }

    /// From now on little things are sent together with those of others.
    pub(super) fn keep_little(&mut self) {
        self.keeps = true;
    }

    /// Sends what is kept before anything else goes out.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.kept.waits() {
            return Poll::Ready(Ok(()));
        }
        let socket = &mut self.socket;
        self.kept.poll_send(|bytes| Pin::new(&mut *socket).poll_write(cx, bytes))
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.kept.count(*bytes);
        }
        written
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Before the number of the socket is another one's.
        self.kept.close();
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.keeps && sending::keep(&self.kept, buf, cx.waker()) {
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_kept(cx))?;
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // rustls hands over lists of records, mostly of one: that is sent by `send(2)`, for which the kernel does less.
        if let [one] = bufs {
            return self.poll_write(cx, one);
        }
        ready!(self.poll_kept(cx))?;
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.kept.is_in_hand() {
            ready!(self.poll_kept(cx))?;
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_kept(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
