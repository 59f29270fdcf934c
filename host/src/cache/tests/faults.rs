//! A disk on which everything can go wrong: an index and a store that are told which of their operations fail, and a platter
//! that outlives the process which wrote to it, and forgets what was not synced when the power goes.

use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::cache::index::memory::{Columns, carry_out};
use crate::cache::index::{Change, Column, Index, IndexError, Records};
use crate::cache::store::{Store, layout};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    /// Reading a body: an error of the device.
    Read,
    /// Reading a body: fewer bytes than there should be.
    ShortRead,
    /// Writing a body: an error, after half of it.
    ShortWrite,
    /// Writing a body: no room, after half of it.
    FullWrite,
    /// Removing a body.
    Remove,
    /// Reading the index.
    IndexRead,
    /// Writing to the index.
    IndexWrite,
    /// The same for want of room.
    IndexFull,
}

pub(super) const FAULTS: [Fault; 8] = [
    Fault::Read,
    Fault::ShortRead,
    Fault::ShortWrite,
    Fault::FullWrite,
    Fault::Remove,
    Fault::IndexRead,
    Fault::IndexWrite,
    Fault::IndexFull,
];

/// What is on the disk.
#[derive(Debug, Default)]
struct Content {
    records: Columns,
    /// As the records were when they were last synced, and what was written since.
    synced: Columns,
    unsynced: Vec<Vec<Change>>,
    bodies: HashMap<u64, Vec<u8>>,
    /// Bodies are never synced: where was written to.
    written: Vec<(u64, usize, usize)>,
    /// Operations of a kind that still go well, and how many fail after them.
    faults: HashMap<Fault, (u32, u32)>,
}

/// The disk. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Platter {
    content: Arc<Mutex<Content>>,
    /// Faults that came to pass.
    fired: Arc<AtomicU64>,
}

impl Platter {
    pub fn fail(&self, fault: Fault, after: u32, times: u32) {
        self.content.lock().faults.insert(fault, (after, times));
    }

    pub fn heal(&self) {
        self.content.lock().faults.clear();
    }

    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    /// The power goes: of what was not synced, the index keeps its first batches, and the bodies what chance has it.
    pub fn lose_power(&self, batches: usize, chance: u64) {
        let mut content = self.content.lock();
        let content = &mut *content;
        content.records = std::mem::take(&mut content.synced);
        let unsynced = std::mem::take(&mut content.unsynced);
        let kept = batches % (unsynced.len() + 1);
        unsynced.into_iter().take(kept).for_each(|batch| carry_out(&mut content.records, batch));
        content.synced = content.records.clone();
        let mut random = fastrand::Rng::with_seed(chance);
        for (id, start, length) in std::mem::take(&mut content.written) {
            let Some(body) = content.bodies.get_mut(&id) else { continue };
            let end = (start + length).min(body.len());
            match random.u8(..4) {
                0 => body[start.min(end)..end].fill(0),
                1 => body[(start + length / 2).min(end)..end].fill(0),
                2 => body.truncate(start + length / 2),
                _ => {}
            }
        }
    }

    /// A bit flips in a body.
    pub fn flip_in_body(&self, chance: u64) {
        let (mut content, mut random) = (self.content.lock(), fastrand::Rng::with_seed(chance));
        let mut ids: Vec<u64> = content.bodies.keys().copied().collect();
        ids.sort_unstable();
        let Some(id) = random.choice(ids) else { return };
        let body = content.bodies.get_mut(&id).expect("it was listed");
        if !body.is_empty() {
            let place = random.usize(..body.len());
            body[place] ^= 1 << random.u8(..8);
        }
    }

    /// A bit flips in a record that has a checksum.
    pub fn flip_in_record(&self, chance: u64) {
        let (mut content, mut random) = (self.content.lock(), fastrand::Rng::with_seed(chance));
        let with_checksum = |(column, _): &&(Column, Vec<u8>)| *column != Column::Meta;
        let places: Vec<_> = content.records.keys().filter(with_checksum).cloned().collect();
        let Some(place) = random.choice(places) else { return };
        let (at, bit) = (random.usize(..), random.u8(..8));
        for columns in [true, false] {
            let content = &mut *content;
            let records = if columns { &mut content.records } else { &mut content.synced };
            if let Some(record) = records.get_mut(&place).filter(|record| !record.is_empty()) {
                let at = at % record.len();
                record[at] ^= 1 << bit;
            }
        }
    }

    /// What records and slices take, as `Disk` counts it.
    pub fn counted_bytes(&self) -> i64 {
        let content = self.content.lock();
        let count = |((column, key), value): (&(Column, Vec<u8>), &Vec<u8>)| match column {
            Column::Entries => (value.len() + key.len() * 2 + 64) as i64,
            Column::Slices => schema::SliceRecord::decode(value).map_or(0, |record| i64::from(record.length) + 64),
            _ => 0,
        };
        let owner = |key: &[u8]| schema::parse_slice_key(key).is_none_or(|(_, slice)| slice.is_none());
        let counts = |(place, _): &(&(Column, Vec<u8>), _)| place.0 != Column::Slices || !owner(&place.1);
        content.records.iter().filter(counts).map(count).sum()
    }

    /// Whether an operation fails now.
    fn fails(&self, fault: Fault) -> bool {
        let mut content = self.content.lock();
        let Some((after, times)) = content.faults.get_mut(&fault) else { return false };
        if *after > 0 {
            *after -= 1;
            return false;
        }
        let fails = *times > 0;
        *times = times.saturating_sub(1);
        if fails {
            self.fired.fetch_add(1, Ordering::SeqCst);
        }
        fails
    }
}

/// The disk as one process has it. When that is killed nothing more of it comes through.
#[derive(Debug)]
pub(super) struct Attached {
    platter: Platter,
    alive: AtomicBool,
}

impl Attached {
    pub fn to(platter: &Platter) -> Arc<Self> {
        Arc::new(Self { platter: platter.clone(), alive: AtomicBool::new(true) })
    }

    pub fn kill(&self) {
        // Whoever writes just now has written when this returns.
        let _content = self.platter.content.lock();
        self.alive.store(false, Ordering::SeqCst);
    }

    fn io(&self, fault: Fault, error: io::ErrorKind) -> io::Result<()> {
        if self.platter.fails(fault) || !self.alive.load(Ordering::SeqCst) { Err(error.into()) } else { Ok(()) }
    }

    fn index(&self, fault: Fault, text: &str) -> Result<(), IndexError> {
        if self.platter.fails(fault) || !self.alive.load(Ordering::SeqCst) {
            Err(IndexError(text.into()))
        } else {
            Ok(())
        }
    }
}

impl Index for Attached {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.index(Fault::IndexRead, "input/output error")?;
        Ok(self.platter.content.lock().records.get(&(column, key.to_vec())).cloned())
    }

    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Records, IndexError> {
        self.index(Fault::IndexRead, "input/output error")?;
        let content = self.platter.content.lock();
        let from = content.records.range((Bound::Included((column, from.to_vec())), Bound::Unbounded));
        let within =
            |((of, key), _): &(&(Column, Vec<u8>), _)| *of == column && to.is_none_or(|to| key.as_slice() < to);
        Ok(from.take_while(within).take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, changes: Vec<Change>, sync: bool) -> Result<(), IndexError> {
        self.index(Fault::IndexWrite, "input/output error")?;
        self.index(Fault::IndexFull, "No space left on device")?;
        let mut content = self.platter.content.lock();
        let content = &mut *content;
        if !self.alive.load(Ordering::SeqCst) {
            return Err(IndexError("killed".into()));
        }
        carry_out(&mut content.records, changes.clone());
        content.unsynced.push(changes);
        if sync {
            std::mem::take(&mut content.unsynced).into_iter().for_each(|batch| carry_out(&mut content.synced, batch));
        }
        Ok(())
    }

    fn estimate(&self, column: Column) -> u64 {
        self.platter.content.lock().records.keys().filter(|(of, _)| *of == column).count() as u64
    }

    fn flush(&self) -> Result<(), IndexError> {
        Index::write(self, Vec::new(), true)
    }
}

impl Store for Attached {
    fn write(&self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let short = self.io(Fault::ShortWrite, io::ErrorKind::Other);
        let failed = short.and_then(|()| self.io(Fault::FullWrite, io::ErrorKind::StorageFull));
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        let mut content = self.platter.content.lock();
        if !self.alive.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Other.into());
        }
        let body = content.bodies.entry(id).or_default();
        body.resize(body.len().max(start + bytes.len()), 0);
        body[start..start + bytes.len()].copy_from_slice(bytes);
        content.written.push((id, start, bytes.len()));
        failed
    }

    fn read(&self, id: u64, offset: u64, length: usize) -> io::Result<Bytes> {
        self.io(Fault::Read, io::ErrorKind::Other)?;
        self.io(Fault::ShortRead, io::ErrorKind::UnexpectedEof)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let content = self.platter.content.lock();
        let bytes = content.bodies.get(&id).and_then(|body| body.get(start..start + length));
        bytes.map(Bytes::copy_from_slice).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Every other body is not in the page cache.
    fn read_now(&self, id: u64, offset: u64, length: usize) -> Option<Bytes> {
        if id.is_multiple_of(2) { self.read(id, offset, length).ok() } else { None }
    }

    fn remove(&self, id: u64) -> io::Result<()> {
        self.io(Fault::Remove, io::ErrorKind::Other)?;
        self.platter.content.lock().bodies.remove(&id);
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        None
    }

    fn list(&self, part: u8) -> io::Result<Vec<u64>> {
        self.io(Fault::Read, io::ErrorKind::Other)?;
        Ok(self.platter.content.lock().bodies.keys().copied().filter(|id| layout::part_of(*id) == part).collect())
    }
}
