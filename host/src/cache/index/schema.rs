//! The records of the index, byte by byte. Format version 3 (`store::layout::FORMAT`).
//!
//! Numbers are big-endian; `bytes` is a u32 length and that many bytes; `maybe x` is 0, or 1 and x. Every record ends with a
//! CRC-32C of all before it; a record that does not decode is a miss, never a guess.
//!
//! | column  | key | value |
//! |---|---|---|
//! | entries | key, NUL NUL, variant | u8 count, so many field sets (newest first), u8: 1 an entry, 2 variants; entry, variants |
//! | slices  | id u64, slice u32 | u32 length, u16 count, so many u32: CRC-32C of each 64 KiB |
//! | slices  | id u64, FFFFFFFF | bytes: the full key of the entry that owns the body |
//! | recency | first 16 bytes of the SHA-256 of the full key | u64 last use (seconds), u32 sixteenths of uses (and 80000000 for an error), u64 size, u64 id, bytes: full key; empty is no record; merged with `uses` |
//! | purges  | sequence u64 | u8 kind, bytes host, bytes path, prefix, glob or tag; if kind has 128 (soft) u64 milliseconds |
//! | budgets | first 8 bytes of the SHA-256 of a host of hosts.json that has a budget, key in column recency | nothing |
//! | meta    | `sequence`, `next_id`, `bytes`, `scrub_began`, `scrub_at`, `budgeted` | a number, i64, without CRC (it is added to by merging) |
//! | meta    | `host `, host name as in keys | the same: its part of `bytes`; none is zero |
//!
//! A field set is u8 count and so many names. Only the record with the empty variant, the base of a key, has field sets: they
//! say which variants there may be. An empty set stands for the entry in the base itself. It has the variants too, oldest first
//! (u16 count, so many keys of 16 bytes in column `recency`), where there are any: they are counted, and the one that goes is found.
//!
//! An entry:
//!
//! | field | as |
//! |---|---|
//! | id, key length, status | u64, u32, u16 |
//! | request_at, response_at, initial age | u64 milliseconds each |
//! | lifetime | u64 milliseconds |
//! | flags | u8: 1 no_cache, 2 must_revalidate, 4 sliceable, 8 inline, 16 edited, 32 s_maxage |
//! | stale_while_revalidate, stale_if_error | maybe u64 milliseconds |
//! | sequence | u64 |
//! | size | maybe u64 |
//! | request path | bytes |
//! | origin path | maybe bytes |
//! | vary | field set |
//! | tags | u16 count, so many bytes |
//! | headers | u16 count, so many pairs of bytes |
//! | as sent, if edited | u16 status, u16 count, so many pairs of bytes |
//! | body, if inline | bytes |

pub mod uses;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use crate::cache::entry::{AsSent, EntryHead};
use crate::cache::freshness::{Retention, Timing};
use crate::cache::purges::{Purge, PurgeMode, PurgeScope, PurgeSequence};
use crate::cache::vary::VaryFields;
use crate::cache::worth::Use;
use crate::clock::Timestamp;

/// Key of the newest purge sequence in column `Meta`.
pub const META_SEQUENCE: &[u8] = b"sequence";
/// Key of the first id that was not given out.
pub const META_NEXT_ID: &[u8] = b"next_id";
/// Key of the running total of bytes.
pub const META_BYTES: &[u8] = b"bytes";
/// Key of when the newest scrubbing began, in seconds since 1970.
pub const META_SCRUB_BEGAN: &[u8] = b"scrub_began";
/// Key of the body that scrubbing is at; -1: it is done.
pub const META_SCRUB_AT: &[u8] = b"scrub_at";
/// Key of what stands for the hosts whose entries are in column `Budgets`; 0: none, or not all of them yet.
pub const META_BUDGETED: &[u8] = b"budgeted";
/// What the keys of the bytes of host names begin with.
pub const HOST_BYTES: &[u8] = b"host ";
/// Field sets that a base remembers.
pub const MAX_FIELD_SETS: usize = 4;
/// The number of a slice record that holds the owner's key.
const OWNER: u32 = u32::MAX;

/// The base of a key, or one of its variants.
#[derive(Clone, Debug, Default)]
pub struct EntryRecord {
    /// Which variants there may be, newest first; in bases only.
    pub field_sets: Vec<VaryFields>,
    /// What is remembered.
    pub entry: Option<StoredEntry>,
    /// Variants that were kept, oldest first, by their keys in column `Recency`; in bases only. Some may be gone.
    pub variants: Vec<RecencyKey>,
}

/// A key in column `Recency`.
pub type RecencyKey = [u8; 16];

/// A host of hosts.json in column `Budgets`.
pub type GroupId = [u8; 8];

/// A key in column `Budgets`.
pub type BudgetKey = [u8; 24];

/// An entry as it is stored.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// Id.
    pub id: u64,
    /// How much of the full key is the key; the rest are two NULs and the variant.
    pub key_length: u32,
    /// Head.
    pub head: EntryHead,
    /// The body, when it lies here.
    pub inline: Option<Bytes>,
}

/// Length and checksums of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceRecord {
    /// Bytes.
    pub length: u32,
    /// CRC-32C of each block.
    pub checksums: Vec<u32>,
}

/// When and how often an entry was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecencyRecord {
    /// Seconds since 1970.
    pub last_use: u64,
    /// Uses, in sixteenths, faded until the last one (`cache/worth.rs`).
    pub uses: u32,
    /// Bytes when it was written; a hint.
    pub size: u64,
    /// The entry.
    pub id: u64,
    /// Its status is 400 or more.
    pub is_error: bool,
    /// Where it stands in column `Entries`.
    pub full_key: Vec<u8>,
}

/// The key in column `Entries`.
pub fn full_key(key: &[u8], variant: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 2 + variant.len());
    full.extend_from_slice(key);
    full.extend_from_slice(&[0, 0]);
    full.extend_from_slice(variant);
    full
}

/// The key in column `Slices`.
pub fn slice_key(id: u64, slice: u32) -> Vec<u8> {
    let mut key = id.to_be_bytes().to_vec();
    key.extend_from_slice(&slice.to_be_bytes());
    key
}

/// The key of the owner's record in column `Slices`.
pub fn owner_key(id: u64) -> Vec<u8> {
    slice_key(id, OWNER)
}

/// Id and slice of a key in column `Slices`; no slice for the owner's record.
pub fn parse_slice_key(key: &[u8]) -> Option<(u64, Option<u32>)> {
    let (id, slice) = key.split_at_checked(8)?;
    let slice = u32::from_be_bytes(slice.try_into().ok()?);
    Some((u64::from_be_bytes(id.try_into().ok()?), (slice != OWNER).then_some(slice)))
}

/// The key in column `Recency`: a place that has nothing to do with the order of keys, so that neighbours are a fair sample.
pub fn recency_key(full_key: &[u8]) -> RecencyKey {
    let digest: [u8; 32] = Sha256::digest(full_key).into();
    *digest.first_chunk().expect("16 is less than 32")
}

/// The key in column `Budgets`.
pub fn budget_key(group: GroupId, entry: &RecencyKey) -> BudgetKey {
    let mut key = BudgetKey::default();
    let (front, back) = key.split_at_mut(group.len());
    front.copy_from_slice(&group);
    back.copy_from_slice(entry);
    key
}

/// Host of hosts.json and entry of a key in column `Budgets`.
pub fn parse_budget_key(key: &[u8]) -> Option<(GroupId, RecencyKey)> {
    let (group, entry) = key.split_first_chunk()?;
    Some((*group, entry.try_into().ok()?))
}

/// The key in column `Meta` of what a host name has on disk.
pub fn host_bytes_key(host: &str) -> Vec<u8> {
    [HOST_BYTES, host.as_bytes()].concat()
}

/// The host name of such a key.
pub fn host_of_bytes_key(key: &[u8]) -> Option<&str> {
    key.strip_prefix(HOST_BYTES).and_then(|host| std::str::from_utf8(host).ok())
}

impl EntryRecord {
    /// Writes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        let sets = self.field_sets.iter().take(MAX_FIELD_SETS);
        out.u8(sets.len() as u8);
        sets.for_each(|set| out.field_set(set));
        let variants = &self.variants[..self.variants.len().min(usize::from(u16::MAX))];
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        out.u8(flag(self.entry.is_some(), HAS_ENTRY) | flag(!variants.is_empty(), HAS_VARIANTS));
        if let Some(entry) = &self.entry {
            out.entry(entry);
        }
        if !variants.is_empty() {
            out.u16(variants.len() as u16);
            variants.iter().for_each(|variant| out.0.extend_from_slice(variant));
        }
        out.finish()
    }

    /// Reads.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let mut from = Decoder::checked(record)?;
        let count = from.u8()?;
        if usize::from(count) > MAX_FIELD_SETS {
            return None;
        }
        let field_sets = (0..count).map(|_| from.field_set()).collect::<Option<Vec<_>>>()?;
        let has = from.u8()?;
        if has & !(HAS_ENTRY | HAS_VARIANTS) != 0 {
            return None;
        }
        let entry = if has & HAS_ENTRY != 0 { Some(from.entry()?) } else { None };
        let count = if has & HAS_VARIANTS != 0 { from.u16()? } else { 0 };
        let variants = (0..count).map(|_| from.array()).collect::<Option<Vec<_>>>()?;
        from.end(Self { field_sets, entry, variants })
    }
}

impl SliceRecord {
    /// Of the bytes of a slice.
    pub fn of(bytes: &[u8]) -> Self {
        let checksums = bytes.chunks(crate::cache::entry::BLOCK_BYTES as usize).map(crc32c::crc32c).collect();
        Self { length: bytes.len() as u32, checksums }
    }

    /// Whether these are the bytes.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        Self::of(bytes) == *self
    }

    /// Writes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u32(self.length);
        out.u16(self.checksums.len() as u16);
        self.checksums.iter().for_each(|checksum| out.u32(*checksum));
        out.finish()
    }

    /// Reads.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let mut from = Decoder::checked(record)?;
        let length = from.u32()?;
        let count = from.u16()?;
        let checksums = (0..count).map(|_| from.u32()).collect::<Option<Vec<_>>>()?;
        let fits = u64::from(length) <= crate::cache::entry::SLICE_BYTES;
        from.end(Self { length, checksums }).filter(|_| fits)
    }
}

/// Writes the owner of a body.
pub fn encode_owner(full_key: &[u8]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.bytes(full_key);
    out.finish()
}

/// Reads the owner of a body.
pub fn decode_owner(record: &[u8]) -> Option<Vec<u8>> {
    let mut from = Decoder::checked(record)?;
    let key = from.bytes()?.to_vec();
    from.end(key)
}

impl RecencyRecord {
    /// What is known of the use, without of what.
    pub fn of_use(&self) -> Use {
        Use { last_use: self.last_use, uses: self.uses, size: self.size, id: self.id }
    }

    /// Writes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u64(self.last_use);
        out.u32(self.uses & !IS_ERROR | if self.is_error { IS_ERROR } else { 0 });
        out.u64(self.size);
        out.u64(self.id);
        out.bytes(&self.full_key);
        out.finish()
    }

    /// Reads.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let mut from = Decoder::checked(record)?;
        let (last_use, uses) = (from.u64()?, from.u32()?);
        let read = Self {
            last_use,
            uses: uses & !IS_ERROR,
            size: from.u64()?,
            id: from.u64()?,
            is_error: uses & IS_ERROR != 0,
            full_key: from.bytes()?.to_vec(),
        };
        from.end(read)
    }
}

/// Writes what was purged.
pub fn encode_purge(purge: &Purge) -> Vec<u8> {
    let (kind, host, what) = match &purge.scope {
        PurgeScope::All => (0, "", ""),
        PurgeScope::Host { host } => (1, host.as_str(), ""),
        PurgeScope::Path { host, path } => (2, host.as_str(), path.as_str()),
        PurgeScope::Prefix { host, prefix } => (3, host.as_str(), prefix.as_str()),
        PurgeScope::Tag { host, tag } => (4, host.as_str(), tag.as_str()),
        PurgeScope::TagEverywhere { tag } => (5, "", tag.as_str()),
        PurgeScope::Glob { host, glob } => (6, host.as_str(), glob.as_str()),
    };
    let mut out = Encoder::default();
    out.u8(if purge.mode == PurgeMode::Hard { kind } else { kind | SOFT });
    out.bytes(host.as_bytes());
    out.bytes(what.as_bytes());
    if let PurgeMode::Soft { at_ms } = purge.mode {
        out.u64(at_ms);
    }
    out.finish()
}

/// Of the uses of an entry, of which there are never so many (`cache/worth.rs`).
const IS_ERROR: u32 = 1 << 31;

/// Of the kind of a purge. Versions before it was known take such a record, as any that they cannot read, for a purge of all.
const SOFT: u8 = 128;

/// Reads what was purged.
pub fn decode_purge(record: &[u8]) -> Option<Purge> {
    let mut from = Decoder::checked(record)?;
    let kind = from.u8()?;
    let host = from.text()?;
    let what = from.text()?;
    let scope = match kind & !SOFT {
        0 => PurgeScope::All,
        1 => PurgeScope::Host { host },
        2 => PurgeScope::Path { host, path: what },
        3 => PurgeScope::Prefix { host, prefix: what },
        4 => PurgeScope::Tag { host, tag: what },
        5 => PurgeScope::TagEverywhere { tag: what },
        6 => PurgeScope::Glob { host, glob: what },
        _ => return None,
    };
    let mode = if kind & SOFT == 0 { PurgeMode::Hard } else { PurgeMode::Soft { at_ms: from.u64()? } };
    from.end(Purge { scope, mode })
}

const HAS_ENTRY: u8 = 1;
const HAS_VARIANTS: u8 = 2;

const NO_CACHE: u8 = 1;
const MUST_REVALIDATE: u8 = 2;
const SLICEABLE: u8 = 4;
const INLINE: u8 = 8;
const EDITED: u8 = 16;
/// Never set in records of before it was known; then only a host that honours `max-stale` could tell.
const S_MAXAGE: u8 = 32;

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    fn bytes(&mut self, value: &[u8]) {
        self.u32(value.len() as u32);
        self.0.extend_from_slice(value);
    }
    fn millis(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX));
    }
    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
    fn field_set(&mut self, set: &VaryFields) {
        let names = &set.0[..set.0.len().min(usize::from(u8::MAX))];
        self.u8(names.len() as u8);
        names.iter().for_each(|name| self.bytes(name.as_str().as_bytes()));
    }
    fn entry(&mut self, entry: &StoredEntry) {
        let head = &entry.head;
        self.u64(entry.id);
        self.u32(entry.key_length);
        self.u16(head.status.as_u16());
        self.u64(head.timing.request_at.as_millis());
        self.u64(head.timing.response_at.as_millis());
        self.millis(head.timing.initial_age);
        self.millis(head.retention.lifetime);
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        self.u8(flag(head.retention.no_cache, NO_CACHE)
            | flag(head.retention.must_revalidate, MUST_REVALIDATE)
            | flag(head.retention.s_maxage, S_MAXAGE)
            | flag(head.sliceable, SLICEABLE)
            | flag(entry.inline.is_some(), INLINE)
            | flag(head.as_sent.is_some(), EDITED));
        self.maybe(head.retention.stale_while_revalidate, Self::millis);
        self.maybe(head.retention.stale_if_error, Self::millis);
        self.u64(head.sequence.0);
        self.maybe(head.size, Self::u64);
        self.bytes(head.request_path.as_bytes());
        self.maybe(head.origin_path.as_deref(), |out, path| out.bytes(path.as_bytes()));
        self.field_set(&head.vary);
        let tags = &head.tags[..head.tags.len().min(usize::from(u16::MAX))];
        self.u16(tags.len() as u16);
        tags.iter().for_each(|tag| self.bytes(tag.as_bytes()));
        self.headers(&head.headers);
        if let Some(sent) = &head.as_sent {
            self.u16(sent.status.as_u16());
            self.headers(&sent.headers);
        }
        if let Some(body) = &entry.inline {
            self.bytes(body);
        }
    }
    fn headers(&mut self, headers: &HeaderMap) {
        let count = headers.len().min(usize::from(u16::MAX));
        self.u16(count as u16);
        for (name, value) in headers.iter().take(count) {
            self.bytes(name.as_str().as_bytes());
            self.bytes(value.as_bytes());
        }
    }
    fn finish(mut self) -> Vec<u8> {
        let checksum = crc32c::crc32c(&self.0);
        self.u32(checksum);
        self.0
    }
}

struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn checked(record: &'a [u8]) -> Option<Self> {
        let (content, checksum) = record.split_last_chunk::<4>()?;
        (crc32c::crc32c(content) == u32::from_be_bytes(*checksum)).then_some(Self(content))
    }
    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
    fn moment(&mut self) -> Option<Timestamp> {
        self.u64().map(Timestamp::from_millis)
    }
    fn millis(&mut self) -> Option<Duration> {
        self.u64().map(Duration::from_millis)
    }
    fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }
    fn field_set(&mut self) -> Option<VaryFields> {
        let count = self.u8()?;
        let names = (0..count).map(|_| HeaderName::from_bytes(self.bytes()?).ok());
        names.collect::<Option<Vec<_>>>().map(VaryFields)
    }
    fn headers(&mut self) -> Option<HeaderMap> {
        let count = self.u16()?;
        let mut headers = HeaderMap::with_capacity(usize::from(count).min(256));
        for _ in 0..count {
            let name = HeaderName::from_bytes(self.bytes()?).ok()?;
            let value = HeaderValue::from_bytes(self.bytes()?).ok()?;
            headers.try_append(name, value).ok()?;
        }
        Some(headers)
    }
    fn entry(&mut self) -> Option<StoredEntry> {
        let id = self.u64()?;
        let key_length = self.u32()?;
        let status = StatusCode::from_u16(self.u16()?).ok()?;
        let timing = Timing { request_at: self.moment()?, response_at: self.moment()?, initial_age: self.millis()? };
        let lifetime = self.millis()?;
        let flags = self.u8()?;
        let retention = Retention {
            lifetime,
            no_cache: flags & NO_CACHE != 0,
            must_revalidate: flags & MUST_REVALIDATE != 0,
            s_maxage: flags & S_MAXAGE != 0,
            stale_while_revalidate: self.maybe(Self::millis)?,
            stale_if_error: self.maybe(Self::millis)?,
        };
        let sequence = PurgeSequence(self.u64()?);
        let size = self.maybe(Self::u64)?;
        let request_path = self.text()?;
        let origin_path = self.maybe(Self::text)?;
        let vary = self.field_set()?;
        let tags = (0..self.u16()?).map(|_| self.text()).collect::<Option<Vec<_>>>()?;
        let headers = self.headers()?;
        let as_sent = if flags & EDITED != 0 {
            let status = StatusCode::from_u16(self.u16()?).ok()?;
            Some(Box::new(AsSent { status, headers: self.headers()? }))
        } else {
            None
        };
        let inline = if flags & INLINE != 0 { Some(Bytes::copy_from_slice(self.bytes()?)) } else { None };
        let sliceable = flags & SLICEABLE != 0;
        let head = EntryHead {
            status,
            headers,
            timing,
            retention,
            vary,
            tags,
            sequence,
            request_path,
            origin_path: origin_path.map(Into::into),
            size,
            sliceable,
            as_sent,
        };
        Some(StoredEntry { id, key_length, head, inline })
    }
}

#[cfg(test)]
mod tests;
