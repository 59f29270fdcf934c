//! The side of a stream that goes out: how long the peer may take nothing, and how it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::WriteError;
use tokio::time::{Instant, Sleep};

use super::super::streams::Progress;
use super::{code, id, lost};

/// An answer of 431 (RFC 6585 section 5): HEADERS with a `:status` whose name is of the static table.
const TOO_LARGE: [u8; 10] = [0x01, 8, 0, 0, 0x5f, 0x09, 3, b'4', b'3', b'1'];

/// The side of a stream that goes out.
pub(in super::super) struct Sending {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    /// For an answer: where its progress is told, and how long the peer may take nothing.
    watched: Option<(Arc<Progress>, Duration)>,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    over: bool,
}

impl Sending {
    pub(super) fn new(stream: quinn::SendStream, watched: Option<(Arc<Progress>, Duration)>) -> Self {
        Self { stream, writing: None, watched, timer: None, waiting: false, over: false }
    }

    /// Says 431, and no more.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>) {
        // Nothing was sent on this stream yet: there is room, unless the connection as a whole has none.
        if let Poll::Ready(Ok(sent)) = Pin::new(&mut self.stream).poll_write(cx, &TOO_LARGE)
            && sent == TOO_LARGE.len()
        {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.over = true;
        // It is gone already when the peer wants no more of it.
        let _ = self.stream.finish();
    }

    /// The peer takes nothing: how long it may go on so.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<StreamErrorIncoming> {
        let Some((progress, stall_timeout)) = &self.watched else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(*stall_timeout)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + *stall_timeout);
        }
        ready!(timer.as_mut().poll(cx));
        progress.stalled();
        Poll::Ready(StreamErrorIncoming::Unknown(Box::new(io::Error::from(io::ErrorKind::TimedOut))))
    }
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(|data| data.has_remaining()) {
            match Pin::new(&mut self.stream).poll_write(cx, data.chunk()) {
                Poll::Ready(Ok(written)) => {
                    data.advance(written);
                    self.waiting = false;
                    if let Some((progress, _)) = &self.watched {
                        progress.began();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(unwritten(error))),
                Poll::Pending => return self.poll_patience(cx).map(Err),
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let why = "asked to send before the last piece was sent".to_owned();
            let connection_error = ConnectionErrorIncoming::InternalError(why);
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.finish();
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, reset_code: u64) {
        self.over = true;
        let _ = self.stream.reset(code(Code::from(reset_code)));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // quinn would end the stream as if all had been said.
        if let Some((progress, _)) = self.watched.as_ref().filter(|_| !self.over) {
            match progress.unfinished() {
                Some(error) => quic::SendStream::reset(self, error.value()),
                None => self.finish(),
            }
        }
    }
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) }
        }
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
