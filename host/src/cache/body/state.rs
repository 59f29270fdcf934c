//! What is known of a body's slices at a moment: on disk, held until the disk has them, or coming in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::super::entry::{Entry, SLICE_BYTES};
use super::super::runs::Runs;
use super::{MAX_UNSTORED, WAIT_SLICES};

/// Ends of fills that are remembered for those who wait.
const MAX_ENDED: usize = 8;
/// Pieces smaller than this are joined, so that an origin that sends single bytes costs no more than its bytes.
const JOIN_BYTES: usize = 8 << 10;

#[derive(Default)]
pub struct State {
    /// Slices on disk.
    pub present: Runs,
    /// Whole slices that the disk does not have.
    pub held: BTreeMap<u64, Held>,
    pub fills: Vec<Fill>,
    pub(super) ended: VecDeque<(u64, String)>,
    pub failed: Option<String>,
    pub(super) loading: HashSet<u64>,
    pub(super) readers: HashMap<u64, u64>,
    pub(super) next_number: u64,
    pub(super) waiting: usize,
    /// The newest head, when it changed during the first fill.
    pub latest: Option<Arc<Entry>>,
}

pub struct Held {
    pub bytes: Bytes,
    /// The disk will not take it.
    pub unstored: bool,
}

/// A fill under way.
pub struct Fill {
    pub number: u64,
    /// The slice that is coming in.
    pub slice: u64,
    /// The slice after the last; none: to the end, wherever that is.
    pub end: Option<u64>,
    /// Pieces of the slice, each with its position in the body.
    pub pieces: Vec<(u64, Bytes)>,
    pub position: u64,
}

impl Fill {
    /// Whether a slice will come in soon.
    pub(super) fn brings_soon(&self, slice: u64, patience: u64) -> bool {
        self.end.is_none_or(|end| slice < end) && slice >= self.slice && slice - self.slice <= patience
    }

    pub(super) fn piece_at(&self, position: u64) -> Option<Bytes> {
        let after = self.pieces.partition_point(|(start, _)| *start <= position);
        let (start, bytes) = self.pieces.get(after.checked_sub(1)?)?;
        let offset = usize::try_from(position - start).ok()?;
        (offset < bytes.len()).then(|| bytes.slice(offset..))
    }

    /// Takes a piece that lies in the slice.
    pub fn push(&mut self, piece: Bytes) {
        let start = self.position;
        self.position += piece.len() as u64;
        self.pieces.push((start, piece));
        // Neighbours of about one size are joined, so each byte is copied a few times at most.
        while let [.., (_, before), (_, last)] = self.pieces.as_slice() {
            if before.len() >= JOIN_BYTES || before.len() > last.len().saturating_mul(2) {
                break;
            }
            let mut joined = BytesMut::with_capacity(before.len() + last.len());
            joined.extend_from_slice(before);
            joined.extend_from_slice(last);
            self.pieces.pop();
            if let Some((_, before)) = self.pieces.last_mut() {
                *before = joined.freeze();
            }
        }
    }

    /// The whole slice, as one and in memory of its own: a piece is a part of what was read from a connection, and holds all of that.
    pub fn take_slice(&mut self) -> Bytes {
        let pieces = std::mem::take(&mut self.pieces);
        self.slice += 1;
        let mut whole = BytesMut::with_capacity(pieces.iter().map(|(_, piece)| piece.len()).sum());
        pieces.iter().for_each(|(_, piece)| whole.extend_from_slice(piece));
        whole.freeze()
    }
}

impl State {
    /// A number that no other fill or reader of this body has.
    pub fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub fn fill_mut(&mut self, number: u64) -> Option<&mut Fill> {
        self.fills.iter_mut().find(|fill| fill.number == number)
    }

    /// Ends a fill. Those who wait for it learn why, if it did not end well.
    pub fn end_fill(&mut self, number: u64, why: Option<String>) {
        self.fills.retain(|fill| fill.number != number);
        if let Some(why) = why {
            self.ended.push_back((number, why));
            if self.ended.len() > MAX_ENDED {
                self.ended.pop_front();
            }
        }
    }

    pub fn has_readers(&self) -> bool {
        self.waiting > 0 || !self.readers.is_empty()
    }

    /// Lets go of unstored slices that no reader is on its way to, beyond what may be held. Returns how many are still too
    /// many, and whether any were let go. `last` is the slice that came in last; of a body that can be fetched in parts only those
    /// right before it count: readers elsewhere have fills of their own, and those that wait for each other would wait for ever.
    pub fn release_unstored(&mut self, last: u64, sliceable: bool) -> (usize, bool) {
        let patience = if sliceable { WAIT_SLICES } else { u64::MAX };
        let ours = |slice: u64| !sliceable || (slice <= last && last - slice <= WAIT_SLICES + MAX_UNSTORED as u64);
        let is_wanted = |slice: u64, readers: &HashMap<u64, u64>| {
            let from = slice.saturating_sub(patience) * SLICE_BYTES;
            readers.values().any(|position| (from..(slice + 1) * SLICE_BYTES).contains(position))
        };
        let readers = &self.readers;
        let before = self.held.len();
        self.held.retain(|slice, held| !held.unstored || ours(*slice) || is_wanted(*slice, readers));
        let mut released = self.held.len() < before;
        let mut unstored: Vec<u64> =
            self.held.iter().filter(|(slice, held)| held.unstored && ours(**slice)).map(|(slice, _)| *slice).collect();
        while unstored.len() > MAX_UNSTORED {
            let first = unstored[0];
            if is_wanted(first, &self.readers) {
                return (unstored.len() - MAX_UNSTORED, released);
            }
            self.held.remove(&first);
            unstored.remove(0);
            released = true;
        }
        (0, released)
    }

    pub(super) fn any_unstored(&self) -> bool {
        self.held.values().any(|held| held.unstored)
    }
}
