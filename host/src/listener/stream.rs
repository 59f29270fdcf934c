//! The socket as hyper sees it: replays what was read while sniffing, notes when bytes move, sends bodies that lie in the
//! region from their file, and closes in a way that lets the last answer arrive.
//!
//! Closing a socket that holds unread bytes makes the kernel send a reset, and a reset destroys what the client has not read
//! yet: an answer 413 or 431 to a client that is still sending would never be seen. So after the last byte only our side is
//! closed, and what still comes is read and thrown away for a little while (RFC 9112 section 9.6).

use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::activity::Activity;
use super::frames::{Flood, Frames};
use super::framing::{Guard, Place, Refusal, Refused};
use super::sniff::Prefix;
use super::socket::Socket;
use crate::clock::monotonic_ms;
use crate::region::{Located, Region};

/// How long a client may go on sending after the end.
const LINGER: Duration = Duration::from_secs(2);

/// How often that comes again while the client has not got everything: a minute in all.
const LINGER_ROUNDS: u32 = 30;

/// How much it may send in that time: enough for the heads and small bodies that are refused unread.
const LINGER_BYTES: usize = 16 << 20;

/// What the kernel knows of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    /// It may still send.
    No,
    /// It has closed its sending side: gone, or waiting for the answer.
    Silent,
    /// The connection was reset.
    Gone,
}

/// Asks what the kernel knows of the peer; does not wait.
pub(super) fn peer(descriptor: RawFd) -> Away {
    let mut asked = libc::pollfd { fd: descriptor, events: libc::POLLRDHUP, revents: 0 };
    #[expect(unsafe_code, reason = "the descriptor is known by its number only")]
    // SAFETY: poll reads and writes one pollfd, which lives and is writable, and returns at once. A descriptor that is not open
    // makes it say POLLNVAL and nothing else.
    let result = unsafe { libc::poll(&raw mut asked, 1, 0) };
    if result <= 0 {
        Away::No
    } else if asked.revents & (libc::POLLHUP | libc::POLLERR) != 0 {
        Away::Gone
    } else if asked.revents & libc::POLLRDHUP != 0 {
        Away::Silent
    } else {
        Away::No
    }
}

/// Up to this, pieces are put together before they are written.
const GATHER_BYTES_MAX: usize = 4096;

/// Up to this, what is written lets the worker's other connections go first.
const GIVE_WAY_BYTES_MAX: usize = 128 << 10;

/// Below this, copying costs less than a call of its own.
const SENDFILE_BYTES_MIN: usize = 16 << 10;

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    prefix: Prefix,
    activity: Arc<Activity>,
    region: Option<Arc<Region>>,
    /// Looks at what comes in, and for HTTP/2 at what goes out.
    guard: Watching,
    /// What came in is refused.
    refused: Option<Refusing>,
    /// A write has let the worker's other connections go first, and goes out now.
    gave_way: bool,
    closing: Closing,
    /// Tells by its end that this is gone.
    _alive: oneshot::Sender<()>,
}

/// Who looks at the bytes of a connection.
#[derive(Debug)]
pub(super) enum Watching {
    /// HTTP/1.x: what has two readings is refused.
    Http1(Guard),
    /// HTTP/2: floods that the protocol's own limits let through are ended.
    Http2(Box<Frames>),
}

/// What is done about bytes that may not pass.
#[derive(Debug)]
enum Refusing {
    /// They are part of a flood: this much of a goodbye is written, then the connection is closed.
    Flood { goodbye: SmallVec<[u8; 17]>, written: usize },
    /// They are of a head: this much of an answer is written, then the connection is closed.
    Head { answer: Vec<u8>, written: usize },
    /// They are of a body: its reader gets an error.
    Body(&'static str),
}

#[derive(Debug)]
enum Closing {
    Open,
    Lingering { timer: Pin<Box<Sleep>>, rounds: u32, read: usize },
    Done,
}

impl Stream {
    /// `region`: of a plain socket only; TLS copies whatever it sends.
    pub(super) fn new(
        socket: Socket,
        prefix: Prefix,
        activity: Arc<Activity>,
        region: Option<Arc<Region>>,
        guard: Watching,
        alive: oneshot::Sender<()>,
    ) -> Self {
        let region = region.filter(|_| socket.plain().is_some());
        let closing = Closing::Open;
        Self { socket, prefix, activity, region, guard, refused: None, gave_way: false, closing, _alive: alive }
    }

    /// Lets the guard look at what was just read into `buf` behind `before`, and takes out what may not pass.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        match &mut self.guard {
            Watching::Http1(guard) => {
                if self.activity.is_upgraded() {
                    guard.open();
                }
                let looked = guard.look(&buf.filled()[before..]);
                self.activity.between_messages(guard.is_between_messages());
                let Err(Refused { pass, refusal, place }) = looked else { return };
                buf.set_filled(before + pass);
                self.refused = Some(match place {
                    Place::Head => {
                        self.activity.refuse(refusal.status);
                        Refusing::Head { answer: answer(refusal), written: 0 }
                    }
                    Place::Body => Refusing::Body(refusal.reason),
                });
            }
            Watching::Http2(frames) => {
                if let Err(flood) = frames.look(&buf.filled()[before..], monotonic_ms()) {
                    buf.set_filled(before);
                    self.flooded(flood);
                }
            }
        }
    }

    fn flooded(&mut self, flood: Flood) {
        self.activity.flood(flood);
        let Watching::Http2(frames) = &self.guard else { return };
        let goodbye = frames.goodbye().map(|frame| SmallVec::from_slice(&frame)).unwrap_or_default();
        self.refused = Some(Refusing::Flood { goodbye, written: 0 });
    }

    /// Takes note of what was written.
    fn went_out(&mut self, bufs: &[IoSlice<'_>], written: &Poll<io::Result<usize>>) {
        let (Watching::Http2(frames), Poll::Ready(Ok(bytes))) = (&mut self.guard, written) else { return };
        let mut left = *bytes;
        let mut outcome = Ok(());
        for piece in bufs {
            let part = &piece[..left.min(piece.len())];
            left -= part.len();
            outcome = outcome.and_then(|()| frames.sent(part, monotonic_ms()));
        }
        if let Err(flood) = outcome
            && self.refused.is_none()
        {
            self.flooded(flood);
        }
    }

    /// Whoever reads next, reads the end of what may pass: a head is answered here, and nothing follows.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.refused {
                None => return Poll::Ready(Ok(())),
                Some(Refusing::Flood { goodbye, written })
                    if *written < goodbye.len() && !self.activity.is_blocked() =>
                {
                    match Pin::new(&mut self.socket).poll_write(cx, &goodbye[*written..]) {
                        Poll::Ready(Ok(bytes @ 1..)) => *written += bytes,
                        // Nobody waits for a goodbye to be taken.
                        _ => *written = goodbye.len(),
                    }
                    let _ = self.socket.poll_send_all(cx);
                }
                Some(Refusing::Flood { .. }) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a flood of frames")));
                }
                Some(Refusing::Body(reason)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, *reason)));
                }
                Some(Refusing::Head { .. }) if self.activity.is_upgraded() => {
                    // The answer would stand in the middle of another protocol.
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "bytes before the upgrade")));
                }
                Some(Refusing::Head { answer, written }) if *written < answer.len() => {
                    if self.activity.is_blocked() || self.activity.is_busy() {
                        // An earlier answer is on its way: whoever sends it comes by here again.
                        return Poll::Pending;
                    }
                    *written += ready!(Pin::new(&mut self.socket).poll_write(cx, &answer[*written..]))?;
                    ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
                }
                Some(Refusing::Head { .. }) => return Pin::new(&mut *self).poll_shutdown(cx),
            }
        }
    }

    /// Waits until there may be something to read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is the reader's to find.
        self.socket.poll_read_ready(cx).map(|_| ())
    }

    /// Counts the bytes that the kernel has taken, where those are fewer than were written.
    pub(super) fn taken(&self) -> Option<Arc<AtomicU64>> {
        self.socket.taken()
    }

    /// The socket's number, for `unsent`.
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.descriptor()
    }

    /// Whether a write is to come again when the worker's other connections have had their turn. All but large ones do, once:
    /// whatever is ready is worked off, and then the answers go out one after the other. A client on this machine is woken by
    /// the first of them and mostly takes the core from the worker to read it; so it finds several. And the kernel's code and
    /// ours do not drive each other out of the core's caches with each answer. With a policy on, a sixth more answers of a
    /// kilobyte a second were had by it, and nobody waits for more than what was ready anyway.
    fn gives_way(&mut self, bufs: &[IoSlice<'_>]) -> bool {
        // Under TLS others see to it: `sending.rs`, and `outbox.rs` for HTTP/2.
        self.gave_way = !self.gave_way && self.socket.plain().is_some() && are_at_most(bufs, GIVE_WAY_BYTES_MAX);
        self.gave_way
    }

    /// Writes a few small pieces as one: the kernel takes more time over a list of pieces than copying them takes. TLS copies
    /// them into a record of its own anyway.
    fn poll_gather(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !are_at_most(bufs, GATHER_BYTES_MAX) || self.socket.plain().is_none() {
            return Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        }
        let mut gathered: SmallVec<[u8; GATHER_BYTES_MAX]> = SmallVec::new();
        for piece in bufs {
            gathered.extend_from_slice(piece);
        }
        Pin::new(&mut self.socket).poll_write(cx, &gathered)
    }

    /// Ends an interim response that has begun to go out.
    fn poll_half_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.line().is_half_written() { self.poll_interim(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = self.activity.line().clone().poll_write(cx, &mut self.socket);
        if written.is_pending() {
            self.activity.blocked();
        }
        written
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) if *bytes > 0 => self.activity.sent(*bytes),
            Poll::Ready(_) => {}
            Poll::Pending => self.activity.blocked(),
        }
        written
    }
}

/// Bytes in the kernel's hands that the peer has not acknowledged. A slow peer may take from them for minutes before the
/// kernel calls the socket writable again (a third of its buffer, of several MB at times, has to be free), so this tells it
/// from one that takes nothing.
pub(super) fn unsent(descriptor: RawFd) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    #[expect(unsafe_code, reason = "no safe crate in use offers this ioctl")]
    // SAFETY: SIOCOUTQ (on Linux the same number as TIOCOUTQ) writes one int, to the place given, which lives and is writable.
    // A descriptor that is not a socket, or closed, makes the call fail and nothing else.
    let result = unsafe { libc::ioctl(descriptor, libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).ok() } else { None }
}

/// The answer to a head that nobody reads: without a body, and the last on its connection.
fn answer(refusal: Refusal) -> Vec<u8> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let reason = status.canonical_reason().unwrap_or_default();
    let length = "content-length: 0\r\nconnection: close\r\n\r\n";
    format!("HTTP/1.1 {} {reason}\r\n{length}", status.as_u16()).into_bytes()
}

/// A head with its body, or a few pieces else, that are no more than that.
fn are_at_most(bufs: &[IoSlice<'_>], bytes: usize) -> bool {
    bufs.len() > 1 && bufs.iter().map(|piece| piece.len()).sum::<usize>() <= bytes
}

/// A piece that lies in the region, and what goes before it.
struct Placed<'a> {
    before: &'a [u8],
    located: Located,
    length: usize,
}

/// What hyper writes is a head and a body, or the rest of them: a piece of the region stands first or second. What is left of
/// one when the socket was full is sent by copying if it is not worth a call of its own.
fn placed<'a>(region: &'a Region, bufs: &'a [IoSlice<'_>]) -> Option<Placed<'a>> {
    let (before, piece): (&[u8], &[u8]) = match bufs {
        [first, ..] if first.len() >= SENDFILE_BYTES_MIN => (&[], first),
        [first, second, ..] if second.len() >= SENDFILE_BYTES_MIN => (first, second),
        _ => return None,
    };
    Some(Placed { before, located: region.locate(piece)?, length: piece.len() })
}

/// Sends what stands before the piece, told that more comes so that it does not leave alone, and the piece from its file.
fn poll_send(
    socket: &TcpStream,
    region: &Region,
    placed: &Placed<'_>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        let sent = socket.try_io(Interest::WRITABLE, || {
            let mut sent = 0;
            if !placed.before.is_empty() {
                sent = SockRef::from(socket).send_with_flags(placed.before, libc::MSG_MORE | libc::MSG_NOSIGNAL)?;
                if sent < placed.before.len() {
                    return Ok(sent);
                }
            }
            let mut offset = placed.located.offset();
            match rustix::fs::sendfile(socket, region.file(), Some(&mut offset), placed.length) {
                Ok(bytes) => Ok(sent + bytes),
                // The piece's turn comes again with the next call, which finds the socket full or broken as it is.
                Err(_) if sent > 0 => Ok(sent),
                Err(error) => Err(error.into()),
            }
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return Poll::Ready(other),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let kept = this.prefix.rest();
        if !kept.is_empty() {
            let bytes = kept.len().min(buf.remaining());
            let before = buf.filled().len();
            buf.put_slice(&kept[..bytes]);
            this.prefix.advance(bytes);
            this.inspect(buf, before);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        if this.refused.is_some() {
            return this.poll_refused(cx);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.activity.received();
            this.inspect(buf, before);
            if buf.filled().len() == before {
                return this.poll_refused(cx);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_half_written(cx))?;
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.went_out(&[IoSlice::new(buf)], &written);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_half_written(cx))?;
        if self.gives_way(bufs) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let sent = match (&self.region, self.socket.plain()) {
            (Some(region), Some(socket)) => placed(region, bufs).map(|placed| poll_send(socket, region, &placed, cx)),
            _ => None,
        };
        let written = sent.unwrap_or_else(|| self.poll_gather(cx, bufs));
        self.went_out(bufs, &written);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.line().is_waiting() {
            ready!(self.poll_interim(cx))?;
        }
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        // TLS takes more than it sends. Plain sockets have nothing to flush, whether they are full or not.
        if matches!(self.socket, Socket::Tls(_)) {
            match &flushed {
                Poll::Pending => self.activity.blocked(),
                Poll::Ready(_) => self.activity.sent(0),
            }
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.closing {
                Closing::Open => {
                    ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
                    // Another protocol has nothing to refuse, and what still comes is for it to read.
                    this.closing = if this.activity.hurries() || this.activity.is_upgraded() {
                        Closing::Done
                    } else {
                        Closing::Lingering { timer: Box::pin(tokio::time::sleep(LINGER)), rounds: 0, read: 0 }
                    };
                }
                Closing::Lingering { timer, rounds, read } => {
                    if *read > LINGER_BYTES {
                        this.closing = Closing::Done;
                        continue;
                    }
                    if timer.as_mut().poll(cx).is_ready() {
                        // A reset would take what the client has not read yet out of its hands.
                        *rounds += 1;
                        if *rounds >= LINGER_ROUNDS || unsent(this.socket.descriptor()).is_none_or(|bytes| bytes == 0) {
                            this.closing = Closing::Done;
                            continue;
                        }
                        timer.as_mut().reset(Instant::now() + LINGER);
                        continue;
                    }
                    let mut waste = [0; 16 << 10];
                    let mut buf = ReadBuf::new(&mut waste);
                    match ready!(this.socket.poll_waste(cx, &mut buf)) {
                        Ok(()) if !buf.filled().is_empty() => *read += buf.filled().len(),
                        // The client has closed its side too, or is gone: nothing more to wait for.
                        _ => this.closing = Closing::Done,
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
