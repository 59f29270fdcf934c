//! What stands before the bytes of a body: the record of a slice, its key, and the name of the file it lies in. The first two
//! bytes of the input tell the length of a slice, in blocks and bytes, the rest is a record, a key and a name.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use proxyhost::cache::entry::{BLOCK_BYTES, SLICE_BYTES};
use proxyhost::cache::index::schema::{SliceRecord, owner_key, parse_slice_key, slice_key};
use proxyhost::cache::store::layout;

fuzz_target!(|data: &[u8]| {
    let _ = SliceRecord::decode(data);
    let record = [data, &crc32c::crc32c(data).to_be_bytes()].concat();
    if let Some(read) = SliceRecord::decode(&record) {
        assert!(u64::from(read.length) <= SLICE_BYTES);
        assert_eq!(read.encode(), record, "there is one way to write it");
        assert!(!read.matches(data) || *data == [0; 6], "its own bytes are no slice that it tells of");
    }
    match parse_slice_key(data) {
        Some((id, Some(slice))) => assert_eq!(slice_key(id, slice), data),
        Some((id, None)) => assert_eq!(owner_key(id), data),
        None => assert_ne!(data.len(), 12),
    }
    if let Some(id) = std::str::from_utf8(data).ok().and_then(layout::parse_body_name) {
        let path = layout::body_path(Path::new("bodies"), id);
        assert_eq!(path.file_name().map(|name| name.as_encoded_bytes()), Some(data));
        assert_eq!(path.parent(), Some(&*layout::part_dir(Path::new("bodies"), layout::part_of(id))));
    }
    let Some((length, pattern)) = data.split_first_chunk::<2>() else { return };
    if !pattern.is_empty() {
        let [blocks, rest] = *length;
        slice(usize::from(blocks % 4) * BLOCK_BYTES as usize + usize::from(rest), pattern);
    }
});

/// A slice of that length is told from one with a bit flipped, cut, or longer.
fn slice(length: usize, pattern: &[u8]) {
    let mut bytes = pattern.repeat(length / pattern.len() + 1);
    bytes.truncate(length);
    let record = SliceRecord::of(&bytes);
    assert_eq!(record.checksums.len() as u64, (length as u64).div_ceil(BLOCK_BYTES));
    assert_eq!(SliceRecord::decode(&record.encode()).as_ref(), Some(&record));
    assert!(record.matches(&bytes));
    bytes.push(0);
    assert!(!record.matches(&bytes));
    bytes.pop();
    if let Some(place) = length.checked_sub(1).map(|last| usize::from(pattern[0]) * 251 % (last + 1)) {
        assert!(!record.matches(&bytes[..place]));
        bytes[place] ^= 1 << (pattern[0] % 8);
        assert!(!record.matches(&bytes));
    }
}
