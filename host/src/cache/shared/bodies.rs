//! Bodies in use: one for an entry while anyone reads or fills it, and its slices on disk.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::super::body::{BodyParts, SlicedBody};
use super::super::disk::{Disk, DiskError};
use super::super::entry::SLICE_BYTES;
use super::super::index::Column;
use super::super::index::schema::{self, SliceRecord};
use super::super::key;
use super::super::leaving::Leaving;
use super::Shared;

impl Shared {
    /// The body of an entry on disk: the one that is in use, or a new one.
    pub fn body_for(self: &Arc<Self>, parts: BodyParts) -> Arc<SlicedBody> {
        let mut bodies = self.bodies(parts.id).lock();
        if let Some(body) = bodies.get(&parts.id).and_then(Weak::upgrade) {
            return body;
        }
        let id = parts.id;
        let body = SlicedBody::new(self, parts);
        // Its entry went between the reading of its record and now.
        if self.bodies_gone.has(id) {
            body.doomed.store(true, Ordering::Release);
        }
        bodies.insert(id, Arc::downgrade(&body));
        body
    }

    /// The body in use with this id.
    pub fn live_body(&self, id: u64) -> Option<Arc<SlicedBody>> {
        self.bodies(id).lock().get(&id).and_then(Weak::upgrade)
    }

    /// The last who used a body is gone.
    pub fn body_dropped(&self, body: &SlicedBody) {
        let mut bodies = self.bodies(body.id).lock();
        // Another may have been made of the same entry in this moment.
        if bodies.get(&body.id).is_some_and(|other| other.strong_count() == 0) {
            bodies.remove(&body.id);
            let garbage = body.stored.load(Ordering::Acquire) && !body.committed.load(Ordering::Acquire);
            if garbage || body.doomed.load(Ordering::Acquire) {
                self.doomed.lock().push(body.id);
                self.wake.notify_one();
            }
        }
    }

    /// The entry of a body is gone: the body follows when nobody reads it.
    pub fn doom(&self, id: u64) {
        let bodies = self.bodies(id).lock();
        self.bodies_gone.note(id);
        // Upgraded while locked; dropped after, for the last one takes the same lock.
        let body = bodies.get(&id).and_then(Weak::upgrade);
        if let Some(body) = &body {
            if !body.doomed.swap(true, Ordering::AcqRel) {
                let slices = body.slices_on_disk() * SLICE_BYTES;
                let bytes = body.size().map_or(slices, |size| slices.min(size));
                let host = self.disk.load().as_ref().and_then(|disk| disk.hosts.of(key::host_of(&body.full_key)));
                let host = host.map(|host| Arc::clone(&host.leaving));
                body.leaving.get_or_init(|| Leaving::new(bytes, &self.leaving_bytes, host));
            }
        } else {
            self.doomed.lock().push(id);
            self.wake.notify_one();
        }
        drop(bodies);
    }

    /// A slice from disk, checked.
    pub async fn load_slice(self: &Arc<Self>, id: u64, slice: u64) -> Option<Bytes> {
        let disk = self.disk.load_full()?;
        let key = schema::slice_key(id, u32::try_from(slice).ok()?);
        if let Some(Some(record)) = self.known(&disk, Column::Slices, &key)
            && let Some(record) = SliceRecord::decode(&record)
            && let Some(bytes) = disk.store.read_now(id, slice * SLICE_BYTES, record.length as usize)
            && record.matches(&bytes)
        {
            return Some(bytes);
        }
        let shared = self.clone();
        let read = move || {
            let record = shared.counted(disk.index.get(Column::Slices, &key).map_err(DiskError::from))??;
            let record = SliceRecord::decode(&record);
            let read = |record: SliceRecord| {
                let bytes = disk.store.read(id, slice * SLICE_BYTES, record.length as usize).ok()?;
                record.matches(&bytes).then_some(bytes)
            };
            let bytes = record.and_then(read);
            if bytes.is_none() {
                shared.slice_is_bad(&disk, id, slice);
            }
            bytes
        };
        self.tracker.spawn_blocking(read).await.ok().flatten()
    }

    /// Blocking: forgets a slice that is not what it was.
    pub fn slice_is_bad(&self, disk: &Disk, id: u64, slice: u64) {
        self.metrics.cache_corruptions.inc();
        tracing::warn!(body = id, slice, "a slice on disk is damaged or gone; it will be fetched again");
        self.counted(disk.drop_slice(id, slice));
    }

    /// Blocking: stores a slice. False if the disk did not take it.
    pub fn store_slice(&self, body: &SlicedBody, slice: u64, bytes: &[u8]) -> bool {
        let Some(disk) = self.disk.load_full() else { return false };
        self.written(disk.store_slice(body.id, &body.full_key, slice, bytes)).is_some()
    }
}
