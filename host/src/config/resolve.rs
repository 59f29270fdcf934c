//! From what is written to what is used: defaults, file names, secrets, and names that must exist elsewhere in the file. The
//! walker has been here before: where it named a mistake this gives nothing and is silent.

mod caching;
mod capabilities;
mod compress;
mod hosts;
mod https;
mod origins;
mod resident;

pub use https::Acme;

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use super::at::At;
use super::error::{Mistakes, Path};
use super::files::Surroundings;
use super::json::Json;
use super::schema::{FILE_SHAPE, POLICY_MEMORY_MOST_MIB};
use super::{ADMIN_TOKEN, Door, Resolved, Token, defaults, leaf};
use crate::cache::hosts::HostBudget;
use crate::listener::Address;
use crate::tls::CertificateFiles;

/// What the parts of this module share.
struct Resolver<'a> {
    surroundings: &'a Surroundings<'a>,
    mistakes: &'a mut Mistakes,
    policies: PathBuf,
    /// Where it is remembered which hosts had policies.
    policy_state: PathBuf,
}

/// Where it listens.
struct Listeners {
    http: Vec<Address>,
    https: Vec<Address>,
    admin: Option<std::net::SocketAddr>,
    admin_token: Option<Token>,
}

/// What hosts may count on.
#[derive(Clone, Copy, Debug)]
struct Tls {
    /// Certificates are issued automatically.
    acme: bool,
    /// There are addresses for HTTPS.
    listens: bool,
    /// There are static certificates; which names they are for is not looked at.
    certificates: bool,
}

/// Resolves a whole file. None only if a mistake was noted.
pub fn resolve(
    json: &Json,
    file: &FilePath,
    surroundings: &Surroundings<'_>,
    mistakes: &mut Mistakes,
) -> Option<Resolved> {
    let root = At { json, shape: &FILE_SHAPE, path: Path::default() };
    let cache_folder = surroundings.path(&root.object("cache").text("dir").unwrap_or_default());
    let policies = surroundings.path(&root.text("policies").unwrap_or_default());
    let policy_state = cache_folder.join("policy");
    let mut resolver =
        Resolver { surroundings, mistakes, policies: policies.clone(), policy_state: policy_state.clone() };

    let Listeners { http, https, admin, admin_token } = resolver.listeners(&root);
    // What is written wrongly is named as that.
    let with_https = root.object("listen").given("https").is_some_and(|at| at.json != &Json::List(Vec::new()));
    if https.iter().all(|address| address.ip().is_none()) && root.object("listen").flag("http3") {
        let path = root.object("listen").path.key("http3");
        let expected = "listen.https with addresses and ports, which it takes";
        resolver.mistakes.add(&path, "true, and no address in listen.https", expected);
    }
    let certificates = resolver.static_certificates(&root.object("tls"));
    let acme = resolver.acme(&root, &cache_folder);
    if !with_https && acme.is_some() {
        let path = root.path.key("acme");
        resolver.mistakes.add(&path, "acme, and no listen.https", "listen.https beside it, with an address");
    }
    resolver.folder(&root, "policies", &policies);
    resolver.folder(&root.object("cache"), "dir", &cache_folder);
    let cache = resolver.cache(&root.object("cache"), &cache_folder);
    let mut private: Vec<(&str, &FilePath)> = vec![("the cache folder", &cache_folder), ("hosts.json", file)];
    for CertificateFiles { cert, key } in &certificates {
        // Where no key is named, it stands in the certificate's file or beside it.
        private.push(("a key of tls.certificates", key.as_ref().unwrap_or(cert)));
    }
    if let Some(acme) = &acme {
        private.push(("acme.store", &acme.store));
    }
    let origins = resolver.origins(&root.object("origins"), &private);
    let with_certificates =
        root.object("tls").given("certificates").is_some_and(|at| at.json != &Json::List(Vec::new()));
    let tls = Tls { acme: acme.is_some(), listens: with_https, certificates: with_certificates };
    let hosts = resolver.hosts(&root.object("hosts"), &origins, tls);
    let capabilities = resolver.capabilities(&root, origins.kinds.keys().cloned().collect());

    let whole = origins.list.len() == root.object("origins").json.members().len()
        && hosts.len() == root.object("hosts").json.members().len();
    if !whole {
        return None;
    }
    let cache = crate::cache::Settings { hosts: hosts.iter().map(budget_of).collect(), ..cache };
    Some(Resolved {
        file: file.to_owned(),
        http,
        https,
        max_connections: {
            let listen = root.object("listen");
            let count = |name: &str| listen.count(name).and_then(|count| usize::try_from(count).ok());
            (count("max_connections"), count("max_connections_per_address"))
        },
        http3: root.object("listen").flag("http3"),
        proxy_protocol: root.object("listen").list("proxy_protocol", leaf::network),
        certificates,
        acme,
        admin: admin?,
        admin_token,
        trusted_proxies: root.list("trusted_proxies", leaf::network),
        policies: crate::policy::Settings {
            folder: policies,
            state: policy_state,
            read_only: false,
            memory_max_bytes: u64::from(POLICY_MEMORY_MOST_MIB) << 20,
        },
        cache,
        capabilities: Arc::new(capabilities),
        origins: origins.list,
        hosts,
        budgets_given: {
            let cache = root.object("cache");
            (cache.given("disk").is_some(), cache.given("memory").is_some())
        },
    })
}

fn budget_of(host: &crate::vhost::Settings) -> HostBudget {
    HostBudget { name: host.name.clone(), pattern: host.pattern.clone(), disk_bytes: host.cache_disk_bytes }
}

/// Resolves only what is needed to ask the running program. None only if a mistake was noted.
pub fn door(json: &Json, surroundings: &Surroundings<'_>, mistakes: &mut Mistakes) -> Option<Door> {
    let root = At { json, shape: &FILE_SHAPE, path: Path::default() };
    for name in ["listen", "admin", "cache"] {
        if let Some(at) = root.given(name) {
            at.shape.check(at.json, &at.path, mistakes);
        }
    }
    let cache = surroundings.path(&root.object("cache").text("dir")?);
    let mut resolver = Resolver { surroundings, mistakes, policies: PathBuf::new(), policy_state: PathBuf::new() };
    let Listeners { admin, admin_token, .. } = resolver.listeners(&root);
    Some(Door { address: admin?, token: admin_token, token_file: cache.join(ADMIN_TOKEN) })
}

impl Resolver<'_> {
    fn listeners(&mut self, root: &At<'_>) -> Listeners {
        let listen = root.object("listen");
        let address = |text: &str| match Address::parse(text)? {
            Address::Unix(path) => Some(Address::Unix(self.surroundings.folder.join(path))),
            ip => Some(ip),
        };
        let (http, https) = (listen.list("http", address), listen.list("https", address));
        let admin = listen.text("admin").as_deref().and_then(leaf::socket);
        let token = root.object("admin").given("token").and_then(|token| {
            let text = token.json.text()?;
            self.surroundings.secret_text(text, &token.path, self.mistakes)
        });

        let mut seen = HashSet::new();
        let all = http.iter().enumerate().map(|(index, address)| ("http", index, address));
        for (name, index, address) in
            all.chain(https.iter().enumerate().map(|(index, address)| ("https", index, address)))
        {
            if address.ip().is_none_or(|ip| ip.port() != 0) && !seen.insert(address.clone()) {
                let path = listen.path.key(name).item(index);
                self.mistakes.add(&path, format!("{address} a second time"), "each address once");
            }
        }
        if let Some(admin) = admin {
            let path = listen.path.key("admin");
            if seen.contains(&Address::Ip(admin)) {
                self.mistakes.add(&path, format!("{admin}, which clients are served at too"), "an address of its own");
            }
            let given = root.object("admin").given("token").is_some();
            if !admin.ip().to_canonical().is_loopback() && !given {
                self.mistakes.add(
                    &path,
                    format!("{admin}, which others can reach, and no admin.token"),
                    "a loopback address, or a token in admin.token",
                );
            }
        }
        Listeners { http, https, admin, admin_token: token.map(|token| Token(token.into())) }
    }

    /// A folder that may be missing, but must not be something else; a folder that was written for the policies must be there.
    fn folder(&mut self, at: &At<'_>, name: &str, folder: &FilePath) {
        if let Ok(meta) = std::fs::metadata(folder)
            && !meta.is_dir()
        {
            let found = format!("{}, which is not a folder", folder.display());
            self.mistakes.add(&at.path.key(name), found, "a folder");
        }
    }

    fn cache(&mut self, cache: &At<'_>, folder: &FilePath) -> crate::cache::Settings {
        crate::cache::Settings {
            dir: folder.to_owned(),
            disk_bytes: cache
                .size("disk")
                .unwrap_or_else(|| defaults::disk_bytes((self.surroundings.disk_free)(folder))),
            memory_bytes: cache.size("memory").unwrap_or_else(|| defaults::memory_bytes(self.surroundings.memory)),
            free_bytes: cache.size("free"),
            // Off is no duration.
            scrub: cache.duration("scrub"),
            hosts: Arc::default(),
        }
    }
}
