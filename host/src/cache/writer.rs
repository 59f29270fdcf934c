//! The writing side of a fill: takes the pieces of a body as they come, cuts them into slices, stores them, wakes readers.
//!
//! A slice's record is written after its bytes, and an entry's record after its whole body, or, when the body may be completed
//! later, with its first slice. So a process that is killed leaves entries that are right, or none.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;

use super::body::{Held, SlicedBody};
use super::entry::{Entry, EntryBody, EntryHead, INLINE_BYTES, SLICE_BYTES};
use super::key;
use super::shared::Shared;
use super::unfinished::Unfinished;

/// Slices of one fill that may be on their way to the disk; more wait.
const MAX_UNWRITTEN: u32 = 4;

/// Takes the pieces of a body as they come, cuts them into slices, stores them, wakes readers. Waits when too much is
/// unwritten. Dropping it without `finish` is a failure: readers at the end of what came get an error, a body that is not
/// sliceable is forgotten, one that is keeps its whole slices.
pub struct Writer {
    shared: Arc<Shared>,
    body: Arc<SlicedBody>,
    /// The entry, when this is its first fill.
    entry: Option<Arc<Entry>>,
    fill: u64,
    position: u64,
    /// Where the fill must end, when that is known.
    limit: Option<u64>,
    /// It begins at the beginning and goes to the end.
    whole: bool,
    /// The longest body that is kept, where the length is not known.
    most: Option<u64>,
    progress: Arc<Progress>,
    on_disk: Unfinished,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Open,
    /// All came; what is left is to store it.
    Ended,
    Done,
}

struct Progress {
    unwritten: Semaphore,
    /// A slice is not on disk and will not be.
    lost: AtomicBool,
}

impl Writer {
    fn new(shared: Arc<Shared>, body: Arc<SlicedBody>, entry: Option<Arc<Entry>>, fill: u64, position: u64) -> Self {
        shared.metrics.cache_fills.inc();
        let progress = Progress { unwritten: Semaphore::new(MAX_UNWRITTEN as usize), lost: AtomicBool::new(false) };
        let progress = Arc::new(progress);
        let on_disk = Unfinished::new(shared.clone());
        Self {
            shared,
            body,
            entry,
            fill,
            position,
            limit: None,
            whole: false,
            most: None,
            progress,
            on_disk,
            stage: Stage::Open,
        }
    }

    /// Of an entry's first fill.
    pub(super) fn of_entry(
        shared: Arc<Shared>,
        entry: Arc<Entry>,
        body: Arc<SlicedBody>,
        fill: u64,
        position: u64,
        limit: Option<u64>,
    ) -> Self {
        let whole = position == 0 && limit == body.size();
        let mut writer = Self::new(shared, body, Some(entry), fill, position);
        (writer.limit, writer.whole) = (limit, whole);
        writer
    }

    /// Of a gap.
    pub(super) fn of_part(shared: Arc<Shared>, body: Arc<SlicedBody>, fill: u64, position: u64, limit: u64) -> Self {
        let mut writer = Self::new(shared, body, None, fill, position);
        writer.limit = Some(limit);
        writer
    }

    /// The same, for a body that is not kept if it turns out to be longer: those who read along get all of it.
    pub fn keeping_at_most(mut self, bytes: Option<u64>) -> Self {
        self.most = bytes;
        self
    }

    /// Whether the body has turned out to be longer than is kept.
    pub fn is_given_up(&self) -> bool {
        self.most.is_some_and(|most| self.position > most)
    }

    /// Nobody new finds it, and the disk has no more of it.
    fn give_up(&self) {
        self.shared.doom(self.body.id);
        if let Some(entry) = &self.entry {
            self.shared.forget(entry);
        }
    }

    /// Takes a piece. A piece beyond the announced size is an error of the caller's origin: returns false, write no more.
    pub async fn write(&mut self, mut piece: Bytes) -> bool {
        if self.stage != Stage::Open {
            return false;
        }
        if self.limit.is_some_and(|limit| piece.len() as u64 > limit - self.position) {
            self.end_badly("the body is longer than announced".into());
            return false;
        }
        while !piece.is_empty() {
            let room = SLICE_BYTES - self.position % SLICE_BYTES;
            let part = piece.split_to(piece.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            let kept = !self.is_given_up();
            self.position += part.len() as u64;
            if kept && self.is_given_up() {
                self.give_up();
            }
            if let Some(fill) = self.body.state.lock().fill_mut(self.fill) {
                fill.push(part);
            }
            self.body.changed.notify_waiters();
            if self.position.is_multiple_of(SLICE_BYTES) || Some(self.position) == self.limit {
                self.complete_slice().await;
            }
        }
        true
    }

    fn host(&self) -> &str {
        key::host_of(&self.body.full_key)
    }

    /// Whether the whole body fits into the index record: then nothing is stored before the end.
    fn goes_inline(&self) -> bool {
        self.whole && self.position <= INLINE_BYTES && self.limit.is_none_or(|limit| limit <= INLINE_BYTES)
    }

    async fn complete_slice(&mut self) {
        let inline = self.goes_inline();
        let (slice, bytes) = {
            let mut state = self.body.state.lock();
            let Some(fill) = state.fill_mut(self.fill) else { return };
            let (slice, bytes) = (fill.slice, fill.take_slice());
            state.held.insert(slice, Held { bytes: bytes.clone(), unstored: inline });
            (slice, bytes)
        };
        self.body.changed.notify_waiters();
        if inline {
            return;
        }
        if !self.is_given_up() {
            self.shared.hot.slices.insert(self.body.id, slice, bytes.clone());
        }
        if self.may_store() && self.takes_room(bytes.len() as u64).await {
            self.store(slice, bytes).await;
        } else {
            unstored(&self.body, &self.progress, slice);
        }
        self.wait_for_readers(slice).await;
    }

    /// Whether there is room on the disk for some bytes more, which are taken then.
    async fn takes_room(&mut self, bytes: u64) -> bool {
        let host = key::host_of(&self.body.full_key);
        if !self.on_disk.take(host, bytes) {
            return false;
        }
        let fits = self.shared.room_for(self.host(), bytes).await;
        if !fits {
            self.on_disk.give_back(bytes);
        }
        fits
    }

    /// Whether the disk may have what comes: it works, the entry was not removed, purged or given up, and could fit.
    fn may_store(&self) -> bool {
        let purged = self.entry.as_ref().is_some_and(|entry| self.shared.is_purged(entry, None));
        let recorded = self.entry.is_some() || self.body.committed.load(Ordering::Acquire);
        let complete = self.body.is_sliceable() || !self.progress.lost.load(Ordering::Acquire);
        let doomed = self.body.doomed.load(Ordering::Acquire);
        let size = self.body.size().unwrap_or(self.position);
        let fits = self.shared.disk_takes_of(self.host(), size)
            // What cannot be fetched in parts is of no use in part.
            && (self.body.is_sliceable() || size <= self.shared.most_unfinished_of(self.host()));
        recorded && complete && !purged && !doomed && fits
    }

    async fn store(&mut self, slice: u64, bytes: Bytes) {
        let Ok(permit) = self.progress.unwritten.acquire().await else { return };
        permit.forget();
        let (shared, body, progress) = (self.shared.clone(), self.body.clone(), self.progress.clone());
        let entry = self.entry.clone();
        self.shared.tracker.spawn_blocking(move || {
            body.stored.store(true, Ordering::Release);
            let mut stored = shared.store_slice(&body, slice, &bytes);
            if stored && body.is_sliceable() && !body.committed.load(Ordering::Acquire) {
                stored = entry.is_some_and(|entry| shared.commit(&newest(&body, entry)));
            }
            if stored {
                let mut state = body.state.lock();
                state.present.insert(slice);
                state.held.remove(&slice);
                drop(state);
                body.changed.notify_waiters();
            } else {
                unstored(&body, &progress, slice);
            }
            progress.unwritten.add_permits(1);
        });
    }

    /// Slices that the disk did not take are kept for readers on their way, and the fill waits for those; when there are none,
    /// they are let go.
    async fn wait_for_readers(&mut self, last: u64) {
        loop {
            let mut changed = pin!(self.body.changed.notified());
            changed.as_mut().enable();
            let (too_many, released) = self.body.state.lock().release_unstored(last, self.body.is_sliceable());
            if released
                && !self.body.is_sliceable()
                && let Some(entry) = &self.entry
            {
                // Not complete any more: nobody new may begin to read it.
                self.shared.hide(entry);
            }
            if too_many == 0 {
                return;
            }
            changed.await;
        }
    }

    /// The body ended as announced. Returns whether it was kept (not purged meanwhile, length right).
    pub async fn finish(mut self) -> bool {
        if self.stage != Stage::Open {
            return false;
        }
        if self.limit.is_some_and(|limit| limit != self.position) {
            self.end_badly("the body is shorter than announced".into());
            return false;
        }
        if self.limit.is_none() {
            self.body.set_size(self.position);
            if !self.position.is_multiple_of(SLICE_BYTES) {
                self.complete_slice().await;
            }
        }
        self.stage = Stage::Ended;
        self.body.state.lock().end_fill(self.fill, None);
        self.body.changed.notify_waiters();
        let inline = self.goes_inline();
        let kept = match self.entry.clone() {
            Some(entry) if inline => self.keep_inline(&entry).await,
            Some(entry) => self.keep_sliced(&entry).await,
            None => self.all_stored().await,
        };
        if let Some(entry) = &self.entry {
            self.shared.filled(entry);
            if !kept && !self.body.is_sliceable() {
                self.shared.forget(entry);
            }
            if kept && !inline {
                self.keep_latest();
            }
        }
        self.stage = Stage::Done;
        kept
    }

    /// The head may have changed while the entry was written down. From `filled` on that is done where the entry stands by now.
    fn keep_latest(&self) {
        let latest = self.body.state.lock().latest.take();
        if let Some(latest) = latest {
            let head = EntryHead { size: self.body.size(), ..latest.head.clone() };
            self.shared.freshen(&latest, head);
        }
    }

    /// Waits until all slices are on disk or lost.
    async fn all_stored(&self) -> bool {
        match self.progress.unwritten.acquire_many(MAX_UNWRITTEN).await {
            Ok(permits) => drop(permits),
            Err(_) => return false,
        }
        !self.progress.lost.load(Ordering::Acquire)
    }

    /// The whole body as one piece, if all of it is held here.
    fn gathered(&self) -> Option<Bytes> {
        let state = self.body.state.lock();
        let slices = self.position.div_ceil(SLICE_BYTES);
        let pieces =
            (0..slices).map(|slice| state.held.get(&slice).map(|held| &held.bytes)).collect::<Option<Vec<_>>>()?;
        if let [only] = pieces.as_slice() {
            return Some((*only).clone());
        }
        let mut whole = BytesMut::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Some(whole.freeze())
    }

    fn completed(&self, entry: &Arc<Entry>, body: EntryBody) -> Arc<Entry> {
        let newest = newest(&self.body, entry.clone());
        let mut head = newest.head.clone();
        head.size = Some(self.body.size().unwrap_or(self.position));
        Arc::new(Entry {
            id: entry.id,
            key: entry.key.clone(),
            variant: entry.variant.clone(),
            head,
            body,
            ready: None,
            held: None,
        })
    }

    async fn keep_inline(&self, entry: &Arc<Entry>) -> bool {
        let Some(bytes) = self.gathered() else { return false };
        let complete = self.completed(entry, EntryBody::Inline(bytes));
        if self.shared.is_purged(&complete, None) || self.is_given_up() {
            return false;
        }
        self.shared.show(&complete);
        let shared = self.shared.clone();
        let takes = self.shared.disk_takes_of(self.host(), self.position);
        if takes && self.shared.room_for(self.host(), self.position).await {
            let to_commit = complete.clone();
            // Memory has it in any case; a disk that does not take it is counted there.
            let _ = self.shared.tracker.spawn_blocking(move || shared.commit(&to_commit)).await;
        }
        !self.shared.is_purged(&complete, None)
    }

    async fn keep_sliced(&self, entry: &Arc<Entry>) -> bool {
        let stored = self.all_stored().await;
        let sliced = self.completed(entry, EntryBody::Sliced(self.body.clone()));
        if self.shared.is_purged(&sliced, None) || self.body.doomed.load(Ordering::Acquire) {
            return false;
        }
        if stored {
            let (shared, to_commit) = (self.shared.clone(), sliced.clone());
            let known = self.body.committed.load(Ordering::Acquire) && self.body.state.lock().latest.is_none();
            let committed =
                known || self.shared.tracker.spawn_blocking(move || shared.commit(&to_commit)).await.unwrap_or(false);
            if committed {
                self.shared.show(&sliced);
                return true;
            }
        }
        if self.body.is_sliceable() {
            self.shared.show(&sliced);
            return stored;
        }
        // Memory alone keeps it, if all of it is still here.
        match self.gathered() {
            Some(bytes) => {
                let complete = self.completed(entry, EntryBody::Inline(bytes));
                self.shared.show(&complete);
                self.shared.hot.holds(&complete)
            }
            None => false,
        }
    }

    /// The body broke off; readers learn why.
    pub fn fail(mut self, why: String) {
        self.end_badly(why);
    }

    /// All of the body is not what it should be: nothing of it is kept, and nobody completes it.
    pub fn refuse(mut self, why: String) {
        self.give_up();
        self.leave();
        self.body.state.lock().failed = Some(why.clone());
        self.end_badly(why);
    }

    /// Nobody new meets this fill: who learns that it broke off and asks again shall find another.
    fn leave(&self) {
        if let Some(entry) = &self.entry {
            self.shared.filled(entry);
            if !self.body.is_sliceable() {
                self.shared.forget(entry);
            }
        }
    }

    fn end_badly(&mut self, why: String) {
        if self.stage != Stage::Open {
            return;
        }
        self.stage = Stage::Done;
        self.leave();
        {
            let mut state = self.body.state.lock();
            if !self.body.is_sliceable() {
                state.failed = Some(why.clone());
            }
            state.end_fill(self.fill, Some(why));
        }
        self.body.changed.notify_waiters();
    }

    /// Whether anyone reads along now.
    pub fn has_readers(&self) -> bool {
        /// The writer itself, the list of fills, and the memory tier.
        const KEEPERS: usize = 3;
        let held = self.entry.as_ref().is_some_and(|entry| Arc::strong_count(entry) > KEEPERS);
        held || self.body.state.lock().has_readers()
    }

    /// How many bytes came.
    pub fn position(&self) -> u64 {
        self.position
    }
}

/// The entry, or its newer form.
fn newest(body: &SlicedBody, entry: Arc<Entry>) -> Arc<Entry> {
    body.state.lock().latest.clone().unwrap_or(entry)
}

fn unstored(body: &SlicedBody, progress: &Progress, slice: u64) {
    progress.lost.store(true, Ordering::Release);
    if let Some(held) = body.state.lock().held.get_mut(&slice) {
        held.unstored = true;
    }
    body.changed.notify_waiters();
}

impl Drop for Writer {
    fn drop(&mut self) {
        match self.stage {
            Stage::Open => self.end_badly("the fill was given up".into()),
            Stage::Ended => self.leave(),
            Stage::Done => {}
        }
        self.shared.metrics.cache_fills.dec();
    }
}
