//! Looking an entry up: in memory, then on disk; judged against purges in both.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::body::BodyParts;
use super::entry::{Entry, EntryBody};
use super::hot::Look;
use super::index::Column;
use super::index::schema::{self, EntryRecord, StoredEntry};
use super::key::CacheKey;
use super::purge_table::Verdict;
use super::shared::Shared;
use super::vary::VariantKey;
use super::{Absent, Asked, Found, Tier};

/// The memory tier and fills under way.
pub(super) fn in_memory(shared: &Shared, asked: &Asked<'_>) -> Option<Found> {
    in_memory_by(shared, asked, Look::Use)
}

fn in_memory_by(shared: &Shared, asked: &Asked<'_>, look: Look) -> Option<Found> {
    let entry = shared.find_by(asked.key, asked.headers, asked.request_path, look)?;
    let filling = matches!(&entry.body, EntryBody::Sliced(body) if body.filling.load(Ordering::Acquire));
    Some(Found { entry, tier: if filling { Tier::Filling } else { Tier::Memory } })
}

/// The index.
pub(super) async fn on_disk(shared: &Arc<Shared>, asked: &Asked<'_>) -> Result<Found, Absent> {
    let forgotten = shared.forgotten.load(Ordering::Acquire);
    let key = asked.key.as_bytes();
    let base = record(shared, schema::full_key(key, &[])).await.ok_or(Absent::Key)?;
    let mut sets = base.field_sets.clone();
    if sets.is_empty() {
        sets.push(Default::default());
    }
    for set in &sets {
        let variant = VariantKey::of(set, asked.headers);
        let stored = if variant.0.is_empty() {
            base.entry.clone()
        } else {
            record(shared, schema::full_key(key, &variant.0)).await.and_then(|record| record.entry)
        };
        let Some(stored) = stored else { continue };
        let id = stored.id;
        let removed = || shared.removals.has(id);
        if removed() {
            continue;
        }
        let Some(entry) = revive(shared, asked.key, variant, stored).await else { continue };
        let entry = match shared.judge(&entry, Some(asked.request_path)) {
            Verdict::Gone => {
                shared.forget(&entry);
                continue;
            }
            verdict => shared.as_judged(&entry, verdict),
        };
        let shown = shared.forgotten.load(Ordering::Acquire) == forgotten;
        if shown {
            shared.hot.insert(&entry, &base.field_sets, true);
        }
        if removed() {
            shared.hide(&entry);
            continue;
        }
        // Counts the use on disk, and gives way to what came meanwhile. In memory it has only just come.
        if shown && let Some(found) = in_memory_by(shared, asked, Look::Glance) {
            let tier = if found.entry.id == entry.id { Tier::Disk } else { found.tier };
            return Ok(Found { entry: found.entry, tier });
        }
        if !shown {
            // A purge that hits it may have been forgotten since it was read.
            return Err(Absent::Unknown);
        }
        return Ok(Found { entry, tier: Tier::Disk });
    }
    Err(if base.field_sets.is_empty() { Absent::Key } else { Absent::Unknown })
}

async fn record(shared: &Arc<Shared>, full_key: Vec<u8>) -> Option<EntryRecord> {
    let bytes = shared.record(Column::Entries, full_key.clone()).await?;
    let record = EntryRecord::decode(&bytes);
    if record.is_none() {
        shared.metrics.cache_corruptions.inc();
        tracing::warn!("a record of the cache index is damaged; it counts as a miss");
        let shared = shared.clone();
        shared.tracker.clone().spawn_blocking(move || {
            if let Some(disk) = shared.disk.load_full() {
                shared.counted(disk.drop_record(&full_key));
            }
        });
    }
    record
}

/// An entry of a record: with its body at hand, or with what is known of its slices.
async fn revive(shared: &Arc<Shared>, key: &CacheKey, variant: VariantKey, stored: StoredEntry) -> Option<Arc<Entry>> {
    let id = stored.id;
    let body = match stored.inline {
        Some(bytes) => EntryBody::Inline(bytes),
        None => EntryBody::Sliced(match shared.live_body(id) {
            Some(body) => body,
            None => {
                let present = shared.slices(id).await?;
                let size = stored.head.size;
                let complete = size.is_some_and(|size| present.covers_to(size.div_ceil(super::entry::SLICE_BYTES)));
                if !complete && !stored.head.sliceable {
                    // Not whole, and not to be mended: as good as nothing.
                    shared.metrics.cache_corruptions.inc();
                    let (shared, full_key) = (shared.clone(), schema::full_key(key.as_bytes(), &variant.0));
                    shared.tracker.clone().spawn_blocking(move || shared.remove_from_disk(&full_key, id));
                    return None;
                }
                shared.body_for(BodyParts {
                    id,
                    size,
                    sliceable: stored.head.sliceable,
                    full_key: schema::full_key(key.as_bytes(), &variant.0),
                    present,
                    committed: true,
                })
            }
        }),
    };
    Some(Arc::new(Entry { id, key: key.clone(), variant, head: stored.head, body, ready: None, held: None }))
}

/// What is known of an entry, for a person.
pub(super) async fn describe(shared: &Arc<Shared>, asked: &Asked<'_>) -> Option<serde_json::Value> {
    let found = match in_memory(shared, asked) {
        Some(found) => found,
        None => on_disk(shared, asked).await.ok()?,
    };
    let entry = &found.entry;
    let (kept, body) = match &entry.body {
        EntryBody::Inline(bytes) => ("inline", serde_json::json!({ "bytes": bytes.len() })),
        EntryBody::Sliced(body) => (
            "slices",
            serde_json::json!({
                "size": body.size(),
                "on_disk": body.slices_on_disk(),
                "of": body.size().map(|size| size.div_ceil(super::entry::SLICE_BYTES)),
                "sliceable": body.is_sliceable(),
            }),
        ),
    };
    let full_key = schema::full_key(entry.key.as_bytes(), &entry.variant.0);
    let disk = shared.disk.load_full();
    let reading = shared.clone();
    let recency = move || disk.and_then(|disk| reading.counted(disk.recency(&full_key)).flatten());
    let recency = shared.tracker.spawn_blocking(recency).await.ok().flatten();
    Some(serde_json::json!({
        "tier": match found.tier {
            Tier::Memory => "memory",
            Tier::Disk => "disk",
            Tier::Filling => "filling",
        },
        "id": entry.id,
        "status": entry.head.status.as_u16(),
        "variant": String::from_utf8_lossy(&entry.variant.0),
        "vary": entry.head.vary.0.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "tags": entry.head.tags,
        "purge_sequence": entry.head.sequence.0,
        "kept": kept,
        "body": body,
        "uses": recency.as_ref().map(|recency| recency.uses),
        "last_use": recency.as_ref().map(|recency| recency.last_use),
    }))
}
