//! What memory has, and whether the disk has it too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Cache;
use super::disk::DiskError;
use super::entry::{Entry, EntryBody};
use super::index::Column;
use super::index::schema::{self, EntryRecord};
use super::shared::Shared;
use crate::clock::Timestamp;

/// Paths that are told at once.
const PATHS_MOST: usize = 10_000;
/// How long a fill may take to write down what has come, and between two looks at it.
const FILL_PATIENCE: Duration = Duration::from_secs(10);
const FILL_LOOK: Duration = Duration::from_millis(5);

impl Cache {
    /// Sees to it that an entry is on disk, or says that it is not: a small one that memory has is written down. Without a disk that
    /// is as good as can be.
    pub async fn keep_on_disk(&self, entry: &Arc<Entry>) -> bool {
        if let EntryBody::Sliced(body) = &entry.body {
            // All of it may have come, and its fill be writing it down.
            let end = Instant::now() + FILL_PATIENCE;
            while body.is_filling() && Instant::now() < end {
                tokio::time::sleep(FILL_LOOK).await;
            }
        }
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(entry));
        let looking = tokio::task::spawn_blocking(move || {
            if shared.is_on_disk(&entry).unwrap_or(true) {
                return true;
            }
            let EntryBody::Inline(bytes) = &entry.body else { return false };
            shared.disk_takes_of(entry.key.host(), bytes.len() as u64) && shared.commit(&entry)
        });
        looking.await.unwrap_or(false)
    }

    /// Paths of a host that memory has something of from before `before`, and the disk has not; some of them, if they are very many.
    /// None without a disk.
    pub async fn paths_in_memory_alone(&self, host: &str, before: Timestamp) -> Vec<String> {
        let (shared, host) = (Arc::clone(&self.shared), host.to_owned());
        let looking = tokio::task::spawn_blocking(move || {
            let mut entries = Vec::new();
            shared.hot.for_each(|entry| {
                if entry.key.host() == host && entry.head.timing.response_at < before {
                    entries.push((entry.key.clone(), entry.variant.clone(), entry.id));
                }
            });
            let alone = entries.into_iter().filter(|(key, variant, id)| {
                shared.has_record(&schema::full_key(key.as_bytes(), &variant.0), *id) == Some(false)
            });
            alone.take(PATHS_MOST).map(|(key, ..)| key.path_text().into_owned()).collect::<BTreeSet<_>>()
        });
        looking.await.unwrap_or_default().into_iter().collect()
    }
}

impl Shared {
    /// Blocking: whether the disk has an entry; none if there is no disk, or it cannot say.
    fn is_on_disk(&self, entry: &Entry) -> Option<bool> {
        self.has_record(&schema::full_key(entry.key.as_bytes(), &entry.variant.0), entry.id)
    }

    fn has_record(&self, full_key: &[u8], id: u64) -> Option<bool> {
        let disk = self.disk.load_full()?;
        let record = self.counted(disk.index.get(Column::Entries, full_key).map_err(DiskError::from))?;
        let entry = record.and_then(|record| EntryRecord::decode(&record)).and_then(|record| record.entry);
        Some(entry.is_some_and(|entry| entry.id == id))
    }
}
