//! What a purge hits among what is kept, told page by page without purging: for counts, dry runs and for what is fetched anew.
//!
//! It reads the range of the index that the scope may hit, on the blocking pool, and holds each entry against a table that has that
//! one purge. What the purge hits by another name than the key's is found for tags, patterns, hosts and all, which look at
//! everything of the host. What is still being filled is not seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::disk::DiskError;
use super::entry::{EntryBody, EntryHead};
use super::index::schema::{self, EntryRecord};
use super::index::{CHUNK, Column, after_prefix};
use super::key::{self, CacheKey};
use super::purge_table::{PurgeTable, Verdict};
use super::purges::PurgeScope;
use super::shared::Shared;
use super::vary::VariantKey;
use super::{Cache, upkeep};
use crate::clock::Timestamp;

/// An entry that a purge hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key.
    pub key: CacheKey,
    /// Its variant.
    pub variant: VariantKey,
    /// The path as it was asked for.
    pub request_path: String,
    /// The newest purge when it was asked for.
    pub sequence: u64,
    /// The path that the origin answered for, without the host's prefix.
    pub origin_path: Option<Arc<str>>,
    /// Status.
    pub status: u16,
    /// The origin's ETag.
    pub etag: Option<String>,
    /// When it came.
    pub response_at: Timestamp,
    /// How long it lives.
    pub lifetime: Duration,
    /// Its age is this and the time since it came.
    pub initial_age: Duration,
    /// Bytes of the whole body.
    pub size: u64,
}

/// How many entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// So many were found.
    pub entries: u64,
    /// All were looked at; else there may be more.
    pub complete: bool,
}

/// A walk over what is hit.
pub struct Survey {
    shared: Arc<Shared>,
    scope: Arc<PurgeTable>,
    from: Vec<u8>,
    end: Option<Vec<u8>>,
    ended: bool,
}

impl Cache {
    /// Begins to look for what a purge hits.
    pub fn survey(&self, scope: &PurgeScope) -> Survey {
        let table = PurgeTable::default();
        table.apply(1, &scope.clone().into());
        let from = upkeep::narrow_range_of(scope);
        let end = after_prefix(&from);
        Survey { shared: self.shared.clone(), scope: Arc::new(table), from, end, ended: false }
    }

    /// Begins to look for what is kept of a host under the paths after `after` and up to `to`, in the order of their bytes.
    pub fn survey_paths(&self, host: &str, after: Option<&str>, to: Option<&str>) -> Survey {
        let mut survey = self.survey(&PurgeScope::Host { host: host.to_owned() });
        if let Some(from) = after.and_then(|path| after_prefix(&key::path_range(host, path))) {
            survey.from = from;
        }
        if let Some(to) = to {
            survey.end = after_prefix(&key::path_range(host, to));
        }
        survey
    }

    /// The names of the hosts of which anything is kept; none if they are more than `most`.
    pub async fn hosts(&self, most: usize) -> Option<Vec<String>> {
        let shared = self.shared.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let Some(disk) = shared.disk.load_full() else {
                let mut names = BTreeSet::new();
                shared.hot.for_each(|entry| {
                    if names.len() <= most && !names.contains(entry.key.host()) {
                        names.insert(entry.key.host().to_owned());
                    }
                });
                return (names.len() <= most).then(|| names.into_iter().collect());
            };
            let (mut names, mut from) = (Vec::new(), Vec::new());
            loop {
                let next = disk.index.scan(Column::Entries, &from, None, 1).map_err(DiskError::from);
                let next = shared.counted(next)?;
                let Some((full_key, _)) = next.first() else { return Some(names) };
                let host = full_key.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = String::from_utf8_lossy(host).into_owned();
                if names.len() == most {
                    return None;
                }
                // Not one entry after the other: behind the last of this host.
                match after_prefix(&key::host_range(&name)).filter(|next| *next > from) {
                    Some(next) => from = next,
                    None => return Some(names),
                }
                names.push(name);
            }
        });
        looking.await.ok().flatten()
    }

    /// Counts what a purge hits, until `deadline` and at least a page.
    pub async fn count(&self, scope: &PurgeScope, deadline: Instant) -> Count {
        let mut survey = self.survey(scope);
        let mut entries = 0;
        while let Some(page) = survey.next().await {
            entries += page.len() as u64;
            if Instant::now() >= deadline {
                break;
            }
        }
        Count { entries, complete: survey.ended }
    }
}

impl Survey {
    /// The next page, which may be empty; none at the end.
    pub async fn next(&mut self) -> Option<Vec<Kept>> {
        if self.ended {
            return None;
        }
        let (shared, scope, from, end) = (self.shared.clone(), self.scope.clone(), self.from.clone(), self.end.clone());
        let page = tokio::task::spawn_blocking(move || page(&shared, &scope, &from, end.as_deref()));
        let (kept, next) = page.await.unwrap_or_default();
        match next {
            Some(next) => self.from = next,
            None => self.ended = true,
        }
        Some(kept)
    }
}

/// What is hit in one part of the range, and where the next begins.
fn page(shared: &Shared, scope: &PurgeTable, from: &[u8], end: Option<&[u8]>) -> (Vec<Kept>, Option<Vec<u8>>) {
    let mut kept = Vec::new();
    let Some(disk) = shared.disk.load_full() else {
        in_memory(shared, scope, from, end, &mut kept);
        return (kept, None);
    };
    let records = disk.index.scan(Column::Entries, from, end, CHUNK).map_err(DiskError::from);
    let records = shared.counted(records).unwrap_or_default();
    for (full_key, record) in &records {
        let Some(entry) = EntryRecord::decode(record).and_then(|record| record.entry) else { continue };
        let marks = upkeep::marks_of(full_key, &entry);
        let sequence = entry.head.sequence.0;
        if scope.judge(&marks, 0) == Verdict::Untouched || shared.purges.judge(&marks, sequence) == Verdict::Gone {
            continue;
        }
        let Some((key, variant)) = full_key.split_at_checked(entry.key_length as usize) else { continue };
        let Some(key) = CacheKey::from_bytes(key) else { continue };
        let variant = VariantKey(variant.get(2..).unwrap_or_default().into());
        kept.push(of_head(key, variant, entry.head, entry.inline.map(|bytes| bytes.len() as u64)));
    }
    let more = records.len() == CHUNK;
    (kept, records.last().filter(|_| more).map(|(last, _)| [last.as_slice(), &[0]].concat()))
}

fn in_memory(shared: &Shared, scope: &PurgeTable, from: &[u8], end: Option<&[u8]>, kept: &mut Vec<Kept>) {
    shared.hot.for_each(|entry| {
        let full_key = schema::full_key(entry.key.as_bytes(), &entry.variant.0);
        if full_key.as_slice() < from || end.is_some_and(|end| full_key.as_slice() >= end) {
            return;
        }
        let marks = entry.marks(None);
        let sequence = entry.head.sequence.0;
        if scope.judge(&marks, 0) != Verdict::Untouched && shared.purges.judge(&marks, sequence) != Verdict::Gone {
            let (key, variant) = (entry.key.clone(), entry.variant.clone());
            let inline = if let EntryBody::Inline(bytes) = &entry.body { Some(bytes.len() as u64) } else { None };
            kept.push(of_head(key, variant, entry.head.clone(), inline));
        }
    });
}

fn of_head(key: CacheKey, variant: VariantKey, head: EntryHead, inline: Option<u64>) -> Kept {
    let etag = head.as_sent().1.get(http::header::ETAG).and_then(|tag| Some(tag.to_str().ok()?.to_owned()));
    Kept {
        key,
        variant,
        sequence: head.sequence.0,
        origin_path: head.origin_path,
        status: head.status.as_u16(),
        etag,
        response_at: head.timing.response_at,
        lifetime: head.retention.lifetime,
        initial_age: head.timing.initial_age,
        size: inline.or(head.size).unwrap_or(0),
        request_path: head.request_path,
    }
}
