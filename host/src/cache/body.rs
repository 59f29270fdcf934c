//! The body of an entry as a row of slices: in memory, on disk, coming in, or missing.
//!
//! There is one `SlicedBody` for an entry id while anyone uses it; readers and fills meet in its state. A piece that comes in
//! can be read at once; a whole slice goes to the memory tier and to disk, and is held here until the disk has it. What the
//! disk does not take is held while a reader is still on its way to it, and the fill waits for such readers.

mod state;

use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::entry::SLICE_BYTES;
use super::hot::HotSlices;
use super::leaving::Leaving;
use super::runs::Runs;
use super::shared::Shared;
use super::writer::Writer;

pub(super) use state::{Fill, Held, State};

/// A reader waits for a fill that is at most so many slices before it; else it is quicker to fetch the slice itself.
const WAIT_SLICES: u64 = 4;
/// Slices that the disk did not take and that a fill may hold; with more, it waits for readers or lets them go.
pub(super) const MAX_UNSTORED: usize = 4;
/// Slices of a body that cannot be mended on its way that are checked before it goes out.
const CHECKED_SLICES: usize = 8;
/// How far a gap is looked for: a gigabyte a request.
const MAX_GAP_SLICES: u64 = 1024;
/// What goes out whole from memory without a bound of its own: a client that stalls holds so much, and a stream for less would
/// cost each hit more than that is worth.
const WHOLE_BYTES_MAX: usize = 256 << 10;
const UNKNOWN: u64 = u64::MAX;

/// A body in slices.
pub struct SlicedBody {
    pub(super) id: u64,
    sliceable: bool,
    size: AtomicU64,
    /// The first fill is under way.
    pub(super) filling: AtomicBool,
    /// The entry is no longer in the index: nothing more is stored, and the last who drops the body has its files removed.
    pub(super) doomed: AtomicBool,
    /// What it had on disk when it was doomed.
    pub(super) leaving: OnceLock<Leaving>,
    /// The index has a record of the entry.
    pub(super) committed: AtomicBool,
    /// Something was stored.
    pub(super) stored: AtomicBool,
    pub(super) full_key: Vec<u8>,
    /// A bit for each slice (by its number's rest of 64) that was read from disk ahead of the reader for whom that was done.
    ahead: AtomicU64,
    hot: Arc<HotSlices>,
    pub(super) shared: Weak<Shared>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Notify,
}

/// What there is at a position of a body.
#[derive(Debug)]
pub enum Piece {
    /// These bytes, at least one.
    Bytes(Bytes),
    /// The body ends here.
    End,
    /// Nobody is fetching it: claim the gap (slice numbers) and fetch, or give up.
    Missing(Range<u64>),
    /// It broke off here and cannot be completed.
    Failed(String),
}

enum Look {
    Here(Piece),
    Wait(Option<u64>),
    Load,
}

/// What a new body is made of.
pub(super) struct BodyParts {
    pub id: u64,
    pub size: Option<u64>,
    pub sliceable: bool,
    pub full_key: Vec<u8>,
    pub present: Runs,
    pub committed: bool,
}

impl SlicedBody {
    pub(super) fn new(shared: &Arc<Shared>, parts: BodyParts) -> Arc<Self> {
        Arc::new(Self {
            id: parts.id,
            sliceable: parts.sliceable && parts.size.is_some(),
            size: AtomicU64::new(parts.size.unwrap_or(UNKNOWN)),
            filling: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            leaving: OnceLock::new(),
            committed: AtomicBool::new(parts.committed),
            stored: AtomicBool::new(parts.committed),
            full_key: parts.full_key,
            ahead: AtomicU64::new(0),
            hot: shared.hot.slices.clone(),
            shared: Arc::downgrade(shared),
            state: Mutex::new(State { present: parts.present, ..State::default() }),
            changed: Notify::new(),
        })
    }

    /// Length of the complete body, when known.
    pub fn size(&self) -> Option<u64> {
        let size = self.size.load(Ordering::Acquire);
        (size != UNKNOWN).then_some(size)
    }

    pub(super) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// May be completed slice by slice.
    pub fn is_sliceable(&self) -> bool {
        self.sliceable
    }

    /// Begins to read. The body then knows that a reader is on its way: what the disk does not take is kept for it. Prefer
    /// this to `read` for all but a single look.
    pub fn reader(self: &Arc<Self>, position: u64) -> Reader {
        let mut state = self.state.lock();
        let number = state.number();
        state.readers.insert(number, position);
        Reader { body: self.clone(), number, position, slice: None }
    }

    /// Whether the first fill is under way.
    pub fn is_filling(&self) -> bool {
        self.filling.load(Ordering::Acquire)
    }

    /// Reads along with a first fill that is under way until it is over.
    pub async fn wait_for_fill(self: &Arc<Self>) {
        if self.filling.load(Ordering::Acquire) {
            let mut reader = self.reader(0);
            while let Piece::Bytes(_) = reader.next(None).await {}
        }
    }

    /// The bytes at `position`, up to `end` (exclusive): waits for a fill that is on its way there. A fill that is more than
    /// a few slices before `position` is not waited for when the body is sliceable: `Missing`.
    pub async fn read(&self, position: u64, end: Option<u64>) -> Piece {
        self.read_on(position, end, None).await
    }

    /// The same for a reader who had the slice `before` last: more of that slice is no further use of it.
    async fn read_on(&self, position: u64, end: Option<u64>, before: Option<u64>) -> Piece {
        let slice = position / SLICE_BYTES;
        let mut waited_for = None;
        loop {
            if self.size().is_some_and(|size| position >= size) || end.is_some_and(|end| position >= end) {
                return Piece::End;
            }
            if let Some(bytes) = self.held_in_tier(slice, before)
                && let Some(piece) = cut(&bytes, slice * SLICE_BYTES, position, end)
            {
                return Piece::Bytes(self.hot.lend(&bytes, piece));
            }
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.look(position, end, waited_for) {
                Look::Here(piece) => return piece,
                Look::Wait(fill) => {
                    waited_for = fill;
                    let _waiting = Waiting::on(self);
                    changed.await;
                }
                Look::Load => {
                    let loading = Loading { body: self, slice };
                    let loaded = self.load(slice).await;
                    drop(loading);
                    if let Some(bytes) = loaded
                        && let Some(piece) = cut(&bytes, slice * SLICE_BYTES, position, end)
                    {
                        return Piece::Bytes(self.hot.lend(&bytes, piece));
                    }
                }
            }
        }
    }

    fn look(&self, position: u64, end: Option<u64>, waited_for: Option<u64>) -> Look {
        let slice = position / SLICE_BYTES;
        let mut state = self.state.lock();
        let here = |bytes: &Bytes, start| {
            cut(bytes, start, position, end).map(|piece| Look::Here(Piece::Bytes(self.hot.lend(bytes, piece))))
        };
        if let Some(look) = state.held.get(&slice).and_then(|held| here(&held.bytes, slice * SLICE_BYTES)) {
            return look;
        }
        let coming = state.fills.iter().filter(|fill| fill.slice == slice);
        if let Some(look) = coming.filter_map(|fill| fill.piece_at(position)).find_map(|piece| here(&piece, position)) {
            return look;
        }
        if state.present.contains(slice) {
            return if state.loading.insert(slice) { Look::Load } else { Look::Wait(None) };
        }
        let ended = state.ended.iter().find(|(number, _)| Some(*number) == waited_for).map(|(_, why)| why);
        // Readers count what they saw fail. Else all would wait for the next one's attempt, and for the one after that.
        if let Some(why) = ended.filter(|_| self.sliceable) {
            return Look::Here(Piece::Failed(why.clone()));
        }
        // Whoever is nearest. A body that cannot be fetched in parts is waited for from any distance.
        let patience = if self.sliceable { WAIT_SLICES } else { u64::MAX };
        let soonest =
            state.fills.iter().filter(|fill| fill.brings_soon(slice, patience)).max_by_key(|fill| fill.position);
        if let Some(fill) = soonest {
            return Look::Wait(Some(fill.number));
        }
        // The size may have become known since we looked, in the same moment as the fill ended.
        if self.size().is_some_and(|size| position >= size) {
            return Look::Here(Piece::End);
        }
        if let Some(why) = ended.or(state.failed.as_ref()) {
            return Look::Here(Piece::Failed(why.clone()));
        }
        if !self.sliceable {
            return Look::Here(Piece::Failed("bytes of the body are no longer in the cache".into()));
        }
        let last = self.slices_to(end);
        let run = slice..self.gap_end(&state, slice, last);
        Look::Here(Piece::Missing(run))
    }

    /// The slice after the one that holds the byte before `end`, or after the last.
    fn slices_to(&self, end: Option<u64>) -> u64 {
        let size = self.size().unwrap_or(0);
        end.unwrap_or(size).min(size).div_ceil(SLICE_BYTES)
    }

    fn is_covered(&self, state: &State, slice: u64) -> bool {
        state.present.contains(slice)
            || state.held.contains_key(&slice)
            || state.fills.iter().any(|fill| fill.brings_soon(slice, WAIT_SLICES))
            || self.hot.contains(self.id, slice)
    }

    fn gap_end(&self, state: &State, start: u64, last: u64) -> u64 {
        let far = last.min(start + MAX_GAP_SLICES).max(start + 1);
        (start + 1..far).find(|slice| self.is_covered(state, *slice)).unwrap_or(far)
    }

    /// A slice in memory. It is in use only if somebody else asks for it than he for whom it came: what is asked for once shall go
    /// before what is asked for again.
    fn held_in_tier(&self, slice: u64, before: Option<u64>) -> Option<Bytes> {
        let bit = 1 << (slice % u64::BITS as u64);
        let was_ahead = || {
            self.ahead.load(Ordering::Relaxed) & bit != 0 && self.ahead.fetch_and(!bit, Ordering::Relaxed) & bit != 0
        };
        if before == Some(slice) || self.filling.load(Ordering::Relaxed) || was_ahead() {
            return self.hot.peek(self.id, slice);
        }
        self.hot.get(self.id, slice)
    }

    /// Reads a slice from disk, checks it, and puts it into the memory tier. None: it is not there or not good, and the state
    /// says so by now.
    async fn load(&self, slice: u64) -> Option<Bytes> {
        let shared = self.shared.upgrade();
        let loaded = match &shared {
            Some(shared) => shared.load_slice(self.id, slice).await,
            None => None,
        };
        match loaded {
            Some(bytes) => Some(self.hot.insert(self.id, slice, bytes)),
            None => {
                self.state.lock().present.remove(slice);
                if !self.sliceable
                    && let Some(shared) = shared
                {
                    // A body that cannot be mended: the next request shall find a miss, not the same hole.
                    shared.forget_body(self).await;
                }
                None
            }
        }
    }

    /// Reads and checks what is to go out first, if only the disk has it: the slice at the beginning of `wanted`, and of a body
    /// that cannot be fetched in parts some more. What is found broken is missing from then on. It goes to the memory tier, so
    /// that to read it next costs no more. False: it is broken and cannot be mended.
    pub async fn check(&self, wanted: Range<u64>) -> bool {
        let first = wanted.start / SLICE_BYTES;
        let count = if self.sliceable { 1 } else { CHECKED_SLICES };
        for slice in (first..wanted.end.div_ceil(SLICE_BYTES)).take(count) {
            if self.hot.contains(self.id, slice) || !self.state.lock().present.contains(slice) {
                continue;
            }
            let position = slice * SLICE_BYTES;
            match self.read(position, Some(position + 1)).await {
                Piece::Failed(_) => return false,
                Piece::Bytes(_) => _ = self.ahead.fetch_or(1 << (slice % u64::BITS as u64), Ordering::Relaxed),
                Piece::End | Piece::Missing(_) => {}
            }
        }
        true
    }

    /// The whole range at once when it lies in memory in one slice: the fast path of a hit.
    pub fn in_memory(&self, range: Range<u64>) -> Option<Bytes> {
        let slice = range.start / SLICE_BYTES;
        let start = slice * SLICE_BYTES;
        if range.end.checked_sub(start)? > SLICE_BYTES {
            return None;
        }
        let bytes = self.held_in_tier(slice, None)?;
        let from = usize::try_from(range.start - start).ok()?;
        let to = usize::try_from(range.end - start).ok()?;
        (self.is_lent_whole(&bytes) && from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    /// Of more in memory without a bound of its own readers take a little at a time (`HotSlices::lend`).
    fn is_lent_whole(&self, slice: &Bytes) -> bool {
        slice.len() <= WHOLE_BYTES_MAX || self.hot.is_bounded(slice)
    }

    /// All of a body that is one slice, if memory has that and nobody is filling it. It is no use.
    pub fn whole_in_memory(&self) -> Option<Bytes> {
        let size = self.size().filter(|size| (1..=SLICE_BYTES).contains(size))?;
        if self.filling.load(Ordering::Acquire) {
            return None;
        }
        self.hot.peek(self.id, 0).filter(|slice| slice.len() as u64 == size && self.is_lent_whole(slice))
    }

    /// Claims slices nobody fetches: the writer takes bytes from `range.start * SLICE_BYTES` on, to the end of the last slice
    /// or of the body. None if someone was faster: read again.
    pub fn claim(self: &Arc<Self>, range: Range<u64>) -> Option<Writer> {
        let shared = self.shared.upgrade()?;
        let size = self.size().filter(|_| self.sliceable)?;
        let range = range.start..range.end.min(size.div_ceil(SLICE_BYTES));
        if range.is_empty() {
            return None;
        }
        let mut state = self.state.lock();
        if range.clone().any(|slice| self.is_covered(&state, slice)) {
            return None;
        }
        let number = state.number();
        let position = range.start * SLICE_BYTES;
        state.fills.push(Fill { number, slice: range.start, end: Some(range.end), pieces: Vec::new(), position });
        drop(state);
        let limit = (range.end * SLICE_BYTES).min(size);
        Some(Writer::of_part(shared, self.clone(), number, position, limit))
    }

    /// Slices within a range of bytes that are neither there nor being fetched soon: their first contiguous run.
    pub fn first_gap(&self, bytes: Range<u64>) -> Option<Range<u64>> {
        let last = self.slices_to(Some(bytes.end));
        let state = self.state.lock();
        let mut slices = (bytes.start / SLICE_BYTES..last).take(MAX_GAP_SLICES as usize);
        let start = slices.find(|slice| !self.is_covered(&state, *slice))?;
        Some(start..self.gap_end(&state, start, last))
    }

    /// Slices that are on disk.
    pub fn slices_on_disk(&self) -> u64 {
        self.state.lock().present.len()
    }
}

/// The part of `bytes`, which begin at `start` of the body, from `position` to `end`; none if that is empty.
fn cut(bytes: &Bytes, start: u64, position: u64, end: Option<u64>) -> Option<Bytes> {
    let from = usize::try_from(position.checked_sub(start)?).ok()?;
    let to =
        end.map_or(usize::MAX, |end| usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX)).min(bytes.len());
    (from < to).then(|| bytes.slice(from..to))
}

impl std::fmt::Debug for SlicedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlicedBody").field("id", &self.id).field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Drop for SlicedBody {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.body_dropped(self);
        }
    }
}

/// Reads a body from a position on.
#[derive(Debug)]
pub struct Reader {
    body: Arc<SlicedBody>,
    number: u64,
    position: u64,
    /// The slice that it had something of last.
    slice: Option<u64>,
}

impl Reader {
    /// The bytes at the reader's position, up to `end` (exclusive), as `SlicedBody::read` has it. What was read is left
    /// behind.
    pub async fn next(&mut self, end: Option<u64>) -> Piece {
        let piece = self.body.read_on(self.position, end, self.slice).await;
        if let Piece::Bytes(bytes) = &piece {
            self.slice = Some(self.position / SLICE_BYTES);
            self.position += bytes.len() as u64;
            let mut state = self.body.state.lock();
            state.readers.insert(self.number, self.position);
            if state.any_unstored() {
                self.body.changed.notify_waiters();
            }
        }
        piece
    }

    /// Where it is.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The body.
    pub fn body(&self) -> &Arc<SlicedBody> {
        &self.body
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.body.state.lock().readers.remove(&self.number);
        // A fill may wait for this reader.
        self.body.changed.notify_waiters();
    }
}

/// Counts a reader that waits, however its future ends.
struct Waiting<'a>(&'a SlicedBody);

impl<'a> Waiting<'a> {
    fn on(body: &'a SlicedBody) -> Self {
        body.state.lock().waiting += 1;
        Self(body)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

/// A slice that one reader loads for all, until this is dropped.
struct Loading<'a> {
    body: &'a SlicedBody,
    slice: u64,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.body.state.lock().loading.remove(&self.slice);
        self.body.changed.notify_waiters();
    }
}
