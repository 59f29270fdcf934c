//! A walk through a folder: what a request would find there, in the order of the bytes of its paths.
//!
//! Folders are read one at a time, and of each on the way down the names are kept: so much memory as the folders from the root to
//! where the walk stands have names. Names that are not served are passed over, links are followed as a request follows them, and
//! none that leads back to where it comes from.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::super::listing::{Listed, PAGE, Page, Place};
use super::super::{OriginError, OriginError::Unavailable};
use super::{Version, is_absent, open_beneath, relative};
use crate::clock::Clock;

/// Folders in folders. What is deeper is left out, and told as such.
const DEEPEST: usize = 256;

/// A walk under way.
#[derive(Debug)]
pub struct Walk {
    /// Of paths: with a slash at its beginning.
    prefix: String,
    /// Device and inode of the folder that it began in.
    root: Option<(u64, u64)>,
    open: Vec<Open>,
}

/// A folder on the way.
#[derive(Debug)]
struct Open {
    /// Its path, with a slash at its end.
    path: String,
    /// Device and inode.
    identity: (u64, u64),
    /// What is still to be looked at, the last one first. Folders have a slash at their end, since that is what their paths go on
    /// with: `a.b` comes before what is in `a`.
    names: Vec<String>,
}

/// A page from here on. Blocks.
pub(in crate::origin) fn page(origin: &str, folder: &Arc<Path>, place: Place) -> Result<Page, OriginError> {
    let failed = |error: io::Error| Unavailable {
        origin: origin.to_owned(),
        reason: format!("folder {}: {error}", folder.display()),
    };
    let mut page = Page::default();
    let mut walk = match place {
        Place::Walk(walk) => *walk,
        Place::Start { prefix } | Place::Token { prefix, .. } => {
            let mut walk = Walk { prefix, root: None, open: Vec::new() };
            // A folder that is gone is an error, and not one that has nothing.
            walk.enter(folder, "/".to_owned(), &mut page).map_err(failed)?;
            walk
        }
    };
    while page.listed.len() < PAGE {
        let Some(open) = walk.open.last_mut() else {
            walk.is_where_it_began(folder).map_err(failed)?;
            return Ok(page);
        };
        let Some(name) = open.names.pop() else {
            walk.open.pop();
            continue;
        };
        let path = format!("{}{name}", open.path);
        if path.ends_with('/') {
            match walk.enter(folder, path, &mut page) {
                Ok(()) => {}
                // It was removed, or is not for us: as for a request.
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        } else if path.starts_with(&walk.prefix) {
            match look(folder, &path) {
                Ok(listed) => page.listed.extend(listed),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    walk.is_where_it_began(folder).map_err(failed)?;
    page.next = Some(Place::Walk(Box::new(walk)));
    Ok(page)
}

/// Whether a request would not get it either.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied || Errno::from_io_error(error).is_some_and(is_absent)
}

fn look(folder: &Path, path: &str) -> io::Result<Option<Listed>> {
    let Some(name) = relative(path) else { return Ok(None) };
    let metadata = open_beneath(folder, Path::new(name))?.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let version = Version::of(&metadata);
    let etag = version.headers().get(http::header::ETAG).and_then(|tag| Some(tag.to_str().ok()?.to_owned()));
    let now = Clock::System.now().as_secs();
    let modified = u64::try_from(version.modified.0).ok().filter(|seconds| *seconds <= now);
    Ok(Some(Listed { path: path.to_owned(), size: version.size, etag, modified }))
}

impl Walk {
    /// A folder that was exchanged or unmounted on the way has nothing of what is still to be looked at. That is no word about
    /// what there is.
    fn is_where_it_began(&self, folder: &Path) -> io::Result<()> {
        if self.root == Some(identity(&fs::metadata(folder)?)) {
            return Ok(());
        }
        Err(io::Error::other("it is another folder than when the walk began"))
    }

    /// Goes down into a folder whose path ends with a slash.
    fn enter(&mut self, root: &Path, path: String, page: &mut Page) -> io::Result<()> {
        let wanted = path.starts_with(&self.prefix) || self.prefix.starts_with(&path);
        if !wanted {
            return Ok(());
        }
        if self.open.len() >= DEEPEST {
            page.left_out += 1;
            return Ok(());
        }
        // What a request does not get to is not listed: the same door, opened for a folder.
        let handle = match path.trim_matches('/') {
            "" => fs::File::open(root)?,
            below => open_beneath(root, Path::new(below))?,
        };
        let metadata = handle.metadata()?;
        let identity = identity(&metadata);
        self.root.get_or_insert(identity);
        if self.open.iter().any(|open| open.identity == identity) {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(by_handle(&handle, root, &path))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                page.left_out += 1;
                continue;
            };
            if relative(&format!("/{name}")).is_none() {
                continue;
            }
            let kind = entry.file_type()?;
            let is_folder = kind.is_dir()
                || (kind.is_symlink()
                    && open_beneath(root, Path::new(&format!("{path}{name}").trim_start_matches('/')))
                        .and_then(|file| file.metadata())
                        .is_ok_and(|metadata| metadata.is_dir()));
            names.push(if is_folder { format!("{name}/") } else { name });
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.open.push(Open { path, identity, names });
        Ok(())
    }
}

/// Device and inode.
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The folder that was opened, whatever its path leads to by now.
fn by_handle(handle: &fs::File, root: &Path, path: &str) -> PathBuf {
    use std::os::fd::AsRawFd;
    let own = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    if own.exists() { own } else { root.join(path.trim_start_matches('/')) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(folder: &Path, prefix: &str) -> (Vec<String>, u64) {
        let folder: Arc<Path> = folder.into();
        let (mut paths, mut left_out) = (Vec::new(), 0);
        let mut next = Some(Place::Start { prefix: prefix.to_owned() });
        while let Some(place) = next {
            let page = page("o", &folder, place).expect("a page");
            paths.extend(page.listed.into_iter().map(|listed| listed.path));
            left_out += page.left_out;
            next = page.next;
        }
        (paths, left_out)
    }

    fn put(folder: &Path, name: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(path, name).expect("writable");
    }

    #[test]
    fn what_is_served_is_listed_in_order_and_nothing_else() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        put(outside.path(), "secret");
        for name in ["a/1", "a.b", "a/b/c", "ü b", "z", ".env", ".git/x", ".well-known/y"] {
            put(folder.path(), name);
        }
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).expect("writable");
        link(Path::new("a"), "l");
        link(Path::new("z"), "m");
        link(Path::new(".."), "a/up");
        link(outside.path(), "out");
        link(&outside.path().join("secret"), "stolen");
        link(Path::new("nowhere"), "dangling");
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"bad\xff")), "x").expect("writable");
        let (paths, left_out) = all(folder.path(), "/");
        assert_eq!(paths, ["/.well-known/y", "/a.b", "/a/1", "/a/b/c", "/l/1", "/l/b/c", "/m", "/z", "/ü b"]);
        assert_eq!(left_out, 1);
        assert_eq!(all(folder.path(), "/a").0, ["/a.b", "/a/1", "/a/b/c"]);
        assert_eq!(all(folder.path(), "/a/b/").0, ["/a/b/c"]);
        assert!(all(folder.path(), "/x").0.is_empty());
        drop(folder);
    }

    #[test]
    fn many_come_in_pages() {
        let folder = tempfile::tempdir().expect("a folder");
        (0..2500).for_each(|number| put(folder.path(), &format!("{}/{number}", number % 7)));
        let (paths, _) = all(folder.path(), "/");
        assert_eq!(paths.len(), 2500);
        assert!(paths.is_sorted());
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error() {
        let folder: Arc<Path> = Path::new("/nowhere/at/all").into();
        assert!(page("o", &folder, Place::Start { prefix: "/".to_owned() }).is_err());
    }

    #[test]
    fn a_folder_that_is_exchanged_on_the_way_is_an_error_and_not_one_that_has_little() {
        let outer = tempfile::tempdir().expect("a folder");
        let folder: Arc<Path> = outer.path().join("site").into();
        (0..PAGE + 10).for_each(|number| put(&folder, &format!("{number}")));
        let first = page("o", &folder, Place::Start { prefix: "/".to_owned() }).expect("a page");
        fs::rename(&folder, outer.path().join("away")).expect("writable");
        fs::create_dir(&folder).expect("writable");
        assert!(page("o", &folder, first.next.expect("more")).is_err());
    }

    #[test]
    fn a_path_that_is_too_long_is_passed_over_as_for_a_request() {
        assert!(is_missing(&io::Error::from(Errno::NAMETOOLONG)));
        assert!(!is_missing(&io::Error::from(Errno::IO)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_order_is_that_of_bytes(names in proptest::collection::btree_set("[a!~é][a!~é0/]{0,5}[a!~é]", 1..12)) {
            let folder = tempfile::tempdir().expect("a folder");
            for name in names.iter().filter(|name| !name.contains("//")) {
                let path = folder.path().join(name);
                // Some are folders of others.
                if fs::create_dir_all(path.parent().expect("a folder")).is_ok() {
                    let _ = fs::write(path, "x");
                }
            }
            let (paths, _) = all(folder.path(), "/");
            let mut sorted = paths.clone();
            sorted.sort();
            sorted.dedup();
            prop_assert_eq!(paths, sorted);
        }
    }
}
