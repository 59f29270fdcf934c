//! The allocator: mimalloc, less contended than the system's when many workers allocate at once.
//!
//! The crate `mimalloc` asks for every block by way of `mi_malloc_aligned`, which leaves its fast path for blocks over a
//! kilobyte whose size is no power of two, whatever alignment was asked for. Heads of answers and the connection's read buffer
//! are such. Every block is aligned for a word without being asked (`mi_malloc`), and hardly a type wants more.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// What `mi_malloc` gives in any case.
const ALIGNED: usize = align_of::<usize>();

/// mimalloc.
pub struct Allocator;

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: all blocks come from mimalloc and go back to it. `mi_malloc`, `mi_zalloc` and `mi_realloc` give blocks that are aligned
// for a word, and are used for layouts that ask for no more; the aligned ones do as they are told. Null is passed on.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two will do.
        unsafe {
            if layout.align() <= ALIGNED {
                mi::mi_malloc(layout.size()).cast()
            } else {
                mi::mi_malloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if layout.align() <= ALIGNED {
                mi::mi_zalloc(layout.size()).cast()
            } else {
                mi::mi_zalloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller got the block from here.
        unsafe { mi::mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller got the block from here, with this layout.
        unsafe {
            if layout.align() <= ALIGNED {
                mi::mi_realloc(block.cast(), size).cast()
            } else {
                mi::mi_realloc_aligned(block.cast(), size, layout.align()).cast()
            }
        }
    }
}
