//! What can go wrong with the cache where a person must know.

use std::path::PathBuf;

/// Why the cache cannot be opened or a purge not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder has files that are not ours.
    #[error("cache folder {0} is not empty and bears no mark of proxyhost: name an empty folder, nothing was touched")]
    NotOurs(PathBuf),
    /// Another process has it open.
    #[error("cache folder {0} is in use by another process")]
    InUse(PathBuf),
    /// A purge could not be written down.
    #[error("the purge could not be recorded: {0}")]
    PurgeNotRecorded(String),
    /// Anything else of the disk.
    #[error("cache folder {path}: {reason}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// In words.
        reason: String,
    },
}
