//! Reads of RocksDB's files that do not wait for the disk.
//!
//! RocksDB knows a read that stops at its own block cache, and one that waits for the disk, but none between: of what the page cache
//! has. It reads tables with `pread`, one call for a block. The `pread` here stands before the C library's, in this program alone,
//! and hands on to `preadv2` with `RWF_NOWAIT` while a thread says so: what the page cache does not have is then an error of the
//! read (`EAGAIN`), which RocksDB reports. Rust's own reads are `pread64` and are not touched.
//!
//! A table that is not open yet is not opened by such a read: that takes milliseconds, and RocksDB goes on without a filter whose
//! block could not be read, for as long as the table stays open. Opening begins with `readahead`, which is refused here, and so is
//! whatever the thread would read after it; the error is then one of the footer, which is not remembered.
//!
//! Measured with ten million entries asked for at random, index in the page cache, two cores: with four connections twice the
//! answers a second (a thread that reads for others has to be woken, and to wake them again), with 64 the same (then the threads
//! that read are never asleep, and have caches of their own to themselves).
//!
//! Only where the C library is glibc on 64 bits: elsewhere its `pread64` may be `pread` by another name, and what can be read at once
//! is then what the block cache has.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a thread's reads may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Wait,
    AtOnce,
    /// Nothing more: a table was about to be opened.
    Refused,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Wait) };
}

/// Whether reads come by here at all: that is the linker's to decide.
static IN_PLACE: AtomicBool = AtomicBool::new(false);

/// Does something in which reads of RocksDB's files fail rather than wait. None where nothing can be said of them: none was seen
/// yet.
pub fn at_once<T>(read: impl FnOnce() -> T) -> Option<T> {
    /// Also when it unwinds.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            MODE.set(Mode::Wait);
        }
    }
    if !IN_PLACE.load(Ordering::Relaxed) {
        return None;
    }
    MODE.set(Mode::AtOnce);
    let _over = Over;
    Some(read())
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod in_place {
    use std::sync::atomic::Ordering;

    use libc::{c_int, c_long, c_void, iovec, off_t, size_t, ssize_t};

    use super::{IN_PLACE, MODE, Mode};

    fn refuse() {
        #[expect(unsafe_code, reason = "C tells its errors by a variable")]
        // SAFETY: it points to the number of this thread.
        unsafe {
            *libc::__errno_location() = libc::EAGAIN;
        }
    }

    /// The C library's `pread`, or one that does not wait (see above).
    ///
    /// # Safety
    ///
    /// As of `pread(2)`: `buffer` points to `count` bytes that can be written.
    #[expect(unsafe_code, reason = "it stands before a function of C")]
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn pread(file: c_int, buffer: *mut c_void, count: size_t, offset: off_t) -> ssize_t {
        match MODE.get() {
            Mode::Wait => {
                IN_PLACE.store(true, Ordering::Relaxed);
                // SAFETY: handed on as it came.
                unsafe { libc::pread64(file, buffer, count, offset) }
            }
            Mode::AtOnce => {
                let vector = iovec { iov_base: buffer, iov_len: count };
                // SAFETY: `vector` names what the caller may have written to, and lives as long as the call.
                unsafe { libc::preadv2(file, &raw const vector, 1, offset, libc::RWF_NOWAIT) }
            }
            Mode::Refused => {
                refuse();
                -1
            }
        }
    }

    /// The C library's `readahead`, or an error.
    ///
    /// # Safety
    ///
    /// None is asked for: it takes no pointers.
    #[expect(unsafe_code, reason = "it stands before a function of C")]
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn readahead(file: c_int, offset: off_t, count: size_t) -> ssize_t {
        if MODE.get() != Mode::Wait {
            MODE.set(Mode::Refused);
            refuse();
            return -1;
        }
        // SAFETY: three numbers, as the call has them on 64 bits.
        let result: c_long = unsafe { libc::syscall(libc::SYS_readahead, file, offset, count) };
        result as ssize_t
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod tests {
    use std::fs::File;
    use std::io::{Error, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    /// What came of a read, or the number of its error.
    fn read(file: &File) -> Result<isize, Option<i32>> {
        let mut buffer = [0_u8; 16];
        #[expect(unsafe_code, reason = "the functions of C are what is tested")]
        // SAFETY: the buffer is as long as it says.
        let count = unsafe { in_place::pread(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if count < 0 { Err(Error::last_os_error().raw_os_error()) } else { Ok(count) }
    }

    fn read_ahead(file: &File) -> Result<isize, Option<i32>> {
        #[expect(unsafe_code, reason = "the functions of C are what is tested")]
        // SAFETY: numbers only.
        let result = unsafe { in_place::readahead(file.as_raw_fd(), 0, 16) };
        if result < 0 { Err(Error::last_os_error().raw_os_error()) } else { Ok(result) }
    }

    #[test]
    fn behind_the_beginning_of_an_opening_nothing_is_read_at_once() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 4096]).unwrap();
        assert_eq!(read(&file), Ok(16), "it may wait");
        assert!(read_ahead(&file).is_ok(), "it may wait");
        assert_eq!(read(&file), Ok(16), "it may still wait");
        at_once(|| {
            assert_ne!(read(&file), Ok(0), "what it gives is the file system's to say");
            assert_eq!(read_ahead(&file), Err(Some(libc::EAGAIN)));
            assert_eq!(read(&file), Err(Some(libc::EAGAIN)), "though it lies in memory");
        })
        .unwrap();
        assert_eq!(read(&file), Ok(16), "it may wait again");
        at_once(|| assert_ne!(read(&file), Err(Some(libc::EAGAIN)), "refused only until the end")).unwrap();
    }
}
