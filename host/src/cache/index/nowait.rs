//! Reads of RocksDB's files that do not wait for the disk.
//!
//! RocksDB knows a read that stops at its own block cache, and one that waits for the disk, but none between: of what the page cache
//! has. It reads tables with `pread`, one call for a block. The `pread` here stands before the C library's, in this program alone,
//! and hands on to `preadv2` with `RWF_NOWAIT` while a thread says so: what the page cache does not have is then an error of the
//! read (`EAGAIN`), which RocksDB reports and does not remember. Rust's own reads are `pread64` and are not touched.
//!
//! Measured with ten million entries asked for at random, index in the page cache, two cores: with four connections twice the
//! answers a second (a thread that reads for others has to be woken, and to wake them again), with 64 the same (then the threads
//! that read are never asleep, and have caches of their own to themselves).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};

thread_local! {
    static NOW: Cell<bool> = const { Cell::new(false) };
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
            NOW.set(false);
        }
    }
    if !IN_PLACE.load(Ordering::Relaxed) {
        return None;
    }
    NOW.set(true);
    let _over = Over;
    Some(read())
}

/// The C library's `pread`, or one that does not wait (see above).
///
/// # Safety
///
/// As of `pread(2)`: `buffer` points to `count` bytes that can be written.
#[expect(unsafe_code, reason = "it stands before a function of C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread(file: c_int, buffer: *mut c_void, count: size_t, offset: off_t) -> ssize_t {
    if !NOW.get() {
        IN_PLACE.store(true, Ordering::Relaxed);
        // SAFETY: handed on as it came.
        return unsafe { libc::pread64(file, buffer, count, offset) };
    }
    let vector = iovec { iov_base: buffer, iov_len: count };
    // SAFETY: `vector` names what the caller may have written to, and lives as long as the call.
    unsafe { libc::preadv2(file, &raw const vector, 1, offset, libc::RWF_NOWAIT) }
}
