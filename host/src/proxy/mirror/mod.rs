//! Hosts whose bucket or folder is kept whole: it is listed again and again (`round.rs`), what is new or another one is fetched,
//! and what is gone is purged. What the bucket tells of itself meanwhile (`events.rs`) counts at once.
//!
//! Nothing is kept of a listing but its numbers: what the cache has is held against it page by page, since both have the same order.

mod events;
mod round;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Proxy;
use crate::semantics::authority::HostPattern;
use crate::telemetry::metrics::SiteLabels;
use crate::vhost::VirtualHost;

pub use events::Applied;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_millis(500);
/// Listings under way.
const ROUNDS_AT_ONCE: usize = 4;
/// Objects that are known not to be kept (`no-store`, too large), by a hash: they are not fetched again at each listing.
const UNKEPT_MOST: usize = 100_000;
/// ... for so long.
const UNKEPT_FOR: Duration = Duration::from_secs(3600);
/// What of the disk budget mirrors and pins may take, in percent: the rest is for what else is asked for.
pub const SHARE_PERCENT: u64 = 90;

/// All mirrors.
pub(super) struct Mirrors {
    hosts: Mutex<BTreeMap<String, Arc<Mirror>>>,
    /// Places among the fetches that events have made due.
    soon: Arc<Semaphore>,
    /// Turns among them.
    fetches: Semaphore,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self {
            hosts: Mutex::default(),
            soon: Arc::new(Semaphore::new(events::SOON_MOST)),
            fetches: Semaphore::new(events::FETCHES_AT_ONCE),
        }
    }
}

/// What is known of one.
#[derive(Default)]
pub(super) struct Mirror {
    status: Mutex<Status>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: bool,
    begun: Option<Instant>,
    /// Something was missed: it is listed again at once.
    due: bool,
    /// Bytes of what is to be kept.
    wanted_bytes: u64,
    unkept: HashSet<u64>,
    /// When they began to be collected.
    unkept_since: Option<Instant>,
}

/// How far a mirror is.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Status {
    /// Its host.
    pub host: String,
    /// It is being listed.
    pub listing: bool,
    /// Objects of the listing that is under way, or of the last one.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, those that could not be fetched.
    pub failed: u64,
    /// Of them, those that are not kept: no client can ask for them, they say so themselves, or there is no room.
    pub left_out: u64,
    /// Objects fetched since the start of the program.
    pub fetched: u64,
    /// Objects purged since then because they were gone.
    pub purged: u64,
    /// When the last listing that came to its end began, in seconds since 1970.
    pub listed_at: Option<u64>,
    /// What went wrong in the last one.
    pub error: Option<String>,
}

impl Mirror {
    /// Whether it is to be listed now; then it is.
    fn begin(&self, interval: Duration) -> bool {
        let mut state = self.state.lock();
        let waits = state.begun.is_some_and(|begun| begun.elapsed() < interval) && !state.due;
        if state.running || waits {
            return false;
        }
        let now = Instant::now();
        (state.running, state.due, state.begun) = (true, false, Some(now));
        // A policy or a setting may keep now what it did not keep then.
        if state.unkept_since.is_none_or(|since| since.elapsed() > UNKEPT_FOR) {
            state.unkept.clear();
            state.unkept_since = Some(now);
        }
        true
    }

    fn end(&self, error: Option<String>) {
        self.state.lock().running = false;
        let mut status = self.status.lock();
        (status.listing, status.error) = (false, error);
    }

    fn is_unkept(&self, version: u64) -> bool {
        self.state.lock().unkept.contains(&version)
    }

    fn note_unkept(&self, version: u64) {
        let unkept = &mut self.state.lock().unkept;
        if unkept.len() < UNKEPT_MOST {
            unkept.insert(version);
        }
    }
}

impl Mirrors {
    fn of(&self, name: &str) -> Arc<Mirror> {
        let mut hosts = self.hosts.lock();
        let mirror = hosts.entry(name.to_owned()).or_default();
        mirror.status.lock().host = name.to_owned();
        Arc::clone(mirror)
    }

    /// Bytes that all but one are to keep.
    fn bytes_of_others(&self, name: &str) -> u64 {
        let hosts = self.hosts.lock();
        hosts.iter().filter(|(other, _)| *other != name).map(|(_, mirror)| mirror.state.lock().wanted_bytes).sum()
    }
}

impl Proxy {
    /// How far each mirror is.
    pub fn mirrors(&self) -> Vec<Status> {
        let hosts = self.mirrors.hosts.lock();
        hosts.values().map(|mirror| mirror.status.lock().clone()).collect()
    }

    /// Keeps the mirrors of the configuration in force, until it is told to stop.
    pub async fn keep_mirrors(self: Arc<Self>, cancel: CancellationToken) {
        let mut rounds = JoinSet::new();
        loop {
            let generation = self.generation();
            let mirrored: Vec<_> = generation.hosts().iter().filter(|host| host.settings.mirror.is_some()).collect();
            self.mirrors.hosts.lock().retain(|name, _| mirrored.iter().any(|host| name_of(host) == Some(name)));
            let mut waiting: Vec<_> =
                mirrored.iter().filter_map(|host| Some((self.mirrors.of(name_of(host)?), *host))).collect();
            // Those first that have waited longest: mirrors that are always due must not keep the others from their turn.
            waiting.sort_by_key(|(mirror, _)| mirror.state.lock().begun);
            for (mirror, host) in waiting {
                let Some(settings) = &host.settings.mirror else { continue };
                if rounds.len() < ROUNDS_AT_ONCE && mirror.begin(settings.interval) {
                    rounds.spawn(one_round(Arc::clone(&self), Arc::clone(host), mirror));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Some(ended) = rounds.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a mirror's listing ended");
                },
                () = cancel.cancelled() => return,
            }
        }
    }
}

async fn one_round(proxy: Arc<Proxy>, host: Arc<VirtualHost>, mirror: Arc<Mirror>) {
    // Dropped with the task too: the next round begins anew.
    let mut ending = Ending { mirror: Arc::clone(&mirror), error: None };
    let outcome = round::round(&proxy, &host, &mirror).await;
    let status = mirror.status.lock().clone();
    let labels = SiteLabels { host: status.host.clone() };
    proxy.metrics.mirror_objects.get_or_create(&labels).set(status.objects.cast_signed());
    proxy.metrics.mirror_bytes.get_or_create(&labels).set(status.bytes.cast_signed());
    if let Err(error) = &outcome {
        tracing::warn!(host = status.host, error, "the mirror is not complete");
    }
    ending.error = outcome.err();
}

struct Ending {
    mirror: Arc<Mirror>,
    error: Option<String>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.mirror.end(self.error.take());
    }
}

/// The name of a mirrored host, which is no pattern.
fn name_of(host: &VirtualHost) -> Option<&str> {
    match &host.settings.pattern {
        HostPattern::Exact(name) => Some(name.as_str()),
        _ => None,
    }
}
