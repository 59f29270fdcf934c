//! What a worker thread keeps at hand of the memory tier: entries that are asked for again and again, as copies of its own.
//!
//! A hit in the memory tier takes a lock to read, and clones what all workers clone: the entry, its body, each value of its
//! head. Each of these writes to a counter that another core has just written to, which is most of what such a hit costs. A
//! copy has counters of its own, and a head that is ready to be sent. Of a body that is one slice in memory the copy has no bytes
//! but a handle with a counter of its own.
//!
//! A copy is good as long as its slot stands where it stood (`Slot::moved` tells) and no purge hits it, which is asked at each
//! use as in the memory tier. Every so many uses one goes the long way round, so that the tier knows that the entry is in use.
//!
//! A handle keeps its slice in memory, and its body from being reclaimed, when the tier has long let go of both: so all copies are
//! looked through every second (`tidy`), and a thread has handles on a part of the tier only.

use std::cell::OnceCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, AGE, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;

use super::entry::{AsSent, Entry, EntryBody, EntryHead};
use super::hot::Slot;
use super::key::CacheKey;
use super::purge_table::Verdict;
use super::shared::Shared;
use crate::clock::monotonic_ms;

/// Entries that a thread keeps; two that share a place displace each other.
const PLACES: usize = 256;
/// The largest entry that is copied, slices not counted. With `PLACES` that bounds what a worker holds beside the budget: 4 MiB.
const COPY_BYTES_MAX: u64 = 16 << 10;
/// A thread has handles on slices of no more than this part of the memory tier.
const HELD_PART: u64 = 16;
/// Uses of the slot before it is worth a copy.
const USES_MIN: u32 = 3;
/// One use in so many goes the long way round, and one after so long.
const LONG_WAY: u32 = 16;
const LONG_WAY_MS: u64 = 2_000;
/// A handle that nobody used for so long is let go.
const IDLE_MS: u64 = 10_000;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

struct Copied {
    /// The cache that it is of: tests have several.
    cache: u64,
    key: CacheKey,
    slot: Arc<Slot>,
    entry: Arc<Entry>,
    /// Uses that the memory tier was not told of, and when it was last told.
    uses: u32,
    told_ms: u64,
}

/// The copies of a thread.
#[derive(Default)]
struct Copies {
    places: Vec<Option<Copied>>,
    /// Bytes of slices that there are handles on.
    held_bytes: u64,
}

thread_local! {
    /// Locked by this thread alone, but for `tidy`: then it does without.
    static OWN: OnceCell<Arc<Mutex<Copies>>> = const { OnceCell::new() };
}

/// Those of all threads.
static ALL: Mutex<Vec<Weak<Mutex<Copies>>>> = Mutex::new(Vec::new());

/// What to do for a lookup.
pub(super) enum Front {
    /// Here it is.
    Entry(Arc<Entry>),
    /// Ask the memory tier; so many uses were not told to it yet.
    Ask(u32),
}

/// Does something with the thread's own copies.
fn with_own<T>(act: impl FnOnce(&mut Copies) -> T) -> Option<T> {
    OWN.try_with(|own| {
        let own = own.get_or_init(|| {
            let own = Arc::default();
            let mut all = ALL.lock();
            all.retain(|other| other.strong_count() > 0);
            all.push(Arc::downgrade(&own));
            own
        });
        own.try_lock().map(|mut own| act(&mut own))
    })
    .ok()?
}

/// Looks among the thread's own copies.
pub(super) fn find(shared: &Shared, key: &CacheKey, hash: u64, request_path: &str) -> Front {
    let (found, gone) = with_own(|copies| {
        let number = hash as usize % PLACES;
        let Some(copied) = copies.places.get_mut(number).and_then(Option::as_mut) else { return (Front::Ask(0), None) };
        if copied.cache != shared.number || copied.key != *key {
            return (Front::Ask(0), None);
        }
        if copied.slot.moved.load(Ordering::Acquire)
            || shared.judge_slot(&copied.slot, request_path) != Verdict::Untouched
        {
            return (Front::Ask(copied.uses), copies.take(number));
        }
        copied.uses += 1;
        let now = monotonic_ms();
        if copied.uses >= LONG_WAY || now.saturating_sub(copied.told_ms) > LONG_WAY_MS {
            copied.told_ms = now;
            return (Front::Ask(std::mem::take(&mut copied.uses) - 1), None);
        }
        (Front::Entry(Arc::clone(&copied.entry)), None)
    })
    .unwrap_or((Front::Ask(0), None));
    // It may be the end of a body, which takes other locks.
    drop(gone);
    found
}

/// Copies what was found in the memory tier, if it is small or one slice, in use, and the only entry of its key.
pub(super) fn offer(shared: &Shared, hash: u64, slot: &Arc<Slot>) {
    if slot.weight > COPY_BYTES_MAX || slot.used.uses.load(Ordering::Relaxed) < USES_MIN {
        return;
    }
    let most = shared.hot.budget() / HELD_PART;
    let displaced = with_own(|copies| {
        if copies.places.is_empty() {
            copies.places.resize_with(PLACES, || None);
        }
        let number = hash as usize % PLACES;
        let known = |copied: &Copied| copied.cache == shared.number && Arc::ptr_eq(&copied.slot, slot);
        if copies.places[number].as_ref().is_some_and(known) {
            return None;
        }
        let entry = match &slot.entry.body {
            EntryBody::Inline(body) => {
                let body = Bytes::copy_from_slice(body);
                copy(&slot.entry, body.len(), EntryBody::Inline(body), None)
            }
            EntryBody::Sliced(body) => {
                let whole = body.whole_in_memory()?;
                if copies.held_bytes + whole.len() as u64 > most {
                    return None;
                }
                let body = EntryBody::Sliced(Arc::clone(body));
                copy(&slot.entry, whole.len(), body, Some(Bytes::from_owner(Held(whole))))
            }
        };
        let displaced = copies.take(number);
        copies.held_bytes += held_bytes(&entry);
        let key = slot.entry.key.clone();
        copies.places[number] =
            Some(Copied { cache: shared.number, key, slot: Arc::clone(slot), entry, uses: 0, told_ms: monotonic_ms() });
        displaced
    });
    drop(displaced);
}

/// Lets go of the copies that are no good any more, and of the handles on what the tier has let go of or nobody asks for. With
/// `all`, of every copy of this cache. Called off the request path.
pub(super) fn tidy(shared: &Shared, all: bool) {
    let now = monotonic_ms();
    let goes = |copied: &Copied| {
        let is_idle = now.saturating_sub(copied.told_ms) > IDLE_MS;
        let is_lost = || is_idle || !shared.hot.slices.contains(copied.entry.id, 0);
        all || copied.slot.moved.load(Ordering::Acquire) || (copied.entry.held.is_some() && is_lost())
    };
    let threads: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    for copies in threads {
        let mut copies = copies.lock();
        let numbers = 0..copies.places.len();
        let gone: Vec<Copied> = numbers
            .filter_map(|number| {
                let copied = copies.places[number].as_ref()?;
                (copied.cache == shared.number && goes(copied)).then(|| copies.take(number))?
            })
            .collect();
        drop(copies);
        drop(gone);
    }
}

impl Copies {
    fn take(&mut self, number: usize) -> Option<Copied> {
        let copied = self.places[number].take()?;
        self.held_bytes -= held_bytes(&copied.entry);
        Some(copied)
    }
}

fn held_bytes(entry: &Entry) -> u64 {
    entry.held.as_ref().map_or(0, |held| held.len() as u64)
}

/// A slice, under a counter of its own.
struct Held(Bytes);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn copy(entry: &Entry, length: usize, body: EntryBody, held: Option<Bytes>) -> Arc<Entry> {
    let head = &entry.head;
    let headers = own(&head.headers, head.headers.len());
    let mut ready = own(&head.headers, head.headers.len() + 4);
    if head.status == StatusCode::OK {
        ready.entry(ACCEPT_RANGES).or_insert(HeaderValue::from_static("bytes"));
    }
    ready.insert(CONTENT_LENGTH, HeaderValue::from(length as u64));
    // Places for what differs from hit to hit.
    ready.insert(AGE, HeaderValue::from_static("0"));
    ready.entry(CACHE_STATUS).or_insert(HeaderValue::from_static(""));
    let head = EntryHead {
        headers,
        origin_path: head.origin_path.as_deref().map(Arc::from),
        as_sent: head
            .as_sent
            .as_ref()
            .map(|sent| Box::new(AsSent { status: sent.status, headers: own(&sent.headers, sent.headers.len()) })),
        ..head.clone()
    };
    Arc::new(Entry {
        id: entry.id,
        key: entry.key.clone(),
        variant: entry.variant.clone(),
        head,
        body,
        ready: Some(ready),
        held,
    })
}

/// The same fields in memory of their own.
fn own(headers: &HeaderMap, room: usize) -> HeaderMap {
    let mut copied = HeaderMap::with_capacity(room);
    for (name, value) in headers {
        let mut own = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        own.set_sensitive(value.is_sensitive());
        copied.append(name.clone(), own);
    }
    copied
}
