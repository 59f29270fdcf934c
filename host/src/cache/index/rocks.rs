//! The index in RocksDB.
//!
//! The settings are those that were measured with ten million records: 64 MiB of block cache for everything, indexes and
//! filters included (two-level index, partitioned filters), so that memory stays flat at any number of records.

use std::path::Path;

use rocksdb::compaction_filter::Decision as CompactionDecision;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, ErrorKind, LogLevel,
    MergeOperands, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use super::schema::{self, uses};
use super::{Change, Column, Index, IndexError, Probe, Records, decode_number, nowait};

const BLOCK_CACHE_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 8 << 10;
/// Entries are read one at a time, so that most of a block is unpacked for nothing: half of it costs a tenth less for each read, and
/// a quarter more of the disk.
const ENTRIES_BLOCK_BYTES: usize = 4 << 10;
/// Bits a key in the bloom filters: one absent key in a hundred costs a read.
const BLOOM_BITS: f64 = 10.0;
const OPEN_FILES: i32 = 512;
/// Unflushed records of all columns together.
const WRITE_BUFFERS_BYTES: usize = 48 << 20;

/// One of so many reads of an entry leaves in the block cache what it had to unpack. With many entries that are asked for at random
/// the next one needs another block; then to put each in, and another out for it, costs a third of the read, and what all reads
/// need, filters and indexes, goes out too. What is asked for again and again gets in all the same.
const LEFT_IN_CACHE: u32 = 16;

/// A RocksDB with a column family for each column.
pub struct RocksIndex {
    db: DB,
    /// Leaves what it reads in the block cache, ...
    filling: ReadOptions,
    /// ... or does not.
    passing: ReadOptions,
}

/// Why RocksDB did not open.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    Locked,
    /// Its files make no sense; a fresh one would open.
    Corrupt(String),
    /// The disk does not let us: read-only, full, failing.
    Unusable(String),
}

impl RocksIndex {
    /// Opens an index that is there to be read as it is now, whoever else has it or goes on with it: no lock is taken, and all
    /// files are opened, so that those that another program removes can still be read. Writing to it fails.
    pub fn open_to_read(path: &Path) -> Result<Self, IndexError> {
        let cache = block_cache();
        let mut options = base_options(&cache);
        options.set_max_open_files(-1);
        options.set_log_level(LogLevel::Warn);
        let db = DB::open_cf_descriptors_read_only(&options, path, columns(&cache), false).map_err(failed)?;
        Ok(Self::of(db))
    }

    /// Opens or creates the folder.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let cache = block_cache();
        let mut options = base_options(&cache);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_open_files(OPEN_FILES);
        options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
        options.set_max_total_wal_size(128 << 20);
        options.set_max_background_jobs(2);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_log_level(LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        // Whoever lets go of an iterator last does not tidy up: that may be a worker.
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_bytes_per_sync(1 << 20);
        options.set_wal_bytes_per_sync(1 << 20);
        match DB::open_cf_descriptors(&options, path, columns(&cache)) {
            Ok(db) => Ok(Self::of(db)),
            Err(error) => Err(classify(&error)),
        }
    }

    fn of(db: DB) -> Self {
        let mut passing = ReadOptions::default();
        passing.fill_cache(false);
        Self { db, filling: ReadOptions::default(), passing }
    }

    /// Puts all of a column together.
    #[cfg(test)]
    pub fn compact(&self, column: Column) {
        let family = self.column(column).expect("all columns are there");
        self.db.flush_cf(family).expect("it is written");
        self.db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
    }

    fn column(&self, column: Column) -> Result<&rocksdb::ColumnFamily, IndexError> {
        self.db.cf_handle(column.name()).ok_or_else(|| IndexError(format!("no column {}", column.name())))
    }

    fn get_by(&self, column: Column, key: &[u8], options: &ReadOptions) -> Result<Option<Vec<u8>>, IndexError> {
        let found = self.db.get_pinned_cf_opt(self.column(column)?, key, options).map_err(failed)?;
        Ok(found.filter(|value| is_record(column, value)).map(|value| value.to_vec()))
    }
}

impl std::fmt::Debug for RocksIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksIndex").field("path", &self.db.path()).finish()
    }
}

/// A read takes no lock there, and its own estimate of how large a block is will do.
fn block_cache() -> Cache {
    Cache::new_hyper_clock_cache(BLOCK_CACHE_BYTES, 0)
}

fn columns(cache: &Cache) -> [ColumnFamilyDescriptor; Column::ALL.len()] {
    Column::ALL.map(|column| {
        let block_bytes = if column == Column::Entries { ENTRIES_BLOCK_BYTES } else { BLOCK_BYTES };
        let mut of_column = options_of_column(cache, block_bytes);
        if column == Column::Recency {
            of_column.set_merge_operator("uses", merge_uses, |_: &[u8], _: Option<&[u8]>, _: &MergeOperands| None);
            of_column.set_compaction_filter("gone", |_: u32, _: &[u8], value: &[u8]| {
                if value.is_empty() { CompactionDecision::Remove } else { CompactionDecision::Keep }
            });
        }
        if column == Column::Meta {
            of_column.set_merge_operator_associative("add", add);
            // Absent is zero: names that were asked for once leave nothing behind.
            of_column.set_compaction_filter("zeros", |_: u32, key: &[u8], value: &[u8]| {
                let is_empty = schema::host_of_bytes_key(key).is_some() && decode_number(value) == 0;
                if is_empty { CompactionDecision::Remove } else { CompactionDecision::Keep }
            });
        }
        ColumnFamilyDescriptor::new(column.name(), of_column)
    })
}

fn base_options(cache: &Cache) -> Options {
    options_of_column(cache, BLOCK_BYTES)
}

fn options_of_column(cache: &Cache, block_bytes: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(block_bytes);
    table.set_bloom_filter(BLOOM_BITS, false);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_metadata_block_size(4 << 10);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(16 << 20);
    options.set_max_write_buffer_number(3);
    options
}

fn add(_key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let start = existing.map_or(0, decode_number);
    let sum = operands.iter().fold(start, |sum, operand| sum.wrapping_add(decode_number(operand)));
    Some(sum.to_be_bytes().to_vec())
}

fn merge_uses(_key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    Some(uses::merge(existing, operands.iter()))
}

/// Whether a value is a record: merging leaves something where there is nothing.
fn is_record(column: Column, value: &[u8]) -> bool {
    column != Column::Recency || !value.is_empty()
}

fn classify(error: &rocksdb::Error) -> OpenError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::IOError if text.contains("LOCK") && (text.contains("lock hold") || text.contains("unavailable")) => {
            OpenError::Locked
        }
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound | ErrorKind::NotSupported => {
            OpenError::Corrupt(text)
        }
        // A file that the manifest names and that is gone.
        ErrorKind::IOError if text.contains("No such file") => OpenError::Corrupt(text),
        _ => OpenError::Unusable(text),
    }
}

fn failed(error: rocksdb::Error) -> IndexError {
    IndexError(error.into_string())
}

impl Index for RocksIndex {
    fn probe(&self, column: Column, key: &[u8]) -> Probe {
        let found = nowait::at_once(|| self.get(column, key)).unwrap_or_else(|| {
            let mut options = ReadOptions::default();
            options.set_read_tier(ReadTier::BlockCache);
            self.get_by(column, key, &options)
        });
        match found {
            Ok(Some(value)) => Probe::Found(value),
            Ok(None) => Probe::Absent,
            // Only the disk has it; or an error that the full read will report.
            Err(_) => Probe::Unknown,
        }
    }

    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let fills = column != Column::Entries || fastrand::u32(..LEFT_IN_CACHE) == 0;
        self.get_by(column, key, if fills { &self.filling } else { &self.passing })
    }

    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Records, IndexError> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        // Scans are for housekeeping; they must not push what hits need out of the block cache.
        options.fill_cache(false);
        let mut records = Records::new();
        let mut iterator = self.db.raw_iterator_cf_opt(self.column(column)?, options);
        iterator.seek(from);
        while records.len() < limit {
            let Some((key, value)) = iterator.item() else { break };
            if is_record(column, value) {
                records.push((key.to_vec(), value.to_vec()));
            }
            iterator.next();
        }
        iterator.status().map_err(failed)?;
        Ok(records)
    }

    fn scan_at_once(&self, column: Column, from: &[u8], to: Option<&[u8]>, limit: usize) -> Option<Records> {
        nowait::at_once(|| self.scan(column, from, to, limit))?.ok()
    }

    fn write(&self, changes: Vec<Change>, sync: bool) -> Result<(), IndexError> {
        let mut batch = WriteBatch::default();
        for change in changes {
            match change {
                Change::Put(column, key, value) => batch.put_cf(self.column(column)?, key, value),
                Change::Delete(column, key) => batch.delete_cf(self.column(column)?, key),
                Change::Add(key, by) => batch.merge_cf(self.column(Column::Meta)?, key, by.to_be_bytes()),
                Change::Use(key, uses) => batch.merge_cf(self.column(Column::Recency)?, key, uses.encode()),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(failed)
    }

    fn estimate(&self, column: Column) -> u64 {
        let Ok(family) = self.column(column) else { return 0 };
        self.db.property_int_value_cf(family, "rocksdb.estimate-num-keys").ok().flatten().unwrap_or(0)
    }

    fn keep_files(&self, keep: bool) -> Result<(), IndexError> {
        if keep { self.db.disable_file_deletions() } else { self.db.enable_file_deletions() }.map_err(failed)
    }

    fn flush(&self) -> Result<(), IndexError> {
        for column in Column::ALL {
            self.db.flush_cf(self.column(column)?).map_err(failed)?;
        }
        self.db.flush_wal(true).map_err(failed)
    }
}
