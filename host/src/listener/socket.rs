//! What a connection's bytes come and go by: a socket as it is, or TLS on one.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::outbox::Outbox;
use super::wire::Wire;

/// A socket, with TLS on it or without.
#[derive(Debug)]
pub(super) enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// Under TLS, whose handshake is over.
    Tls(Box<TlsStream<Wire>>),
    /// Either, with what is written put together.
    Collected(Arc<Outbox>),
}

impl Socket {
    /// The socket's number.
    pub(super) fn descriptor(&self) -> RawFd {
        match self {
            Self::Plain(socket) => socket.as_raw_fd(),
            Self::Tls(stream) => stream.get_ref().0.socket().as_raw_fd(),
            Self::Collected(outbox) => outbox.descriptor(),
        }
    }

    /// Counts the bytes that the kernel has taken, where something between keeps more than those.
    pub(super) fn taken(&self) -> Option<Arc<AtomicU64>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.get_ref().0.taken()),
            Self::Collected(outbox) => outbox.taken(),
        }
    }

    /// The socket itself, if nothing stands between.
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(_) | Self::Collected(_) => None,
        }
    }

    /// Waits until bytes of the peer are there, whatever they are.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx),
            Self::Tls(stream) => stream.get_ref().0.socket().poll_read_ready(cx),
            Self::Collected(outbox) => outbox.poll_read_ready(cx),
        }
    }

    /// Little answers go out together with those of the worker's other connections (TLS).
    pub(super) fn keep_little(&mut self) {
        if let Self::Tls(stream) = self {
            stream.get_mut().0.keep_little();
        }
    }

    /// Reads what nobody wants any more, from below TLS.
    pub(super) fn poll_waste(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Collected(outbox) => outbox.poll_waste(cx, buf),
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.get_mut().0).poll_read(cx, buf),
        }
    }

    /// Sends all that was written, whatever is put together.
    pub(super) fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Collected(outbox) => outbox.poll_round(cx),
            other => Pin::new(other).poll_flush(cx),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => {
                let (wire, session) = stream.get_ref();
                if session.wants_read() {
                    // After each answer there is nothing to read, mostly: TLS need not be asked for that.
                    ready!(wire.socket().poll_read_ready(cx))?;
                }
                Pin::new(stream).poll_read(cx, buf)
            }
            Self::Collected(outbox) => outbox.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Collected(outbox) => outbox.poll_write(cx, &[IoSlice::new(buf)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Collected(outbox) => outbox.poll_write(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Collected(_) => true,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            // At the end of the round.
            Self::Collected(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Collected(outbox) => outbox.poll_shutdown(cx),
        }
    }
}
