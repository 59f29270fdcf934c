//! The folder of the policies: which file is a host's by its name, and which is nobody's.
//!
//! A host that hosts.json gives no policy has the one in the file of its name, if there is one: `a.example.wasm` for
//! `a.example`, `_.example.wasm` for `*.example`, `_.wasm` for `*` (a star is awkward in shells and no file name elsewhere).

use std::path::{Path, PathBuf};
use std::sync::Weak;

use super::registry::{Policies, Work};

impl Policies {
    /// A file that lies in the folder and is no host's policy is most likely thought to be one.
    pub(super) fn look_for_unused(&self, work: &mut Work) -> Vec<String> {
        let used: Vec<PathBuf> = work
            .in_force
            .iter()
            .filter_map(Weak::upgrade)
            .flat_map(|chain| chain.files().cloned().collect::<Vec<_>>())
            .collect();
        let there = std::fs::read_dir(&self.settings.load().folder);
        let mut unused: Vec<PathBuf> = there
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| file.extension().is_some_and(|extension| extension == "wasm") && !used.contains(file))
            .collect();
        unused.sort();
        if work.in_force.is_empty() || unused == work.unused {
            return Vec::new();
        }
        let new: Vec<String> =
            unused.iter().filter(|file| !work.unused.contains(file)).map(|file| unused_line(file)).collect();
        for line in &new {
            tracing::warn!("{line}");
        }
        work.unused = unused;
        new
    }

    /// A line for each file of the folder that is nobody's policy.
    pub fn unused(&self) -> Vec<String> {
        self.work.lock().unused.iter().map(|file| unused_line(file)).collect()
    }
}

/// The file that is a host's policy by its name.
pub fn dropped_file(folder: &Path, host: &str) -> PathBuf {
    folder.join(format!("{}.wasm", host.replace('*', "_")))
}

/// What to say of a file that no host goes by.
fn unused_line(file: &Path) -> String {
    format!(
        "{} is no host's policy: a host of hosts.json without `policy` has the file of its name in lower case, with `_` in \
         place of `*`, and no other name goes by it",
        file.display()
    )
}
