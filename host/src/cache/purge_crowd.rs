//! Purges past the number that is remembered by name: by the hash of the name, in a table of fixed size. Two names that share a
//! cell share their purges: what is hit beside what was meant is asked for again, which costs a fetch and is never wrong.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::purge_table::{Marks, Verdict};
use super::purges::PurgeMode;
use crate::clock::Timestamp;

/// Cells: 16 MiB, taken when the first is needed, and by the system as they are used.
const CELLS: usize = 1 << 20;

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Path,
    Prefix,
    Tag,
    Host,
}

/// Purges by the hashes of names.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    newest: AtomicU64,
    records: AtomicU64,
    /// Of the newest soft purge: one moment for all.
    soft_at: AtomicU64,
    cells: OnceLock<Box<[Cell]>>,
    prefix_lengths: RwLock<BTreeSet<usize>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Cell {
    hard: AtomicU64,
    soft: AtomicU64,
}

impl Crowd {
    /// The newest purge here.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// How many purges came here since they were last forgotten.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    fn place(&self, kind: Kind, host: &str, name: &[u8]) -> usize {
        self.hasher.hash_one((kind, host, name)) as usize % CELLS
    }

    /// Remembers a purge.
    pub fn set(&self, kind: Kind, host: &str, name: &[u8], sequence: u64, mode: PurgeMode) {
        let cells = self.cells.get_or_init(|| (0..CELLS).map(|_| Cell::default()).collect());
        let cell = &cells[self.place(kind, host, name)];
        match mode {
            PurgeMode::Hard => cell.hard.fetch_max(sequence, Ordering::AcqRel),
            PurgeMode::Soft { at_ms } => {
                self.soft_at.store(at_ms, Ordering::Release);
                cell.soft.fetch_max(sequence, Ordering::AcqRel)
            }
        };
        if kind == Kind::Prefix {
            self.prefix_lengths.write().insert(name.len());
        }
        self.records.fetch_add(1, Ordering::Relaxed);
        self.newest.fetch_max(sequence, Ordering::AcqRel);
    }

    /// What purges after `sequence` say of something so marked.
    pub fn judge(&self, marks: &Marks<'_>, sequence: u64) -> Verdict {
        let Some(cells) = self.cells.get() else { return Verdict::Untouched };
        let mut stale = false;
        let mut gone = |kind: Kind, host: &str, name: &[u8]| {
            let cell = &cells[self.place(kind, host, name)];
            stale |= cell.soft.load(Ordering::Acquire) > sequence;
            cell.hard.load(Ordering::Acquire) > sequence
        };
        let lengths = self.prefix_lengths.read();
        let hit = gone(Kind::Host, marks.host, &[])
            || marks
                .tags
                .iter()
                .any(|tag| gone(Kind::Tag, "", tag.as_bytes()) || gone(Kind::Tag, marks.host, tag.as_bytes()))
            || marks.paths.iter().flatten().any(|path| {
                gone(Kind::Path, marks.host, path.as_bytes())
                    || lengths
                        .iter()
                        .map_while(|length| path.as_bytes().get(..*length))
                        .any(|start| gone(Kind::Prefix, marks.host, start))
            });
        match (hit, stale) {
            (true, _) => Verdict::Gone,
            (false, true) => Verdict::Stale(Timestamp::from_millis(self.soft_at.load(Ordering::Acquire))),
            (false, false) => Verdict::Untouched,
        }
    }

    /// Forgets purges up to `sequence`.
    pub fn forget(&self, sequence: u64) {
        let Some(cells) = self.cells.get() else { return };
        let mut left = 0;
        for number in cells.iter().flat_map(|cell| [&cell.hard, &cell.soft]) {
            let newest = number.load(Ordering::Acquire);
            if newest <= sequence {
                // Another purge may come in between, and stays.
                let _ = number.compare_exchange(newest, 0, Ordering::AcqRel, Ordering::Acquire);
            } else {
                left += 1;
            }
        }
        if left == 0 {
            self.prefix_lengths.write().clear();
        }
        self.records.store(left, Ordering::Relaxed);
    }
}
