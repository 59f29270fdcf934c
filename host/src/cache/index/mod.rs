//! The index: small records in ordered columns, written in atomic batches.
//!
//! The room's own idea of a database, so that the rules above it (what is committed with what, what is evicted) run against
//! memory in tests as they run against RocksDB, and a failing index can be played. `schema` says what the records are.

pub mod memory;
mod nowait;
pub mod rocks;
pub mod schema;

#[cfg(test)]
mod contract;

use schema::uses::Uses;

/// A column of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// Key, two NULs and variant, to what is remembered of a response.
    Entries,
    /// Entry id and slice number, to length and checksums; the last number of an id holds the owner's key.
    Slices,
    /// Hash of the entry's key, to when and how often it was used.
    Recency,
    /// Sequence, to what was purged.
    Purges,
    /// Host of hosts.json that has a budget, and hash of an entry's key, to nothing.
    Budgets,
    /// Format, ids, totals of bytes.
    Meta,
}

impl Column {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Entries, Self::Slices, Self::Recency, Self::Purges, Self::Budgets, Self::Meta];

    /// The name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Slices => "slices",
            Self::Recency => "recency",
            Self::Purges => "purges",
            Self::Budgets => "budgets",
            Self::Meta => "meta",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Set a record.
    Put(Column, Vec<u8>, Vec<u8>),
    /// Remove a record; one that is not there is fine.
    Delete(Column, Vec<u8>),
    /// Add to a number of column `Meta` (two's complement, so that totals can shrink).
    Add(Vec<u8>, i64),
    /// Add uses (`schema::uses`) to a record of column `Recency`, without reading it first; to none that is not there.
    Use(Vec<u8>, Uses),
}

/// What the index could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index: {0}")]
pub struct IndexError(pub String);

/// What is known of a record without waiting for the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It is this.
    Found(Vec<u8>),
    /// There is none.
    Absent,
    /// The disk would have to be asked.
    Unknown,
}

/// Records of a scan, in order.
pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Records read or removed in one go.
pub const CHUNK: usize = 1000;

/// Ordered columns of records. All but `probe` and `scan_at_once` may wait for the disk: call them on the blocking pool.
pub trait Index: Send + Sync + std::fmt::Debug {
    /// A record, if it can be told without waiting for the disk. What never waits gives it.
    fn probe(&self, column: Column, key: &[u8]) -> Probe {
        match self.get(column, key) {
            Ok(Some(value)) => Probe::Found(value),
            Ok(None) => Probe::Absent,
            Err(_) => Probe::Unknown,
        }
    }

    /// A record.
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// At most `limit` records from `from` (inclusive) to `to` (exclusive; none: to the end of the column).
    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Records, IndexError>;

    /// The same, if it can be told without waiting for the disk. What never waits gives it.
    fn scan_at_once(&self, column: Column, from: &[u8], to: Option<&[u8]>, limit: usize) -> Option<Records> {
        self.scan(column, from, to, limit).ok()
    }

    /// Carries out all changes or none. With `sync` they survive a power cut when this returns; without, a crash of the
    /// process.
    fn write(&self, changes: Vec<Change>, sync: bool) -> Result<(), IndexError>;

    /// How many records a column has, estimated.
    fn estimate(&self, column: Column) -> u64;

    /// Leaves files where they are that are not needed any more, so that somebody else can open the index as it is now; or
    /// removes them again.
    fn keep_files(&self, _keep: bool) -> Result<(), IndexError> {
        Ok(())
    }

    /// Writes out what is in memory.
    fn flush(&self) -> Result<(), IndexError>;
}

/// Reads a number of column `Meta`.
pub fn number(index: &dyn Index, key: &[u8]) -> Result<i64, IndexError> {
    Ok(index.get(Column::Meta, key)?.map_or(0, |bytes| decode_number(&bytes)))
}

/// The first key behind this one.
pub fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Shows all records from `from` (inclusive) to `to` (exclusive), some at a time.
pub fn each(
    index: &dyn Index,
    column: Column,
    from: &[u8],
    to: Option<&[u8]>,
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), IndexError> {
    let mut from = from.to_vec();
    loop {
        let records = index.scan(column, &from, to, CHUNK)?;
        records.iter().for_each(|(key, value)| each(key, value));
        match records.last() {
            Some((last, _)) if records.len() == CHUNK => from = after(last),
            _ => return Ok(()),
        }
    }
}

pub(super) fn decode_number(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_be_bytes)
}

/// The first key after all that begin with `prefix`; none if there is no such key.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_of_its_length_or_shorter() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
