//! The side of a stream that comes in, seen by the guard first.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h3::error::Code;
use h3::quic::{self, StreamErrorIncoming, StreamId};
use http::StatusCode;
use quinn::{ConnectionError, ReadError};
use tokio::io::ReadBuf;

use super::super::framing::{Fault, Guard};
use super::super::streams::Progress;
use super::{code, id, lost};

/// How much is read at once: a few packets.
const READ_BYTES: usize = 8 << 10;

/// The side of a stream that comes in.
pub(in super::super) struct Receiving {
    stream: quinn::RecvStream,
    connection: quinn::Connection,
    guard: Guard,
    over: bool,
    progress: Option<Arc<Progress>>,
}

/// Why nothing more comes.
pub(super) enum Trouble {
    Fault(Fault),
    Stream(StreamErrorIncoming),
}

impl Receiving {
    /// What comes on a one-way stream, or as a request.
    pub(super) fn new(
        stream: quinn::RecvStream,
        connection: quinn::Connection,
        guard: Guard,
        progress: Option<Arc<Progress>>,
    ) -> Self {
        Self { stream, connection, guard, over: false, progress }
    }

    pub(super) fn poll_clean(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Trouble>> {
        let mut out = BytesMut::new();
        while !self.over {
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space);
            if let Err(error) = ready!(self.stream.poll_read_buf(cx, &mut buffer)) {
                self.over = true;
                return Poll::Ready(Err(Trouble::Stream(unread(error))));
            }
            let read = buffer.filled();
            let cleaned = if read.is_empty() {
                self.over = true;
                self.guard.end()
            } else {
                self.guard.clean(read, &mut out)
            };
            if let Err(fault) = cleaned {
                return Poll::Ready(Err(Trouble::Fault(fault)));
            }
            if !out.is_empty() {
                return Poll::Ready(Ok(Some(out.freeze())));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Gives up reading, in the way that the fault deserves.
    pub(super) fn fail(&mut self, fault: Fault) -> StreamErrorIncoming {
        match fault {
            Fault::TooLong => {
                self.stop(Code::H3_NO_ERROR);
                StreamErrorIncoming::Unknown("a field section that is too long".into())
            }
            Fault::Malformed(why) => {
                self.stop(Code::H3_MESSAGE_ERROR);
                StreamErrorIncoming::Unknown(why.into())
            }
            Fault::Connection(error, why) => {
                self.connection.close(code(error), why.as_bytes());
                let connection_error = lost(ConnectionError::LocallyClosed);
                StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
            }
        }
    }

    /// Remembers for the log what it was answered with.
    pub(super) fn refuse(&self, status: StatusCode) {
        if let Some(progress) = &self.progress {
            progress.refuse(status);
        }
    }

    fn stop(&mut self, error: Code) {
        self.over = true;
        // It may be over already.
        let _ = self.stream.stop(code(error));
    }
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        Poll::Ready(match ready!(self.poll_clean(cx)) {
            Ok(data) => Ok(data),
            Err(Trouble::Fault(fault)) => Err(self.fail(fault)),
            Err(Trouble::Stream(error)) => Err(error),
        })
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.stop(Code::from(error_code));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.over {
            // What is still to come of a body that nobody reads (RFC 9114 section 4.1); quinn's own code would be 0.
            self.stop(Code::H3_NO_ERROR);
        }
    }
}

fn unread(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) }
        }
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
