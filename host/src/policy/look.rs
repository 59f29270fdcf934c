//! Looking at the files of a chain: which are new, bad, changed or gone, and what that does to what is in service.
//!
//! A changed file is read, validated, compiled and configured here, on the caller's thread and under a lock that no request
//! takes; only then is it swapped in. One that fails leaves the old one in service, is logged once, counted, and shown by
//! `status`. A file that vanishes leaves its policy in force.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::chain::{Chain, Entry, Known, Stamp};
use super::component::{self, Compiled, name_of};
use super::cwasm::{self, Hash256};
use super::error::LoadError;
use super::generation::Generation;
use super::registry::{Policies, Work};
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::PolicyLabels;

/// A file that changed this short a time before it was looked at may change again within the clock's resolution.
const SETTLED: Duration = Duration::from_secs(2);

impl Policies {
    /// Looks at the files of one chain, and publishes what changed.
    pub(super) fn look(&self, work: &mut Work, chain: &Chain, force: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let mut changed = force && chain.entries.is_empty();
        for entry in &chain.entries {
            if let Some(line) = self.look_at(work, chain, entry, force) {
                changed = true;
                lines.extend(line);
            }
        }
        if changed {
            chain.publish();
        }
        lines
    }

    /// `None` when nothing changed; else the line to report, if there is one.
    fn look_at(&self, work: &mut Work, chain: &Chain, entry: &Entry, force: bool) -> Option<Option<String>> {
        let host = &chain.settings.host;
        let file = &entry.settings.file;
        let mut known = entry.known.lock();
        let stamp = stamp(file);
        if !force && stamp.is_some() && stamp == known.stamp {
            return None;
        }
        known.stamp = stamp.filter(Stamp::is_settled);
        let bytes = match component::read(file) {
            Ok(bytes) => bytes,
            Err(error) => return self.without_file(work, chain, entry, &mut known, error),
        };
        let hash = cwasm::hash(&bytes);
        let in_service = known.generation.as_ref().map(|generation| generation.compiled.hash);
        if in_service == Some(hash) {
            known.bad = None;
            // The file is as it should be again.
            return known.problem.take().map(|_| Some(format!("{host}: {} is back", file.display())));
        }
        if known.bad == Some(hash) && !force {
            return None;
        }
        let first = !known.expected || entry.dropped;
        known.expected = true;
        if entry.dropped && first {
            work.remembered.remember(host);
        }
        match self.load(work, chain, entry, hash, &bytes) {
            Ok(generation) => {
                let line = format!("{host}: {} is in service ({})", file.display(), &cwasm::hex(&hash)[..12]);
                tracing::info!(host, file = %file.display(), sha256 = cwasm::hex(&hash), "policy is in service");
                if !entry.dropped {
                    work.remembered.remember_named(host);
                }
                known.bad = None;
                known.problem = None;
                known.since = Some(Clock::System.now());
                if let Some(old) = known.generation.replace(generation) {
                    old.retire();
                }
                Some(Some(line))
            }
            Err(error) => {
                let again = known.bad == Some(hash);
                known.bad = Some(hash);
                if known.generation.is_none() {
                    known.generation = self.last_good(work, chain, entry);
                }
                Some(Some(self.report(host, file, &mut known, &error.to_string(), again)))
            }
        }
    }

    /// The file can't be read: what is in service stays; at a start, a host that had a policy is closed.
    fn without_file(
        &self,
        work: &mut Work,
        chain: &Chain,
        entry: &Entry,
        known: &mut Known,
        error: LoadError,
    ) -> Option<Option<String>> {
        let host = &chain.settings.host;
        let vanished = matches!(error, LoadError::Missing(_));
        let mut error = error;
        if entry.dropped && vanished && !known.expected {
            if known.generation.is_none() {
                known.generation = self.last_good(work, chain, entry);
            }
            if known.generation.is_none() && !work.remembered.has(host) {
                // There never was one.
                return None;
            }
            known.expected = true;
            if known.generation.is_none() {
                error = LoadError::MissingNow(entry.settings.file.clone());
            }
        }
        known.expected = true;
        if known.generation.is_none() {
            known.generation = self.last_good(work, chain, entry);
        }
        let mut reason = match (&error, entry.dropped && known.generation.is_none()) {
            (LoadError::Missing(file), true) => LoadError::MissingNow(file.clone()).to_string(),
            _ => error.to_string(),
        };
        if known.generation.is_some() {
            reason.push_str("; the policy stays in force");
        }
        let again = known.problem.as_deref() == Some(reason.as_str());
        if again {
            return None;
        }
        Some(Some(self.report(host, &entry.settings.file, known, &reason, false)))
    }

    fn report(&self, host: &str, file: &Path, known: &mut Known, reason: &str, again: bool) -> String {
        let kept = known.generation.is_some();
        let name = name_of(file);
        if !again {
            let labels = PolicyLabels { policy: name, kind: "load".to_owned() };
            self.runtime.metrics.policy_failures.get_or_create(&labels).inc();
            tracing::error!(
                host,
                file = %file.display(),
                previous_stays = kept,
                "policy is not in service: {}",
                super::console::clean(reason)
            );
        }
        known.problem = Some(reason.to_owned());
        let consequence = if kept { "the previous one stays in service" } else { "its host answers by on_failure" };
        format!("{host}: {reason} ({consequence})")
    }

    fn load(
        &self,
        work: &mut Work,
        chain: &Chain,
        entry: &Entry,
        hash: Hash256,
        bytes: &[u8],
    ) -> Result<Arc<Generation>, LoadError> {
        let compiled = match work.compiled.get(&hash).and_then(Weak::upgrade) {
            Some(compiled) => compiled,
            None => {
                let compiled = Arc::new(Compiled::load(&self.runtime, &name_of(&entry.settings.file), bytes)?);
                work.compiled.retain(|_, compiled| compiled.strong_count() > 0);
                work.compiled.insert(hash, Arc::downgrade(&compiled));
                compiled
            }
        };
        let host = &chain.settings.host;
        Generation::new(&self.runtime, compiled, host, entry.settings.clone(), chain.prepared.clone())
    }

    /// The code that another chain has in service from the same file: after a reload of hosts.json a file that has gone bad or
    /// vanished meanwhile keeps its policy, under the new settings.
    fn last_good(&self, work: &Work, chain: &Chain, entry: &Entry) -> Option<Arc<Generation>> {
        let file = &entry.settings.file;
        let of_another = |other: Arc<Chain>| {
            let mut entries = other.entries.iter().filter(|other| other.settings.file == *file);
            entries
                .find_map(|entry| entry.known.lock().generation.as_ref().map(|generation| generation.compiled.clone()))
        };
        let mut others = work.chains.of_file(file).filter(|other| !std::ptr::eq(&**other, chain));
        let compiled = others.find_map(of_another)?;
        let host = &chain.settings.host;
        Generation::new(&self.runtime, compiled, host, entry.settings.clone(), chain.prepared.clone()).ok()
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(file).ok()?;
    Some(Stamp {
        length: data.len(),
        inode: data.ino(),
        modified: (data.mtime(), data.mtime_nsec()),
        changed: (data.ctime(), data.ctime_nsec()),
    })
}

impl Stamp {
    /// Whether another change would surely show.
    fn is_settled(&self) -> bool {
        let Ok(seconds) = u64::try_from(self.changed.0) else { return false };
        // Against the file system's clock, which is the system's, whatever clock requests go by.
        Clock::System.now().since(Timestamp::from_millis(seconds.saturating_mul(1000))) > SETTLED
    }
}
