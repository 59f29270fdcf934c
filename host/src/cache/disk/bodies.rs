//! The slices of bodies: bytes in the store, records in the index that vouch for them.

use parking_lot::Mutex;

use super::super::entry::SLICE_BYTES;
use super::super::index::schema::{self, SliceRecord};
use super::super::index::{self, Change, Column};
use super::super::key;
use super::super::runs::Runs;
use super::{AROUND_BYTES, Disk, DiskError};

/// Records of slices that are read in passing: no worker is kept by more.
const FEW: usize = 64;

impl Disk {
    /// Stores a slice: bytes first, then the record that vouches for them.
    pub fn store_slice(&self, id: u64, owner: &[u8], slice: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let number = u32::try_from(slice)
            .ok()
            .filter(|slice| *slice < u32::MAX)
            .ok_or_else(|| DiskError::Store(std::io::Error::from(std::io::ErrorKind::FileTooLarge)))?;
        self.writable()?;
        self.store.write(id, slice * SLICE_BYTES, bytes)?;
        let key = schema::slice_key(id, number);
        let _body = self.body(id).lock();
        let before = self.index.get(Column::Slices, &key)?.and_then(|record| SliceRecord::decode(&record));
        let before = before.map_or(-AROUND_BYTES, |before| i64::from(before.length));
        let mut changes = vec![Change::Put(Column::Slices, key, SliceRecord::of(bytes).encode())];
        let owner_key = schema::owner_key(id);
        if self.index.get(Column::Slices, &owner_key)?.is_none() {
            changes.push(Change::Put(Column::Slices, owner_key, schema::encode_owner(owner)));
        }
        self.write(&self.hosts.counting(), changes, key::host_of(owner), bytes.len() as i64 - before)
    }

    /// Which slices of a body there are.
    pub fn slices(&self, id: u64) -> Result<Runs, DiskError> {
        let mut present = Runs::default();
        self.each_slice(id, |slice, _| {
            present.insert(u64::from(slice));
        })?;
        Ok(present)
    }

    /// The same, if they are few and it can be told without waiting for the disk.
    pub fn slices_at_once(&self, id: u64) -> Option<Runs> {
        let (from, end) = (schema::slice_key(id, 0), schema::owner_key(id));
        let records = self.index.scan_at_once(Column::Slices, &from, Some(&end), FEW)?;
        let mut present = Runs::default();
        for slice in records.iter().filter_map(|(key, _)| schema::parse_slice_key(key)?.1) {
            present.insert(u64::from(slice));
        }
        (records.len() < FEW).then_some(present)
    }

    fn body(&self, id: u64) -> &Mutex<()> {
        &self.bodies[id as usize % self.bodies.len()]
    }

    fn each_slice(&self, id: u64, mut each: impl FnMut(u32, &[u8])) -> Result<(), DiskError> {
        let (from, end) = (schema::slice_key(id, 0), schema::owner_key(id));
        Ok(index::each(&*self.index, Column::Slices, &from, Some(&end), |key, value| {
            if let Some((_, Some(slice))) = schema::parse_slice_key(key) {
                each(slice, value);
            }
        })?)
    }

    /// Forgets a slice whose bytes are not what they were.
    pub fn drop_slice(&self, id: u64, slice: u64) -> Result<(), DiskError> {
        let Ok(number) = u32::try_from(slice) else { return Ok(()) };
        let key = schema::slice_key(id, number);
        let _body = self.body(id).lock();
        let Some(record) = self.index.get(Column::Slices, &key)? else { return Ok(()) };
        let length = SliceRecord::decode(&record).map_or(0, |record| i64::from(record.length));
        let owner = self.owner(id)?.unwrap_or_default();
        self.write(
            &self.hosts.counting(),
            vec![Change::Delete(Column::Slices, key)],
            key::host_of(&owner),
            -(length + AROUND_BYTES),
        )
    }

    /// Removes the slices and the file of a body that no entry has any more.
    pub fn reclaim(&self, id: u64) -> Result<(), DiskError> {
        self.writable()?;
        let _body = self.body(id).lock();
        let owner = self.owner(id)?;
        let mut changes = vec![Change::Delete(Column::Slices, schema::owner_key(id))];
        let mut delta = 0;
        self.each_slice(id, |slice, record| {
            changes.push(Change::Delete(Column::Slices, schema::slice_key(id, slice)));
            let length = SliceRecord::decode(record).map_or(0, |record| i64::from(record.length));
            delta -= length + AROUND_BYTES;
        })?;
        // Records first: what has a record is taken to have bytes.
        if changes.len() > 1 || owner.is_some() {
            self.write(&self.hosts.counting(), changes, key::host_of(&owner.unwrap_or_default()), delta)?;
        }
        Ok(self.store.remove(id)?)
    }

    /// The full key of the entry that a body is of, if there is a record of it; empty where that is damaged.
    fn owner(&self, id: u64) -> Result<Option<Vec<u8>>, DiskError> {
        let owner = self.index.get(Column::Slices, &schema::owner_key(id))?;
        Ok(owner.map(|owner| schema::decode_owner(&owner).unwrap_or_default()))
    }
}
