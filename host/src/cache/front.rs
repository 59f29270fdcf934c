//! What a worker thread keeps at hand of the memory tier: small entries that are asked for again and again, as copies of its
//! own.
//!
//! A hit in the memory tier takes a lock to read, and clones what all workers clone: the entry, its body, each value of its
//! head. Each of these writes to a counter that another core has just written to, which is most of what such a hit costs. A
//! copy has counters of its own, and a head that is ready to be sent.
//!
//! A copy is good as long as its slot stands where it stood (`Slot::moved` tells) and no purge hits it, which is asked at each
//! use as in the memory tier. Every so many uses one goes the long way round, so that the tier knows that the entry is in use.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, AGE, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::entry::{AsSent, Entry, EntryBody, EntryHead};
use super::hot::Slot;
use super::key::CacheKey;
use super::purge_table::Verdict;
use super::shared::Shared;
use crate::clock::monotonic_ms;

/// Entries that a thread keeps; two that share a place displace each other.
const PLACES: usize = 256;
/// The largest entry that is copied. With `PLACES` that bounds what a worker holds beside the budget: 4 MiB.
const COPY_BYTES_MAX: u64 = 16 << 10;
/// Uses of the slot before it is worth a copy.
const USES_MIN: u32 = 3;
/// One use in so many goes the long way round, and one after so long.
const LONG_WAY: u32 = 16;
const LONG_WAY_MS: u64 = 2_000;

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

thread_local! {
    static COPIES: RefCell<Vec<Option<Copied>>> = const { RefCell::new(Vec::new()) };
}

/// What to do for a lookup.
pub(super) enum Front {
    /// Here it is.
    Entry(Arc<Entry>),
    /// Ask the memory tier; so many uses were not told to it yet.
    Ask(u32),
}

/// Looks among the thread's own copies.
pub(super) fn find(shared: &Shared, key: &CacheKey, hash: u64, request_path: &str) -> Front {
    COPIES
        .try_with(|copies| {
            let copies = &mut *copies.borrow_mut();
            let Some(place) = copies.get_mut(hash as usize % PLACES) else { return Front::Ask(0) };
            let Some(copied) = place.as_mut().filter(|copied| copied.cache == shared.number && copied.key == *key)
            else {
                return Front::Ask(0);
            };
            if copied.slot.moved.load(Ordering::Acquire)
                || shared.judge_slot(&copied.slot, request_path) != Verdict::Untouched
            {
                let untold = copied.uses;
                *place = None;
                return Front::Ask(untold);
            }
            copied.uses += 1;
            let now = monotonic_ms();
            if copied.uses >= LONG_WAY || now.saturating_sub(copied.told_ms) > LONG_WAY_MS {
                copied.told_ms = now;
                return Front::Ask(std::mem::take(&mut copied.uses) - 1);
            }
            Front::Entry(Arc::clone(&copied.entry))
        })
        .unwrap_or(Front::Ask(0))
}

/// Copies what was found in the memory tier, if it is small, in use, and the only entry of its key.
pub(super) fn offer(shared: &Shared, hash: u64, slot: &Arc<Slot>) {
    let EntryBody::Inline(body) = &slot.entry.body else { return };
    if slot.weight > COPY_BYTES_MAX || slot.used.uses.load(Ordering::Relaxed) < USES_MIN {
        return;
    }
    let known = |copied: &Copied| copied.cache == shared.number && Arc::ptr_eq(&copied.slot, slot);
    let _ = COPIES.try_with(|copies| {
        let copies = &mut *copies.borrow_mut();
        if copies.is_empty() {
            copies.resize_with(PLACES, || None);
        }
        let place = &mut copies[hash as usize % PLACES];
        if place.as_ref().is_some_and(known) {
            return;
        }
        let key = slot.entry.key.clone();
        let entry = copy(&slot.entry, body);
        *place =
            Some(Copied { cache: shared.number, key, slot: Arc::clone(slot), entry, uses: 0, told_ms: monotonic_ms() });
    });
}

fn copy(entry: &Entry, body: &Bytes) -> Arc<Entry> {
    let head = &entry.head;
    let headers = own(&head.headers, head.headers.len());
    let mut ready = own(&head.headers, head.headers.len() + 4);
    if head.status == StatusCode::OK {
        ready.entry(ACCEPT_RANGES).or_insert(HeaderValue::from_static("bytes"));
    }
    ready.insert(CONTENT_LENGTH, HeaderValue::from(body.len() as u64));
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
        body: EntryBody::Inline(Bytes::copy_from_slice(body)),
        ready: Some(ready),
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
