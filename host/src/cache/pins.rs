//! What is pinned is evicted last: as long as there is anything else, and after that by its worth as all is.
//!
//! The cache does not know hosts: it is handed a judge, which says of a host and a path whether they are pinned, so that a reload
//! counts at once and nothing need be written down anew. Errors are never pinned, nor what has a query: of both, strangers can make
//! as many as they like. While what is pinned takes no more than its share of the disk (`set_pins_over`), a sample that has nothing
//! else is taken again, and when samples are in vain the column is walked, a part at a time, until something else is found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::index::schema::{RecencyKey, RecencyRecord};
use super::key::CacheKey;

/// Says of a host and a decoded path whether it is pinned.
pub type PinJudge = Box<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// Samples that are taken while each has nothing but pins.
pub(super) const SAMPLES: usize = 8;
/// Records of a part of a walk, and parts of one search.
pub(super) const PART: usize = 1024;
pub(super) const PARTS: usize = 16;

/// What is known of pins.
#[derive(Default)]
pub(super) struct Pins {
    judge: ArcSwapOption<PinJudge>,
    /// They take more than their share.
    over: AtomicBool,
    /// Of the disk, as they were last counted.
    bytes: AtomicU64,
    /// Where a walk stands, and how often it came to the end since it found something that is not pinned.
    pub walk: Mutex<(RecencyKey, u32)>,
}

impl Pins {
    pub fn set(&self, judge: Option<PinJudge>) {
        self.judge.store(judge.map(Arc::new));
        *self.walk.lock() = Default::default();
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn set_over(&self, bytes: u64, over: bool) -> bool {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.over.swap(over, Ordering::Relaxed)
    }

    /// Whether there are any that have to be looked for.
    pub fn any(&self) -> bool {
        self.judge.load().is_some()
    }

    pub fn are_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn is_pinned(&self, record: &RecencyRecord) -> bool {
        if record.is_error {
            return false;
        }
        let judge = self.judge.load();
        let Some(judge) = &*judge else { return false };
        // What stands behind the key is the variant, with two NULs in front of it.
        let full_key = record.full_key.as_slice();
        let end = memchr::memmem::find(full_key, &[0, 0, 0]).map_or(full_key.len(), |at| at + 1);
        let key = full_key.get(..end).and_then(CacheKey::from_bytes);
        key.is_some_and(|key| key.is_for_all_queries() && judge(key.host(), &key.path_text()))
    }
}
