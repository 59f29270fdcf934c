//! What every index must do, whatever it is made of.

use super::memory::MemoryIndex;
use super::rocks::RocksIndex;
use super::schema::RecencyRecord;
use super::schema::uses::Uses;
use super::{Change, Column, Index, Probe, number};
use crate::cache::worth::ONE_USE;

fn each(check: impl Fn(&dyn Index)) {
    check(&MemoryIndex::default());
    let dir = tempfile::tempdir().expect("a folder for the test");
    check(&RocksIndex::open(dir.path()).expect("a fresh index opens"));
}

fn put(column: Column, key: &[u8], value: &[u8]) -> Change {
    Change::Put(column, key.to_vec(), value.to_vec())
}

#[test]
fn what_was_put_is_found_in_its_column_only() {
    each(|index| {
        index.write(vec![put(Column::Entries, b"k", b"v")], false).unwrap();
        assert_eq!(index.get(Column::Entries, b"k").unwrap().as_deref(), Some(&b"v"[..]));
        assert_eq!(index.get(Column::Slices, b"k").unwrap(), None);
        assert_eq!(index.probe(Column::Entries, b"k"), Probe::Found(b"v".to_vec()));
        assert_ne!(index.probe(Column::Slices, b"k"), Probe::Found(b"v".to_vec()));
        index.write(vec![Change::Delete(Column::Entries, b"k".to_vec())], false).unwrap();
        assert_eq!(index.get(Column::Entries, b"k").unwrap(), None);
    });
}

#[test]
fn scans_are_ordered_bounded_and_stay_in_their_column() {
    each(|index| {
        for column in [Column::Entries, Column::Slices] {
            index.write((0..9u8).rev().map(|k| put(column, &[k], &[k])).collect(), false).unwrap();
        }
        let keys = |from: &[u8], to: Option<&[u8]>, limit| {
            let records = index.scan(Column::Entries, from, to, limit).unwrap();
            records.into_iter().map(|(key, _)| key[0]).collect::<Vec<_>>()
        };
        assert_eq!(keys(&[2], Some(&[5]), 10), [2, 3, 4]);
        assert_eq!(keys(&[7], None, 10), [7, 8]);
        assert_eq!(keys(&[], None, 2), [0, 1]);
        assert_eq!(keys(&[9], None, 2), [0u8; 0]);
    });
}

#[test]
fn numbers_add_up_and_may_shrink() {
    each(|index| {
        for by in [5, -2, 1_000_000_000_000, -7] {
            index.write(vec![Change::Add(b"n".to_vec(), by)], false).unwrap();
        }
        assert_eq!(number(index, b"n").unwrap(), 999_999_999_996);
        assert_eq!(number(index, b"other").unwrap(), 0);
    });
}

#[test]
fn uses_are_merged_into_what_stands_there_and_leave_nothing_where_nothing_stands() {
    let record =
        RecencyRecord { last_use: 10, uses: ONE_USE, size: 5, id: 1, is_error: false, full_key: b"k".to_vec() };
    let uses = Uses { id: 1, now: 20, times: 1, size: Some(6), idle_seconds: 0.0 };
    let used = |key: &[u8]| Change::Use(key.to_vec(), uses);
    each(|index| {
        let before = vec![put(Column::Recency, b"b", &record.encode()), put(Column::Recency, b"d", &record.encode())];
        index.write(before, false).unwrap();
        for flushed in [false, true] {
            index.write(vec![used(b"a"), used(b"b"), used(b"b"), used(b"c")], false).unwrap();
            if flushed {
                index.flush().unwrap();
            }
            for gone in [b"a", b"c"] {
                assert_eq!(index.get(Column::Recency, gone).unwrap(), None);
                assert!(matches!(index.probe(Column::Recency, gone), Probe::Absent | Probe::Unknown));
            }
        }
        let read = RecencyRecord::decode(&index.get(Column::Recency, b"b").unwrap().unwrap()).unwrap();
        assert_eq!(read, RecencyRecord { last_use: 20, uses: 5 * ONE_USE, size: 6, ..record.clone() });
        let records = index.scan(Column::Recency, &[], None, 2).unwrap();
        assert_eq!(
            records.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            [b"b", b"d"],
            "what is no record takes no place"
        );
        // What comes after it is gone begins anew.
        index.write(vec![Change::Delete(Column::Recency, b"b".to_vec()), used(b"b")], false).unwrap();
        assert_eq!(index.get(Column::Recency, b"b").unwrap(), None);
        index.write(vec![put(Column::Recency, b"b", &record.encode())], false).unwrap();
        assert_eq!(index.get(Column::Recency, b"b").unwrap(), Some(record.encode()));
    });
}

#[test]
fn what_merging_leaves_of_nothing_is_removed_by_compactions() {
    let dir = tempfile::tempdir().unwrap();
    let index = RocksIndex::open(dir.path()).unwrap();
    let uses = Uses { id: 1, now: 20, times: 1, size: None, idle_seconds: 0.0 };
    index.write((0..9u8).map(|key| Change::Use(vec![key], uses)).collect(), false).unwrap();
    index.write(vec![put(Column::Recency, b"stays", b"a record")], false).unwrap();
    // Merged by the first, removed by the next.
    (0..2).for_each(|_| index.compact(Column::Recency));
    assert_eq!(index.estimate(Column::Recency), 1);
    assert_eq!(index.get(Column::Recency, b"stays").unwrap(), Some(b"a record".to_vec()));
}

#[test]
fn a_rocks_index_keeps_what_it_was_told_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = RocksIndex::open(dir.path()).unwrap();
    index.write(vec![put(Column::Purges, b"k", b"v"), Change::Add(b"n".to_vec(), 3)], true).unwrap();
    drop(index);
    let index = RocksIndex::open(dir.path()).unwrap();
    assert_eq!(index.get(Column::Purges, b"k").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(number(&index, b"n").unwrap(), 3);
}

/// Of so many keys, those that a probe knows.
fn known(index: &RocksIndex, keys: u32) -> u32 {
    let is_known = |key: &u32| match index.probe(Column::Entries, &key.to_be_bytes()) {
        Probe::Found(value) => value == value_of(*key),
        Probe::Absent => panic!("{key} is there"),
        Probe::Unknown => false,
    };
    (0..keys).filter(is_known).count() as u32
}

/// What is not to be compressed to nothing.
fn value_of(key: u32) -> Vec<u8> {
    (0..64u32).flat_map(|at| crc32c::crc32c(&[key.to_be_bytes(), at.to_be_bytes()].concat()).to_be_bytes()).collect()
}

#[test]
fn a_probe_knows_what_the_page_cache_has_and_does_not_wait_for_the_disk() {
    const KEYS: u32 = 4000;
    let dir = tempfile::tempdir().unwrap();
    let index = RocksIndex::open(dir.path()).unwrap();
    index.write((0..KEYS).map(|key| put(Column::Entries, &key.to_be_bytes(), &value_of(key))).collect(), true).unwrap();
    index.flush().unwrap();
    drop(index);
    let tables = || -> Vec<std::fs::File> {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let tables = files.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
        tables.map(|path| std::fs::File::open(path).unwrap()).collect()
    };
    for table in tables() {
        std::io::copy(&mut &table, &mut std::io::sink()).unwrap();
    }
    // Nothing is in its block cache yet.
    let index = RocksIndex::open(dir.path()).unwrap();
    assert_eq!(index.get(Column::Entries, &0u32.to_be_bytes()).unwrap(), Some(value_of(0)));
    // All but a few pages that a virtual machine's balloon may have taken.
    assert!(known(&index, KEYS) > KEYS / 10 * 9, "(a temporary folder whose file system has no RWF_NOWAIT?)");
    drop(index);
    let index = RocksIndex::open(dir.path()).unwrap();
    let some_at_once = || index.scan_at_once(Column::Entries, &[], None, 9).map(|records| records.len());
    // The system may not forget what it has only just read, or is reading still.
    let forget = || {
        for table in tables() {
            std::io::copy(&mut &table, &mut std::io::sink()).unwrap();
            table.sync_all().unwrap();
            rustix::fs::fadvise(&table, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    };
    let (mut unknown, mut none) = (0, 0);
    for key in (0..KEYS).step_by(KEYS as usize / 40) {
        forget();
        match index.probe(Column::Entries, &key.to_be_bytes()) {
            Probe::Found(value) => assert_eq!(value, value_of(key)),
            Probe::Absent => panic!("{key} is there"),
            Probe::Unknown => unknown += 1,
        }
        forget();
        none += u32::from(some_at_once().is_none());
    }
    assert!(unknown > 0 && none > 0, "the disk was waited for: {unknown} and {none} of 40 were not");
    let found = (0..KEYS).filter(|key| index.get(Column::Entries, &key.to_be_bytes()).unwrap() == Some(value_of(*key)));
    assert_eq!(found.count(), KEYS as usize, "a read that failed is not remembered");
    assert!(known(&index, KEYS) > KEYS / 10 * 9);
    assert_eq!(some_at_once(), Some(9));
}
