//! Bodies in memory that the kernel can send without copying: one anonymous file, mapped once for reading.
//!
//! The memory tier places bodies here as plain `Bytes`. Whoever writes them to a socket asks by address whether a piece lies
//! here (`locate`) and then sends it with sendfile from the file; everybody else reads them like any other memory.
//!
//! A socket may still hold pages when the last `Bytes` of a piece is gone (sendfile hands over pages, not copies), so a place
//! is punched out of the file before it is used again: the socket keeps the old pages, the place gets new ones. The file has
//! more room than its budget will ever fill: room that nothing was written to costs nothing, and places of whole powers of two
//! never need to be moved.
//!
//! That holds as long as the kernel backs the file page by page. Where it is told to use huge pages for shared memory
//! (`transparent_hugepage/shmem_enabled`), punching a part of one may clear it in place, socket or not; there the region is not
//! used: it is tried out at the start, and the setting is looked at again all the time (`watch`).
//!
//! Writing goes by pwrite and the mapping is read-only, so nothing here holds a mutable reference to shared memory.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// The smallest place: below, a copy costs less than a second system call.
const PLACE_BYTES_MIN: usize = 32 << 10;

/// The largest piece that is placed. A megabyte at once is sent faster by a copy: measured on loopback, `xtask bench hit`.
const PIECE_BYTES_MAX: usize = 512 << 10;

/// What the file is divided into; each chunk has places of one size.
const CHUNK_BYTES: usize = 1 << 20;

/// Sizes of places: 32, 64, 128, 256 and 512 KiB.
const CLASSES: usize = (PIECE_BYTES_MAX / PLACE_BYTES_MIN).ilog2() as usize + 1;

/// Memory for bodies that can be sent from a file.
pub struct Region {
    file: OwnedFd,
    base: usize,
    length: usize,
    free: Mutex<Free>,
    /// Cleared for ever when the kernel is told to use huge pages.
    usable: AtomicBool,
}

/// Places that nobody uses.
struct Free {
    /// All chunks in order, divided or not.
    chunks: Vec<Chunk>,
    /// Chunks with free places, by class.
    partial: [BTreeSet<usize>; CLASSES],
    /// Chunks that are not divided.
    whole: BTreeSet<usize>,
}

/// A chunk that is divided: its free places, a bit each.
#[derive(Clone, Copy, Default)]
struct Chunk {
    free: u32,
}

/// The bits of a whole chunk of a class.
const fn all_of(class: usize) -> u32 {
    u32::MAX >> (32 - (CHUNK_BYTES / (PLACE_BYTES_MIN << class)))
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({} bytes)", self.length)
    }
}

/// A place in use, and what was written there. Whole: the bytes that a `Bytes` reads.
struct Piece {
    region: Arc<Region>,
    offset: usize,
    length: usize,
}

impl Region {
    /// A region for `budget` bytes of bodies; nothing is taken before something is placed. Fails where the system has no
    /// anonymous files or no address space for them: then bodies are kept in ordinary memory.
    pub fn new(budget: u64) -> io::Result<Arc<Self>> {
        // A piece takes at most twice its size, and five kinds of chunks may be begun and hardly used.
        let length = usize::try_from(budget.saturating_mul(2))
            .ok()
            .and_then(|bytes| bytes.checked_next_multiple_of(CHUNK_BYTES))
            .and_then(|bytes| bytes.checked_add(CLASSES * CHUNK_BYTES))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let file = rustix::fs::memfd_create("proxyhost-bodies", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, length as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        #[expect(unsafe_code, reason = "a mapping is made by no safe function")]
        // SAFETY: a new mapping where the kernel likes, so it covers nothing that exists. The file is ours alone and sealed
        // against shrinking, so every address in it stays valid.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, &file, 0)? };
        let chunks = length / CHUNK_BYTES;
        let free =
            Free { chunks: vec![Chunk::default(); chunks], partial: Default::default(), whole: (0..chunks).collect() };
        let free = Mutex::new(free);
        let region = Arc::new(Self { file, base: base.addr(), length, free, usable: AtomicBool::new(true) });
        region.watch();
        if !region.usable.load(Ordering::Acquire) || !region.keeps_what_was_sent()? {
            return Err(io::Error::other("shared memory is backed by huge pages here"));
        }
        Ok(region)
    }

    /// Looks whether the kernel has been told to use huge pages for shared memory since; if so, nothing is placed any more, and
    /// no place is used again. Reads a few small files of /sys: call it off the request path, about every second.
    pub fn watch(&self) {
        if self.usable.load(Ordering::Acquire) && huge_pages_are_on() {
            self.usable.store(false, Ordering::Release);
            tracing::warn!(
                "the kernel uses huge pages for shared memory: bodies in memory are sent by copying from now on"
            );
        }
    }

    /// Tries it out: what a socket holds must stay as it was when its place is punched and written anew.
    fn keeps_what_was_sent(self: &Arc<Self>) -> io::Result<bool> {
        let (old, new) = (vec![0x0f; PIECE_BYTES_MAX], vec![0xf0; PIECE_BYTES_MAX]);
        // Two chunks whole: what would be backed by one huge page.
        let mut pieces: Vec<Bytes> = std::iter::from_fn(|| self.place(&old)).take(8).collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let sender = TcpStream::connect(listener.local_addr()?)?;
        sender.set_nonblocking(true)?;
        let (mut receiver, _) = listener.accept()?;
        let Some(mut offset) = pieces.get(1).and_then(|piece| self.locate(piece)) else { return Ok(false) };
        let sent = rustix::fs::sendfile(&sender, self.file(), Some(&mut offset), PLACE_BYTES_MIN)?;
        drop(pieces.remove(1));
        let again: Vec<Bytes> = std::iter::from_fn(|| self.place(&new)).take(2).collect();
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut got = vec![0; sent];
        receiver.read_exact(&mut got)?;
        drop((again, pieces));
        Ok(sent > 0 && got.iter().all(|byte| *byte == 0x0f))
    }

    /// Copies a body into the region. `None` if it is too small or too large to gain by it, or if there is no room.
    pub fn place(self: &Arc<Self>, bytes: &[u8]) -> Option<Bytes> {
        let fits = (PLACE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&bytes.len());
        if !fits || !self.usable.load(Ordering::Acquire) {
            return None;
        }
        let offset = self.free.lock().take(class_of(bytes.len()))?;
        // From here on the drop of the piece gives the place back.
        let piece = Piece { region: self.clone(), offset, length: bytes.len() };
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::pwrite(&self.file, &bytes[written..], (offset + written) as u64) {
                Ok(0) => return None,
                Ok(more) => written += more,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(Bytes::from_owner(piece))
    }

    /// Where in the file a piece lies, if it lies here.
    pub fn locate(&self, bytes: &[u8]) -> Option<u64> {
        let offset = bytes.as_ptr().addr().checked_sub(self.base)?;
        (offset < self.length).then_some(offset as u64)
    }

    /// The file to send from.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a mapping is ended by no safe function")]
        // SAFETY: the mapping made in `new`. Every piece holds the region, so no reference into it is left.
        let _ = unsafe { rustix::mm::munmap(std::ptr::with_exposed_provenance_mut(self.base), self.length) };
    }
}

impl Free {
    /// A free place, the lowest first, so that what is empty stays empty.
    fn take(&mut self, class: usize) -> Option<usize> {
        let number = match self.partial[class].first() {
            Some(number) => *number,
            None => {
                let number = self.whole.pop_first()?;
                self.chunks[number].free = all_of(class);
                self.partial[class].insert(number);
                number
            }
        };
        let chunk = &mut self.chunks[number];
        let place = chunk.free.trailing_zeros() as usize;
        chunk.free &= chunk.free - 1;
        if chunk.free == 0 {
            self.partial[class].remove(&number);
        }
        Some(number * CHUNK_BYTES + place * (PLACE_BYTES_MIN << class))
    }

    fn give_back(&mut self, offset: usize, class: usize) {
        let number = offset / CHUNK_BYTES;
        let chunk = &mut self.chunks[number];
        chunk.free |= 1 << (offset % CHUNK_BYTES / (PLACE_BYTES_MIN << class));
        if chunk.free == all_of(class) {
            self.partial[class].remove(&number);
            self.whole.insert(number);
        } else {
            self.partial[class].insert(number);
        }
    }
}

/// Whether the kernel may back anonymous files with huge pages. Without /sys nothing is known, and the trial has to do.
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

/// The class of the smallest places that hold so many bytes.
fn class_of(bytes: usize) -> usize {
    (bytes.next_power_of_two() / PLACE_BYTES_MIN).ilog2() as usize
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        let start = std::ptr::with_exposed_provenance::<u8>(self.region.base + self.offset);
        #[expect(unsafe_code, reason = "memory of a mapping is reached by no safe function")]
        // SAFETY: `offset` and `length` lie in the mapping, which lives as long as the region, which the piece holds. The place
        // was written before the piece was shown to anybody, and is neither written nor punched before the piece is dropped.
        unsafe {
            std::slice::from_raw_parts(start, self.length)
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if !self.region.usable.load(Ordering::Acquire) {
            // Its pages may be part of a huge one that a socket holds.
            return;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let class = class_of(self.length);
        let size = (PLACE_BYTES_MIN << class) as u64;
        // A place whose pages cannot be given back may still be in a socket: it is never used again.
        if rustix::fs::fallocate(&self.region.file, flags, self.offset as u64, size).is_ok() {
            self.region.free.lock().give_back(self.offset, class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8, length: usize) -> Vec<u8> {
        (0..length).map(|at| byte ^ (at / 251) as u8).collect()
    }

    #[test]
    fn a_piece_reads_as_it_was_placed_and_is_found_by_its_address() {
        let region = Region::new(4 << 20).unwrap();
        let body = filled(7, 100 << 10);
        let piece = region.place(&body).unwrap();
        assert_eq!(piece, body);
        let offset = region.locate(&piece).unwrap();
        let mut read = vec![0; 4096];
        let part = piece.slice(5000..9096);
        assert_eq!(region.locate(&part), Some(offset + 5000));
        let count = rustix::io::pread(region.file(), &mut read, offset + 5000).unwrap();
        assert_eq!(count, 4096);
        assert_eq!(read, body[5000..9096]);
        assert_eq!(region.locate(&body), None);
    }

    #[test]
    fn only_sizes_that_gain_by_it_are_placed() {
        let region = Region::new(4 << 20).unwrap();
        for (length, placed) in [
            (PLACE_BYTES_MIN - 1, false),
            (PLACE_BYTES_MIN, true),
            (PIECE_BYTES_MAX, true),
            (PIECE_BYTES_MAX + 1, false),
        ] {
            assert_eq!(region.place(&filled(1, length)).is_some(), placed, "{length}");
        }
    }

    #[test]
    fn places_are_used_again_and_pieces_in_use_never_overlap() {
        let region = Region::new(2 << 20).unwrap();
        let mut kept = Vec::new();
        for round in 0..200_u8 {
            let length = (32 << 10) + usize::from(round) * 2048;
            let body = filled(round, length);
            if let Some(piece) = region.place(&body) {
                kept.push((piece, body));
            } else {
                kept.drain(..kept.len() / 2);
            }
            for (piece, body) in &kept {
                assert!(piece == body);
            }
        }
        assert!(kept.len() > 1);
        kept.clear();
        let free = region.free.lock();
        assert_eq!(free.whole.len(), free.chunks.len(), "all is free again, for any size");
        assert!(free.partial.iter().all(BTreeSet::is_empty));
    }

    #[test]
    fn a_full_region_places_nothing_more() {
        let region = Region::new(1 << 20).unwrap();
        let body = filled(1, 512 << 10);
        let pieces: Vec<Bytes> = std::iter::from_fn(|| region.place(&body)).take(1000).collect();
        assert!(pieces.len() < 1000);
        assert!(pieces.len() * body.len() >= 1 << 20);
    }

    #[test]
    fn pages_in_flight_keep_their_bytes_when_the_place_is_used_again() {
        use std::io::Read;
        use std::os::unix::net::UnixStream;
        let region = Region::new(1 << 20).unwrap();
        let body = filled(9, 64 << 10);
        let piece = region.place(&body).unwrap();
        let (sender, mut receiver) = UnixStream::pair().unwrap();
        let mut offset = region.locate(&piece).unwrap();
        let sent = rustix::fs::sendfile(&sender, region.file(), Some(&mut offset), piece.len()).unwrap();
        drop(piece);
        let other = region.place(&filled(0x55, 64 << 10)).unwrap();
        assert_eq!(region.locate(&other), Some(offset - sent as u64), "the same place");
        let mut got = vec![0; sent];
        receiver.read_exact(&mut got).unwrap();
        assert!(got == body[..sent]);
    }
}
