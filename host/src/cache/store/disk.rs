//! Bodies as sparse files, one for each entry.
//!
//! Nothing is synced: after a power cut a checksum that does not match makes a miss. Files that were used lately stay open, so
//! that bytes in the page cache can be read without leaving the worker (preadv2 with RWF_NOWAIT; a file system that does not
//! know it answers with an error, and the blocking pool reads).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Space, Store, layout};

/// Files kept open: a bound on descriptors, far below the usual limit of a service.
const OPEN_FILES: usize = 256;

/// Files below a folder.
pub struct DiskStore {
    bodies: PathBuf,
    open: quick_cache::sync::Cache<u64, Arc<File>>,
}

impl DiskStore {
    /// Opens or creates the folder.
    pub fn open(bodies: &Path) -> io::Result<Self> {
        create_private_dir(bodies)?;
        Ok(Self { bodies: bodies.to_owned(), open: quick_cache::sync::Cache::new(OPEN_FILES) })
    }

    fn reader(&self, id: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.get(&id) {
            return Ok(file);
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(layout::body_path(&self.bodies, id))?);
        self.open.insert(id, file.clone());
        Ok(file)
    }

    fn writer(&self, id: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.get(&id) {
            return Ok(file);
        }
        let path = layout::body_path(&self.bodies, id);
        let create = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_private_dir(&layout::part_dir(&self.bodies, layout::part_of(id)))?;
                create()?
            }
            other => other?,
        };
        let file = Arc::new(file);
        self.open.insert(id, file.clone());
        Ok(file)
    }
}

/// Creates a folder, and those above it, that only we may look into: bodies of private buckets lie there.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore").field("bodies", &self.bodies).finish_non_exhaustive()
    }
}

impl Store for DiskStore {
    fn write(&self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writer(id)?.write_all_at(bytes, offset)
    }

    fn read(&self, id: u64, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; length];
        self.reader(id)?.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }

    fn read_now(&self, id: u64, offset: u64, length: usize) -> Option<Bytes> {
        let file = self.open.get(&id)?;
        let offset = libc::off_t::try_from(offset).ok()?;
        let mut buffer: Vec<u8> = Vec::with_capacity(length);
        let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
        #[expect(unsafe_code, reason = "the standard library has no preadv2")]
        // SAFETY: `vector` points to `length` bytes that `buffer` owns and that outlive the call; the descriptor belongs to
        // `file`. Only when the kernel says that it wrote all of them are they taken as initialised.
        let read = unsafe {
            let read = libc::preadv2(file.as_raw_fd(), &raw const vector, 1, offset, libc::RWF_NOWAIT);
            if usize::try_from(read).ok() == Some(length) {
                buffer.set_len(length);
            }
            read
        };
        (usize::try_from(read).ok()? == length).then(|| buffer.into())
    }

    fn remove(&self, id: u64) -> io::Result<()> {
        self.open.remove(&id);
        match fs::remove_file(layout::body_path(&self.bodies, id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn space(&self) -> Option<Space> {
        let stat = rustix::fs::statvfs(&self.bodies).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Space { available: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }

    fn list(&self, part: u8) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(layout::part_dir(&self.bodies, part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let id = entry?.file_name().to_str().and_then(layout::parse_body_name);
            ids.extend(id.filter(|id| layout::part_of(*id) == part));
        }
        Ok(ids)
    }
}
