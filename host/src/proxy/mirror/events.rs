//! What a bucket tells of its objects, carried out: on every host that is served from the bucket, what is kept of a changed object
//! is stale and of a removed one gone, and a mirrored host fetches it at once.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::{Mirror, Proxy, name_of};
use crate::cache::error::CacheError;
use crate::cache::purges::PurgeScope;
use crate::purge::{Action, Order};
use crate::semantics::target;
use crate::warm::event::{Change, Events};
use crate::warm::{Wanted, item};

use super::super::warm::{self, path_of};

/// Objects that wait to be fetched; of what is beyond that the next listing knows, which then comes at once.
pub(super) const SOON_MOST: usize = 4096;
/// Fetched at once, of all that is told.
pub(super) const FETCHES_AT_ONCE: usize = 8;
/// Paths purged for the events of one request on the names of one pattern.
const PATHS_MOST: usize = 50_000;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Paths of hosts that were purged.
    pub purged: u64,
    /// Paths of mirrored hosts that are being fetched.
    pub fetching: u64,
    /// Patterns with more names than can be purged one by one: nothing of theirs was.
    pub left_out: Vec<String>,
}

impl Proxy {
    /// Carries out what a bucket tells. In force when it returns; fetches go on.
    pub async fn apply_events(self: &Arc<Self>, events: &Events) -> Result<Applied, CacheError> {
        let generation = self.generation();
        let (mut stale, mut gone) = (Vec::new(), Vec::new());
        let mut soon: Vec<(Arc<Mirror>, Wanted)> = Vec::new();
        let mut applied = Applied::default();
        for host in generation.hosts() {
            let Some(bucket) = host.origin.bucket() else { continue };
            let of_host = events.events.iter().filter(|event| event.bucket == bucket);
            let paths: Vec<(String, Change)> = of_host
                .filter_map(|event| {
                    let listed = format!("/{}", event.key);
                    let path = path_of(&host.settings.prefix, &listed, 1)?;
                    target::check_path(path).is_ok().then(|| (path.to_owned(), event.change))
                })
                .collect();
            if paths.is_empty() {
                continue;
            }
            let names = self.names_of(host, &generation).await;
            let names = names.filter(|names| names.len() * paths.len() <= PATHS_MOST || names.len() == 1);
            let Some(names) = names else {
                applied.left_out.push(host.settings.name.clone());
                continue;
            };
            for (name, (path, change)) in names.iter().flat_map(|name| paths.iter().map(move |path| (name, path))) {
                let scope = PurgeScope::Path { host: name.clone(), path: path.clone() };
                applied.purged += 1;
                match change {
                    Change::Created => stale.push(scope),
                    Change::Removed => gone.push(scope),
                }
            }
            let Some(name) = name_of(host).filter(|_| host.settings.mirror.is_some()) else { continue };
            let mirror = self.mirrors.of(name);
            // Of what is said to be gone too: an older version may be meant, or a newer one have come. A page of a folder goes with
            // the folder's marker, and may still be there.
            let pages =
                paths.iter().filter(|(path, _)| path.ends_with('/')).map(|(path, _)| format!("{path}index.html"));
            for path in paths.iter().map(|(path, _)| path.clone()).chain(pages) {
                if let Ok(wanted) = item(Some(name), &target::encode_path(&path)) {
                    soon.push((Arc::clone(&mirror), wanted));
                }
            }
        }
        for (scopes, action) in [(stale, Action::Soft), (gone, Action::Hard)] {
            if !scopes.is_empty() {
                // Nobody asks for counts, which take time.
                let order = Order { scopes, action, dry_run: false };
                order.carry_out_uncounted(&self.cache, &self.clock).await?;
            }
        }
        applied.fetching = self.fetch_soon(soon);
        Ok(applied)
    }

    /// Fetches in the background; how many are.
    fn fetch_soon(self: &Arc<Self>, mut soon: Vec<(Arc<Mirror>, Wanted)>) -> u64 {
        let room = self.mirrors.soon.available_permits().min(soon.len());
        for (mirror, _) in soon.drain(room..) {
            mirror.state.lock().due = true;
        }
        let Ok(permits) = u32::try_from(room) else { return 0 };
        let Ok(places) = Arc::clone(&self.mirrors.soon).try_acquire_many_owned(permits) else {
            soon.iter().for_each(|(mirror, _)| mirror.state.lock().due = true);
            return 0;
        };
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            use futures_util::{StreamExt, stream};
            let _places = places;
            let fetches = stream::iter(soon).for_each_concurrent(FETCHES_AT_ONCE, |(mirror, wanted)| {
                let proxy = Arc::clone(&proxy);
                async move {
                    // It is never closed.
                    let _turn = proxy.mirrors.fetches.acquire().await;
                    match warm::one(&proxy, &wanted, &HeaderMap::new(), Duration::ZERO, None).await {
                        Ok(kept) => {
                            if kept.fetched {
                                proxy.metrics.warmed.inc();
                                mirror.status.lock().fetched += 1;
                            }
                        }
                        // The next listing tries again.
                        Err(not) => {
                            proxy.metrics.not_warmed.inc();
                            tracing::debug!(url = wanted.url(), why = not.why, "not fetched after an event");
                        }
                    }
                }
            });
            fetches.await;
        });
        u64::from(permits)
    }
}
