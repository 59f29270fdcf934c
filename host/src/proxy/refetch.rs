//! After a purge that refreshes: what was kept is asked for again, before somebody does.
//!
//! Each entry is asked for by a request made of its key, its variant and the path that it was first asked for by; policies judge
//! it as they judge one from loopback. Only what leads to the same key is fetched, so what the host no longer serves, or what
//! depends on more of a request than the key tells, is left stale. An entry that was fetched since the purge is left alone, so that
//! purges of the same things do not fetch twice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use http::{Method, Request, Version};
use tokio::sync::Semaphore;

use super::compression::is_key_of_form;
use super::deliver::Source;
use super::parts::is_key_of_part;
use super::request::{self, Upload};
use super::steps::{self, Carried, Routed};
use super::{Peer, Proxy};
use crate::cache::Asked;
use crate::cache::entry::{Entry, EntryBody};
use crate::cache::key::CacheKey;
use crate::cache::purges::{PurgeScope, PurgeSequence};
use crate::cache::survey::Kept;
use crate::local::Local;
use crate::semantics::target;

/// Purges that refresh, waiting or under way.
const JOBS_MOST: usize = 64;
/// How often an entry is asked for that comes from before the purge.
const TRIES: usize = 3;
/// Entries that are fetched at once.
const FETCHES_AT_ONCE: usize = 8;

/// What is fetched anew after purges.
#[derive(Debug)]
pub(super) struct Refetching {
    jobs: Arc<Semaphore>,
    fetches: Semaphore,
}

impl Default for Refetching {
    fn default() -> Self {
        Self { jobs: Arc::new(Semaphore::new(JOBS_MOST)), fetches: Semaphore::new(FETCHES_AT_ONCE) }
    }
}

/// A place in the queue of purges that refresh.
#[derive(Debug)]
pub struct Place {
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Proxy {
    /// A place for a purge that is about to refresh; none if too many wait.
    pub fn place_to_refetch(&self) -> Option<Place> {
        self.refetching.jobs.clone().try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }

    /// Purges that refresh, waiting or under way.
    pub fn refetches(&self) -> usize {
        JOBS_MOST - self.refetching.jobs.available_permits()
    }

    /// Asks again, in the background, for what a purge with this number has made stale.
    pub fn refetch(self: &Arc<Self>, place: Place, scopes: Vec<PurgeScope>, sequence: PurgeSequence) {
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            for scope in &scopes {
                let mut survey = proxy.cache.survey(scope);
                while let Some(page) = survey.next().await {
                    // A compressed form is made anew of what is fetched, and a part says nothing of the whole.
                    let originals =
                        page.into_iter().filter(|kept| !is_key_of_form(&kept.key) && !is_key_of_part(&kept.key));
                    let older = originals.filter(|kept| kept.sequence < sequence.0);
                    let fetches = stream::iter(older);
                    fetches.for_each_concurrent(FETCHES_AT_ONCE, |kept| one(&proxy, kept, sequence)).await;
                }
            }
        });
    }
}

async fn one(proxy: &Arc<Proxy>, kept: Kept, sequence: PurgeSequence) {
    // Never closed.
    let _permit = proxy.refetching.fetches.acquire().await;
    let proxy = Arc::clone(proxy);
    // A task of its own: a panic ends this one fetch.
    let counted = Arc::clone(&proxy);
    let fetched = tokio::spawn(async move { fetch(&proxy, &kept, sequence).await }).await;
    match fetched {
        Ok(Some(())) => counted.metrics.refetched.inc(),
        _ => counted.metrics.not_refetched.inc(),
    };
}

/// None: it is not fetched.
async fn fetch(proxy: &Arc<Proxy>, kept: &Kept, sequence: PurgeSequence) -> Option<()> {
    for _ in 0..TRIES {
        let routed = routed(proxy, kept)?;
        let answer = steps::again(routed, &kept.key, None).await?;
        let Source::Entry(entry) = &answer.source else { return None };
        if let EntryBody::Sliced(body) = &entry.body {
            body.wait_for_fill().await;
        }
        if entry.head.sequence >= sequence {
            return is_kept(&answer.carried, &kept.key, entry).await.then_some(());
        }
        // It was on its way when the purge came, and is stale by now.
    }
    None
}

/// Whether it is what the next client gets. A purge may have come meanwhile, or the disk may have had no room.
pub(super) async fn is_kept(carried: &Carried, key: &CacheKey, entry: &Arc<Entry>) -> bool {
    let request = &carried.exchange.request;
    let asked = Asked { key, headers: &request.headers, request_path: request.path() };
    let cache = &carried.proxy.cache;
    let found = match cache.lookup_memory(&asked) {
        Some(found) => Some(found),
        None => cache.lookup_disk(&asked).await,
    };
    found.is_some_and(|found| found.entry.id >= entry.id)
}

/// The request that leads to what is kept, as far as the key tells.
pub(super) fn routed(proxy: &Arc<Proxy>, kept: &Kept) -> Option<Routed> {
    let mut scheme = "http";
    let (mut port, mut query) = (None, None);
    for (name, value) in kept.key.parts() {
        match &*name {
            ":s" if value == "https" => scheme = "https",
            ":a" => port = Some(value.into_owned()),
            ":q" => query = Some(value.into_owned()),
            _ => {}
        }
    }
    let host = kept.key.host();
    let authority = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut path = target::encode_path(&kept.request_path);
    if let Some(query) = query {
        path = format!("{path}?{query}");
    }
    let mut request = Request::builder().method(Method::GET).version(Version::HTTP_11).uri(path);
    request.headers_mut()?.extend(kept.variant.fields()?);
    let request = request.header(http::header::HOST, authority).body(None::<Upload>).ok()?;
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let by = Peer { address, port: 0, scheme, tls: None, interim: None };
    let generation = proxy.generation_here();
    let readable = request::read(by, request, &[], proxy.clock.now()).ok()?;
    let site = generation.route(&readable.exchange.request.host).map(Local::of)?;
    let own = Local::of(proxy);
    let carried = Carried::begin(own, generation, site, readable.exchange, readable.version, by, false);
    Some(Routed { carried, upload: steps::Upload { body: None, brought: readable.brought, websocket: None } })
}
