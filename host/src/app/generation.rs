//! From a configuration to what a request uses: origins, policies, hosts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Resolved;
use crate::origin;
use crate::policy::settings::ChainSource;
use crate::policy::{Chain, Policies};
use crate::proxy::{self, Generation};
use crate::telemetry::metrics::Metrics;
use crate::vhost::{Table, VirtualHost};

/// Builds the origins of a configuration. Touches nothing that is in service.
pub(super) async fn origins(
    resolved: &Resolved,
    metrics: &Arc<Metrics>,
) -> Result<HashMap<String, proxy::Service>, Vec<String>> {
    let mut origins = HashMap::new();
    let mut mistakes = Vec::new();
    for settings in &resolved.origins {
        match origin::build(settings, Arc::clone(metrics)).await {
            Ok(origin) => {
                let identity = format!("{:08x}", crc32c::crc32c(format!("{:?}", settings.place).as_bytes()));
                origins.insert(settings.name.clone(), proxy::Service { origin, identity: identity.into() });
            }
            Err(error) => mistakes.push(format!("origins.{:?}: {error}", settings.name)),
        }
    }
    for host in resolved.hosts.iter().filter(|host| !resolved.origins.iter().any(|origin| origin.name == host.origin)) {
        mistakes.push(format!("hosts.{:?}.origin: {:?} is not in service", host.name, host.origin));
    }
    if mistakes.is_empty() { Ok(origins) } else { Err(mistakes) }
}

/// Builds what a request uses out of a configuration. At a reload (`before` is what is in force then) a policy that cannot be
/// put in service is a mistake, unless its host was without it already. `told` gets a line for each policy that changed.
pub(super) async fn build(
    resolved: &Resolved,
    origins: HashMap<String, proxy::Service>,
    policies: &Arc<Policies>,
    metrics: &Arc<Metrics>,
    before: Option<&Generation>,
    told: &mut Vec<String>,
) -> Result<(Generation, Vec<Arc<Chain>>), Vec<String>> {
    let (policies, capabilities) = (Arc::clone(policies), Arc::clone(&resolved.capabilities));
    let settings = resolved.hosts.clone();
    let chains: Vec<_> = settings.iter().map(|host| host.chain.clone()).collect();
    // Compiling takes seconds for large policies.
    let (chains, lines) = tokio::task::spawn_blocking(move || {
        let (chains, mut lines): (Vec<_>, Vec<_>) =
            chains.iter().map(|chain| policies.chain(chain, &capabilities)).collect();
        lines.push(policies.domains(&chains));
        (chains, lines)
    })
    .await
    .map_err(|error| vec![format!("policies: {error}")])?;
    told.extend(lines.into_iter().flatten());
    if let Some(before) = before {
        let all = chains.iter().flat_map(with_domains);
        let mistakes: Vec<String> = all.flat_map(|chain| refusals(&chain, before)).collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
    }
    let mut hosts = Vec::with_capacity(settings.len());
    for (settings, chain) in settings.into_iter().zip(chains.iter().cloned()) {
        // `origins` found it, or had failed.
        if let Some(service) = origins.get(&settings.origin) {
            let origin = Arc::clone(&service.origin);
            hosts.push(Arc::new(VirtualHost { settings, origin, chain }));
        }
    }
    Ok((Generation::new(Table::new(hosts), origins, resolved.trusted_proxies.clone(), metrics), chains))
}

/// What of a host's policies speaks against a reload.
fn refusals(chain: &Chain, before: &Generation) -> Vec<String> {
    let settings = chain.settings();
    let known = before.hosts().iter().flat_map(|host| with_domains(&host.chain));
    let known = known.into_iter().find(|known| known.settings().host == settings.host);
    let goes_on = match known {
        // It is as bad as it was: no reason to keep others from being reloaded.
        Some(known) => *known.settings() == *settings && !known.problems().is_empty(),
        // As at a start: the file may still come.
        None => settings.source == ChainSource::Dropped,
    };
    if goes_on {
        return Vec::new();
    }
    problems(chain)
}

/// What is wrong with a host's policies, in the words of hosts.json.
pub(super) fn problems(chain: &Chain) -> Vec<String> {
    let host = &chain.settings().host;
    chain.problems().into_iter().map(|problem| format!("hosts.{host:?}.policy: {problem}")).collect()
}

/// A chain and those of the domains that it serves.
pub(super) fn with_domains(chain: &Arc<Chain>) -> Vec<Arc<Chain>> {
    let mut all = chain.domains();
    all.push(Arc::clone(chain));
    all
}
