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
    /// Another program has the folder, and was not told of a purge or did not answer.
    #[error(
        "the purge is in force for what this program still answers; the program that took over may not know of it: {0}"
    )]
    PurgeNotPassedOn(String),
    /// Too much that was purged before is not yet gone from the disk.
    #[error("{0}: ask again later")]
    TooManyPurges(&'static str),
    /// Anything else of the disk.
    #[error("cache folder {path}: {reason}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// In words.
        reason: String,
    },
}
