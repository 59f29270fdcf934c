//! Where things lie in the cache folder, and the format's version.
//!
//! ```text
//! proxyhost-cache          the mark: `proxyhost cache, format 3` and a line feed; locked while a process uses the folder
//! index/                   RocksDB
//! bodies/xx/<16 hex>       a body: slice n at offset n * SLICE_BYTES, sparse; xx are the last two digits of the id
//! discarded-<16 hex>/      an index or bodies of another format version, or damaged ones, on their way out
//! ```
//!
//! Raise `FORMAT` when a record or a path changes its meaning, or one is added that older versions cannot read: they empty the
//! folder then and never misread it. So does this version with an older one, unless it can read all that is in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Version of folder and records.
pub const FORMAT: u32 = 3;
/// The oldest version that has nothing in it that this one does not read: 3 has merged records in column `recency` beside those of 2.
const OLDEST_READ: u32 = 2;
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
    format!("{MARK_BEGINS}{FORMAT}\n")
}

const MARK_BEGINS: &str = "proxyhost cache, format ";

/// Whether a mark is ours, of this or another version.
pub fn is_our_mark(text: &str) -> bool {
    text.starts_with(MARK_BEGINS)
}

/// Writes the mark over one of an older version: no moment without a mark.
pub fn raise_mark(file: &File) -> io::Result<()> {
    let text = mark_text();
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

/// Whether a mark is of a version whose folder can be used as it is.
pub fn is_readable(mark: &str) -> bool {
    let version = mark.strip_prefix(MARK_BEGINS).and_then(|rest| rest.trim_end().parse().ok());
    version.is_some_and(|version: u32| (OLDEST_READ..=FORMAT).contains(&version))
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
    fn folders_of_versions_that_can_be_read_are_not_emptied() {
        for (mark, readable) in [
            (mark_text().as_str(), true),
            ("proxyhost cache, format 2\n", true),
            ("proxyhost cache, format 1\n", false),
            ("proxyhost cache, format 999\n", false),
            ("proxyhost cache, format 2 or so\n", false),
            ("", false),
        ] {
            assert_eq!(is_readable(mark), readable, "{mark}");
        }
    }

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
