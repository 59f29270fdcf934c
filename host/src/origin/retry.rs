//! One retry of what is safe, on a fresh connection, and paid for from a budget.
//!
//! Safe is a GET or HEAD without a body that got no answer, and anything without a body that was never sent because there
//! was no connection. A timeout is not tried again: who waited once has waited long enough. The budget keeps a failing
//! origin from getting twice the requests: retries are at most a tenth of the requests, over a small allowance for origins
//! that are rarely asked. What went out on a kept connection that turned out dead goes out again at once and for nothing: a
//! server closes what is idle as it likes, and that is no failure of its. A body that breaks on its way is for its reader to
//! ask for again, from where it broke.

use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Method;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{ListingPlace, Origin, OriginError, OriginKind, OriginRequest, OriginResponse, Page};

/// What a request adds to the budget, in retries.
const PER_REQUEST: f64 = 0.1;
/// What a second adds: an origin that is asked rarely still gets its retries.
const PER_SECOND: f64 = 1.0;
/// What the budget holds at most, and at first.
const MOST: f64 = 10.0;

/// Tries again, once.
pub(super) struct RetryingOrigin<O> {
    inner: O,
    budget: Mutex<Budget>,
}

struct Budget {
    left: f64,
    filled: Instant,
}

impl Budget {
    fn new() -> Self {
        Self { left: MOST, filled: Instant::now() }
    }

    fn request(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.left = (self.left + PER_REQUEST + PER_SECOND * seconds).min(MOST);
    }

    fn retry(&mut self) -> bool {
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

impl<O: Origin> RetryingOrigin<O> {
    pub(super) fn new(inner: O) -> Self {
        Self { inner, budget: Mutex::new(Budget::new()) }
    }

    async fn ask(&self, request: OriginRequest) -> Result<OriginResponse, OriginError> {
        self.budget.lock().request(Instant::now());
        if self.inner.kind() == OriginKind::Dir || request.body.is_some() || request.upgrade {
            return self.inner.fetch(request).await;
        }
        let again = OriginRequest {
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.clone(),
            authority: request.authority.clone(),
            body: None,
            retry: true,
            interim: request.interim.clone(),
            upgrade: false,
        };
        let error = match self.inner.fetch(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if !self.may_try_again(&again.method, &error).await {
            return Err(error);
        }
        self.inner.fetch(again).await
    }

    /// Waits until it is time to try again, if that is to be.
    async fn may_try_again(&self, method: &Method, error: &OriginError) -> bool {
        if !was_idle(error) {
            let Some(delay) = pause(method, error) else { return false };
            if !self.budget.lock().retry() {
                tracing::debug!(origin = self.inner.name(), %error, "no budget for a retry");
                return false;
            }
            tokio::time::sleep(delay).await;
        }
        tracing::debug!(origin = self.inner.name(), %error, "trying again");
        true
    }
}

/// Whether it says of the origin only that it closed what was idle.
fn was_idle(error: &OriginError) -> bool {
    matches!(error, OriginError::Ended { idle: true, .. })
}

/// How long to wait before this is tried again; none if it is not. Random, so that those who failed together don't come
/// back together.
fn pause(method: &Method, error: &OriginError) -> Option<Duration> {
    let read = *method == Method::GET || *method == Method::HEAD;
    let millis = match error {
        OriginError::Connect { .. } => 20..100,
        OriginError::Ended { .. } | OriginError::Broken { .. } | OriginError::Status { .. } if read => 20..100,
        OriginError::Unavailable { .. } if read => 100..400,
        OriginError::Ended { .. }
        | OriginError::Status { .. }
        | OriginError::Broken { .. }
        | OriginError::Altered { .. }
        | OriginError::Unavailable { .. }
        | OriginError::Timeout { .. }
        | OriginError::RequestBody { .. }
        | OriginError::Configuration { .. } => return None,
    };
    Some(Duration::from_millis(fastrand::u64(millis)))
}

impl<O: Origin> Origin for RetryingOrigin<O> {
    fn fetch(&self, request: OriginRequest) -> BoxFuture<'_, Result<OriginResponse, OriginError>> {
        Box::pin(self.ask(request))
    }

    fn list(&self, place: ListingPlace, retry: bool) -> BoxFuture<'_, Result<Page, OriginError>> {
        Box::pin(async move {
            self.budget.lock().request(Instant::now());
            let again = place.again().filter(|_| self.inner.kind() != OriginKind::Dir);
            let error = match self.inner.list(place, retry).await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            match again {
                Some(again) if self.may_try_again(&Method::GET, &error).await => self.inner.list(again, true).await,
                _ => Err(error),
            }
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

#[cfg(test)]
mod tests {
    use super::super::error::ConnectFailure;
    use super::*;

    fn broken() -> OriginError {
        OriginError::Ended { origin: "o".into(), reason: "closed".into(), idle: false }
    }

    #[test]
    fn only_reads_are_tried_again_after_something_may_have_been_sent() {
        assert!(pause(&Method::GET, &broken()).is_some());
        assert!(pause(&Method::HEAD, &broken()).is_some());
        assert!(pause(&Method::DELETE, &broken()).is_none());
        let refused =
            OriginError::Connect { origin: "o".into(), failure: ConnectFailure::Refused, reason: "refused".into() };
        assert!(pause(&Method::POST, &refused).is_some());
        assert!(pause(&Method::GET, &OriginError::Timeout { origin: "o".into(), phase: "idle" }).is_none());
    }

    #[test]
    fn a_failing_origin_gets_a_tenth_more_requests_and_not_twice_as_many() {
        let now = Instant::now();
        let mut budget = Budget { left: MOST, filled: now };
        let mut retries = 0;
        for _ in 0..1000 {
            budget.request(now);
            retries += u32::from(budget.retry());
        }
        assert!((100..=111).contains(&retries), "{retries}");
    }

    #[test]
    fn a_quiet_origin_gets_its_budget_back() {
        let now = Instant::now();
        let mut budget = Budget { left: 0.0, filled: now };
        assert!(!budget.retry());
        budget.request(now + Duration::from_secs(5));
        assert!(budget.retry());
    }
}
