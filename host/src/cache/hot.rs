//! The memory tier: entries with their inline bodies, and slices, by weight.
//!
//! Two caches share the budget, since a slice weighs a thousand heads and shards must be large enough to hold some. Their
//! shares follow what each has to keep. Reads take the read lock of one of many shards and make no system call.
//!
//! Each is a CLOCK-Pro with a small part for what has just come (`quick_cache`): what is not asked for again leaves from there, and
//! what leaves is known again for a while, so a crawl takes only that part. That holds as long as only those who ask again count
//! as uses: what the tier looks at for its own ends, or for the one for whom something came, is looked at without (`Look`).

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter};

use super::body::SlicedBody;
use super::entry::{BLOCK_BYTES, Entry, EntryBody, SLICE_BYTES};
use super::key::CacheKey;
use super::vary::{MAX_VARIANTS, VariantKey, VaryFields};
use crate::region::Region;

/// A base remembers so many field sets, newest first.
const MAX_FIELD_SETS: usize = super::index::schema::MAX_FIELD_SETS;
/// Weight of a typical entry: how many places the table of entries is made for.
const TYPICAL_ENTRY_BYTES: u64 = 4 << 10;
/// A shard holds at least so much: without a disk, a body of several slices is kept whole beside its head.
const ENTRY_SHARD_BYTES: u64 = 5 << 20;
/// Locks for changes (not for hits).
const STRIPES: usize = 64;
/// Of the slices, the part that is for those that were asked for again. A shard of eight has room for one that has just come.
const SLICES_ASKED_AGAIN: f64 = 0.85;

/// Where an entry stands in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    key: CacheKey,
    variant: VariantKey,
}

/// The same, borrowed. Hashes as `Place` does, since both hash a key and a slice of bytes.
#[derive(Hash)]
struct PlaceRef<'a> {
    key: &'a CacheKey,
    variant: &'a [u8],
}

impl Equivalent<Place> for PlaceRef<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        self.key == &place.key && self.variant == &*place.variant.0
    }
}

/// The uses of an entry that wait to be written down. That may take longer than the entry is in memory, so it has nothing of its
/// head or its body.
#[derive(Debug)]
pub(super) struct Used {
    pub id: u64,
    pub key: CacheKey,
    pub variant: VariantKey,
    /// Uses since they were last written down.
    pub uses: AtomicU32,
    /// Whether it waits.
    pub noted: AtomicBool,
    /// It has only come into memory, from the index: that it stands there need not be looked up.
    pub has_come: AtomicBool,
    body: UsedBody,
}

#[derive(Debug)]
enum UsedBody {
    Inline(u64),
    Sliced(Weak<SlicedBody>),
}

impl Used {
    fn of(entry: &Entry) -> Arc<Self> {
        let body = match &entry.body {
            EntryBody::Inline(bytes) => UsedBody::Inline(bytes.len() as u64),
            EntryBody::Sliced(body) => UsedBody::Sliced(Arc::downgrade(body)),
        };
        Arc::new(Self {
            id: entry.id,
            key: entry.key.clone(),
            variant: entry.variant.clone(),
            uses: AtomicU32::new(0),
            noted: AtomicBool::new(false),
            has_come: AtomicBool::new(false),
            body,
        })
    }

    /// Bytes that its body has on disk; none if nobody knows any more.
    pub fn size(&self) -> Option<u64> {
        match &self.body {
            UsedBody::Inline(bytes) => Some(*bytes),
            UsedBody::Sliced(body) => body.upgrade().map(|body| body.slices_on_disk() * SLICE_BYTES),
        }
    }
}

/// An entry in memory and what is known of its use.
#[derive(Debug)]
pub(super) struct Slot {
    pub entry: Arc<Entry>,
    /// No purge up to this sequence hits the entry.
    pub clean: AtomicU64,
    pub used: Arc<Used>,
    /// When it was last used, of variants: how many had come by then (`Hot::turn`); 0: not since it came.
    pub last_used: AtomicU64,
    /// It no longer stands in its place as the only entry of its key: copies are not to be used any more.
    pub moved: AtomicBool,
    pub weight: u64,
}

impl Slot {
    pub fn new(entry: Arc<Entry>) -> Arc<Self> {
        let clean = AtomicU64::new(entry.head.sequence.0);
        let weight = entry.weight();
        let used = Used::of(&entry);
        Arc::new(Self { entry, clean, used, last_used: AtomicU64::new(0), moved: AtomicBool::new(false), weight })
    }

    /// Whether it stands where it was put.
    fn stands(&self) -> bool {
        !self.moved.load(Ordering::Acquire)
    }
}

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Somebody who asks for what is kept: it is in use.
    Use,
    /// The tier itself, or the one for whom it has just come.
    Glance,
}

/// What stands at a place.
#[derive(Clone, Debug)]
enum Standing {
    /// The only entry of a key, or one variant.
    One(Arc<Slot>),
    /// The base of a key that varies: which variants there may be, the entry without variant, and those that were put in their
    /// places, oldest first.
    Base(Arc<[VaryFields]>, Option<Arc<Slot>>, Arc<[Weak<Slot>]>),
}

impl Standing {
    /// Says that this is no longer what stands there.
    fn move_away(&self) {
        if let Self::One(slot) | Self::Base(_, Some(slot), _) = self {
            slot.moved.store(true, Ordering::Release);
        }
    }
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<Place, Standing> for ByWeight {
    fn weight(&self, _: &Place, standing: &Standing) -> u64 {
        match standing {
            Standing::One(slot) => slot.weight,
            Standing::Base(sets, slot, variants) => {
                let lists = 256 + sets.len() as u64 * 64 + variants.len() as u64 * 64;
                lists + slot.as_ref().map_or(0, |slot| slot.weight)
            }
        }
    }
}

impl Weighter<(u64, u64), Bytes> for ByWeight {
    fn weight(&self, _: &(u64, u64), bytes: &Bytes) -> u64 {
        bytes.len() as u64 + 128
    }
}

/// What leaves is dropped outside of the shard's lock: an entry's end may take other locks.
#[derive(Clone, Default)]
struct DropLater;

impl<Key, Value: Leave> Lifecycle<Key, Value> for DropLater {
    type RequestState = Vec<(Key, Value)>;
    fn on_evict(&self, state: &mut Self::RequestState, key: Key, value: Value) {
        value.leave();
        state.push((key, value));
    }
}

/// What is done when something leaves.
trait Leave {
    fn leave(&self);
}

impl Leave for Standing {
    fn leave(&self) {
        self.move_away();
    }
}

impl Leave for Bytes {
    fn leave(&self) {}
}

/// Slices in memory. Bodies hold this alone, so that they and the tier do not keep each other alive.
pub(super) struct HotSlices {
    cache: Cache<(u64, u64), Bytes, ByWeight, DefaultHashBuilder, DropLater>,
    /// Where those lie that the kernel can send; none where the system has no such memory.
    region: Option<Arc<Region>>,
}

impl std::fmt::Debug for HotSlices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HotSlices({} bytes)", self.cache.weight())
    }
}

impl HotSlices {
    pub fn get(&self, id: u64, slice: u64) -> Option<Bytes> {
        self.cache.get(&(id, slice))
    }
    /// The same, and it is no use.
    pub fn peek(&self, id: u64, slice: u64) -> Option<Bytes> {
        self.cache.peek(&(id, slice))
    }
    pub fn contains(&self, id: u64, slice: u64) -> bool {
        self.cache.contains_key(&(id, slice))
    }
    /// Keeps a slice. Returns it as it is kept.
    pub fn insert(&self, id: u64, slice: u64, bytes: Bytes) -> Bytes {
        let placed = self.region.as_ref().and_then(|region| region.place(&bytes));
        let kept = placed.unwrap_or(bytes);
        put(&self.cache, (id, slice), kept.clone());
        kept
    }

    /// Whether a slice lies where memory has a bound, however long it is held.
    pub fn is_bounded(&self, slice: &[u8]) -> bool {
        self.region.as_ref().is_some_and(|region| region.has(slice))
    }

    /// A part of a slice, for a reader who may hold it for as long as his client likes. What lies in the region is bounded by the
    /// region's size; of other memory a reader gets a copy of a little, or each client that reads nothing would hold a whole slice.
    pub fn lend(&self, slice: &Bytes, part: Bytes) -> Bytes {
        if self.is_bounded(slice) || slice.len() <= BLOCK_BYTES as usize {
            return part;
        }
        Bytes::copy_from_slice(&part[..part.len().min(BLOCK_BYTES as usize)])
    }
}

/// The memory tier.
pub(super) struct Hot {
    entries: Cache<Place, Standing, ByWeight, DefaultHashBuilder, DropLater>,
    pub slices: Arc<HotSlices>,
    budget: AtomicU64,
    /// How many variants have come, and one more: the clock that their uses are told by.
    turn: AtomicU64,
    stripes: Box<[Mutex<()>]>,
    hasher: DefaultHashBuilder,
}

fn shards(budget: u64, shard_bytes: u64) -> usize {
    let workers = std::thread::available_parallelism().map_or(4, usize::from);
    let affordable = usize::try_from(budget / shard_bytes).unwrap_or(usize::MAX).max(1);
    // A power of two below: the cache rounds up.
    let wanted = (workers * 8).next_power_of_two().min(affordable);
    if wanted.is_power_of_two() { wanted } else { wanted.next_power_of_two() / 2 }
}

type Weighed<Key, Value> = Cache<Key, Value, ByWeight, DefaultHashBuilder, DropLater>;

fn cache<Key: Hash + Eq, Value: Clone + Leave>(
    budget: u64,
    typical_bytes: u64,
    shard_bytes: u64,
    asked_again: Option<f64>,
) -> Weighed<Key, Value>
where
    ByWeight: Weighter<Key, Value>,
{
    let shards = shards(budget, shard_bytes);
    let items = usize::try_from(budget / typical_bytes).unwrap_or(usize::MAX).clamp(shards * 32, 1 << 24);
    let mut options = OptionsBuilder::new();
    options.shards(shards).estimated_items_capacity(items).weight_capacity(budget);
    if let Some(part) = asked_again {
        options.hot_allocation(part);
    }
    let options = options.build().expect("all that it asks for was given");
    Cache::with_options(options, ByWeight, DefaultHashBuilder::default(), DropLater)
}

/// Puts something in its place. In the place of something else it is in use as that was: to be replaced is no use.
fn put<Key: Hash + Eq + Clone, Value: Clone + Leave>(cache: &Weighed<Key, Value>, key: Key, value: Value)
where
    ByWeight: Weighter<Key, Value>,
{
    if let Err((key, value)) = cache.replace(key, value, true) {
        cache.insert(key, value);
    }
}

impl Hot {
    pub fn new(budget: u64) -> Self {
        let half = (budget / 2).max(1);
        let region = Region::new(budget)
            .inspect_err(|error| tracing::info!(%error, "bodies in memory are sent by copying: no region for them"))
            .ok();
        Self {
            entries: cache(half, TYPICAL_ENTRY_BYTES, ENTRY_SHARD_BYTES, None),
            slices: Arc::new(HotSlices {
                cache: cache(half, SLICE_BYTES / 8, 8 * SLICE_BYTES, Some(SLICES_ASKED_AGAIN)),
                region,
            }),
            budget: AtomicU64::new(budget),
            turn: AtomicU64::new(1),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub fn region(&self) -> Option<&Arc<Region>> {
        self.slices.region.as_ref()
    }

    pub fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.entries.weight() + self.slices.cache.weight()
    }

    pub fn set_budget(&self, budget: u64) {
        self.budget.store(budget, Ordering::Relaxed);
        self.share();
    }

    /// Gives each of the two what it needs: what one leaves unused is the other's, and a half is always its own.
    pub fn share(&self) {
        let budget = self.budget();
        let margin = budget / 16;
        let (entries, slices) = (self.entries.weight() + margin, self.slices.cache.weight() + margin);
        let half = budget / 2;
        let for_entries =
            if entries < half { entries.max(budget / 8) } else { budget.saturating_sub(slices).max(half) };
        let for_entries = for_entries.max(1);
        self.entries.set_capacity(for_entries);
        self.slices.cache.set_capacity(budget.saturating_sub(for_entries).max(1));
    }

    fn at(&self, key: &CacheKey, variant: &[u8], look: Look) -> Option<Standing> {
        let place = PlaceRef { key, variant };
        if look == Look::Use { self.entries.get(&place) } else { self.entries.peek(&place) }
    }

    /// A variant is used.
    pub fn variant_used(&self, slot: &Slot) {
        let turn = self.turn.load(Ordering::Relaxed);
        // Written only where it says something else: all who use it share it.
        if slot.last_used.load(Ordering::Relaxed) != turn {
            slot.last_used.store(turn, Ordering::Relaxed);
        }
    }

    /// The entries that this request may select, newest first, until `take` takes one; it is told whether the entry is the
    /// only one of its key, whatever the request.
    pub fn select<T>(
        &self,
        key: &CacheKey,
        look: Look,
        variant_of: impl Fn(&VaryFields) -> VariantKey,
        mut take: impl FnMut(&Arc<Slot>, bool) -> Option<T>,
    ) -> Option<T> {
        match self.at(key, &[], look)? {
            Standing::One(slot) => take(&slot, true),
            Standing::Base(sets, base, _) => sets.iter().find_map(|set| {
                if set.0.is_empty() {
                    return base.as_ref().and_then(|slot| take(slot, false));
                }
                match self.at(key, &variant_of(set).0, look)? {
                    Standing::One(slot) => take(&slot, false),
                    Standing::Base(..) => None,
                }
            }),
        }
    }

    /// Whether anything stands at the key's place that `is_gone` does not say is no more.
    pub fn knows(&self, key: &CacheKey, is_gone: impl Fn(&Slot) -> bool) -> bool {
        match self.entries.peek(&PlaceRef { key, variant: &[] }) {
            Some(Standing::One(slot)) => !is_gone(&slot),
            Some(Standing::Base(_, slot, variants)) => {
                let variants = variants.iter().filter_map(Weak::upgrade).filter(|slot| slot.stands());
                slot.into_iter().chain(variants).any(|slot| !is_gone(&slot))
            }
            None => false,
        }
    }

    /// A hash of a key, in this process.
    pub fn hash(&self, key: &CacheKey) -> u64 {
        self.hasher.hash_one(key)
    }

    fn stripe(&self, key: &CacheKey) -> &Mutex<()> {
        &self.stripes[self.hash(key) as usize % STRIPES]
    }

    /// The field sets that memory knows of for a key.
    fn field_sets(&self, key: &CacheKey) -> Vec<VaryFields> {
        match self.entries.peek(&PlaceRef { key, variant: &[] }) {
            Some(Standing::Base(sets, ..)) => sets.to_vec(),
            Some(Standing::One(_)) => vec![VaryFields::default()],
            None => Vec::new(),
        }
    }

    /// Puts an entry in its place. `known` are field sets that the disk knows of. With `only_if_vacant`, another entry that
    /// stands there stays: what comes from disk never replaces what came from an origin meanwhile.
    pub fn insert(&self, entry: &Arc<Entry>, known: &[VaryFields], only_if_vacant: bool) {
        let slot = Slot::new(entry.clone());
        slot.used.has_come.store(only_if_vacant, Ordering::Relaxed);
        let (key, variant) = (entry.key.clone(), entry.variant.clone());
        let _stripe = self.stripe(&key).lock();
        let old = self.entries.peek(&PlaceRef { key: &key, variant: &variant.0 });
        let occupied = match &old {
            Some(Standing::One(_)) | Some(Standing::Base(_, Some(_), _)) => true,
            Some(Standing::Base(_, None, _)) | None => false,
        };
        if occupied && only_if_vacant {
            return;
        }
        if let Some(old) = &old {
            if let Standing::One(of) | Standing::Base(_, Some(of), _) = old {
                slot.last_used.store(of.last_used.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            old.move_away();
        }
        let mut sets = vec![];
        if !only_if_vacant {
            sets.push(entry.head.vary.clone());
        }
        for set in self.field_sets(&key).into_iter().chain(known.iter().cloned()) {
            if !sets.contains(&set) && sets.len() < MAX_FIELD_SETS {
                sets.push(set);
            }
        }
        if !sets.contains(&entry.head.vary) {
            sets.truncate(MAX_FIELD_SETS - 1);
            sets.push(entry.head.vary.clone());
        }
        let plain = sets.iter().all(|set| set.0.is_empty());
        let (base, variants) = match self.entries.peek(&PlaceRef { key: &key, variant: &[] }) {
            Some(Standing::One(slot)) => (Some(slot), None),
            Some(Standing::Base(_, slot, variants)) => (slot, Some(variants)),
            None => (None, None),
        };
        if variant.0.is_empty() {
            let standing = match (plain, variants) {
                (true, _) => Standing::One(slot),
                (false, variants) => Standing::Base(sets.into(), Some(slot), variants.unwrap_or_default()),
            };
            put(&self.entries, Place { key, variant }, standing);
            return;
        }
        if let Some(base) = &base {
            base.moved.store(true, Ordering::Release);
        }
        let variants = self.with_variant(&key, variants.as_deref().unwrap_or_default(), &slot);
        let base_place = Place { key: key.clone(), variant: VariantKey::default() };
        put(&self.entries, base_place, Standing::Base(sets.into(), base, variants));
        put(&self.entries, Place { key, variant }, Standing::One(slot));
    }

    /// The variants of a key with one more; if they are too many, one goes: of those that were not used since they came the oldest, else
    /// the one whose last use is longest ago. The stripe of the key is locked.
    fn with_variant(&self, key: &CacheKey, variants: &[Weak<Slot>], new: &Arc<Slot>) -> Arc<[Weak<Slot>]> {
        let standing = variants.iter().filter_map(Weak::upgrade).filter(|slot| slot.stands());
        let mut standing: Vec<Arc<Slot>> = standing.collect();
        self.turn.fetch_add(1, Ordering::Relaxed);
        while standing.len() >= MAX_VARIANTS {
            let used = |slot: &Arc<Slot>| slot.last_used.load(Ordering::Relaxed);
            let Some(least) = (0..standing.len()).min_by_key(|at| used(&standing[*at])) else { break };
            let slot = standing.remove(least);
            slot.moved.store(true, Ordering::Release);
            self.entries.remove(&PlaceRef { key, variant: &slot.entry.variant.0 });
        }
        standing.iter().chain([new]).map(Arc::downgrade).collect()
    }

    /// Replaces an entry by a newer form of the same one; nothing if another stands there.
    pub fn replace(&self, entry: &Arc<Entry>) {
        if self.holds(entry) {
            self.insert(entry, &[], false);
        }
    }

    /// Whether this entry (by id) stands in its place.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.standing(&entry.key, &entry.variant, entry.id).is_some()
    }

    /// The entry with this id, if it stands in its place.
    pub fn standing(&self, key: &CacheKey, variant: &VariantKey, id: u64) -> Option<Arc<Entry>> {
        match self.entries.peek(&PlaceRef { key, variant: &variant.0 })? {
            Standing::One(slot) | Standing::Base(_, Some(slot), _) if slot.entry.id == id => Some(slot.entry.clone()),
            _ => None,
        }
    }

    /// Takes an entry out, by key, variant and id.
    pub fn remove(&self, key: &CacheKey, variant: &VariantKey, id: u64) {
        let _stripe = self.stripe(key).lock();
        let place = PlaceRef { key, variant: &variant.0 };
        match self.entries.peek(&place) {
            Some(Standing::One(slot)) if slot.entry.id == id => {
                slot.moved.store(true, Ordering::Release);
                self.entries.remove(&place);
            }
            Some(Standing::Base(sets, Some(slot), variants)) if slot.entry.id == id => {
                slot.moved.store(true, Ordering::Release);
                let place = Place { key: key.clone(), variant: variant.clone() };
                put(&self.entries, place, Standing::Base(sets, None, variants));
            }
            _ => {}
        }
    }

    /// Looks at all entries.
    pub fn for_each(&self, mut look: impl FnMut(&Entry)) {
        for (_, standing) in self.entries.iter() {
            if let Standing::One(slot) | Standing::Base(_, Some(slot), _) = standing {
                look(&slot.entry);
            }
        }
    }

    /// Keeps only entries that `keep` wants kept.
    pub fn retain(&self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(|_, standing| match standing {
            Standing::One(slot) | Standing::Base(_, Some(slot), _) => {
                let kept = keep(&slot.entry);
                if !kept {
                    standing.move_away();
                }
                kept
            }
            Standing::Base(_, None, _) => true,
        });
    }

    #[cfg(test)]
    pub fn clear(&self) {
        self.retain(|_| false);
        self.entries.clear();
        self.slices.cache.clear();
    }
}
