//! Where things lie in the cache folder, and the format's version.
//!
//! ```text
//! proxyhost-cache          the mark: `proxyhost cache, format 2` and a line feed; locked while a process uses the folder
//! index/                   RocksDB
//! bodies/xx/<16 hex>       a body: slice n at offset n * SLICE_BYTES, sparse; xx are the last two digits of the id
//! discarded-<16 hex>/      an index or bodies of another format version, or damaged ones, on their way out
//! ```
//!
//! Raise `FORMAT` when a record or a path changes its meaning: an older folder is then emptied, never misread.

use std::path::{Path, PathBuf};

/// Version of folder and records.
pub const FORMAT: u32 = 2;
/// Name of the mark.
pub const MARK: &str = "proxyhost-cache";
/// Folder of the index.
pub const INDEX: &str = "index";
/// Folder of the bodies.
pub const BODIES: &str = "bodies";
/// Beginning of the names of what is on its way out.
pub const DISCARDED: &str = "discarded-";

/// What the mark says.
pub fn mark_text() -> String {
    format!("proxyhost cache, format {FORMAT}\n")
}

/// Whether a mark is ours, of this or another version.
pub fn is_our_mark(text: &str) -> bool {
    text.starts_with("proxyhost cache, format ")
}

/// The part of the store in which a body lies: ids are given out in order, so the last byte spreads them.
pub fn part_of(id: u64) -> u8 {
    id.to_be_bytes()[7]
}

/// The folder of a part, below `bodies`.
pub fn part_dir(bodies: &Path, part: u8) -> PathBuf {
    bodies.join(format!("{part:02x}"))
}

/// The file of a body.
pub fn body_path(bodies: &Path, id: u64) -> PathBuf {
    part_dir(bodies, part_of(id)).join(format!("{id:016x}"))
}

/// The id of a file name, if it is one of ours.
pub fn parse_body_name(name: &str) -> Option<u64> {
    let ours = name.len() == 16 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    ours.then(|| u64::from_str_radix(name, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_bodies_are_read_back_and_others_are_not_ours() {
        let path = body_path(Path::new("b"), 0x1234);
        assert_eq!(path, Path::new("b/34/0000000000001234"));
        assert_eq!(parse_body_name("0000000000001234"), Some(0x1234));
        for other in ["", "1234", "000000000000123G", "000000000000123A", "+000000000001234", "00000000000012345"] {
            assert_eq!(parse_body_name(other), None, "{other}");
        }
    }
}
