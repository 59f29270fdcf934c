//! The running program as the admin listener sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Inner;
use crate::admin::{Control, NotDone};
use crate::cache::error::CacheError;
use crate::cache::purges::PurgeScope;
use crate::local::Local;
use crate::proxy::explain::{self, Question};
use crate::purge::{Action, Done, Order};
use crate::semantics::authority::{HostPattern, Hostname};
use crate::telemetry::metrics;
use crate::warm;

/// So many hosts that are not served here are told of one purge.
const UNKNOWN_MOST: usize = 20;

/// A purge that was not carried out.
fn not_purged(error: &CacheError) -> NotDone {
    match error {
        CacheError::PurgeNotPassedOn(_) | CacheError::TooManyPurges(_) => NotDone::NotNow(error.to_string()),
        error => NotDone::Failed(error.to_string()),
    }
}

fn ending() -> NotDone {
    NotDone::NotNow("this program is ending; another one may serve by now".to_owned())
}

impl Inner {
    /// Hosts that a purge names and that are not served here, some of them.
    fn unknown_hosts(&self, order: &Order) -> Vec<String> {
        let generation = self.proxy.generation();
        let is_served = |host: &str| Hostname::parse(host).is_ok_and(|name| generation.route(&name).is_some());
        let named: BTreeSet<_> = order.scopes.iter().filter_map(PurgeScope::host).collect();
        named.into_iter().filter(|host| !is_served(host)).take(UNKNOWN_MOST).map(str::to_owned).collect()
    }
}

impl Control for Inner {
    fn purge(&self, order: Order) -> BoxFuture<'_, Result<Done, NotDone>> {
        Box::pin(async move {
            let refreshes = order.action == Action::Refresh && !order.dry_run;
            let place = if refreshes {
                let many = || NotDone::NotNow("too many purges are being refreshed: ask again later".to_owned());
                Some(self.proxy.place_to_refetch().ok_or_else(many)?)
            } else {
                None
            };
            match order.carry_out(&self.cache, &self.clock).await {
                Ok(mut done) => {
                    done.unknown = self.unknown_hosts(&order);
                    if let Some(place) = place {
                        self.proxy.refetch(place, order.scopes, done.sequence);
                    }
                    Ok(done)
                }
                Err(error) => Err(not_purged(&error)),
            }
        })
    }

    fn warm(&self, order: warm::Order) -> Result<warm::Warming, NotDone> {
        if self.draining.load(Ordering::Acquire) {
            return Err(ending());
        }
        let many = || NotDone::NotNow("too many warm-ups are under way: ask again later".to_owned());
        self.proxy.warm(order).ok_or_else(many)
    }

    fn events(&self, events: warm::event::Events) -> BoxFuture<'_, Result<Value, NotDone>> {
        Box::pin(async move {
            match self.proxy.apply_events(&events).await {
                Ok(applied) => {
                    let mut told = json!({
                        "events": events.events.len(),
                        "purged": applied.purged,
                        "fetching": applied.fetching,
                    });
                    if !applied.left_out.is_empty() {
                        tracing::warn!(hosts = ?applied.left_out, "too many names to purge for events");
                        told["left_out"] = applied.left_out.into();
                    }
                    Ok(told)
                }
                Err(error) => Err(not_purged(&error)),
            }
        })
    }

    fn reload(&self) -> BoxFuture<'_, Result<Vec<String>, Vec<String>>> {
        Box::pin(self.reload_now())
    }

    fn upgrade(&self) -> BoxFuture<'_, Result<u32, NotDone>> {
        Box::pin(async move {
            let nobody = || NotDone::Failed("this program cannot be upgraded".to_owned());
            let wishes = self.wishes.as_ref().ok_or_else(nobody)?;
            if self.draining.load(Ordering::Acquire) {
                return Err(ending());
            }
            let under_way = || NotDone::NotNow("an upgrade is under way".to_owned());
            if self.upgrading.swap(true, Ordering::AcqRel) {
                return Err(under_way());
            }
            let (wish, outcome) = oneshot::channel();
            wishes.try_send(wish).map_err(|_| under_way())?;
            outcome.await.map_err(|_| ending())?.map_err(NotDone::Failed)
        })
    }

    fn forget_policy(&self, host: String) -> BoxFuture<'_, bool> {
        let policies = Arc::clone(&self.policies);
        Box::pin(async move {
            // It writes to the disk what is remembered.
            let host = HostPattern::parse(&host).map_or(host, |pattern| pattern.to_string());
            tokio::task::spawn_blocking(move || policies.forget(&host)).await.unwrap_or(false)
        })
    }

    fn stats(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let generation = self.proxy.generation();
            let hosts: Vec<&str> = generation.hosts().iter().map(|host| host.settings.name.as_str()).collect();
            json!({
                "version": env!("CARGO_PKG_VERSION"),
                "uptime_s": self.clock.now().as_millis().saturating_sub(self.started_ms) / 1000,
                "hosts": hosts,
                "cache": self.cache.stats(),
                "cache_hosts": self.cache.host_stats(),
                "refetches": self.proxy.refetches(),
                "warm_ups": self.proxy.warm_ups(),
                "pins": self.proxy.pins(),
                "mirrors": self.proxy.mirrors(),
                "policies": self.policies.status(),
                "certificates": self.certificates.status(),
                "failed_reload": *self.failed_reload.lock(),
            })
        })
    }

    fn metrics(&self) -> String {
        let stats = self.cache.stats();
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.cache_disk_bytes.set(gauge(stats.disk_bytes));
        self.metrics.cache_memory_bytes.set(gauge(stats.memory_bytes));
        self.metrics.cache_entries.set(gauge(stats.entries));
        self.cache.gauge_hosts();
        metrics::render(&self.registry)
    }

    fn ready(&self) -> Result<Value, Value> {
        if self.draining.load(Ordering::Acquire) {
            return Err(json!({ "status": "draining" }));
        }
        let disk = self.cache.stats().disk_error.is_some();
        let reload = self.failed_reload.lock().is_some();
        // A broken disk or a refused file is worth a look, but requests are served. What is wrong with them names paths and
        // values of hosts.json, and this is told without a token: `/stats` has it.
        Ok(json!({ "status": "ok", "disk_error": disk, "failed_reload": reload }))
    }

    fn explain(
        &self,
        method: String,
        url: String,
        headers: Vec<(String, String)>,
    ) -> BoxFuture<'_, Result<Value, String>> {
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        Box::pin(explain::explain(Local::of(&self.proxy), Question { method, url, headers, client }))
    }
}
