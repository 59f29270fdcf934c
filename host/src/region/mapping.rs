//! The file and its mapping: all that the kernel is asked for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::pages::CHUNK_BYTES;

/// An anonymous file of whole chunks, and as many addresses to read it by. Which chunk of the file an address shows can be
/// changed; at first they are in order.
pub(super) struct Mapping {
    file: OwnedFd,
    /// What was reserved, and where in it the first chunk lies, so that a huge page fits.
    reserved: (usize, usize),
    base: usize,
    length: usize,
}

impl Mapping {
    pub(super) fn new(chunks: usize) -> io::Result<Self> {
        let length = chunks.checked_mul(CHUNK_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let size = length.checked_add(CHUNK_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let file = rustix::fs::memfd_create("proxyhost-bodies", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, length as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        #[expect(unsafe_code, reason = "a mapping is made by no safe function")]
        // SAFETY: a new mapping where the kernel likes, so it covers nothing that exists.
        let reserved =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::empty(), flags)? }.addr();
        let base = reserved.next_multiple_of(CHUNK_BYTES);
        let mapping = Self { file, reserved: (reserved, size), base, length };
        mapping.show(base, length, 0)?;
        Ok(mapping)
    }

    /// Shows a part of the file at an address of the reservation, in place of what is shown there.
    fn show(&self, address: usize, length: usize, offset: usize) -> io::Result<()> {
        let address = std::ptr::with_exposed_provenance_mut(address);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        #[expect(unsafe_code, reason = "a mapping is made by no safe function")]
        // SAFETY: the addresses lie in what `new` reserved, so nothing of others is covered. The file is ours alone and sealed
        // against shrinking, so they stay valid; and whoever reads there meanwhile reads the same bytes before and after
        // (`attach`), as the kernel changes a mapping at once.
        unsafe {
            rustix::mm::mmap(address, length, ProtFlags::READ, flags, &self.file, offset as u64)?;
        }
        Ok(())
    }

    /// Shows chunk `slot` of the file as chunk `number` of the addresses. All that anybody may be reading there has the same
    /// bytes in both. After an error the old one is shown.
    pub(super) fn attach(&self, number: usize, slot: usize, old: usize) -> io::Result<()> {
        let address = self.base + number * CHUNK_BYTES;
        self.show(address, CHUNK_BYTES, slot * CHUNK_BYTES).inspect_err(|_| {
            // Some kernels take the old one away first. Nothing is left to read then, for readers who are already there.
            if self.show(address, CHUNK_BYTES, old * CHUNK_BYTES).is_err() {
                std::process::abort();
            }
        })
    }

    /// Backs a chunk of the file, which is shown as chunk `number` of the addresses and has nothing in it yet, with one huge
    /// page. That works whatever /sys says about huge pages for shared memory (madvise(2), MADV_COLLAPSE, Linux 6.1 and later).
    pub(super) fn collapse(&self, number: usize, slot: usize) -> io::Result<()> {
        // There has to be something.
        self.write(slot, 0, &[0])?;
        let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(self.base + number * CHUNK_BYTES);
        #[expect(unsafe_code, reason = "no safe crate in use knows this advice")]
        // SAFETY: it changes what backs the pages of our own mapping and not what they hold.
        let result = unsafe { libc::madvise(address, CHUNK_BYTES, libc::MADV_COLLAPSE) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Writes into a chunk of the file.
    pub(super) fn write(&self, slot: usize, within: usize, bytes: &[u8]) -> io::Result<()> {
        let offset = slot * CHUNK_BYTES + within;
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::pwrite(&self.file, &bytes[written..], (offset + written) as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives a part of a chunk of the file back to the system.
    pub(super) fn punch(&self, slot: usize, within: usize, length: usize) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.file, flags, (slot * CHUNK_BYTES + within) as u64, length as u64)?)
    }

    /// Where an address lies: the chunk, and the place in it.
    pub(super) fn locate(&self, address: usize) -> Option<(usize, usize)> {
        let offset = address.checked_sub(self.base)?;
        (offset < self.length).then_some((offset / CHUNK_BYTES, offset % CHUNK_BYTES))
    }

    /// Where something in a chunk is read.
    pub(super) fn start(&self, number: usize, within: usize) -> *const u8 {
        std::ptr::with_exposed_provenance(self.base + number * CHUNK_BYTES + within)
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (reserved, size) = self.reserved;
        #[expect(unsafe_code, reason = "a mapping is ended by no safe function")]
        // SAFETY: the addresses reserved in `new`. Every piece holds the region, so no reference into it is left.
        let _ = unsafe { rustix::mm::munmap(std::ptr::with_exposed_provenance_mut(reserved), size) };
    }
}
