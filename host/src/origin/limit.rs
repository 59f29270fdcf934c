//! What every origin is held to, whatever its kind: how many requests it gets at once, and that a body is as long as its
//! head says. What became of each request is counted here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{BodyStream, ListingPlace, Origin, OriginError, OriginKind, OriginRequest, OriginResponse, Page};
use crate::telemetry::metrics::{Metrics, OriginLabels};

/// Requests to one origin at once, bodies under way included. Behind the cache's coalesced fills this is far more than an
/// origin sees in health, and few enough for its sockets and ours.
const MAX_AT_ONCE: usize = 1024;
/// Requests that wait for one of those to end.
const MAX_WAITING: usize = 1024;

/// Limits and counts.
pub(super) struct LimitedOrigin<O> {
    inner: O,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    patience: Duration,
    metrics: Arc<Metrics>,
}

/// Counts one who waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<O: Origin> LimitedOrigin<O> {
    /// Waits at most `patience` for a turn.
    pub(super) fn new(inner: O, patience: Duration, metrics: Arc<Metrics>) -> Self {
        Self::with_turns(inner, MAX_AT_ONCE, patience, metrics)
    }

    fn with_turns(inner: O, turns: usize, patience: Duration, metrics: Arc<Metrics>) -> Self {
        let turns = Arc::new(Semaphore::new(turns));
        Self { inner, turns, waiting: AtomicUsize::new(0), patience, metrics }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, OriginError> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let busy = || OriginError::Unavailable {
            origin: self.inner.name().to_owned(),
            reason: "too many requests to it are under way".to_owned(),
        };
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= MAX_WAITING {
            return Err(busy());
        }
        match tokio::time::timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(busy()),
        }
    }

    async fn ask(&self, request: OriginRequest) -> Result<OriginResponse, OriginError> {
        let turn = self.turn().await?;
        let mut response = self.inner.fetch(request).await?;
        response.body = Box::pin(MeasuredBody {
            inner: Some(response.body),
            remaining: response.length,
            origin: self.inner.name().to_owned(),
            metrics: Arc::clone(&self.metrics),
            _turn: turn,
        });
        Ok(response)
    }

    fn count(&self, outcome: &'static str) {
        count(&self.metrics, self.inner.name(), outcome);
    }
}

fn count(metrics: &Metrics, origin: &str, outcome: &str) {
    let labels = OriginLabels { origin: origin.to_owned(), outcome: outcome.to_owned() };
    metrics.origin_requests.get_or_create(&labels).inc();
}

/// The label of an error in `proxyhost_origin_requests`.
fn outcome(error: &OriginError) -> &'static str {
    match error {
        OriginError::Connect { .. } => "connect",
        OriginError::Timeout { .. } => "timeout",
        OriginError::Ended { .. } | OriginError::Broken { .. } | OriginError::Altered { .. } => "reset",
        OriginError::Status { .. } => "status",
        OriginError::Unavailable { .. } => "refused",
        OriginError::RequestBody { .. } => "client",
        OriginError::Configuration { .. } => "invalid",
    }
}

impl<O: Origin> Origin for LimitedOrigin<O> {
    fn fetch(&self, request: OriginRequest) -> BoxFuture<'_, Result<OriginResponse, OriginError>> {
        Box::pin(async move {
            let answer = self.ask(request).await;
            self.count(answer.as_ref().map_or_else(outcome, |_| "ok"));
            answer
        })
    }

    fn list(&self, place: ListingPlace, retry: bool) -> BoxFuture<'_, Result<Page, OriginError>> {
        Box::pin(async move {
            let listed = async {
                let _turn = self.turn().await?;
                self.inner.list(place, retry).await
            };
            let page = listed.await;
            self.count(page.as_ref().map_or_else(outcome, |_| "ok"));
            page
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

/// A body that is held to its length and counted. Its turn ends with it.
struct MeasuredBody {
    /// None after the end.
    inner: Option<BodyStream>,
    remaining: Option<u64>,
    origin: String,
    metrics: Arc<Metrics>,
    _turn: OwnedSemaphorePermit,
}

impl MeasuredBody {
    fn fail(&mut self, error: OriginError) -> Poll<Option<Result<Bytes, OriginError>>> {
        self.inner = None;
        count(&self.metrics, &self.origin, outcome(&error));
        Poll::Ready(Some(Err(error)))
    }

    fn lied(&mut self, reason: &str) -> Poll<Option<Result<Bytes, OriginError>>> {
        let error = OriginError::Broken { origin: self.origin.clone(), reason: reason.to_owned() };
        self.fail(error)
    }
}

impl Stream for MeasuredBody {
    type Item = Result<Bytes, OriginError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(inner) = this.inner.as_mut() else { return Poll::Ready(None) };
        match inner.as_mut().poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(piece))) => {
                let length = piece.len() as u64;
                this.metrics.origin_bytes.inc_by(length);
                match this.remaining.as_mut() {
                    Some(left) if *left < length => return this.lied("response body is longer than its head says"),
                    Some(left) => *left -= length,
                    None => {}
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(error))) => this.fail(error),
            Poll::Ready(None) if this.remaining.is_some_and(|left| left > 0) => {
                this.lied("response body is shorter than its head says")
            }
            Poll::Ready(None) => {
                this.inner = None;
                Poll::Ready(None)
            }
        }
    }
}
