//! The body of a request as it comes in, from hyper or from an HTTP/3 stream, with a limit on how long it may bring nothing.
//!
//! Only while somebody waits for a piece does the time count: a body that nobody reads, because the origin is slow to take it,
//! is not the client's fault. The socket cannot tell the two apart, so the limit stands here and not beside the others.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::http3;

/// Where a body comes from.
#[derive(Debug)]
pub enum Source {
    /// HTTP/1.1 and HTTP/2.
    Hyper(Incoming),
    /// HTTP/3. Boxed: most requests have none, and it is larger.
    Http3(Box<http3::Body>),
}

impl Body for Source {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Http3(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Http3(body) => body.size_hint(),
        }
    }
}

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody<B = Source> {
    inner: B,
    stall_timeout: Duration,
    /// Made when a piece is first waited for: most requests have no body.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<B> RequestBody<B> {
    /// A body that may bring nothing for so long.
    pub fn new(inner: B, stall_timeout: Duration) -> Self {
        Self { inner, stall_timeout, timer: None, waiting: false }
    }

    /// The body without the limit.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        let stall_timeout = this.stall_timeout;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_timeout)));
        if !this.waiting {
            this.waiting = true;
            timer.as_mut().reset(Instant::now() + stall_timeout);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending its request body"))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn only_the_time_in_which_a_piece_is_waited_for_counts() {
        let pieces = stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis([0, 100, 100, 5_000][n])).await;
            Some((Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"x"))), n + 1))
        });
        let mut body = RequestBody::new(StreamBody::new(Box::pin(pieces)), Duration::from_millis(400));
        for _ in 0..3 {
            assert!(body.frame().await.expect("a frame").is_ok());
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        let error = body.frame().await.expect("a frame").expect_err("nothing came for 400 ms");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
