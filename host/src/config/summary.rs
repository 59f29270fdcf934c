//! What is in force: as JSON in the words of hosts.json for `config show`, and in a few lines for a person at start. Secrets are
//! hidden in both.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Resolved;
use crate::listener::Address;
use crate::origin::{HostField, OriginKind, Place, S3Credentials, Settings as Origin};
use crate::policy::dropped_file;
use crate::policy::settings::{ChainSource, Isolation, OnFailure, PolicySettings};
use crate::semantics::path_pattern::PathPattern;
use crate::tls::{CertificateFiles, Source};
use crate::units::{ByteSize, duration_text as duration};
use crate::vhost::{CacheUse, Methods, PurgeAllow, Rule, Settings as Host};

/// What stands for a secret.
const HIDDEN: &str = "(hidden)";
/// The most hosts that are listed at start; a person does not read more.
const HOSTS_LISTED: usize = 20;

impl Resolved {
    /// In the words of hosts.json, with all defaults, secrets hidden.
    pub fn show(&self) -> Value {
        let capabilities = &self.capabilities;
        let token = match &self.admin_token {
            Some(_) => HIDDEN.to_owned(),
            None => format!("file:{}", self.admin_token_file().display()),
        };
        let mut shown = json!({
            "listen": { "http": strings(&self.http), "https": strings(&self.https), "admin": self.admin.to_string() },
            "admin": { "token": token },
            "trusted_proxies": strings(&self.trusted_proxies),
            "cache": {
                "dir": self.cache.dir.display().to_string(),
                "disk": self.cache.disk_bytes,
                "memory": self.cache.memory_bytes,
                "scrub": self.cache.scrub.map_or_else(|| "off".to_owned(), duration),
            },
            "policies": self.policies.folder.display().to_string(),
            "origins": self.origins.iter().map(|origin| (origin.name.clone(), show_origin(origin))).collect::<Map<_, _>>(),
            "hosts": self.hosts.iter().map(|host| (host.name.clone(), show_host(host))).collect::<Map<_, _>>(),
            "addresses": capabilities.addresses.iter()
                .map(|(name, set)| (name.clone(), json!(strings(set)))).collect::<Map<_, _>>(),
            "tables": capabilities.tables.iter()
                .map(|(name, rows)| (name.clone(), json!(rows))).collect::<Map<_, _>>(),
            "rates": capabilities.rates.iter()
                .map(|(name, rate)| {
                    (name.clone(), json!({ "rate": rate.rate, "per": duration(rate.per), "burst": rate.burst }))
                })
                .collect::<Map<_, _>>(),
            "keys": capabilities.keys.iter()
                .map(|(name, key)| (name.clone(), json!(key.path.display().to_string()))).collect::<Map<_, _>>(),
        });
        if let Some(bytes) = self.cache.free_bytes {
            shown["cache"]["free"] = bytes.into();
        }
        if self.http3 {
            shown["listen"]["http3"] = true.into();
        }
        if !self.proxy_protocol.is_empty() {
            shown["listen"]["proxy_protocol"] = json!(strings(&self.proxy_protocol));
        }
        let (all, per_address) = self.max_connections;
        for (name, count) in [("max_connections", all), ("max_connections_per_address", per_address)] {
            if let Some(count) = count {
                shown["listen"][name] = count.into();
            }
        }
        if !self.certificates.is_empty() {
            let certificates: Vec<Value> = self.certificates.iter().map(show_certificate).collect();
            shown["tls"] = json!({ "certificates": certificates });
        }
        if let Some(acme) = &self.acme {
            shown["acme"] = json!({
                "contact": acme.contact,
                "directory": acme.directory,
                "store": acme.store.display().to_string(),
            });
            if let Some(ca) = &acme.ca {
                shown["acme"]["ca"] = ca.display().to_string().into();
            }
        }
        shown
    }

    /// A few lines that a person can read.
    pub fn summary(&self) -> Vec<String> {
        let mut addresses: Vec<String> = self.http.iter().map(|address| at("http", address)).collect();
        addresses.extend(self.https.iter().map(|address| at("https", address)));
        let token = match &self.admin_token {
            Some(_) => "token as configured".to_owned(),
            None => format!("token in {}", self.admin_token_file().display()),
        };
        let default = |given: bool| if given { "" } else { " (default)" };
        let (disk_given, memory_given) = self.budgets_given;
        let mut lines = vec![
            format!("serving   {}", addresses.join(", ")),
            format!("admin     http://{}, {token}", self.admin),
            format!(
                "cache     {}, {} on disk{}, {} in memory{}",
                self.cache.dir.display(),
                ByteSize(self.cache.disk_bytes),
                default(disk_given),
                ByteSize(self.cache.memory_bytes),
                default(memory_given),
            ),
            format!("policies  {}", self.policies.folder.display()),
        ];
        lines.extend(self.hosts.iter().take(HOSTS_LISTED).map(|host| self.host_line(host)));
        if let Some(more @ 1..) = self.hosts.len().checked_sub(HOSTS_LISTED) {
            lines.push(format!("          and {more} more hosts"));
        }
        lines
    }

    fn host_line(&self, host: &Host) -> String {
        let mut line = format!("host      {} from {}", host.name, host.origin);
        if let Some(origin) = self.origins.iter().find(|origin| origin.name == host.origin) {
            line += &format!(" ({})", where_from(origin));
        }
        if !host.prefix.is_empty() {
            line += &format!(", prefix {}", host.prefix);
        }
        if host.methods == Methods::All {
            line += ", all methods";
        }
        let caching = &host.caching;
        if caching.cache == CacheUse::Off {
            line += ", not cached";
        } else if let Some(ttl) = caching.ttl.default {
            line += &format!(", ttl {}", duration(ttl));
        }
        if let Some(bytes) = host.cache_disk_bytes {
            line += &format!(", at most {} on disk", ByteSize(bytes));
        }
        if caching.compress.is_some() {
            line += ", compressed";
        }
        if host.mirror.is_some() {
            line += ", mirrored";
        } else if !host.pin.is_empty() {
            line += ", partly pinned";
        }
        match host.rules.len() {
            0 => {}
            1 => line += ", 1 rule",
            many => line += &format!(", {many} rules"),
        }
        match &host.chain.source {
            ChainSource::None => {}
            ChainSource::Dropped => {
                let file = dropped_file(&self.policies.folder, &host.chain.host);
                if file.is_file() {
                    line += &format!(", policy {} by its name", file.file_name().unwrap_or_default().display());
                }
            }
            ChainSource::Named(list) => {
                let names: Vec<String> = list.iter().map(|policy| self.policy_name(policy)).collect();
                line += &format!(", policy {}", names.join(" then "));
            }
        }
        match host.https.source {
            _ if self.https.is_empty() => {}
            Source::Auto => line += ", https with automatic certificates",
            Source::Static => line += ", https with certificates of tls.certificates",
            Source::Unsaid { auto: true } => line += ", https",
            Source::Unsaid { auto: false } | Source::Off => {}
        }
        if host.https.client_ca.is_some() {
            line += ", for clients with certificates";
        }
        if let Some(purge) = &host.purge {
            line += &format!(", purged by {}", purge.method);
        }
        line
    }

    fn policy_name(&self, policy: &PolicySettings) -> String {
        policy.file.strip_prefix(&self.policies.folder).unwrap_or(&policy.file).display().to_string()
    }
}

/// An address as a URL, where it can be one.
fn at(scheme: &str, address: &Address) -> String {
    match address {
        Address::Ip(address) => format!("{scheme}://{address}"),
        Address::Unix(_) => format!("{scheme} over {address}"),
    }
}

fn strings<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

fn where_from(origin: &Origin) -> String {
    match &origin.place {
        Place::S3(s3) => match (&s3.endpoint, &s3.region) {
            (Some(endpoint), _) => format!("s3 bucket {} at {endpoint}", s3.bucket),
            (None, Some(region)) => format!("s3 bucket {} in {region}", s3.bucket),
            (None, None) => format!("s3 bucket {}", s3.bucket),
        },
        Place::Http(http) => http.url.to_string(),
        Place::Dir(folder) => format!("folder {}", folder.display()),
    }
}

fn show_origin(origin: &Origin) -> Value {
    let (kind, place) = match &origin.place {
        Place::S3(s3) => {
            let mut place = json!({ "bucket": s3.bucket, "path_style": s3.path_style });
            if let Some(region) = &s3.region {
                place["region"] = region.clone().into();
            }
            if let Some(endpoint) = &s3.endpoint {
                place["endpoint"] = endpoint.clone().into();
            }
            match &s3.credentials {
                S3Credentials::Anonymous => place["anonymous"] = true.into(),
                S3Credentials::Static { .. } => {
                    place["access_key_id"] = HIDDEN.into();
                    place["secret_access_key"] = HIDDEN.into();
                }
                S3Credentials::Chain => {}
            }
            (OriginKind::S3, place)
        }
        Place::Http(http) => {
            let host = match &http.host {
                HostField::Origin => "origin",
                HostField::Client => "client",
                HostField::Literal(literal) => literal,
            };
            let mut place = json!({ "url": http.url.to_string(), "host": host });
            if let Some(ca) = &http.ca {
                place["ca"] = ca.display().to_string().into();
            }
            (OriginKind::Http, place)
        }
        Place::Dir(folder) => (OriginKind::Dir, json!({ "path": folder.display().to_string() })),
    };
    let kind = match kind {
        OriginKind::S3 => "s3",
        OriginKind::Http => "http",
        OriginKind::Dir => "dir",
    };
    let timeouts = &origin.timeouts;
    json!({
        kind: place,
        "timeouts": {
            "connect": duration(timeouts.connect),
            "first_byte": duration(timeouts.first_byte),
            "idle": duration(timeouts.idle),
        },
    })
}

fn show_host(host: &Host) -> Value {
    let mut shown = json!({
        "origin": host.origin,
        "prefix": host.prefix,
        "methods": match host.methods { Methods::Read => "read", Methods::All => "all" },
        "max_body": host.max_body_bytes,
    });
    if let Value::Object(shown) = &mut shown {
        shown.extend(host.caching.show());
    }
    if let Some(bytes) = host.cache_disk_bytes {
        shown["cache_disk"] = bytes.into();
    }
    if !host.pin.is_empty() {
        shown["pin"] = host.pin.iter().map(PathPattern::as_str).collect();
    }
    if let Some(mirror) = &host.mirror {
        shown["mirror"] = json!({ "interval": duration(mirror.interval), "jobs": mirror.jobs });
    }
    if !host.rules.is_empty() {
        shown["rules"] = host.rules.iter().map(Rule::show).collect();
    }
    let https = &host.https;
    match https.source {
        Source::Off => shown["https"] = "off".into(),
        Source::Static => shown["https"] = "static".into(),
        Source::Auto => shown["https"] = "auto".into(),
        Source::Unsaid { .. } => {}
    }
    shown["redirect_http"] = https.redirect.into();
    if let Some(hsts) = https.hsts.as_ref().and_then(|value| value.to_str().ok()) {
        shown["hsts"] = show_hsts(hsts);
    }
    if let Some(canonical) = &https.canonical {
        shown["canonical"] = canonical.as_str().into();
    }
    if let Some(ca) = &https.client_ca {
        shown["client_ca"] = ca.file().display().to_string().into();
    }
    match &host.chain.source {
        ChainSource::Dropped => {}
        ChainSource::None => shown["policy"] = Value::Null,
        ChainSource::Named(list) => shown["policy"] = list.iter().map(show_policy).collect(),
    }
    if let Some(purge) = &host.purge {
        shown["purge_method"] = purge.method.as_str().into();
        shown["purge_allow"] = match &purge.allow {
            PurgeAllow::Policy => "policy".into(),
            PurgeAllow::Addresses(networks) => json!(strings(networks)),
        };
    }
    shown
}

fn show_certificate(files: &CertificateFiles) -> Value {
    let mut shown = json!({ "cert": files.cert.display().to_string() });
    if let Some(key) = &files.key {
        shown["key"] = key.display().to_string().into();
    }
    shown
}

/// The value of the field in the words of hosts.json.
fn show_hsts(value: &str) -> Value {
    let seconds =
        value.split(';').next().and_then(|first| first.strip_prefix("max-age=")).and_then(|age| age.parse().ok());
    json!({
        "max_age": duration(Duration::from_secs(seconds.unwrap_or(0))),
        "include_subdomains": value.contains("includeSubDomains"),
        "preload": value.contains("preload"),
    })
}

fn show_policy(policy: &PolicySettings) -> Value {
    json!({
        "wasm": policy.file.display().to_string(),
        "config": policy.config,
        "secrets": policy.secrets.keys().map(|name| (name.clone(), HIDDEN.into())).collect::<Map<String, Value>>(),
        "grants": policy.grants,
        "limits": {
            "time_ms": policy.limits.time_ms,
            "memory_mib": policy.limits.memory_mib,
            "calls": policy.limits.calls,
        },
        "on_failure": match policy.on_failure { OnFailure::Closed => "closed", OnFailure::Open => "open" },
        "isolation": match policy.isolation { Isolation::Reuse => "reuse", Isolation::Request => "request" },
    })
}
