//! What every index must do, whatever it is made of.

use super::memory::MemoryIndex;
use super::rocks::RocksIndex;
use super::{Change, Column, Index, Probe, number};

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
fn a_rocks_index_keeps_what_it_was_told_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = RocksIndex::open(dir.path()).unwrap();
    index.write(vec![put(Column::Purges, b"k", b"v"), Change::Add(b"n".to_vec(), 3)], true).unwrap();
    drop(index);
    let index = RocksIndex::open(dir.path()).unwrap();
    assert_eq!(index.get(Column::Purges, b"k").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(number(&index, b"n").unwrap(), 3);
}
