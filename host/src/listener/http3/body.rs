//! The body of a request as it comes in on its stream, as long as its Content-Length says (RFC 9114 section 4.1.2).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::server::RequestStream;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::head;
use super::quic::Receiving;

/// The body of a request.
pub struct Body {
    stream: RequestStream<Receiving, Bytes>,
    stage: Stage,
    /// What came before anybody asked.
    ahead: Option<Frame<Bytes>>,
    /// How much is still to come, if that was said.
    left: Option<u64>,
    /// Whom to tell that the body is wanted.
    wanted: Option<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Over,
}

impl Body {
    pub(super) fn new(stream: RequestStream<Receiving, Bytes>, length: Option<u64>) -> Self {
        Self { stream, stage: Stage::Data, ahead: None, left: length, wanted: None }
    }

    /// Sees whether there is a body at all, if that has come already: most requests end with their head.
    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Poll::Ready(Some(frame)) = self.poll_next(cx) {
            self.ahead = Some(frame?);
        }
        Ok(())
    }

    /// Something that hears when the body is first asked for.
    pub(super) fn wanted(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.wanted = Some(sender);
        receiver
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.stage == Stage::Data {
            match ready!(self.stream.poll_recv_data(cx)) {
                Ok(Some(mut data)) => {
                    let data = data.copy_to_bytes(data.remaining());
                    match self.left.map(|left| left.checked_sub(data.len() as u64)) {
                        Some(None) => return self.malformed("more of a body than its Content-Length says"),
                        left => self.left = left.flatten(),
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) if self.left.is_some_and(|left| left > 0) => {
                    return self.malformed("less of a body than its Content-Length says");
                }
                Ok(None) => self.stage = Stage::Trailers,
                Err(error) => return self.failed(io::Error::other(error)),
            }
        }
        if self.stage == Stage::Trailers {
            let trailers = ready!(self.stream.poll_recv_trailers(cx));
            self.stage = Stage::Over;
            match trailers {
                Ok(Some(mut trailers)) => {
                    head::strip(&mut trailers);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(None) => {}
                Err(error) => return self.failed(io::Error::other(error)),
            }
        }
        Poll::Ready(None)
    }

    fn malformed(&mut self, why: &'static str) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        self.failed(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    fn failed(&mut self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.stage = Stage::Over;
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(frame) = self.ahead.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(wanted) = self.wanted.take() {
            // Who would hear it may have answered already.
            let _ = wanted.send(());
        }
        self.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Over && self.ahead.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        match self.left {
            Some(left) => SizeHint::with_exact(left + ahead),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("stage", &self.stage).field("left", &self.left).finish_non_exhaustive()
    }
}
