//! How long an origin may keep us waiting.
//!
//! Origins that are reached over a network time connecting and the first byte themselves (`client.rs`), for only they know
//! when one ends and the other begins. Here stands what is the same for all: the head of a folder's answer, and the pause
//! between two pieces of a body in either direction.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::time::{Instant, Sleep};

use super::{BodyStream, ListingPlace, Origin, OriginError, OriginKind, OriginRequest, OriginResponse, Page, Timeouts};

/// Puts an end to pauses.
pub(super) struct TimedOrigin<O> {
    inner: O,
    timeouts: Timeouts,
}

impl<O: Origin> TimedOrigin<O> {
    pub(super) fn new(inner: O, timeouts: Timeouts) -> Self {
        Self { inner, timeouts }
    }

    fn too_late(&self, phase: &'static str) -> OriginError {
        OriginError::Timeout { origin: self.inner.name().to_owned(), phase }
    }

    async fn ask(&self, mut request: OriginRequest) -> Result<OriginResponse, OriginError> {
        if let Some(body) = request.body.as_mut() {
            let stream = std::mem::replace(&mut body.stream, Box::pin(futures_util::stream::empty()));
            let error = OriginError::RequestBody {
                reason: "the client stopped sending".to_owned(),
                status: StatusCode::REQUEST_TIMEOUT,
            };
            body.stream = Box::pin(Unpaused::new(stream, self.timeouts.idle, error));
        }
        let asked = self.inner.fetch(request);
        let mut response = if self.inner.kind() == OriginKind::Dir {
            tokio::time::timeout(self.timeouts.first_byte, asked).await.map_err(|_| self.too_late("first byte"))??
        } else {
            asked.await?
        };
        response.body = Box::pin(Unpaused::new(response.body, self.timeouts.idle, self.too_late("idle")));
        Ok(response)
    }
}

impl<O: Origin> Origin for TimedOrigin<O> {
    fn fetch(&self, request: OriginRequest) -> BoxFuture<'_, Result<OriginResponse, OriginError>> {
        Box::pin(self.ask(request))
    }

    /// A page is one answer: it has the time of its first byte, and of a pause besides.
    fn list(&self, place: ListingPlace, retry: bool) -> BoxFuture<'_, Result<Page, OriginError>> {
        let most = self.timeouts.connect + self.timeouts.first_byte + self.timeouts.idle;
        Box::pin(async move {
            tokio::time::timeout(most, self.inner.list(place, retry)).await.map_err(|_| self.too_late("listing"))?
        })
    }

    fn kind(&self) -> OriginKind {
        self.inner.kind()
    }

    fn bucket(&self) -> Option<&str> {
        self.inner.bucket()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

/// A stream that fails when its source pauses for too long. A reader that pauses is not the source's fault: the clock runs
/// only from a poll that found nothing.
struct Unpaused {
    /// None after the end.
    inner: Option<BodyStream>,
    pause: Duration,
    /// Made at the first pause.
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    error: OriginError,
}

impl Unpaused {
    fn new(inner: BodyStream, pause: Duration, error: OriginError) -> Self {
        Self { inner: Some(inner), pause, sleep: None, waiting: false, error }
    }
}

impl Stream for Unpaused {
    type Item = Result<Bytes, OriginError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(inner) = this.inner.as_mut() else { return Poll::Ready(None) };
        match inner.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => {
                this.waiting = false;
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(end) => {
                this.inner = None;
                Poll::Ready(end)
            }
            Poll::Pending => {
                let pause = this.pause;
                let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                if !this.waiting {
                    this.waiting = true;
                    sleep.as_mut().reset(Instant::now() + pause);
                }
                match sleep.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        this.inner = None;
                        Poll::Ready(Some(Err(this.error.clone())))
                    }
                }
            }
        }
    }
}
