//! What is remembered of a response: an `Entry` is a head that never changes, and a body that may still be coming.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use std::sync::Arc;

use super::fill::SlicedBody;
use super::freshness::{Retention, Timing};
use super::key::CacheKey;
use super::purge_table::Marks;
use super::purges::PurgeSequence;
use super::vary::{VariantKey, VaryFields};
use crate::clock::Timestamp;

/// Bytes of one slice. A slice is written, checked, kept in memory and refetched as a whole.
pub const SLICE_BYTES: u64 = 1 << 20;
/// Bytes of one checksummed block of a slice.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// Bodies up to this size live in the index record, beside their head.
pub const INLINE_BYTES: u64 = 32 << 10;

/// The head of a kept response.
#[derive(Clone, Debug)]
pub struct EntryHead {
    /// Status; 200 for an object that was begun with a 206.
    pub status: StatusCode,
    /// Fields as kept, without Age, Content-Length, Content-Range and hop-by-hop ones.
    pub headers: HeaderMap,
    /// When it came, and how old it was.
    pub timing: Timing,
    /// How long it lives.
    pub retention: Retention,
    /// Request fields it varies by.
    pub vary: VaryFields,
    /// Tags to purge by.
    pub tags: Vec<String>,
    /// The newest purge when the origin was asked.
    pub sequence: PurgeSequence,
    /// The path as the client asked for it.
    pub request_path: String,
    /// The origin path that answered.
    pub origin_path: Option<Arc<str>>,
    /// Length of the complete body, when known.
    pub size: Option<u64>,
    /// May be completed slice by slice: a strong ETag and a known size. Else the body is kept whole or not at all.
    pub sliceable: bool,
    /// What the origin said, where a policy edited it or a field was for us alone: a 304 freshens this, and the policy edits the
    /// result anew.
    pub as_sent: Option<Box<AsSent>>,
}

/// Status and fields as an origin sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsSent {
    /// Status.
    pub status: StatusCode,
    /// Fields, of those that are kept.
    pub headers: HeaderMap,
}

impl EntryHead {
    /// Whether this is the newer of two responses for one place, where `id` is its entry's: clocks tell moments apart by some
    /// milliseconds only. One that is ahead of the clock was kept before that went back, and stands in nobody's way.
    pub(super) fn is_newer(&self, id: u64, other: &Self, other_id: u64, now: Timestamp) -> bool {
        let moment = |head: &Self, id| (head.timing.response_at, head.sequence, id);
        moment(self, id) > moment(other, other_id) && !self.timing.is_ahead_of(now)
    }

    /// Status and fields as the origin knows them: what conditions for it are made of.
    pub fn as_sent(&self) -> (StatusCode, &HeaderMap) {
        match &self.as_sent {
            Some(sent) => (sent.status, &sent.headers),
            None => (self.status, &self.headers),
        }
    }
}

/// A kept response.
#[derive(Debug)]
pub struct Entry {
    /// Unique in this cache folder; names the body file.
    pub id: u64,
    /// Key.
    pub key: CacheKey,
    /// Variant.
    pub variant: VariantKey,
    /// Head.
    pub head: EntryHead,
    /// Body.
    pub body: EntryBody,
    /// The head as it is sent, with places for Age and Cache-Status: in a worker's own copy only.
    pub ready: Option<HeaderMap>,
    /// The body that is one slice in memory: in a worker's own copy only.
    pub held: Option<Bytes>,
}

/// Where the body is.
#[derive(Debug, Clone)]
pub enum EntryBody {
    /// Here, whole.
    Inline(Bytes),
    /// In slices, on disk, in memory, or still to come.
    Sliced(Arc<SlicedBody>),
}

impl Entry {
    /// The same entry under another head.
    pub fn with_head(&self, head: EntryHead) -> Self {
        let (key, variant, body) = (self.key.clone(), self.variant.clone(), self.body.clone());
        Self { id: self.id, key, variant, head, body, ready: None, held: None }
    }

    /// What purges may hit this entry by, when it is looked up for `asked_path`.
    pub(super) fn marks<'a>(&'a self, asked_path: Option<&'a str>) -> Marks<'a> {
        Marks {
            host: self.key.host(),
            paths: [Some(self.key.path()), Some(&self.head.request_path), self.head.origin_path.as_deref(), asked_path],
            tags: &self.head.tags,
        }
    }

    /// Bytes that it takes in memory, about; slices of the body not counted.
    pub(super) fn weight(&self) -> u64 {
        /// The entry, its slot, two places in the table of a cache that remembers what left, and what allocators round up.
        const AROUND: usize = size_of::<Entry>() + 600;
        /// A place in a map of fields, and one for a further value of a field.
        const FIELD: usize = 112;
        const FURTHER: usize = 80;
        let sent = self.head.as_sent.as_ref().map(|sent| &sent.headers);
        let map = |map: &HeaderMap| {
            let values: usize = map.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            map.capacity() * FIELD + (map.len() - map.keys_len()) * FURTHER + values
        };
        let fields = map(&self.head.headers) + sent.map_or(0, map);
        let tags: usize = self.head.tags.iter().map(|tag| tag.len() + 32).sum();
        let keys = self.key.as_bytes().len() * 2 + self.variant.0.len() * 2 + self.head.request_path.len();
        let body = match &self.body {
            EntryBody::Inline(bytes) => bytes.len(),
            EntryBody::Sliced(_) => 512,
        };
        (AROUND + fields + tags + keys + body) as u64
    }
}
