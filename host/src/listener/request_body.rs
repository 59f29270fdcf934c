//! The body of a request as it comes in, from hyper or from an HTTP/3 stream, with a limit on how long it may bring nothing, and
//! on how little it may bring.
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

use super::activity::{Limits, Receiving};
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
    limits: Limits,
    /// Made when a piece is first waited for: most requests have no body.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// How long pieces were waited for, and how many bytes came in that time, since either was last looked at.
    waited: Duration,
    came: u64,
    /// Until the end has come, or nobody wants it any more.
    receiving: Option<Receiving>,
}

impl<B> RequestBody<B> {
    /// A body that may bring nothing for `stall`, and no less than `least_rate`.
    pub(super) fn new(inner: B, limits: Limits) -> Self {
        Self { inner, limits, timer: None, waiting: false, waited: Duration::ZERO, came: 0, receiving: None }
    }

    /// Its connection does not rest before it has come.
    pub(super) fn received_by(self, receiving: Receiving) -> Self {
        Self { receiving: Some(receiving), ..self }
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
            if std::mem::take(&mut this.waiting)
                && let Some(timer) = &this.timer
            {
                // It is set to when the wait would have been too long.
                this.waited += this.limits.stall.saturating_sub(timer.deadline() - Instant::now());
            }
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.came += data.map_or(0, Bytes::len) as u64;
            if this.waited >= this.limits.stall {
                if this.came < this.limits.least_rate * this.waited.as_millis() as u64 / 1000 && frame.is_some() {
                    return Poll::Ready(Some(Err(too_slow("the client sends its request body too slowly"))));
                }
                (this.waited, this.came) = (Duration::ZERO, 0);
            }
            if !matches!(frame, Some(Ok(_))) {
                this.receiving = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        let stall_timeout = this.limits.stall;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_timeout)));
        if !this.waiting {
            this.waiting = true;
            timer.as_mut().reset(Instant::now() + stall_timeout);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(too_slow("the client stopped sending its request body"))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn too_slow(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    const LIMITS: Limits = Limits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        stall: Duration::from_millis(400),
        least_rate: 5,
    };

    #[tokio::test]
    async fn only_the_time_in_which_a_piece_is_waited_for_counts() {
        let pieces = stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis([0, 100, 100, 5_000][n])).await;
            Some((Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"x"))), n + 1))
        });
        let mut body = RequestBody::new(StreamBody::new(Box::pin(pieces)), LIMITS);
        for _ in 0..3 {
            assert!(body.frame().await.expect("a frame").is_ok());
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        let error = body.frame().await.expect("a frame").expect_err("nothing came for 400 ms");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_ended_and_one_at_the_least_rate_is_not() {
        for (bytes, good) in [(500, true), (1, false)] {
            let pieces = stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, io::Error>(Frame::data(Bytes::from(vec![b'x'; bytes])))
            });
            let limits = Limits { least_rate: 500, ..LIMITS };
            let mut body = RequestBody::new(StreamBody::new(Box::pin(pieces)), limits);
            let begun = Instant::now();
            let mut ended = None;
            while ended.is_none() && begun.elapsed() < Duration::from_secs(2) {
                ended = body.frame().await.expect("a frame").err();
            }
            assert_eq!(ended.is_none(), good, "{ended:?}");
        }
    }
}
