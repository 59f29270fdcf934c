//! Purges by sequence number: recorded once, judged when an entry is looked up and when a fill is committed, so that they
//! cost the same at any cache size.
//!
//! The table is read without a lock when nothing was purged since an entry was last found clean, which is nearly always: one
//! load and a comparison. Else the purges of the entry's host are asked, behind a lock that only hits on that host share, once
//! for each entry and purge. Records whose entries are all gone are dropped; `floor` then keeps out what was asked for before.
//!
//! Its size is bounded: past `EXACT_RECORDS` or `EXACT_BYTES` what is purged by a name goes into a table of fixed size by the hash
//! of the name (`purge_crowd`), where a few purges hit more than they name, and none less.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use super::glob::Glob;
use super::purge_crowd::{Crowd, Kind};
use super::purges::{Purge, PurgeMode, PurgeScope};
use crate::clock::Timestamp;

/// Purges that are remembered by name, and the bytes that they may take, about.
const EXACT_RECORDS: u64 = 200_000;
const EXACT_BYTES: u64 = 32 << 20;
/// What a record takes beside its name, about.
const AROUND_BYTES: u64 = 96;
/// Hosts with a place of their own: each new one costs a copy of the list.
const MOST_HOSTS: usize = 10_000;
/// Patterns that wait: each is held against every path that is looked up.
pub(super) const MOST_GLOBS: u64 = 256;

/// What a purge may hit an entry by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'a> {
    pub host: &'a str,
    pub paths: [Option<&'a str>; 4],
    pub tags: &'a [String],
}

/// What purges say of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Untouched,
    /// It is stale since then.
    Stale(Timestamp),
    /// It is gone.
    Gone,
}

/// Purges in force.
#[derive(Debug, Default)]
pub(super) struct PurgeTable {
    newest: AtomicU64,
    floor: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    globs: AtomicU64,
    /// What concerns every host.
    everywhere: Place,
    hosts: ArcSwap<HashMap<Box<str>, Arc<Place>>>,
    crowd: Crowd,
    /// Held while the table changes.
    changes: Mutex<()>,
    /// Held while a purge gets the next number.
    nexts: Mutex<()>,
}

#[derive(Debug, Default)]
struct Place {
    newest: AtomicU64,
    scopes: RwLock<Scopes>,
}

#[derive(Debug, Default)]
struct Scopes {
    all: Stamps,
    paths: HashMap<Box<str>, Stamps>,
    tags: HashMap<Box<str>, Stamps>,
    prefixes: HashMap<Box<[u8]>, Stamps>,
    /// Lengths of the prefixes: a path is looked up cut to each, however many prefixes there are.
    prefix_lengths: BTreeSet<usize>,
    globs: Vec<Pending>,
}

/// The newest purges of a name: the one that makes gone, and the one that makes stale, with its moment.
#[derive(Clone, Copy, Debug, Default)]
struct Stamps {
    hard: u64,
    soft: u64,
    soft_at: Timestamp,
}

/// A pattern until what it hits on disk is removed, and as long as there is room for it.
#[derive(Debug)]
struct Pending {
    glob: Glob,
    stamps: Stamps,
    applied: bool,
}

impl Stamps {
    fn set(&mut self, sequence: u64, mode: PurgeMode) {
        match mode {
            PurgeMode::Hard => self.hard = self.hard.max(sequence),
            PurgeMode::Soft { at_ms } if self.soft <= sequence => {
                (self.soft, self.soft_at) = (sequence, Timestamp::from_millis(at_ms));
            }
            PurgeMode::Soft { .. } => {}
        }
    }

    fn newest(&self) -> u64 {
        self.hard.max(self.soft)
    }
}

/// What was found so far against an entry.
struct Against {
    sequence: u64,
    soft: u64,
    soft_at: Timestamp,
}

impl Against {
    /// True if that is the end of it.
    fn weigh(&mut self, stamps: Option<&Stamps>) -> bool {
        let Some(stamps) = stamps else { return false };
        if stamps.soft > self.sequence && stamps.soft > self.soft {
            (self.soft, self.soft_at) = (stamps.soft, stamps.soft_at);
        }
        stamps.hard > self.sequence
    }
}

impl PurgeTable {
    /// The newest purge.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// How many purges are remembered.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed) + self.crowd.records()
    }

    /// Whether no more purges are remembered by name.
    pub fn is_full(&self) -> bool {
        self.records.load(Ordering::Relaxed) >= EXACT_RECORDS || self.bytes.load(Ordering::Relaxed) >= EXACT_BYTES
    }

    /// Patterns that there is room for.
    pub fn room_for_globs(&self) -> u64 {
        MOST_GLOBS.saturating_sub(self.globs.load(Ordering::Relaxed))
    }

    /// Whether a response that was asked for at `sequence` may no longer be kept, because purges after that were forgotten.
    pub fn is_before_floor(&self, sequence: u64) -> bool {
        sequence < self.floor.load(Ordering::Acquire)
    }

    /// Puts a purge in force. Purges come one at a time, in order.
    pub fn apply(&self, sequence: u64, purge: &Purge) {
        let changing = self.changes.lock();
        let mode = purge.mode;
        match &purge.scope {
            PurgeScope::All => {
                self.everywhere.change(sequence, |scopes| scopes.all.set(sequence, mode));
                self.records.fetch_add(1, Ordering::Relaxed);
            }
            PurgeScope::TagEverywhere { tag } if self.takes(tag) => {
                self.everywhere.change(sequence, |scopes| set(&mut scopes.tags, tag.as_str().into(), sequence, mode));
                self.records.fetch_add(1, Ordering::Relaxed);
            }
            PurgeScope::TagEverywhere { tag } => self.crowd.set(Kind::Tag, "", tag.as_bytes(), sequence, mode),
            PurgeScope::Host { host } => {
                let done = self.in_host(host, sequence, |scopes| scopes.all.set(sequence, mode));
                if done.is_none() {
                    self.crowd.set(Kind::Host, host, &[], sequence, mode);
                }
            }
            PurgeScope::Path { host, path } => self.named(Kind::Path, host, path, sequence, mode),
            PurgeScope::Tag { host, tag } => self.named(Kind::Tag, host, tag, sequence, mode),
            PurgeScope::Prefix { host, prefix } => self.named(Kind::Prefix, host, prefix, sequence, mode),
            PurgeScope::Glob { host, glob } => {
                let hosts = self.hosts.load();
                let same = |pending: &Pending| pending.stamps.newest() == sequence;
                // Records are read again when a folder is taken back.
                if hosts.get(host.as_str()).is_some_and(|place| place.scopes.read().globs.iter().any(same)) {
                    return;
                }
                let parsed = Glob::parse(glob).ok().filter(|_| self.room_for_globs() > 0);
                let done = parsed.and_then(|glob| {
                    let mut stamps = Stamps::default();
                    stamps.set(sequence, mode);
                    self.in_host(host, sequence, |scopes| scopes.globs.push(Pending { glob, stamps, applied: false }))
                });
                if done.is_some() {
                    self.globs.fetch_add(1, Ordering::Relaxed);
                } else {
                    // What cannot be matched hits all that it may mean.
                    self.crowd.set(Kind::Host, host, &[], sequence, mode);
                }
            }
        }
        drop(changing);
        self.advance(sequence);
    }

    /// Puts a purge in force that has no place of its own in the order here: after all that are in force, and not before `least`.
    pub fn apply_next(&self, least: u64, purge: &Purge) {
        let _turn = self.nexts.lock();
        self.apply(least.max(self.newest() + 1), purge);
    }

    /// Sequences up to this one are taken.
    pub fn advance(&self, sequence: u64) {
        self.newest.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Whether there is room to remember a name.
    fn takes(&self, name: &str) -> bool {
        let takes = !self.is_full();
        if takes {
            self.bytes.fetch_add(name.len() as u64 + AROUND_BYTES, Ordering::Relaxed);
        }
        takes
    }

    fn named(&self, kind: Kind, host: &str, name: &str, sequence: u64, mode: PurgeMode) {
        let done = self.takes(name).then(|| {
            self.in_host(host, sequence, |scopes| match kind {
                Kind::Tag => set(&mut scopes.tags, name.into(), sequence, mode),
                Kind::Prefix => {
                    scopes.prefix_lengths.insert(name.len());
                    set(&mut scopes.prefixes, name.as_bytes().into(), sequence, mode);
                }
                Kind::Path | Kind::Host => set(&mut scopes.paths, name.into(), sequence, mode),
            })
        });
        if done.flatten().is_none() {
            self.crowd.set(kind, host, name.as_bytes(), sequence, mode);
        }
    }

    /// None if there is no room for another host.
    fn in_host(&self, host: &str, sequence: u64, change: impl FnOnce(&mut Scopes)) -> Option<()> {
        let hosts = self.hosts.load();
        if let Some(place) = hosts.get(host) {
            place.change(sequence, change);
            self.records.fetch_add(1, Ordering::Relaxed);
            return Some(());
        }
        if hosts.len() >= MOST_HOSTS {
            return None;
        }
        let mut more = HashMap::clone(&hosts);
        let place = Arc::<Place>::default();
        place.change(sequence, change);
        more.insert(host.into(), place);
        self.hosts.store(Arc::new(more));
        self.records.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    /// What purges after `sequence` say of something so marked.
    pub fn judge(&self, marks: &Marks<'_>, sequence: u64) -> Verdict {
        if self.newest() <= sequence {
            return Verdict::Untouched;
        }
        let mut against = Against { sequence, soft: 0, soft_at: Timestamp::default() };
        let hosts = self.hosts.load();
        for place in [Some(&self.everywhere), hosts.get(marks.host).map(|place| &**place)].into_iter().flatten() {
            if place.newest.load(Ordering::Acquire) > sequence && place.scopes.read().condemn(marks, &mut against) {
                return Verdict::Gone;
            }
        }
        if self.crowd.newest() > sequence {
            match self.crowd.judge(marks, sequence) {
                Verdict::Gone => return Verdict::Gone,
                Verdict::Stale(at) if against.soft == 0 => return Verdict::Stale(at),
                Verdict::Stale(_) | Verdict::Untouched => {}
            }
        }
        if against.soft > 0 { Verdict::Stale(against.soft_at) } else { Verdict::Untouched }
    }

    /// Forgets purges up to `sequence`; all that they hit is gone from memory and disk, or stale by itself.
    pub fn forget(&self, sequence: u64) {
        let _changing = self.changes.lock();
        self.floor.fetch_max(sequence, Ordering::AcqRel);
        let (mut records, mut bytes, mut globs) = self.everywhere.forget(sequence);
        let mut left = HashMap::new();
        for (host, place) in self.hosts.load().iter() {
            let of_host = place.forget(sequence);
            if of_host.0 > 0 {
                left.insert(host.clone(), Arc::clone(place));
            }
            (records, bytes, globs) = (records + of_host.0, bytes + of_host.1, globs + of_host.2);
        }
        self.hosts.store(Arc::new(left));
        self.crowd.forget(sequence);
        self.records.store(records, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.globs.store(globs, Ordering::Relaxed);
    }

    /// All that patterns of a host up to `sequence` hit on disk is gone from there, or stale by itself.
    pub fn globs_applied(&self, host: &str, sequence: u64) {
        let hosts = self.hosts.load();
        let Some(place) = hosts.get(host) else { return };
        for pending in &mut place.scopes.write().globs {
            pending.applied |= pending.stamps.newest() <= sequence;
        }
    }

    /// Forgets patterns that are applied, and tells their sequences. Of what was asked for before them nothing more is kept.
    pub fn drop_applied_globs(&self) -> Vec<u64> {
        let _changing = self.changes.lock();
        let mut dropped = Vec::new();
        for place in self.hosts.load().values() {
            let mut scopes = place.scopes.write();
            let applied = scopes.globs.iter().filter(|pending| pending.applied).map(|pending| pending.stamps.newest());
            dropped.extend(applied);
            // Nothing that a fill brings from now on may be as old as that.
            if let Some(newest) = dropped.iter().max() {
                self.floor.fetch_max(*newest, Ordering::AcqRel);
            }
            scopes.globs.retain(|pending| !pending.applied);
        }
        self.globs.fetch_sub(dropped.len() as u64, Ordering::Relaxed);
        self.records.fetch_sub(dropped.len() as u64, Ordering::Relaxed);
        dropped
    }
}

fn set<Name: std::hash::Hash + Eq>(names: &mut HashMap<Name, Stamps>, name: Name, sequence: u64, mode: PurgeMode) {
    names.entry(name).or_default().set(sequence, mode);
}

impl Place {
    fn change(&self, sequence: u64, change: impl FnOnce(&mut Scopes)) {
        change(&mut self.scopes.write());
        self.newest.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Records, bytes and patterns that are left.
    fn forget(&self, sequence: u64) -> (u64, u64, u64) {
        let mut scopes = self.scopes.write();
        let newer = |stamps: &Stamps| stamps.newest() > sequence;
        scopes.paths.retain(|_, stamps| newer(stamps));
        scopes.tags.retain(|_, stamps| newer(stamps));
        scopes.prefixes.retain(|_, stamps| newer(stamps));
        scopes.globs.retain(|pending| newer(&pending.stamps));
        scopes.prefix_lengths = scopes.prefixes.keys().map(|prefix| prefix.len()).collect();
        let names = scopes.paths.keys().chain(scopes.tags.keys()).map(|name| name.len());
        let bytes: usize = names.chain(scopes.prefixes.keys().map(|prefix| prefix.len())).sum();
        let named = (scopes.paths.len() + scopes.tags.len() + scopes.prefixes.len()) as u64;
        let globs = scopes.globs.len() as u64;
        (named + globs + u64::from(newer(&scopes.all)), bytes as u64 + named * AROUND_BYTES, globs)
    }
}

impl Scopes {
    /// True if something says that it is gone.
    fn condemn(&self, marks: &Marks<'_>, against: &mut Against) -> bool {
        if against.weigh(Some(&self.all)) {
            return true;
        }
        if !self.tags.is_empty() && marks.tags.iter().any(|tag| against.weigh(self.tags.get(tag.as_str()))) {
            return true;
        }
        for path in marks.paths.iter().flatten() {
            if !self.paths.is_empty() && against.weigh(self.paths.get(*path)) {
                return true;
            }
            for start in self.prefix_lengths.iter().map_while(|length| path.as_bytes().get(..*length)) {
                if against.weigh(self.prefixes.get(start)) {
                    return true;
                }
            }
            for Pending { glob, stamps, .. } in &self.globs {
                if stamps.newest() > against.sequence && glob.matches(path) && against.weigh(Some(stamps)) {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
