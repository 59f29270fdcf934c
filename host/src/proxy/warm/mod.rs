//! What is fetched into the cache before somebody asks for it: lists, sitemaps and what an origin has, some at a time, each as a
//! GET of the operator's own on the path that clients' requests take (`one.rs`).
//!
//! It is a stream: what comes next is fetched as what was fetched is told, nothing is collected, and all of it ends with who
//! listens.

mod one;
mod sources;
mod step;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Proxy;
use crate::warm::{Interrupted, Order, Told, Wanted, Warming};

pub(super) use one::{NotKept, one};
pub(super) use sources::path_of;
pub(super) use step::Expected;

/// Warm-ups under way.
const JOBS_MOST: usize = 16;

/// Who may warm up.
#[derive(Debug)]
pub(super) struct Jobs {
    places: Arc<Semaphore>,
    /// The program ends.
    over: CancellationToken,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(JOBS_MOST)), over: CancellationToken::new() }
    }
}

/// Something of a list.
#[derive(Debug)]
enum Item {
    /// To be fetched.
    Wanted(Wanted),
    /// It cannot be.
    Bad(Told),
}

impl Proxy {
    /// Warm-ups under way.
    pub fn warm_ups(&self) -> usize {
        JOBS_MOST - self.warming.places.available_permits()
    }

    /// Ends them: who listens is told that they were interrupted.
    pub fn end_warm_ups(&self) {
        self.warming.over.cancel();
    }

    /// Begins a warm-up; none if too many are under way.
    pub fn warm(self: &Arc<Self>, order: Order) -> Option<Warming> {
        let permit = Arc::clone(&self.warming.places).try_acquire_owned().ok()?;
        let (jobs, headers) = (order.jobs.max(1), order.headers.clone());
        let items = sources::of(Arc::clone(self), order);
        Some(all(Arc::clone(self), items, headers, jobs, permit).boxed())
    }
}

fn all(
    proxy: Arc<Proxy>,
    items: impl stream::Stream<Item = Item> + Send + 'static,
    headers: HeaderMap,
    jobs: usize,
    permit: OwnedSemaphorePermit,
) -> impl stream::Stream<Item = Result<Told, Interrupted>> + Send + 'static {
    let headers = Arc::new(headers);
    let (closing, over) = (proxy.cache.closing(), proxy.warming.over.clone());
    let is_interrupted = {
        let (closing, over) = (closing.clone(), over.clone());
        move || closing.is_cancelled() || over.is_cancelled()
    };
    let interrupted = is_interrupted.clone();
    let each = move |item: Item| {
        let (proxy, headers, interrupted) = (Arc::clone(&proxy), Arc::clone(&headers), interrupted.clone());
        async move {
            let told = match item {
                Item::Bad(told) => told,
                Item::Wanted(wanted) => {
                    let outcome = one(&proxy, &wanted, &headers, Duration::ZERO, None).await.map_err(|not| not.why);
                    Told { url: wanted.url(), outcome }
                }
            };
            // Whatever it says: what memory alone has by now, nobody finds after this.
            if interrupted() {
                return Err(Interrupted);
            }
            match &told.outcome {
                Ok(kept) if kept.fetched => _ = proxy.metrics.warmed.inc(),
                Ok(_) => {}
                Err(_) => _ = proxy.metrics.not_warmed.inc(),
            }
            Ok(told)
        }
    };
    let told = items.map(each).buffer_unordered(jobs).inspect(move |_| _ = &permit);
    let last = stream::once(async move { is_interrupted().then_some(Err(Interrupted)) });
    // At once, and not when the next thing is done: who waits is cut off soon.
    let end = async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = over.cancelled() => {}
        }
    };
    told.take_until(end.boxed()).chain(last.filter_map(std::future::ready))
}
