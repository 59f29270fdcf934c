//! Opening the cache folder: whose it is, whether it can be used, and what is left of an earlier run.
//!
//! Nothing is scanned. A folder that is not empty and bears no mark of ours is refused and nothing in it is touched. One of
//! another format version, or an index that does not open, is moved aside within the folder and removed in the background.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;
use super::error::CacheError;
use super::index::rocks::{OpenError, RocksIndex};
use super::store::disk::{DiskStore, create_private_dir};
use super::store::layout::{self, BODIES, DISCARDED, INDEX, MARK};

/// What else may lie in a fresh folder: what other parts of the program keep there, and what file systems do.
const TOLERATED: [&str; 3] = ["admin-token", "policy", "lost+found"];

/// What became of opening.
pub(super) enum Opened {
    /// It is open.
    Disk(Box<Disk>),
    /// It cannot be used now; why, and whether an index lies in it.
    Unusable {
        /// In words.
        reason: String,
        /// An index of an earlier run cannot be reached.
        has_index: bool,
    },
}

/// Whether the folder is none of others, as far as can be seen without touching it.
pub(super) fn check(dir: &Path) -> Result<(), CacheError> {
    let not_ours = || Err(CacheError::NotOurs(dir.to_owned()));
    match fs::read_to_string(dir.join(MARK)) {
        Ok(text) if text.is_empty() || layout::is_our_mark(&text) => return Ok(()),
        Ok(_) => return not_ours(),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return not_ours(),
        Err(_) => {}
    }
    match holds_others(dir) {
        Ok(true) => not_ours(),
        // What cannot be looked at is for the start to say.
        Ok(false) | Err(_) => Ok(()),
    }
}

/// Opens or creates the folder.
pub(super) fn open(dir: &Path) -> Result<Opened, CacheError> {
    let unusable = |error: io::Error| Opened::Unusable {
        reason: format!("{}: {error}", dir.display()),
        has_index: dir.join(INDEX).join("CURRENT").exists(),
    };
    if let Err(error) = create_private_dir(dir) {
        return Ok(unusable(error));
    }
    let mark = match fs::read_to_string(dir.join(MARK)) {
        Ok(text) if layout::is_our_mark(&text) => Some(text),
        // An empty mark: the process ended between creating and writing it.
        Ok(text) if text.is_empty() => None,
        Ok(_) => return Err(CacheError::NotOurs(dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(CacheError::NotOurs(dir.to_owned())),
        Err(error) => return Ok(unusable(error)),
    };
    if mark.is_none() {
        match holds_others(dir) {
            Ok(false) => {}
            Ok(true) => return Err(CacheError::NotOurs(dir.to_owned())),
            Err(error) => return Ok(unusable(error)),
        }
    }
    let lock = match lock(dir) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(CacheError::InUse(dir.to_owned())),
        Err(error) => return Ok(unusable(error)),
    };
    let is_older = match prepare(dir, &lock, mark.as_deref()) {
        Ok(is_older) => is_older,
        Err(error) => return Ok(unusable(error)),
    };
    let index = match RocksIndex::open(&dir.join(INDEX)) {
        Err(OpenError::Corrupt(reason)) => {
            tracing::error!(folder = %dir.display(), %reason, "the cache index does not open; beginning with an empty one");
            if let Err(error) = discard(dir) {
                return Ok(unusable(error));
            }
            RocksIndex::open(&dir.join(INDEX))
        }
        other => other,
    };
    let index = match index {
        Ok(index) => index,
        Err(OpenError::Locked) => return Err(CacheError::InUse(dir.to_owned())),
        Err(OpenError::Corrupt(reason) | OpenError::Unusable(reason)) => return Ok(unusable(io::Error::other(reason))),
    };
    let store = match DiskStore::open(&dir.join(BODIES)) {
        Ok(store) => store,
        Err(error) => return Ok(unusable(error)),
    };
    match Disk::new(Arc::new(index), Arc::new(store), Some(dir.to_owned()), Some(lock)) {
        Ok(disk) => Ok(Opened::Disk(Box::new(if is_older { disk.in_older_format() } else { disk }))),
        Err(error) => Ok(unusable(io::Error::other(error))),
    }
}

fn holds_others(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let discarded = name.to_str().is_some_and(|name| name.starts_with(DISCARDED));
        // What a program writes that goes on after its folder was removed.
        let left_behind = name == BODIES && holds_bodies_alone(&dir.join(BODIES))?;
        if name != MARK && !discarded && !left_behind && TOLERATED.iter().all(|tolerated| name != *tolerated) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds_bodies_alone(bodies: &Path) -> io::Result<bool> {
    let is_part = |name: &OsStr| (0..=u8::MAX).any(|part| layout::part_dir(Path::new(""), part) == Path::new(name));
    let is_body = |name: &OsStr| name.to_str().and_then(layout::parse_body_name).is_some();
    for part in fs::read_dir(bodies)? {
        let part = part?;
        if !is_part(&part.file_name()) || !part.file_type()?.is_dir() {
            return Ok(false);
        }
        for body in fs::read_dir(part.path())? {
            if !is_body(&body?.file_name()) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The mark, locked; none if another process has it.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let path = dir.join(MARK);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Writes the mark, and moves aside what another version left. Returns whether the mark stays that of an older version, all of whose
/// records can be read.
fn prepare(dir: &Path, mut lock: &File, mark: Option<&str>) -> io::Result<bool> {
    if mark == Some(layout::mark_text().as_str()) {
        return Ok(false);
    }
    match mark {
        // It is raised when something is written that the older version does not know: `Disk::merges`.
        Some(mark) if layout::is_readable(mark) => return Ok(true),
        Some(mark) => {
            tracing::warn!(folder = %dir.display(), mark = mark.trim(), "the cache is of another format version and will be emptied");
            discard(dir)?;
        }
        // Of no index.
        None if dir.join(BODIES).exists() => discard(dir)?,
        None => {}
    }
    lock.set_len(0)?;
    lock.write_all(layout::mark_text().as_bytes())?;
    lock.sync_all()?;
    Ok(false)
}

/// Moves index and bodies aside.
pub(super) fn discard(dir: &Path) -> io::Result<()> {
    let aside = dir.join(format!("{DISCARDED}{:016x}", fastrand::u64(..)));
    create_private_dir(&aside)?;
    for name in [INDEX, BODIES] {
        match fs::rename(dir.join(name), aside.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes what was moved aside. Only folders with a name that we give.
pub(super) fn remove_discarded(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().and_then(|name| name.strip_prefix(DISCARDED)).and_then(layout::parse_body_name);
        if ours.is_some()
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, "a discarded part of the cache could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::index::{Change, Column};

    fn open_disk(dir: &Path) -> Box<Disk> {
        match open(dir) {
            Ok(Opened::Disk(disk)) => disk,
            Ok(Opened::Unusable { reason, .. }) => panic!("{reason}"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_folder_of_others_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        assert!(matches!(open(dir.path()), Err(CacheError::NotOurs(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join(MARK), "something else\n").unwrap();
        assert!(matches!(open(dir.path()), Err(CacheError::NotOurs(_))));
    }

    #[test]
    fn bodies_that_were_left_behind_without_an_index_are_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join(BODIES).join("07");
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("0000000000000007"), "a body").unwrap();
        assert!(check(dir.path()).is_ok());
        fs::write(part.join("thesis.txt"), "years of work").unwrap();
        assert!(matches!(check(dir.path()), Err(CacheError::NotOurs(_))));
        assert!(matches!(open(dir.path()), Err(CacheError::NotOurs(_))));
        fs::remove_file(part.join("thesis.txt")).unwrap();
        drop(open_disk(dir.path()));
        assert!(check(dir.path()).is_ok());
        assert_eq!(fs::read_dir(dir.path().join(BODIES)).unwrap().count(), 0);
        assert!(check(&dir.path().join("nowhere")).is_ok());
        fs::write(dir.path().join(MARK), "something else\n").unwrap();
        assert!(matches!(check(dir.path()), Err(CacheError::NotOurs(_))));
    }

    #[test]
    fn a_folder_in_use_is_refused_until_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open_disk(dir.path());
        assert!(matches!(open(dir.path()), Err(CacheError::InUse(_))));
        drop(disk);
        open_disk(dir.path());
    }

    #[test]
    fn ids_are_never_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let first = open_disk(dir.path()).first_id;
        assert!(open_disk(dir.path()).first_id > first);
    }

    #[test]
    fn another_format_version_is_moved_aside_and_removed_later() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_disk(dir.path()));
        fs::write(dir.path().join(MARK), "proxyhost cache, format 999\n").unwrap();
        fs::write(dir.path().join(INDEX).join("CURRENT"), "nonsense to this version").unwrap();
        fs::write(dir.path().join("admin-token"), "kept").unwrap();
        drop(open_disk(dir.path()));
        assert_eq!(fs::read_to_string(dir.path().join(MARK)).unwrap(), layout::mark_text());
        remove_discarded(dir.path());
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["admin-token", BODIES, INDEX, MARK]);
    }

    #[test]
    fn what_an_older_version_left_is_used_if_all_of_it_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open_disk(dir.path());
        disk.index.write(vec![Change::Put(Column::Entries, b"k".to_vec(), b"v".to_vec())], true).unwrap();
        drop(disk);
        fs::write(dir.path().join(MARK), "proxyhost cache, format 2\n").unwrap();
        let mark = || fs::read_to_string(dir.path().join(MARK)).unwrap();
        let disk = open_disk(dir.path());
        assert_eq!(disk.index.get(Column::Entries, b"k").unwrap(), Some(b"v".to_vec()));
        // An upgrade that fails now gives the older version a folder that it knows.
        assert!(!disk.merges(Duration::from_secs(60)));
        assert_eq!(mark(), "proxyhost cache, format 2\n");
        assert!(disk.merges(Duration::ZERO) && disk.merges(Duration::from_secs(60)));
        assert_eq!(mark(), layout::mark_text());
        drop(disk);
        let disk = open_disk(dir.path());
        assert!(disk.merges(Duration::from_secs(60)));
        assert_eq!(disk.index.get(Column::Entries, b"k").unwrap(), Some(b"v".to_vec()));
    }

    #[test]
    fn a_mark_that_was_being_written_when_the_program_was_killed_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_disk(dir.path()));
        // As `prepare` leaves it between emptying the mark of another format and writing its own.
        discard(dir.path()).unwrap();
        fs::create_dir(dir.path().join("policy")).unwrap();
        fs::write(dir.path().join("admin-token"), "kept").unwrap();
        fs::write(dir.path().join(MARK), "").unwrap();
        drop(open_disk(dir.path()));
        assert_eq!(fs::read_to_string(dir.path().join(MARK)).unwrap(), layout::mark_text());
    }

    #[test]
    fn an_index_that_does_not_open_is_replaced_by_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_disk(dir.path()));
        fs::write(dir.path().join(INDEX).join("CURRENT"), "MANIFEST-999999\n").unwrap();
        let disk = open_disk(dir.path());
        assert_eq!(disk.bytes(), 0);
    }

    #[test]
    fn a_path_that_cannot_be_a_folder_is_unusable() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(open(&dir.path().join("file/cache")), Ok(Opened::Unusable { has_index: false, .. })));
    }
}
