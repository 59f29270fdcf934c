//! Records of the index: whatever the disk gives is read or refused, and what was read is written and read again alike. The
//! first byte of the input tells which record it is; a right checksum is put behind the rest, so that the fields are reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyhost::cache::index::schema::uses::{Uses, merge};
use proxyhost::cache::index::schema::{
    EntryRecord, RecencyRecord, decode_owner, decode_purge, encode_owner, encode_purge, recency_key,
};
use proxyhost::cache::key::CacheKey;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    // As it is, it has a checksum by chance only.
    let _ = (EntryRecord::decode(data), RecencyRecord::decode(data), decode_owner(data), decode_purge(data));
    let record = [data, &crc32c::crc32c(data).to_be_bytes()].concat();
    match kind % 4 {
        // One of the letters, so that what was kept of before goes on to mean what it did.
        _ if *kind == b'u' => {
            again(&record, Uses::decode, Uses::encode);
            assert!(merge(None, [record.as_slice()].into_iter()).is_empty());
            let _ = merge(Some(&record), [record.as_slice(), data].into_iter());
        }
        0 => again(&record, EntryRecord::decode, |read| read.encode()),
        1 => again(&record, RecencyRecord::decode, |read| read.encode()),
        2 => again(&record, decode_owner, |read| encode_owner(read)),
        _ => again(&record, decode_purge, encode_purge),
    }
    // The key that a record names stands for itself, or for none.
    if let Some(key) = CacheKey::from_bytes(data) {
        assert_eq!(key.as_bytes(), data);
        let _ = (key.display(), key.path_text(), key.parts().count(), recency_key(data));
    }
});

fn again<T: std::fmt::Debug>(record: &[u8], decode: impl Fn(&[u8]) -> Option<T>, encode: impl Fn(&T) -> Vec<u8>) {
    let Some(read) = decode(record) else { return };
    let written = encode(&read);
    let second = decode(&written).expect("what was written is readable");
    assert_eq!(format!("{second:?}"), format!("{read:?}"));
    assert_eq!(encode(&second), written);
    // Any bit that flips, and any cut, makes it unreadable.
    let place = written.len() / 2;
    let mut bad = written.clone();
    bad[place] ^= 1 << (place % 8);
    assert!(decode(&bad).is_none() && decode(&written[..place]).is_none());
}
