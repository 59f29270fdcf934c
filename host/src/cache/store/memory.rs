//! A store in memory: for tests, where it also plays a full disk and flipped bits.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Space, Store, layout};

/// Bodies in a map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    bodies: Mutex<HashMap<u64, Vec<u8>>>,
    full: AtomicBool,
    space: Mutex<Option<Space>>,
}

impl MemoryStore {
    /// From now on all writes fail as on a full disk, or no longer.
    pub fn fill_up(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// From now on the file system says that it has so much room.
    pub fn set_space(&self, space: Space) {
        *self.space.lock() = Some(space);
    }

    /// Flips a bit.
    pub fn damage(&self, id: u64, offset: usize) {
        if let Some(byte) = self.bodies.lock().get_mut(&id).and_then(|body| body.get_mut(offset)) {
            *byte ^= 1;
        }
    }

    /// The ids of all bodies.
    pub fn ids(&self) -> Vec<u64> {
        self.bodies.lock().keys().copied().collect()
    }
}

impl Store for MemoryStore {
    fn write(&self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut bodies = self.bodies.lock();
        let body = bodies.entry(id).or_default();
        body.resize(body.len().max(start + bytes.len()), 0);
        body[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, id: u64, offset: u64, length: usize) -> io::Result<Bytes> {
        self.read_now(id, offset, length).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    fn read_now(&self, id: u64, offset: u64, length: usize) -> Option<Bytes> {
        let start = usize::try_from(offset).ok()?;
        let bodies = self.bodies.lock();
        bodies.get(&id)?.get(start..start.checked_add(length)?).map(Bytes::copy_from_slice)
    }

    fn remove(&self, id: u64) -> io::Result<()> {
        self.bodies.lock().remove(&id);
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        *self.space.lock()
    }

    fn list(&self, part: u8) -> io::Result<Vec<u64>> {
        Ok(self.bodies.lock().keys().copied().filter(|id| layout::part_of(*id) == part).collect())
    }
}
