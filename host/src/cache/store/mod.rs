//! The store: bytes of bodies, by entry id and offset. It knows nothing of what they mean, and nobody trusts it: checksums are
//! kept in the index.

pub mod disk;
pub mod layout;
pub mod memory;

#[cfg(test)]
mod contract;

use std::io;

use bytes::Bytes;

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that we may still write.
    pub available: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Bytes of bodies. All but `read_now` may wait for the disk: call them on the blocking pool.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Writes bytes of a body; what lies between written parts is nothing that anyone reads.
    fn write(&self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads exactly `length` bytes.
    fn read(&self, id: u64, offset: u64, length: usize) -> io::Result<Bytes>;

    /// Reads exactly `length` bytes if that needs no waiting; none if it would, or if anything is odd.
    fn read_now(&self, id: u64, offset: u64, length: usize) -> Option<Bytes>;

    /// Removes a body; one that is not there is fine.
    fn remove(&self, id: u64) -> io::Result<()>;

    /// How much room there is where the bodies lie; none if that is not known.
    fn space(&self) -> Option<Space>;

    /// The ids of the bodies in one of 256 parts of the store.
    fn list(&self, part: u8) -> io::Result<Vec<u64>>;
}
