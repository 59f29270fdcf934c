//! Hosts and the policies that they name.

use std::collections::HashMap;

use http::Method;

use super::super::at::At;
use super::super::error::{Path, one_of, quoted};
use super::super::json::Json;
use super::super::leaf;
use super::super::schema::POLICY_OBJECT;
use super::origins::Origins;
use super::{Resolver, Tls};
use crate::origin::OriginKind;
use crate::policy::had_named_policy;
use crate::policy::settings::{ChainSettings, ChainSource, Isolation, Limits, OnFailure, PolicySettings, Secret};
use crate::semantics::authority::{HostPattern, Hostname};
use crate::semantics::host_names::HostNames;
use crate::vhost::{CacheUse, Methods, PurgeAllow, PurgeMethod, Settings};

impl Resolver<'_> {
    pub(super) fn hosts(&mut self, hosts: &At<'_>, origins: &Origins, tls: Tls) -> Vec<Settings> {
        let mut seen: HashMap<HostPattern, &str> = HashMap::new();
        let mut list = Vec::new();
        for (name, host) in hosts.names() {
            let pattern = match HostPattern::parse(name) {
                Ok(pattern) => Some(pattern),
                Err(error) => {
                    let found = format!("{} ({error})", quoted(name));
                    self.mistakes.add(&host.path, found, r#"a host name such as "a.example", "*.example" or "*""#);
                    None
                }
            };
            if let Some(pattern) = &pattern
                && let Some(first) = seen.insert(pattern.clone(), name)
                // The walker has named those that are written alike.
                && first != name
            {
                let found = format!("the same host as {}", quoted(first));
                self.mistakes.add(&host.path, found, "each host once (case and a final dot do not count)");
            }
            // Without a pattern the rest is still looked at: all mistakes in one go.
            let settings = self.host(name, &host, pattern.as_ref(), origins, tls);
            if let (Some(settings), Some(_)) = (settings, pattern) {
                list.push(settings);
            }
        }
        self.circles(hosts, &list);
        list
    }

    /// Redirects to canonical names must come to an end.
    fn circles(&mut self, hosts: &At<'_>, list: &[Settings]) {
        let table = HostNames::new(list.iter().map(|host| &host.pattern));
        let next = |name: &Hostname| {
            let host = list.get(table.find(name.as_str())?)?;
            host.https.canonical.as_ref().filter(|canonical| *canonical != name)
        };
        for host in list {
            let mut way: Vec<&Hostname> = host.https.canonical.iter().collect();
            while let Some(further) = way.last().and_then(|last| next(last)) {
                if way.contains(&further) {
                    let found = way.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", then ");
                    let path = hosts.path.key(&host.name).key("canonical");
                    self.mistakes.add(&path, format!("{found}, in a circle"), "a name that leads no further");
                    break;
                }
                way.push(further);
            }
        }
    }

    fn host(
        &mut self,
        name: &str,
        host: &At<'_>,
        pattern: Option<&HostPattern>,
        origins: &Origins,
        tls: Tls,
    ) -> Option<Settings> {
        let origin = host.text("origin");
        let kind = origin.as_ref().and_then(|origin| self.origin_kind(host, origin, origins));
        let methods = self.methods(host, kind);
        let prefix = self.prefix(host);
        let source = self.chain(host, &pattern.map(written).unwrap_or_default());
        let purge = self.purge(host, pattern, source.as_ref());
        let https = self.https(host, pattern, tls);
        let caching = self.caching(host, kind);
        // Held against defaults where the host's own word is wrong: all mistakes in one go.
        let rules = self.rules(host, &caching.clone().unwrap_or_default());
        let pin = self.pins(host);
        let cached = caching.as_ref().is_none_or(|caching| caching.cache == CacheUse::On);
        let mirror = self.mirror(host, pattern, kind, cached);
        let pattern = pattern?.clone();
        Some(Settings {
            name: name.to_owned(),
            chain: ChainSettings { host: written(&pattern), source: source? },
            pattern,
            origin: origin?,
            prefix: prefix?,
            methods,
            caching: caching?,
            cache_disk_bytes: host.size("cache_disk"),
            rules: rules?,
            purge,
            max_body_bytes: host.size("max_body")?,
            https: https?,
            pin: pin?,
            mirror: mirror?,
        })
    }

    fn origin_kind(&mut self, host: &At<'_>, origin: &str, origins: &Origins) -> Option<OriginKind> {
        if let Some(kind) = origins.kinds.get(origin) {
            return *kind;
        }
        let mut names: Vec<&str> = origins.kinds.keys().map(String::as_str).collect();
        names.sort_unstable();
        let found = format!("{}, an origin that does not exist", quoted(origin));
        self.mistakes.add(&host.path.key("origin"), found, one_of(origin, names.into_iter(), "an origin of `origins`"));
        None
    }

    fn methods(&mut self, host: &At<'_>, kind: Option<OriginKind>) -> Methods {
        if host.text("methods").as_deref() != Some("all") {
            return Methods::Read;
        }
        if matches!(kind, Some(OriginKind::S3 | OriginKind::Dir)) {
            let found = r#""all" for an origin that is only read"#;
            self.mistakes.add(&host.path.key("methods"), found, r#""read", or an http origin"#);
        }
        Methods::All
    }

    fn prefix(&mut self, host: &At<'_>) -> Option<String> {
        let written = host.text("prefix")?;
        let prefix = written.trim_matches('/');
        if prefix.split('/').any(|segment| matches!(segment, "." | "..")) {
            self.mistakes.add(&host.path.key("prefix"), quoted(&written), "a path without dot segments");
            return None;
        }
        Some(prefix.to_owned())
    }

    fn purge(
        &mut self,
        host: &At<'_>,
        pattern: Option<&HostPattern>,
        source: Option<&ChainSource>,
    ) -> Option<PurgeMethod> {
        let allow = host.given("purge_allow");
        let Some(method) = host.given("purge_method") else {
            if let Some(allow) = allow {
                let expected = "purge_method beside it: purge_allow means nothing alone";
                self.mistakes.add(&allow.path, "no purge_method", expected);
            }
            return None;
        };
        let Some(allow) = allow else {
            let expected = "who may purge: networks, or \"policy\"";
            self.mistakes.add(&host.path.key("purge_allow"), "nothing", expected);
            return None;
        };
        let method = match method.json.text()? {
            "PURGE" => Method::from_bytes(b"PURGE").ok()?,
            "DELETE" => Method::DELETE,
            _ => return None,
        };
        let allow = match allow.json {
            Json::Text(text) if text != "policy" => return None,
            Json::Text(_) => {
                if let (Some(source), Some(pattern)) = (source, pattern)
                    && !self.has_policy(source, pattern)
                {
                    let found = "\"policy\" for a host without a policy, which would let everyone purge";
                    self.mistakes.add(&allow.path, found, "networks, or a policy for this host");
                }
                PurgeAllow::Policy
            }
            _ => PurgeAllow::Addresses(host.list("purge_allow", leaf::network)),
        };
        Some(PurgeMethod { method, allow })
    }

    /// Whether somebody decides about requests of the host: a policy that is named, or one that lies in the folder.
    fn has_policy(&self, source: &ChainSource, pattern: &HostPattern) -> bool {
        match (source, pattern) {
            (ChainSource::Named(list), _) => !list.is_empty(),
            (ChainSource::Dropped, HostPattern::Exact(host)) => {
                self.policies.join(format!("{}.wasm", host.as_str())).is_file()
            }
            _ => false,
        }
    }

    fn chain(&mut self, host: &At<'_>, name: &str) -> Option<ChainSource> {
        let Some(policy) = host.given("policy") else { return Some(ChainSource::Dropped) };
        match policy.json {
            Json::Null => Some(ChainSource::None),
            Json::List(items) => {
                // Collected before any is missed, so that the mistakes of all are found.
                let list: Vec<Option<PolicySettings>> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.policy(item, policy.path.item(index), name))
                    .collect();
                list.into_iter().collect::<Option<Vec<_>>>().map(ChainSource::Named)
            }
            one => self.policy(one, policy.path, name).map(|policy| ChainSource::Named(vec![policy])),
        }
    }

    fn policy(&mut self, json: &Json, path: Path, host: &str) -> Option<PolicySettings> {
        match json {
            Json::Text(name) => {
                let short = Json::Object(vec![("wasm".to_owned(), Json::Text(name.clone()))]);
                self.policy_object(&At { json: &short, shape: &POLICY_OBJECT, path: path.clone() }, &path, host)
            }
            Json::Object(_) => {
                let file_path = path.key("wasm");
                self.policy_object(&At { json, shape: &POLICY_OBJECT, path }, &file_path, host)
            }
            _ => None,
        }
    }

    fn policy_object(&mut self, policy: &At<'_>, file_path: &Path, host: &str) -> Option<PolicySettings> {
        let secrets: Vec<Option<(String, Secret)>> = policy
            .object("secrets")
            .names()
            .map(|(name, secret)| {
                let bytes = self.surroundings.secret(secret.json.text()?, &secret.path, self.mistakes)?;
                Some((name.to_owned(), Secret(bytes.into())))
            })
            .collect();
        let name = policy.text("wasm")?;
        let file = self.policies.join(&name);
        // The file of a policy that was in service may have vanished: that is its own host's trouble and nobody else's.
        let lost = || !file.exists() && had_named_policy(&self.policy_state, host);
        if let Err(reason) = readable(&file)
            && !lost()
        {
            let found = format!("{}, {reason}", quoted(&name));
            let expected = format!("a file in the folder of the policies, {}", self.policies.display());
            self.mistakes.add(file_path, found, expected);
        }
        let config = match policy.value("config")?.to_value() {
            serde_json::Value::Object(config) => config,
            _ => return None,
        };
        let limits = policy.object("limits");
        Some(PolicySettings {
            file,
            config,
            secrets: secrets.into_iter().collect::<Option<_>>()?,
            grants: policy.list("grants", |grant| Some(grant.to_owned())),
            limits: Limits {
                time_ms: limits.count("time_ms")?,
                memory_mib: limits.count("memory_mib")?,
                calls: limits.count("calls")?,
            },
            on_failure: match policy.text("on_failure")?.as_str() {
                "open" => OnFailure::Open,
                _ => OnFailure::Closed,
            },
            isolation: match policy.text("isolation")?.as_str() {
                "request" => Isolation::Request,
                _ => Isolation::Reuse,
            },
        })
    }
}

fn readable(file: &std::path::Path) -> Result<(), String> {
    match std::fs::metadata(file) {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(_) => Err("which is not a file".into()),
        Err(error) => Err(super::super::files::unreadable(&error)),
    }
}

/// A pattern in its one spelling.
pub fn written(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.as_str().to_owned(),
        HostPattern::Wildcard(host) => format!("*.{}", host.as_str()),
        HostPattern::Any => "*".to_owned(),
    }
}
