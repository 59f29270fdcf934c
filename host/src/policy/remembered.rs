//! Which hosts had a policy of their own in the folder: a small JSON file, so that a file that is missing at start is told from
//! one that never was. A host that had a policy and lost it answers 503 until a person says `"policy": null`: a lost file must
//! not open a door.
//!
//! ```text
//! { "format": 1, "hosts": ["a.example", "*.b.example"] }
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cwasm;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    hosts: BTreeSet<String>,
}

/// The hosts, in memory and on disk.
pub(crate) struct Remembered {
    file: PathBuf,
    hosts: BTreeSet<String>,
}

impl Remembered {
    /// Reads the file. One that is not there is empty; one that can't be read is reported.
    pub(crate) fn open(folder: &Path) -> Self {
        let file = folder.join("hosts-with-policies.json");
        let hosts = match std::fs::read(&file) {
            Ok(bytes) => match serde_json::from_slice::<File>(&bytes) {
                Ok(read) if read.format == FORMAT => read.hosts,
                Ok(read) => {
                    tracing::error!(file = %file.display(), format = read.format, "which hosts had policies is written in an unknown format");
                    BTreeSet::new()
                }
                Err(error) => {
                    tracing::error!(file = %file.display(), %error, "which hosts had policies can't be read");
                    BTreeSet::new()
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                tracing::error!(file = %file.display(), %error, "which hosts had policies can't be read");
                BTreeSet::new()
            }
        };
        Self { file, hosts }
    }

    /// Whether the host had a policy.
    pub(crate) fn has(&self, host: &str) -> bool {
        self.hosts.contains(host)
    }

    /// The host has a policy.
    pub(crate) fn remember(&mut self, host: &str) {
        if self.hosts.insert(host.to_owned()) {
            self.save();
        }
    }

    /// The host is to have none.
    pub(crate) fn forget(&mut self, host: &str) -> bool {
        let known = self.hosts.remove(host);
        if known {
            self.save();
        }
        known
    }

    fn save(&self) {
        let file = File { format: FORMAT, hosts: self.hosts.clone() };
        let saved = serde_json::to_vec_pretty(&file).map_err(std::io::Error::from).and_then(|bytes| {
            if let Some(folder) = self.file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            cwasm::replace(&self.file, &bytes)
        });
        if let Err(error) = saved {
            tracing::error!(file = %self.file.display(), %error, "which hosts have policies can't be kept for the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_remembered_until_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut remembered = Remembered::open(&state);
        assert!(!remembered.has("a.test"));
        remembered.remember("a.test");
        remembered.remember("*.b.test");
        let mut again = Remembered::open(&state);
        assert!(again.has("a.test") && again.has("*.b.test") && !again.has("c.test"));
        assert!(again.forget("a.test") && !again.forget("a.test"));
        assert!(!Remembered::open(&state).has("a.test"));
    }

    #[test]
    fn a_broken_file_is_no_reason_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hosts-with-policies.json"), b"{").unwrap();
        assert!(!Remembered::open(folder.path()).has("a.test"));
    }
}
