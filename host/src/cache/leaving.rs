//! Bytes on disk whose entry is gone, and that stay until the last reader of their body is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// They count as leaving as long as this is held, for all and for the host that they were of when it began.
#[derive(Debug)]
pub(super) struct Leaving {
    bytes: u64,
    from: [Option<Arc<AtomicU64>>; 2],
}

impl Leaving {
    pub fn new(bytes: u64, all: &Arc<AtomicU64>, host: Option<Arc<AtomicU64>>) -> Self {
        let from = [Some(Arc::clone(all)), host];
        from.iter().flatten().for_each(|of| _ = of.fetch_add(bytes, Ordering::AcqRel));
        Self { bytes, from }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.from.iter().flatten().for_each(|of| _ = of.fetch_sub(self.bytes, Ordering::AcqRel));
    }
}
