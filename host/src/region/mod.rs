//! Bodies in memory that the kernel can send without copying: one anonymous file, mapped for reading.
//!
//! The memory tier places bodies here as plain `Bytes`. Whoever writes them to a socket asks by address whether a piece lies
//! here (`locate`) and then sends it with sendfile from the file; everybody else reads them like any other memory.
//!
//! A socket may still hold pages when the last `Bytes` of a piece is gone (sendfile hands over pages, not copies), so pages
//! are punched out of the file before they are used again: the socket keeps the old ones, the place gets new ones. A huge page
//! can only be punched whole (`pages.rs`, `tending.rs`). Where the kernel is told to use huge pages for shared memory by itself
//! (`transparent_hugepage/shmem_enabled`), any page may be part of one, so none is punched alone: that is tried out at the
//! start, and the setting is looked at again all the time (`watch`).
//!
//! The file has more room than its budget will ever fill: room that nothing was written to costs nothing.
//!
//! Writing goes by pwrite and the mapping is read-only, so nothing here holds a mutable reference to shared memory.

mod mapping;
mod pages;
mod sending;
mod tending;

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use self::mapping::Mapping;
use self::pages::{CHUNK_BYTES, PAGE_BYTES, Pages, Place, Released};
use self::sending::{Backing, Sending, SharedBacking};
use self::tending::Bell;

/// The smallest piece that is placed: below, a copy costs less than a second system call.
const PIECE_BYTES_MIN: usize = 32 << 10;

/// The largest piece that is placed: a slice of a body.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// The largest piece that is sent from small pages. A megabyte at once is sent faster by a copy then: measured on loopback,
/// `xtask bench hit`.
const SMALL_PAGES_BYTES_MAX: usize = 512 << 10;

/// Chunks that are kept ready for what comes next: 8 MiB, and less in a small region.
const READY: usize = 4;

/// Memory for bodies that can be sent from a file.
pub struct Region {
    mapping: Mapping,
    /// What the addresses of each chunk show.
    backing: Box<[SharedBacking]>,
    pages: Mutex<Pages>,
    /// Pages can be punched one by one. Cleared for ever when the kernel is told to use huge pages by itself.
    punchable: AtomicBool,
    bell: Bell,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({} bytes)", self.mapping.length())
    }
}

/// Where a piece lies in the file. It stays there as long as this is held: for one call of sendfile.
pub struct Located {
    offset: u64,
    _sending: Sending,
}

impl Located {
    /// Bytes from the start of the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// Pages in use, and how much was written there. Whole: the bytes that a `Bytes` reads.
struct Piece {
    region: Arc<Region>,
    place: Place,
    length: usize,
}

impl Region {
    /// A region for `budget` bytes of bodies; nothing is taken before something is placed. Fails where the system has no
    /// anonymous files or no address space for them: then bodies are kept in ordinary memory.
    pub fn new(budget: u64) -> io::Result<Arc<Self>> {
        let chunks = usize::try_from(budget).map_err(|_| io::ErrorKind::OutOfMemory)?.div_ceil(CHUNK_BYTES);
        // As much again for what is spent, what is ready, and what lies in small pages meanwhile.
        let all =
            chunks.checked_mul(2).and_then(|chunks| chunks.checked_add(READY)).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping::new(all)?;
        let (bell, rung) = Bell::new();
        let region = Arc::new(Self {
            mapping,
            backing: (0..all).map(|slot| SharedBacking::new(Backing { slot, huge: false })).collect(),
            pages: Mutex::new(Pages::new(all, chunks + READY.min(chunks), READY.min(chunks))),
            punchable: AtomicBool::new(true),
            bell,
        });
        region.watch();
        if region.is_punchable() && !region.keeps_what_was_sent()? {
            region.punchable.store(false, Ordering::Release);
        }
        tending::start(&region, rung)?;
        Ok(region)
    }

    fn is_punchable(&self) -> bool {
        self.punchable.load(Ordering::Acquire)
    }

    /// Looks whether the kernel has been told to use huge pages for shared memory since; if so, no page is punched alone any
    /// more. Reads a few small files of /sys: call it off the request path, about every second.
    pub fn watch(&self) {
        if self.is_punchable() && huge_pages_are_on() {
            self.punchable.store(false, Ordering::Release);
        }
        self.bell.ring();
    }

    /// Tries it out: what a socket holds must stay as it was when its place is punched and written anew.
    fn keeps_what_was_sent(self: &Arc<Self>) -> io::Result<bool> {
        let (old, new) = (vec![0x0f; PIECE_BYTES_MAX], vec![0xf0; PIECE_BYTES_MAX]);
        // A chunk whole: what would be backed by one huge page.
        let mut pieces: Vec<Bytes> = std::iter::from_fn(|| self.place(&old)).take(2).collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let sender = TcpStream::connect(listener.local_addr()?)?;
        sender.set_nonblocking(true)?;
        let (mut receiver, _) = listener.accept()?;
        let Some(mut offset) = pieces.get(1).and_then(|piece| self.found(piece)).map(|(located, _)| located.offset())
        else {
            return Ok(false);
        };
        let sent = rustix::fs::sendfile(&sender, self.file(), Some(&mut offset), PIECE_BYTES_MIN)?;
        drop(pieces.remove(1));
        let again = self.place(&new);
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut got = vec![0; sent];
        receiver.read_exact(&mut got)?;
        drop((again, pieces));
        Ok(sent > 0 && got.iter().all(|byte| *byte == 0x0f))
    }

    /// Copies a body into the region. `None` if it is too small or too large to gain by it, or if there is no room.
    pub fn place(self: &Arc<Self>, bytes: &[u8]) -> Option<Bytes> {
        if !(PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&bytes.len()) {
            return None;
        }
        let place = self.pages.lock().take(bytes.len().div_ceil(PAGE_BYTES))?;
        // From here on the drop of the piece gives the place back.
        let piece = Piece { region: self.clone(), place, length: bytes.len() };
        let Backing { slot, huge } = self.backing[place.chunk].get();
        let written = self.mapping.write(slot, place.bytes_in(), bytes);
        self.pages.lock().written(place);
        if !huge {
            self.bell.ring();
        }
        written.ok()?;
        Some(Bytes::from_owner(piece))
    }

    /// Whether a piece lies here.
    pub fn has(&self, bytes: &[u8]) -> bool {
        self.mapping.locate(bytes.as_ptr().addr()).is_some()
    }

    /// Where in the file a piece lies, if it lies here and is better sent from there than copied. A thread has one of these at a
    /// time.
    pub fn locate(&self, bytes: &[u8]) -> Option<Located> {
        let (located, huge) = self.found(bytes)?;
        (huge || bytes.len() <= SMALL_PAGES_BYTES_MAX).then_some(located)
    }

    fn found(&self, bytes: &[u8]) -> Option<(Located, bool)> {
        let (number, within) = self.mapping.locate(bytes.as_ptr().addr())?;
        let sending = Sending::begin(number)?;
        let Backing { slot, huge } = self.backing[number].get();
        Some((Located { offset: (slot * CHUNK_BYTES + within) as u64, _sending: sending }, huge))
    }

    /// Which chunk of the file the addresses of a chunk show.
    fn slot(&self, number: usize) -> usize {
        self.backing[number].get().slot
    }

    /// The file to send from.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.mapping.file()
    }
}

/// Whether the kernel may back anonymous files with huge pages by itself. Without /sys nothing is known, and the trial has to do.
fn huge_pages_are_on() -> bool {
    const SETTINGS: &str = "/sys/kernel/mm/transparent_hugepage";
    let on = |path: &Path| {
        // The one in force stands in brackets: `always within_size advise [never] deny force`.
        std::fs::read_to_string(path)
            .is_ok_and(|text| ["[always]", "[within_size]", "[force]"].iter().any(|word| text.contains(word)))
    };
    let sizes = std::fs::read_dir(SETTINGS).into_iter().flatten().flatten();
    on(&Path::new(SETTINGS).join("shmem_enabled"))
        || sizes.into_iter().any(|size| on(&size.path().join("shmem_enabled")))
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        let start = self.region.mapping.start(self.place.chunk, self.place.bytes_in());
        #[expect(unsafe_code, reason = "memory of a mapping is reached by no safe function")]
        // SAFETY: the place lies in the mapping, which lives as long as the region, which the piece holds. It was written before
        // the piece was shown to anybody, and is neither written nor punched before the piece is dropped; what its addresses
        // show is exchanged only for the same bytes (`Mapping::attach`).
        unsafe {
            std::slice::from_raw_parts(start, self.length)
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Self { region, place, .. } = self;
        let released = region.pages.lock().release(*place, region.is_punchable());
        match released {
            Released::Spent(due) => {
                if due {
                    region.bell.ring();
                }
            }
            Released::Punch => {
                let slot = region.slot(place.chunk);
                // Pages that cannot be given back may still be in a socket: they are spent.
                let punched = region.mapping.punch(slot, place.bytes_in(), place.count * PAGE_BYTES);
                region.pages.lock().given_back(*place, punched.is_ok());
            }
        }
    }
}

#[cfg(test)]
mod tests;
