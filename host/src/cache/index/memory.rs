//! An index in memory: for tests, where it also plays an index that fails.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::{Change, Column, Index, IndexError, Records, decode_number, schema};

/// The records of all columns, in order.
pub type Columns = BTreeMap<(Column, Vec<u8>), Vec<u8>>;

/// Makes changes.
pub fn carry_out(columns: &mut Columns, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(column, key, value) => {
                columns.insert((column, key), value);
            }
            Change::Delete(column, key) => {
                columns.remove(&(column, key));
            }
            Change::Add(key, by) => {
                let number = columns.entry((Column::Meta, key)).or_default();
                *number = decode_number(number).wrapping_add(by).to_be_bytes().to_vec();
            }
            Change::Use(key, uses) => {
                if let Some(record) = columns.get_mut(&(Column::Recency, key)) {
                    *record = schema::uses::merge(Some(record), [uses.encode().as_slice()].into_iter());
                }
            }
        }
    }
}

/// Ordered maps behind a lock.
#[derive(Default)]
pub struct MemoryIndex {
    columns: RwLock<Columns>,
    failing: AtomicBool,
    reads: AtomicU64,
    meanwhile: Mutex<Option<(Step, Happens)>>,
}

type Happens = Box<dyn FnOnce() + Send>;

/// A step of whoever uses the index, which something else can come between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record or a scan of this column was read, and is not given yet.
    Read(Column),
    /// Something is about to be written.
    Write,
}

impl std::fmt::Debug for MemoryIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryIndex").finish_non_exhaustive()
    }
}

impl MemoryIndex {
    /// From now on all writes fail, or no longer.
    pub fn fail_writes(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// Records that were looked for and scans, since it was made.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    /// What happens in the middle of the next step of this kind, once.
    pub fn meanwhile(&self, step: Step, happens: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock() = Some((step, Box::new(happens)));
    }

    /// Whether that is still to come.
    pub fn waits(&self) -> bool {
        self.meanwhile.lock().is_some()
    }

    fn happen(&self, step: Step) {
        let mut meanwhile = self.meanwhile.lock();
        let Some((_, happens)) = meanwhile.take_if(|(at, _)| *at == step) else { return };
        drop(meanwhile);
        happens();
    }
}

impl Index for MemoryIndex {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let found = self.columns.read().get(&(column, key.to_vec())).cloned();
        self.happen(Step::Read(column));
        Ok(found)
    }

    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Records, IndexError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let start = Bound::Included((column, from.to_vec()));
        let found = self
            .columns
            .read()
            .range((start, Bound::Unbounded))
            .take_while(|((of, key), _)| *of == column && to.is_none_or(|to| key.as_slice() < to))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        self.happen(Step::Read(column));
        Ok(found)
    }

    fn write(&self, changes: Vec<Change>, _sync: bool) -> Result<(), IndexError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(IndexError("told to fail".into()));
        }
        self.happen(Step::Write);
        carry_out(&mut self.columns.write(), changes);
        Ok(())
    }

    fn estimate(&self, column: Column) -> u64 {
        self.columns.read().keys().filter(|(of, _)| *of == column).count() as u64
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }
}
