//! What each host has on disk, and how much it may have.
//!
//! The index has a number of bytes for each name that keys have, changed in the batch that changes what it counts: it is right
//! after any crash, whatever hosts.json says by then. Here the names are added up by the hosts of hosts.json, of which a pattern
//! may have many names.
//!
//! Where a host has a budget, its entries also stand in column `budgets`, by a hash, so that a few at random are found however
//! small its part of the cache is. That column is a hint: what does not belong there is removed when a sample meets it, and a
//! walk puts there what was kept before the host had a budget.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{RwLock, RwLockReadGuard};
use sha2::{Digest, Sha256};

use super::Cache;
use super::disk::{Disk, DiskError};
use super::index::schema::{self, BudgetKey, GroupId};
use super::index::{self, Change, Column, Index, IndexError, after_prefix};
use super::shared::Shared;
use super::worth::Pace;
use crate::semantics::authority::HostPattern;
use crate::semantics::host_names::HostNames;
use crate::telemetry::metrics::SiteLabels;

/// A host of hosts.json.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBudget {
    /// As written there.
    pub name: String,
    /// Which names it is for, where no other is more exact.
    pub pattern: HostPattern,
    /// Bytes on disk that all of them together may have; none: as many as there is room for.
    pub disk_bytes: Option<u64>,
}

/// What a host has and may have.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HostStats {
    /// As written in hosts.json.
    pub host: String,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Its budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_budget_bytes: Option<u64>,
}

/// The use of the disk by one host of hosts.json.
#[derive(Debug)]
pub(super) struct HostUse {
    pub name: String,
    /// The beginning of its keys in column `budgets`.
    pub group: GroupId,
    pub budget: Option<u64>,
    bytes: AtomicI64,
    /// Bytes of bodies whose entries are gone and that are still read.
    pub leaving: Arc<AtomicU64>,
    /// The most that a fill waits for room for.
    pub wanted: AtomicU64,
    /// How long its entries lie idle, where it has a budget: it says who goes.
    pub pace: Pace,
}

impl HostUse {
    /// Bytes on disk, without those that become free by themselves.
    pub fn bytes(&self) -> u64 {
        let bytes = u64::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(0);
        bytes.saturating_sub(self.leaving.load(Ordering::Relaxed))
    }

    /// Whether it may have so many more, with so many over its budget for a moment.
    pub fn fits(&self, more: u64, overshoot: u64) -> bool {
        self.budget.is_none_or(|budget| self.bytes() + more <= budget.saturating_add(overshoot))
    }
}

#[derive(Debug, Default)]
struct Table {
    settings: Arc<[HostBudget]>,
    names: HostNames,
    uses: Vec<Arc<HostUse>>,
    /// Stands for all that decides what is in column `budgets`; 0 where nothing is.
    fingerprint: i64,
    generation: u64,
}

impl Table {
    fn of(&self, host: &str) -> Option<&Arc<HostUse>> {
        self.names.find(host).and_then(|at| self.uses.get(at))
    }
}

/// The hosts of hosts.json as they use the disk.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    table: ArcSwap<Table>,
    /// Held by who writes to the index; alone by who reads all numbers anew.
    counting: RwLock<()>,
}

/// The right to write to the index: what is written is counted.
pub(super) struct Counting<'a> {
    table: Arc<Table>,
    _turn: RwLockReadGuard<'a, ()>,
}

impl Counting<'_> {
    /// Adds to what a host has; called when the batch that has `schema::host_bytes_key` in it is written.
    pub fn add(&self, host: &str, delta: i64) {
        if let Some(of) = self.table.of(host) {
            of.bytes.fetch_add(delta, Ordering::Relaxed);
        }
    }

    /// Where an entry of the host stands in column `budgets`, if it does.
    pub fn place(&self, host: &str, recency: &schema::RecencyKey) -> Option<BudgetKey> {
        let of = self.table.of(host).filter(|of| of.budget.is_some())?;
        Some(schema::budget_key(of.group, recency))
    }
}

impl Hosts {
    /// Begins to write.
    pub fn counting(&self) -> Counting<'_> {
        let turn = self.counting.read();
        Counting { table: self.table.load_full(), _turn: turn }
    }

    /// The host that a name goes by.
    pub fn of(&self, host: &str) -> Option<Arc<HostUse>> {
        self.table.load().of(host).cloned()
    }

    /// The same where it has a budget.
    pub fn with_budget(&self, host: &str) -> Option<Arc<HostUse>> {
        self.of(host).filter(|of| of.budget.is_some())
    }

    /// Those that have more than they may, or less room than a fill waits for.
    pub fn over_budget(&self) -> Vec<Arc<HostUse>> {
        let table = self.table.load();
        table.uses.iter().filter(|of| !of.fits(of.wanted.load(Ordering::Relaxed), 0)).cloned().collect()
    }

    /// What all of them have, in the order of hosts.json.
    pub fn stats(&self) -> Vec<HostStats> {
        let of = |of: &Arc<HostUse>| HostStats {
            host: of.name.clone(),
            disk_bytes: of.bytes(),
            disk_budget_bytes: of.budget,
        };
        self.table.load().uses.iter().map(of).collect()
    }

    /// Blocking: other hosts, or others' budgets. Their numbers are read anew.
    pub fn configure(&self, settings: &Arc<[HostBudget]>, index: &dyn Index) -> Result<(), IndexError> {
        let before = self.table.load_full();
        // The first is quick, and mostly so: this is asked in every round of housekeeping.
        if Arc::ptr_eq(&before.settings, settings) || before.settings == *settings {
            return Ok(());
        }
        let uses = settings.iter().map(|host| {
            let same = before.uses.iter().find(|of| of.name == host.name);
            Arc::new(HostUse {
                name: host.name.clone(),
                group: group_id(&host.pattern),
                budget: host.disk_bytes,
                bytes: AtomicI64::new(0),
                leaving: same.map(|of| Arc::clone(&of.leaving)).unwrap_or_default(),
                wanted: AtomicU64::new(0),
                pace: Pace::default(),
            })
        });
        let table = Table {
            uses: uses.collect(),
            names: HostNames::new(settings.iter().map(|host| &host.pattern)),
            fingerprint: fingerprint(settings),
            generation: before.generation + 1,
            settings: Arc::clone(settings),
        };
        let _alone = self.counting.write();
        if index::number(index, schema::META_BUDGETED)? != table.fingerprint {
            // What is kept from now on stands in the column; what was kept before does when it was walked over.
            write_number(index, schema::META_BUDGETED, 0)?;
        }
        each_number(index, |host, bytes| {
            if let Some(of) = table.of(host) {
                of.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        })?;
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Rises with each change of hosts or budgets.
    pub fn generation(&self) -> u64 {
        self.table.load().generation
    }

    /// Whether this is of a host that has a budget.
    pub fn has_group(&self, group: GroupId) -> bool {
        self.table.load().uses.iter().any(|of| of.budget.is_some() && of.group == group)
    }

    /// All that was kept stands in the column, if nothing has changed since.
    pub fn walked(&self, mark: i64, generation: u64, index: &dyn Index) -> Result<(), IndexError> {
        let _turn = self.counting.read();
        if self.generation() == generation { write_number(index, schema::META_BUDGETED, mark) } else { Ok(()) }
    }

    /// What the index is to have as its mark when all is in column `budgets` that belongs there, if it is not.
    /// With it the generation that it is of.
    pub fn unwalked(&self, index: &dyn Index) -> Result<Option<(i64, u64)>, IndexError> {
        let table = self.table.load();
        let wanted = table.fingerprint;
        Ok((index::number(index, schema::META_BUDGETED)? != wanted).then_some((wanted, table.generation)))
    }
}

/// The numbers of all names that there are.
fn each_number(index: &dyn Index, mut each: impl FnMut(&str, i64)) -> Result<(), IndexError> {
    let end = after_prefix(schema::HOST_BYTES);
    index::each(index, Column::Meta, schema::HOST_BYTES, end.as_deref(), |key, value| {
        if let Some(host) = schema::host_of_bytes_key(key) {
            each(host, index::decode_number(value));
        }
    })
}

fn write_number(index: &dyn Index, key: &[u8], number: i64) -> Result<(), IndexError> {
    index.write(vec![Change::Put(Column::Meta, key.to_vec(), number.to_be_bytes().to_vec())], false)
}

fn group_id(pattern: &HostPattern) -> GroupId {
    let digest: [u8; 32] = Sha256::digest(pattern.to_string()).into();
    *digest.first_chunk().expect("8 is less than 32")
}

/// Of all patterns, since one may take names from another that has a budget.
fn fingerprint(settings: &[HostBudget]) -> i64 {
    if settings.iter().all(|host| host.disk_bytes.is_none()) {
        return 0;
    }
    let mut patterns: Vec<String> =
        settings.iter().map(|host| format!("{} {}\n", host.pattern, host.disk_bytes.is_some())).collect();
    patterns.sort();
    let digest: [u8; 32] = Sha256::digest(patterns.concat()).into();
    // Never that of nothing.
    i64::from_be_bytes(*digest.first_chunk().expect("8 is less than 32")) | 1
}

impl Cache {
    /// What each host of hosts.json has on disk.
    pub fn host_stats(&self) -> Vec<HostStats> {
        self.shared.disk.load().as_ref().map(|disk| disk.hosts.stats()).unwrap_or_default()
    }

    /// Puts the same into the metrics.
    pub fn gauge_hosts(&self) {
        let (stats, metrics) = (self.host_stats(), &self.shared.metrics);
        let mut shown = self.shared.hosts_shown.lock();
        let names: BTreeSet<String> = stats.iter().map(|host| host.host.clone()).collect();
        for gone in shown.difference(&names) {
            let labels = SiteLabels { host: gone.clone() };
            metrics.cache_host_disk_bytes.remove(&labels);
            metrics.cache_host_disk_budget_bytes.remove(&labels);
            metrics.cache_host_evictions.remove(&labels);
        }
        for HostStats { host, disk_bytes, disk_budget_bytes } in stats {
            let labels = SiteLabels { host };
            metrics.cache_host_disk_bytes.get_or_create(&labels).set(disk_bytes.cast_signed());
            match disk_budget_bytes {
                Some(budget) => {
                    metrics.cache_host_disk_budget_bytes.get_or_create(&labels).set(budget.cast_signed());
                }
                None => {
                    metrics.cache_host_disk_budget_bytes.remove(&labels);
                }
            }
        }
        *shown = names;
    }
}

impl Shared {
    /// Blocking: puts the hosts of hosts.json in force on the disk.
    pub fn configure_hosts(&self, disk: &Disk) {
        let wanted = self.host_budgets.load_full();
        if !disk.is_handed_over()
            && self.counted(disk.hosts.configure(&wanted, &*disk.index).map_err(DiskError::from)).is_none()
        {
            // Asked for again soon; that the index fails is counted.
            tracing::debug!("the budgets of hosts are not in force: the index of the cache cannot be read");
        }
    }
}
