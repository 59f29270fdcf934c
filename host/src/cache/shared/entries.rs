//! Entries in memory, those whose fills are under way first.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderMap;

use super::super::body::{BodyParts, Fill, SlicedBody};
use super::super::entry::{Entry, EntryBody, EntryHead, SLICE_BYTES};
use super::super::front::{self, Front};
use super::super::hot::{Look, Slot, Used};
use super::super::index::schema;
use super::super::key::CacheKey;
use super::super::purge_table::Verdict;
use super::super::runs::Runs;
use super::super::vary::{VariantKey, VaryFields};
use super::super::writer::Writer;
use super::{MAX_NOTED, SHARDS, Shared};

impl Shared {
    /// An entry in memory, or one that is coming, for a client who asks for it.
    pub fn find(&self, key: &CacheKey, headers: &HeaderMap, request_path: &str) -> Option<Arc<Entry>> {
        self.find_by(key, headers, request_path, Look::Use)
    }

    /// The same, by whoever looks.
    pub fn find_by(&self, key: &CacheKey, headers: &HeaderMap, request_path: &str, look: Look) -> Option<Arc<Entry>> {
        let hash = self.hot.hash(key);
        let untold = match front::find(self, key, hash, request_path) {
            Front::Entry(entry) => return Some(entry),
            Front::Ask(untold) => untold,
        };
        let found = self.hot.select(
            key,
            look,
            |set| VariantKey::of(set, headers),
            |slot, alone| {
                match self.judge_slot(slot, request_path) {
                    Verdict::Untouched => {}
                    Verdict::Gone => return None,
                    Verdict::Stale(at) => return Some(self.stale_in_memory(&slot.entry, at)),
                }
                self.note_use(slot, untold + 1);
                if alone {
                    front::offer(self, hash, slot);
                } else {
                    self.hot.variant_used(slot);
                }
                Some(slot.entry.clone())
            },
        );
        found.or_else(|| {
            let live = self.live(key).read();
            // Made once for many that vary by the same fields.
            let mut wanted: Option<(&VaryFields, VariantKey)> = None;
            for entry in live.get(key)?.iter().rev() {
                let set = &entry.head.vary;
                let variant = match wanted.take() {
                    Some((of, variant)) if of == set => variant,
                    _ => VariantKey::of(set, headers),
                };
                // Of what purges said before the floor nothing is known any more.
                if variant == entry.variant && !self.purges.is_before_floor(entry.head.sequence.0) {
                    match self.judge(entry, Some(request_path)) {
                        Verdict::Gone => {}
                        verdict => return Some(self.as_judged(entry, verdict)),
                    }
                }
                wanted = Some((set, variant));
            }
            None
        })
    }

    fn note_use(&self, slot: &Arc<Slot>, uses: u32) {
        let used = &slot.used;
        used.uses.fetch_add(uses, Ordering::Relaxed);
        if !used.noted.load(Ordering::Relaxed) && !used.noted.swap(true, Ordering::Relaxed) {
            // Once for each entry and flush, and never waiting for another.
            let buffer = self.next_note.fetch_add(1, Ordering::Relaxed) % SHARDS;
            match self.noted[buffer].try_lock() {
                Some(mut noted) if noted.len() < MAX_NOTED => noted.push(used.clone()),
                _ => used.noted.store(false, Ordering::Relaxed),
            }
        }
    }

    /// Takes what was used since the last time.
    pub fn take_noted(&self) -> Vec<Arc<Used>> {
        self.noted.iter().flat_map(|noted| std::mem::take(&mut *noted.lock())).collect()
    }

    /// Begins to keep a response.
    pub fn begin(
        self: &Arc<Self>,
        key: &CacheKey,
        request: &HeaderMap,
        head: EntryHead,
        slices: Option<Range<u64>>,
    ) -> (Arc<Entry>, Option<Writer>) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let variant = VariantKey::of(&head.vary, request);
        let empty = head.size == Some(0);
        let full_key = schema::full_key(key.as_bytes(), &variant.0);
        let (size, sliceable) = (head.size, head.sliceable);
        let body = EntryBody::Inline(Bytes::new());
        let mut entry = Entry { id, key: key.clone(), variant, head, body, ready: None, held: None };
        let refused = self.is_purged(&entry, None) || self.purges.is_before_floor(entry.head.sequence.0);
        // A part can only be kept of a body that may be completed.
        let part = slices.is_some();
        if refused || self.is_closing() || (part && !(sliceable && size.is_some())) {
            return (Arc::new(entry), None);
        }
        if empty {
            let entry = Arc::new(entry);
            self.show(&entry);
            let (shared, to_commit) = (self.clone(), entry.clone());
            if self.disk_takes(0) {
                self.tracker.spawn_blocking(move || shared.commit(&to_commit));
            }
            return (entry, None);
        }
        let parts = BodyParts { id, size, sliceable, full_key, present: Runs::default(), committed: false };
        let body = SlicedBody::new(self, parts);
        self.bodies(id).lock().insert(id, Arc::downgrade(&body));
        let last = size.map(|size| size.div_ceil(SLICE_BYTES));
        let slices = slices.map(|slices| slices.start..slices.end.min(last.unwrap_or(u64::MAX)));
        let (first, end) = slices.map_or((0, last), |slices| (slices.start, Some(slices.end)));
        let position = first * SLICE_BYTES;
        let number = {
            let mut state = body.state.lock();
            let number = state.number();
            state.fills.push(Fill { number, slice: first, end, pieces: Vec::new(), position });
            number
        };
        let limit = size.map(|size| end.map_or(size, |end| (end * SLICE_BYTES).min(size)));
        body.filling.store(true, Ordering::Release);
        entry.body = EntryBody::Sliced(body.clone());
        let entry = Arc::new(entry);
        self.fills.fetch_add(1, Ordering::Relaxed);
        self.live(key).write().entry(key.clone()).or_default().push(entry.clone());
        self.hot.insert(&entry, &[], false);
        if self.removals.has(id) {
            self.hide(&entry);
        }
        (entry.clone(), Some(Writer::of_entry(self.clone(), entry, body, number, position, limit)))
    }

    /// The first fill of an entry is over.
    pub fn filled(&self, entry: &Entry) {
        let mut live = self.live(&entry.key).write();
        if let Some(entries) = live.get_mut(&entry.key) {
            let before = entries.len();
            entries.retain(|other| other.id != entry.id);
            if entries.len() < before {
                self.fills.fetch_sub(1, Ordering::Relaxed);
            }
            if entries.is_empty() {
                live.remove(&entry.key);
            }
        }
        drop(live);
        if let EntryBody::Sliced(body) = &entry.body {
            body.filling.store(false, Ordering::Release);
        }
    }

    /// Puts an entry into the memory tier, unless something newer stands there.
    pub fn show(&self, entry: &Arc<Entry>) {
        let now = self.clock.now();
        let newer = self.hot.select(
            &entry.key,
            Look::Glance,
            |_| entry.variant.clone(),
            |slot, _| {
                let other = &slot.entry;
                (other.variant == entry.variant
                    && other.id != entry.id
                    && other.head.is_newer(other.id, &entry.head, entry.id, now))
                .then_some(())
            },
        );
        let too_old = || self.purges.is_before_floor(entry.head.sequence.0);
        if newer.is_none() && !too_old() {
            self.hot.insert(entry, &[], false);
            // Purges may have been forgotten in this moment, and the entry removed.
            if too_old() || self.removals.has(entry.id) {
                self.hot.remove(&entry.key, &entry.variant, entry.id);
            }
        }
    }

    /// Nobody new shall find an entry; those who read it go on.
    pub fn hide(&self, entry: &Entry) {
        self.hot.remove(&entry.key, &entry.variant, entry.id);
        if let Some(entries) = self.live(&entry.key).write().get_mut(&entry.key) {
            let before = entries.len();
            entries.retain(|other| other.id != entry.id);
            if entries.len() < before {
                self.fills.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
