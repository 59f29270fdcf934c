//! Bases of keys that vary: they say which variants there are, and go with the last of them.

use super::super::index::schema::{self, RecencyKey, RecencyRecord};
use super::super::index::{Change, Column};
use super::super::key;
use super::{Disk, DiskError, NULS};

/// The key that a full key begins with. It ends with a NUL and has no two in a row (`cache/key.rs`).
fn key_in(full_key: &[u8]) -> &[u8] {
    let end = full_key.windows(2).position(|pair| pair == [0, 0]).map_or(full_key.len(), |last| last + 1);
    full_key.get(..end).unwrap_or(full_key)
}

impl Disk {
    /// What becomes of the base of a key whose variant goes, and by how many bytes it grows. The key's lock is held.
    pub(super) fn base_without(&self, key: &[u8], variant: &RecencyKey) -> Result<Option<(Change, i64)>, DiskError> {
        let full_key = schema::full_key(key, &[]);
        let Some((mut base, length)) = self.record(&full_key)? else { return Ok(None) };
        let known = base.variants.len();
        base.variants.retain(|other| other != variant);
        if base.entry.is_none() && !self.is_any_kept(&base.variants)? {
            return Ok(Some((Change::Delete(Column::Entries, full_key), -(length as i64))));
        }
        if base.variants.len() == known {
            return Ok(None);
        }
        let base = base.encode();
        let grows = base.len() as i64 - length as i64;
        Ok(Some((Change::Put(Column::Entries, full_key, base), grows)))
    }

    /// Whether one of these is still there: of some the base was not told that they went, when a process ended or a damaged record
    /// was dropped.
    pub(super) fn is_any_kept(&self, variants: &[RecencyKey]) -> Result<bool, DiskError> {
        for variant in variants {
            if self.index.get(Column::Recency, variant)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A use that was noted of an entry which is not there any more: it goes, or is that of the entry that took the place.
    pub fn settle_use(&self, full_key: &[u8], id: u64) -> Result<(), DiskError> {
        let key = key_in(full_key);
        let _stripe = self.stripe(key).lock();
        let Some(noted) = self.recency(full_key)?.filter(|noted| noted.id == id) else { return Ok(()) };
        let place = schema::recency_key(full_key);
        let standing = self.record(full_key)?.and_then(|(record, _)| record.entry);
        let (mut changes, mut delta) = (Vec::new(), 0);
        match standing {
            Some(entry) if entry.id == id => return Ok(()),
            Some(entry) => {
                let noted = RecencyRecord { id: entry.id, ..noted };
                changes.push(Change::Put(Column::Recency, place.to_vec(), noted.encode()));
            }
            None => {
                changes.push(Change::Delete(Column::Recency, place.to_vec()));
                if key.len() + NULS < full_key.len()
                    && let Some((base, grows)) = self.base_without(key, &place)?
                {
                    changes.push(base);
                    delta = grows;
                }
            }
        }
        self.write(&self.hosts.counting(), changes, key::host_of(full_key), delta)
    }

    /// Removes a base that has no entry of its own and of whose variants none is left.
    pub fn drop_idle_base(&self, full_key: &[u8]) -> Result<bool, DiskError> {
        let key = key_in(full_key);
        let _stripe = self.stripe(key).lock();
        let Some((base, length)) = self.record(full_key)? else { return Ok(false) };
        if base.entry.is_some() || self.is_any_kept(&base.variants)? {
            return Ok(false);
        }
        let change = Change::Delete(Column::Entries, full_key.to_vec());
        self.write(&self.hosts.counting(), vec![change], key::host_of(full_key), -(length as i64))?;
        Ok(true)
    }
}
