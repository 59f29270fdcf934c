//! What every store must do, whatever it is made of.

use super::Store;
use super::disk::DiskStore;
use super::memory::MemoryStore;

fn each(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::default());
    let dir = tempfile::tempdir().expect("a folder for the test");
    check(&DiskStore::open(dir.path()).expect("a fresh store opens"));
}

#[test]
fn what_was_written_is_read_wherever_it_was_written_first() {
    each(|store| {
        store.write(7, 3 << 20, b"behind").unwrap();
        store.write(7, 0, b"before").unwrap();
        assert_eq!(&store.read(7, 3 << 20, 6).unwrap()[..], b"behind");
        assert_eq!(&store.read(7, 1, 3).unwrap()[..], b"efo");
        if let Some(now) = store.read_now(7, 0, 6) {
            assert_eq!(&now[..], b"before");
        }
    });
}

#[test]
fn reading_past_the_end_or_a_body_that_is_not_there_fails() {
    each(|store| {
        store.write(7, 0, b"body").unwrap();
        assert!(store.read(7, 2, 3).is_err());
        assert!(store.read(8, 0, 1).is_err());
        assert!(store.read_now(7, 2, 3).is_none());
        assert!(store.read_now(8, 0, 1).is_none());
    });
}

#[test]
fn a_removed_body_is_gone_and_removing_nothing_is_fine() {
    each(|store| {
        store.write(0x1_07, 0, b"body").unwrap();
        store.write(0x2_07, 0, b"body").unwrap();
        store.write(0x2_08, 0, b"body").unwrap();
        let mut listed = store.list(7).unwrap();
        listed.sort_unstable();
        assert_eq!(listed, [0x1_07, 0x2_07]);
        store.remove(0x1_07).unwrap();
        store.remove(0x1_07).unwrap();
        assert!(store.read(0x1_07, 0, 1).is_err());
        assert_eq!(store.list(7).unwrap(), [0x2_07]);
        assert_eq!(store.list(9).unwrap(), [0u64; 0]);
    });
}
