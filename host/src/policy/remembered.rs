//! Which hosts had a policy: a small JSON file, so that a file that is missing at start is told from one that never was. A host
//! that had a policy and lost it answers 503 until a person says `"policy": null`: a lost file must not open a door. When this
//! file itself is damaged, every host may have had one.
//!
//! ```text
//! { "format": 1, "hosts": ["a.example", "*.b.example"], "named": ["c.example"] }
//! ```
//!
//! `hosts` had theirs by the name of a file in the folder, `named` by hosts.json.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cwasm;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    hosts: BTreeSet<String>,
    #[serde(default)]
    named: BTreeSet<String>,
}

/// The hosts, in memory and on disk.
pub(crate) struct Remembered {
    /// None: nothing is kept.
    file: Option<PathBuf>,
    hosts: BTreeSet<String>,
    named: BTreeSet<String>,
    /// The file can't be read: all but these may have had a policy, and it is not written over.
    damaged: Option<BTreeSet<String>>,
}

impl Remembered {
    /// Reads the file. One that is not there is empty; one that can't be read is reported. Of no folder nothing is read or
    /// kept.
    pub(crate) fn open(folder: &Path) -> Self {
        if folder.as_os_str().is_empty() {
            return Self { file: None, hosts: BTreeSet::new(), named: BTreeSet::new(), damaged: None };
        }
        let path = folder.join("hosts-with-policies.json");
        let (file, damaged) = match read(&path) {
            Ok(file) => (file, None),
            Err(reason) => {
                tracing::error!(
                    file = %path.display(),
                    reason,
                    "which hosts had policies can't be read: hosts without one answer 503 until hosts.json says \
                     \"policy\": null for them, or the file is removed and the program started again"
                );
                (File { format: FORMAT, hosts: BTreeSet::new(), named: BTreeSet::new() }, Some(BTreeSet::new()))
            }
        };
        Self { file: Some(path), hosts: file.hosts, named: file.named, damaged }
    }

    /// The same, with what comes from now on kept in memory only.
    pub(crate) fn unsaved(self) -> Self {
        Self { file: None, ..self }
    }

    /// Whether the host had a policy by the name of a file, or may have had one.
    pub(crate) fn has(&self, host: &str) -> bool {
        self.hosts.contains(host) || self.damaged.as_ref().is_some_and(|forgotten| !forgotten.contains(host))
    }

    /// The hosts that had a policy by the name of a file.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    /// Whether the host had a policy that hosts.json named.
    pub(crate) fn had_named(&self, host: &str) -> bool {
        self.named.contains(host)
    }

    /// The host has a policy by the name of its file.
    pub(crate) fn remember(&mut self, host: &str) {
        if self.hosts.insert(host.to_owned()) {
            self.save();
        }
    }

    /// The host has a policy by hosts.json.
    pub(crate) fn remember_named(&mut self, host: &str) {
        if self.named.insert(host.to_owned()) {
            self.save();
        }
    }

    /// The host is to have none.
    pub(crate) fn forget(&mut self, host: &str) -> bool {
        let known = self.hosts.remove(host) | self.named.remove(host);
        if known {
            self.save();
        }
        known | self.damaged.as_mut().is_some_and(|forgotten| forgotten.insert(host.to_owned()))
    }

    fn save(&self) {
        let (Some(path), None) = (&self.file, &self.damaged) else { return };
        let file = File { format: FORMAT, hosts: self.hosts.clone(), named: self.named.clone() };
        let saved = serde_json::to_vec_pretty(&file).map_err(std::io::Error::from).and_then(|bytes| {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            cwasm::replace(path, &bytes)
        });
        if let Err(error) = saved {
            tracing::error!(file = %path.display(), %error, "which hosts have policies can't be kept for the next start");
        }
    }
}

fn read(path: &Path) -> Result<File, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(File { format: FORMAT, hosts: BTreeSet::new(), named: BTreeSet::new() });
        }
        Err(error) => return Err(error.to_string()),
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if file.format == FORMAT { Ok(file) } else { Err(format!("it has the unknown format {}", file.format)) }
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
        remembered.remember_named("c.test");
        let mut again = Remembered::open(&state);
        assert!(again.has("a.test") && again.has("*.b.test") && !again.has("c.test"));
        assert!(again.had_named("c.test") && !again.had_named("a.test"));
        assert!(again.forget("a.test") && !again.forget("a.test"));
        assert!(!Remembered::open(&state).has("a.test"));
    }

    #[test]
    fn a_damaged_file_opens_no_door_and_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts-with-policies.json");
        for damaged in [&b"{"[..], b"", b"{\"format\": 2, \"hosts\": []}"] {
            std::fs::write(&file, damaged).unwrap();
            let mut remembered = Remembered::open(folder.path());
            assert!(remembered.has("a.test"), "it may have had one");
            remembered.remember("b.test");
            assert!(remembered.forget("a.test") && !remembered.has("a.test"));
            assert_eq!(std::fs::read(&file).unwrap(), damaged);
        }
        std::fs::remove_file(&file).unwrap();
        assert!(!Remembered::open(folder.path()).has("a.test"));
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let mut remembered = Remembered::open(Path::new(""));
        remembered.remember("a.test");
        assert!(remembered.has("a.test") && !Path::new("hosts-with-policies.json").exists());
    }
}
