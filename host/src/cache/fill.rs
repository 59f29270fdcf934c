//! Coalesced fills: one leader streams from the origin, everyone else reads along, from the first byte.
//!
//! A body is a row of slices. A reader asks for the bytes at a position and gets them (from memory, from the slice that is
//! coming in, or from disk, checked), waits for a fill under way that will reach them soon, or is told that nobody is
//! fetching them and may claim the gap. So first fills, ranges, evicted and damaged slices are one mechanism: `body` has the
//! reading side, `writer` the writing side. This file is about who asks the origin.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use quick_cache::DefaultHashBuilder;
use tokio::sync::Notify;

use super::Asked;
use super::entry::{Entry, EntryHead};
use super::key::CacheKey;
use super::purge_table::Verdict;
use super::shared::Shared;
use super::vary::VariantKey;
use crate::clock::Timestamp;

pub use super::body::{Piece, Reader, SlicedBody};
pub use super::writer::Writer;

/// Keys that are remembered as not cacheable: enough for what is hot, and a bound on what clients can make us remember.
const MAX_UNCACHEABLE: usize = 10_000;
const SHARDS: usize = 64;

/// What a request that missed is to do.
pub enum Join {
    /// Ask the origin; others wait for you.
    Lead(Lead),
    /// Someone asks already.
    Follow(Follow),
    /// Ask the origin for yourself alone, at once: the key is remembered as not cacheable.
    Uncoalesced,
}

/// Who asks for what, now.
pub(super) struct Flights {
    shards: Box<[Shard]>,
    uncacheable: quick_cache::sync::Cache<CacheKey, (Timestamp, Duration)>,
    hasher: DefaultHashBuilder,
}

type Shard = Mutex<HashMap<CacheKey, Arc<Flight>>>;

/// One question to an origin, and those who wait for the answer.
#[derive(Default)]
struct Flight {
    outcome: OnceLock<Outcome>,
    landed: Notify,
}

#[derive(Clone)]
enum Outcome {
    Entry(Arc<Entry>),
    Released,
    Vanished,
}

impl Flights {
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            uncacheable: quick_cache::sync::Cache::new(MAX_UNCACHEABLE),
            hasher: DefaultHashBuilder::default(),
        }
    }

    fn shard(&self, key: &CacheKey) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Joins what is going on. `meanwhile` says what came since the caller looked; it is asked while nobody can land.
    pub fn join(shared: &Arc<Shared>, asked: &Asked<'_>, meanwhile: impl FnOnce() -> Option<Arc<Entry>>) -> Join {
        let flights = &shared.flights;
        if let Some((until, remembered)) = flights.uncacheable.get(asked.key) {
            let left = until.since(shared.clock.now());
            // More than there was in the beginning: the clock went back.
            if !left.is_zero() && left <= remembered {
                return Join::Uncoalesced;
            }
            flights.uncacheable.remove(asked.key);
        }
        let mut shard = flights.shard(asked.key).lock();
        let follow = |flight: Arc<Flight>| {
            Join::Follow(Follow {
                shared: shared.clone(),
                flight,
                headers: asked.headers.clone(),
                request_path: asked.request_path.to_owned(),
            })
        };
        if let Some(flight) = shard.get(asked.key) {
            return follow(flight.clone());
        }
        if let Some(entry) = meanwhile() {
            let flight = Arc::new(Flight::default());
            flight.land(Outcome::Entry(entry));
            return follow(flight);
        }
        let flight = Arc::new(Flight::default());
        shard.insert(asked.key.clone(), flight.clone());
        Join::Lead(Lead { shared: shared.clone(), key: asked.key.clone(), flight })
    }
}

impl Flight {
    fn land(&self, outcome: Outcome) {
        // The first outcome counts.
        let _ = self.outcome.set(outcome);
        self.landed.notify_waiters();
    }
}

/// The duty to ask the origin for a key. Dropping it lets the next in line lead.
pub struct Lead {
    shared: Arc<Shared>,
    key: CacheKey,
    flight: Arc<Flight>,
}

impl Lead {
    fn land(&self, outcome: Outcome) {
        let mut shard = self.shared.flights.shard(&self.key).lock();
        if shard.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            shard.remove(&self.key);
        }
        drop(shard);
        self.flight.land(outcome);
    }

    /// The response is not to be kept, or the origin failed: all who wait go to the origin themselves, at once. With
    /// `remember`, later requests are not coalesced for that long.
    pub fn release(self, remember: Option<Duration>) {
        if let Some(remember) = remember {
            let until = self.shared.clock.now().plus(remember);
            self.shared.flights.uncacheable.insert(self.key.clone(), (until, remember));
        }
        self.land(Outcome::Released);
    }

    /// The response is kept: those who wait and whose request selects this variant read along; the others are released.
    /// No writer for a body of length 0, nor if the head was purged meanwhile.
    pub fn keep(self, asked: &Asked<'_>, head: EntryHead) -> (Arc<Entry>, Option<Writer>) {
        self.keep_slices(asked, head, None)
    }

    /// The same for a response that is a part of an object: these slices, in whole (but for the body's end), of a sliceable
    /// one. The writer takes bytes from `slices.start * SLICE_BYTES` on.
    pub fn keep_slices(
        self,
        asked: &Asked<'_>,
        head: EntryHead,
        slices: Option<Range<u64>>,
    ) -> (Arc<Entry>, Option<Writer>) {
        let empty = head.size == Some(0);
        let (entry, writer) = self.shared.begin(&self.key, asked.headers, head, slices);
        let kept = writer.is_some() || (empty && !self.shared.is_purged(&entry, Some(asked.request_path)));
        self.land(if kept { Outcome::Entry(entry.clone()) } else { Outcome::Released });
        (entry, writer)
    }

    /// A 304: the entry lives on under a new head.
    pub fn freshen(self, entry: &Arc<Entry>, head: EntryHead) -> Arc<Entry> {
        let fresh = self.shared.freshen(entry, head);
        self.land(Outcome::Entry(fresh.clone()));
        fresh
    }

    /// The origin failed and stale may be served: all who wait get this entry.
    pub fn serve_stale(self, entry: &Arc<Entry>) {
        self.land(Outcome::Entry(entry.clone()));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.flight.outcome.get().is_none() {
            self.land(Outcome::Vanished);
        }
    }
}

/// Waiting for a leader.
pub struct Follow {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    headers: HeaderMap,
    request_path: String,
}

/// What became of it.
pub enum Followed {
    /// Read along; fresh by now, or stale by `serve_stale`.
    Entry(Arc<Entry>),
    /// Not for you: go to the origin yourself, uncoalesced.
    Released,
    /// The leader vanished: join again.
    Again,
}

impl Follow {
    /// Waits.
    pub async fn wait(self) -> Followed {
        loop {
            let mut landed = pin!(self.flight.landed.notified());
            landed.as_mut().enable();
            match self.flight.outcome.get() {
                None => landed.await,
                Some(Outcome::Vanished) => return Followed::Again,
                Some(Outcome::Released) => return Followed::Released,
                Some(Outcome::Entry(entry)) => {
                    let mine = VariantKey::of(&entry.head.vary, &self.headers) == entry.variant;
                    // What was purged since, by any name that we asked for, is not for us.
                    if mine && self.shared.judge(entry, Some(&self.request_path)) == Verdict::Untouched {
                        return Followed::Entry(entry.clone());
                    }
                    return Followed::Released;
                }
            }
        }
    }
}
