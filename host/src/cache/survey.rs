//! What a purge hits among what is kept, told page by page without purging: for counts, dry runs and for what is fetched anew.
//!
//! It reads the range of the index that the scope may hit, on the blocking pool, and holds each entry against a table that has that
//! one purge. What the purge hits by another name than the key's is found for tags, patterns, hosts and all, which look at
//! everything of the host. What is still being filled is not seen.

use std::sync::Arc;

use tokio::time::Instant;

use super::disk::{CHUNK, DiskError};
use super::index::schema::EntryRecord;
use super::index::{Column, after_prefix};
use super::key::CacheKey;
use super::purge_table::{PurgeTable, Verdict};
use super::purges::PurgeScope;
use super::shared::Shared;
use super::vary::VariantKey;
use super::{Cache, upkeep};

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
        in_memory(shared, scope, &mut kept);
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
        kept.push(Kept { key, variant, request_path: entry.head.request_path, sequence });
    }
    let more = records.len() == CHUNK;
    (kept, records.last().filter(|_| more).map(|(last, _)| [last.as_slice(), &[0]].concat()))
}

fn in_memory(shared: &Shared, scope: &PurgeTable, kept: &mut Vec<Kept>) {
    shared.hot.for_each(|entry| {
        let marks = entry.marks(None);
        let sequence = entry.head.sequence.0;
        if scope.judge(&marks, 0) != Verdict::Untouched && shared.purges.judge(&marks, sequence) != Verdict::Gone {
            let (key, variant) = (entry.key.clone(), entry.variant.clone());
            kept.push(Kept { key, variant, request_path: entry.head.request_path.clone(), sequence });
        }
    });
}
