//! What is pinned is asked about before it is stale, and counted: again and again all that is kept of hosts that pin something is
//! looked at, page by page, and what will not live until the round after the next is asked for by its key, some at a time. A
//! mirrored host is only counted: its listings keep it fresh.
//!
//! A round takes a tenth of the time at most. Lives that are shorter than some rounds cannot be kept from ending.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver::Source;
use super::mirror::SHARE_PERCENT;
use super::{Generation, Proxy, refetch, steps};
use crate::cache::entry::EntryBody;
use crate::cache::survey::Kept;
use crate::clock::Timestamp;
use crate::semantics::authority::Hostname;
use crate::vhost::VirtualHost;

/// Between two rounds, at least.
const PAUSE: Duration = Duration::from_secs(10);
/// ... and so many times what a round takes.
const REST: u32 = 9;
/// Between two pages of a round: it must not be felt.
const PAGE_PAUSE: Duration = Duration::from_millis(20);
/// Asked about at once.
const JOBS: usize = 4;
/// So many failures, one after the other, end the questions of a round: the origin is down, and stays so for a while.
const FAILURES_MOST: u32 = 10;

/// What pins come to.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Status {
    /// Entries that are pinned, mirrored ones included.
    pub entries: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// They are more than their share of the disk: they may be evicted, after all else.
    pub over: bool,
    /// Asked about before they were stale, since the start of the program.
    pub refreshed: u64,
}

/// What is known of pins.
#[derive(Default)]
pub(super) struct Pins(Mutex<Status>);

impl Proxy {
    /// What pins come to, as it was last counted.
    pub fn pins(&self) -> Status {
        self.pins.0.lock().clone()
    }

    /// Says to the cache what is pinned by the configuration in force.
    pub(super) fn tell_pins(&self) {
        let generation = self.generation();
        if !generation.hosts().iter().any(|host| pins_something(host)) {
            return self.cache.pin(None);
        }
        let judge = move |host: &str, path: &str| {
            let site = Hostname::parse(host).ok().and_then(|name| generation.route(&name));
            site.is_some_and(|site| site.host.settings.is_pinned(path))
        };
        self.cache.pin(Some(Box::new(judge)));
    }

    /// Looks after what is pinned, until it is told to stop.
    pub async fn keep_pins(self: Arc<Self>, cancel: CancellationToken) {
        let mut took = Duration::ZERO;
        loop {
            let began = Instant::now();
            let generation = self.generation();
            if generation.hosts().iter().any(|host| pins_something(host)) {
                let rounds = (took + PAUSE).max(took * (REST + 1));
                tokio::select! {
                    () = round(&self, &generation, rounds * 3) => {}
                    () = cancel.cancelled() => return,
                }
            } else if self.pins().entries > 0 {
                self.note_pins(0, 0);
            }
            took = began.elapsed();
            tokio::select! {
                () = tokio::time::sleep(PAUSE.max(took * REST)) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    fn note_pins(&self, entries: u64, bytes: u64) {
        let share = self.cache.stats().disk_budget_bytes / 100 * SHARE_PERCENT;
        let over = bytes > share;
        let mut status = self.pins.0.lock();
        (status.entries, status.bytes, status.over) = (entries, bytes, over);
        drop(status);
        self.metrics.cache_pinned_bytes.set(bytes.cast_signed());
        self.metrics.cache_pinned_entries.set(entries.cast_signed());
        if self.cache.set_pins_over(bytes, over) != over {
            if over {
                tracing::warn!(
                    bytes,
                    share,
                    "what is pinned takes more than its share of the disk, and may be evicted"
                );
            } else {
                tracing::info!(bytes, share, "what is pinned has room again");
            }
        }
    }
}

fn pins_something(host: &VirtualHost) -> bool {
    !host.settings.pin.is_empty() || host.settings.mirror.is_some()
}

/// Looks at everything once.
async fn round(proxy: &Arc<Proxy>, generation: &Arc<Generation>, margin: Duration) {
    let (mut entries, mut bytes) = (0, 0);
    let mut failures = 0;
    for host in generation.hosts().iter().filter(|host| pins_something(host)) {
        for name in proxy.names_of(host, generation).await.unwrap_or_default() {
            let mut survey = proxy.cache.survey_paths(&name, None, None);
            while let Some(page) = survey.next().await {
                let now = proxy.clock.now();
                let pinned: Vec<Kept> = page.into_iter().filter(|kept| is_pinned(host, kept)).collect();
                entries += pinned.len() as u64;
                bytes += pinned.iter().map(|kept| kept.size).sum::<u64>();
                let due = pinned.into_iter().filter(|kept| host.settings.mirror.is_none() && is_due(kept, margin, now));
                let mut asked = stream::iter(due.collect::<Vec<_>>())
                    .map(|kept| async move { refresh(proxy, &kept, margin).await })
                    .buffer_unordered(JOBS);
                while failures < FAILURES_MOST
                    && let Some(done) = asked.next().await
                {
                    failures = if done { 0 } else { failures + 1 };
                    if done {
                        proxy.metrics.warmed.inc();
                        proxy.pins.0.lock().refreshed += 1;
                    } else {
                        proxy.metrics.not_warmed.inc();
                    }
                }
                tokio::time::sleep(PAGE_PAUSE).await;
            }
        }
    }
    proxy.note_pins(entries, bytes);
}

/// As eviction judges it (`cache/pins.rs`).
fn is_pinned(host: &VirtualHost, kept: &Kept) -> bool {
    kept.status < 400 && kept.key.is_for_all_queries() && host.settings.is_pinned(&kept.key.path_text())
}

/// Whether it should be asked about now. What asks at each use anyway, or lives shorter than a round, is left alone.
fn is_due(kept: &Kept, margin: Duration, now: Timestamp) -> bool {
    let age = kept.initial_age.saturating_add(now.since(kept.response_at));
    let left = kept.lifetime.saturating_sub(age);
    // What came together need not be asked about together: some a little earlier than others.
    let mixed = kept.response_at.as_millis().wrapping_add(kept.size).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let spread = (mixed >> 32) % 50;
    let margin = (margin.min(kept.lifetime / 2) * (50 + u32::try_from(spread).unwrap_or(0))) / 100;
    !kept.lifetime.is_zero() && left < margin
}

async fn refresh(proxy: &Arc<Proxy>, kept: &Kept, margin: Duration) -> bool {
    if super::compression::is_key_of_form(&kept.key) || super::parts::is_key_of_part(&kept.key) {
        // It is made anew of its original, or says nothing of the whole.
        return true;
    }
    let Some(mut routed) = refetch::routed(proxy, kept) else { return false };
    routed.carried.by_operator = true;
    let Some(answer) = steps::again(routed, &kept.key, Some(margin)).await else { return false };
    let Source::Entry(entry) = &answer.source else { return false };
    if let EntryBody::Sliced(body) = &entry.body {
        body.wait_for_fill().await;
    }
    // What turned out longer than is kept was answered all the same: the origin is well.
    answer.outcome.stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::{CacheKey, KeyParts};
    use crate::cache::vary::VariantKey;

    fn kept(lifetime: u64, at: u64) -> Kept {
        let host = Hostname::parse("a.test").expect("a host");
        Kept {
            key: CacheKey::build(&KeyParts { host: &host, path: "/a", parts: &[] }).expect("a key"),
            variant: VariantKey::default(),
            request_path: "/a".to_owned(),
            sequence: 0,
            origin_path: None,
            status: 200,
            etag: None,
            response_at: Timestamp::from_millis(at * 1000),
            lifetime: Duration::from_secs(lifetime),
            initial_age: Duration::ZERO,
            size: 1,
        }
    }

    #[test]
    fn what_will_not_live_long_is_due_and_not_all_at_once() {
        let margin = Duration::from_secs(40);
        let due = |kept: &Kept, now: u64| is_due(kept, margin, Timestamp::from_millis(now * 1000));
        assert!(!due(&kept(600, 1000), 1000));
        assert!(!due(&kept(600, 1000), 1000 + 559));
        assert!(due(&kept(600, 1000), 1000 + 590));
        assert!(due(&kept(600, 1000), 5000), "stale already");
        assert!(!due(&kept(0, 1000), 5000), "asked about at each use");
        assert!(!due(&kept(20, 1000), 1005), "never in the first half of a life");
        let at_once = (0..1000).filter(|at| due(&kept(600, 1000 + at), 1000 + at + 575)).count();
        assert!((100..900).contains(&at_once), "{at_once} of 1000 at the same age");
    }
}
