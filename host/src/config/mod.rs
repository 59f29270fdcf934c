//! hosts.json: what is written becomes each room's `Settings`, already valid. This is the only room that knows JSON
//! configuration. All mistakes of a file are found in one go; see `error` for how they are told.
//!
//! In the order of the work: `json` (the text, doubles kept), `shape` and `leaf` (what may stand where), `schema` (the table of
//! all fields), `resolve` (names, files, secrets and defaults), `summary` (what is in force, for people and programs).

mod at;
mod defaults;
pub mod error;
mod files;
pub mod json;
mod json_schema;
mod leaf;
mod resolve;
mod schema;
mod shape;
mod summary;

use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::listener::Address;

pub use error::{Mistake, Mistakes};
pub use json_schema::json_schema;
pub use resolve::Acme;
pub use schema::POLICY_MEMORY_MOST_MIB;

use files::Surroundings;
use json::Json;

/// The longest hosts.json.
const MOST_BYTES: u64 = 64 << 20;

/// Name of the file in the cache folder that keeps a generated admin token.
const ADMIN_TOKEN: &str = "admin-token";

/// A hosts.json that can be served.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Where it was read.
    pub file: PathBuf,
    /// Where to serve.
    pub http: Vec<Address>,
    /// Where to serve over TLS.
    pub https: Vec<Address>,
    /// Connections open at once: in all, and from one address.
    pub max_connections: (Option<usize>, Option<usize>),
    /// HTTP/3 on the addresses of `https`.
    pub http3: bool,
    /// Peers that speak for others by the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// Certificates in files.
    pub certificates: Vec<crate::tls::CertificateFiles>,
    /// Automatic certificates.
    pub acme: Option<Acme>,
    /// Where to administer.
    pub admin: SocketAddr,
    /// The admin token; none: one is generated and kept in `admin_token_file`.
    pub admin_token: Option<Token>,
    /// Whose Forwarded fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The cache.
    pub cache: crate::cache::Settings,
    /// What holds for all policies.
    pub policies: crate::policy::Settings,
    /// What policies can ask for by name.
    pub capabilities: Arc<crate::policy::Capabilities>,
    /// Origins in the order of the file.
    pub origins: Vec<crate::origin::Settings>,
    /// Hosts in the order of the file.
    pub hosts: Vec<crate::vhost::Settings>,
    /// Whether the budgets of the cache were written (disk, memory) or are defaults.
    pub budgets_given: (bool, bool),
}

impl Resolved {
    /// What the room of TLS goes by.
    pub fn tls(&self) -> crate::tls::Settings {
        let of = |host: &crate::vhost::Settings| crate::tls::HostSettings {
            pattern: host.pattern.clone(),
            source: host.https.source,
            client_ca: host.https.client_ca.clone(),
        };
        crate::tls::Settings { certificates: self.certificates.clone(), hosts: self.hosts.iter().map(of).collect() }
    }

    /// Where a generated admin token is kept, mode 0600.
    pub fn admin_token_file(&self) -> PathBuf {
        self.cache.dir.join(ADMIN_TOKEN)
    }
}

/// A token that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// How the running program is administered.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its admin listener.
    pub address: SocketAddr,
    token: Option<Token>,
    token_file: PathBuf,
}

impl Door {
    /// The configured token, or the one that the running program made.
    pub fn token(&self) -> Result<String, String> {
        if let Some(token) = &self.token {
            return Ok(token.0.to_string());
        }
        let file = self.token_file.display();
        let bytes = files::read(&self.token_file, 4096).map_err(|reason| {
            format!("no admin.token is configured, so it is in {file}, {reason}: is the program running?")
        })?;
        String::from_utf8(bytes)
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or_else(|| format!("{file} holds no token"))
    }
}

/// Reads what is needed to ask the running program, and nothing else: mistakes elsewhere in the file do not matter, since the
/// program may run with an older one.
pub fn door(file: &Path) -> Result<Door, Mistakes> {
    let (bytes, absolute) = text(file)?;
    with_surroundings(&absolute, |surroundings| {
        let mut mistakes = Mistakes::default();
        let json = parse(&bytes, &absolute, &mut mistakes)?;
        match resolve::door(&json, surroundings, &mut mistakes) {
            Some(door) if mistakes.is_empty() => Ok(door),
            _ => Err(mistakes),
        }
    })
}

/// A secret of the command line: literal, `env:NAME` or `file:PATH`.
pub fn command_line_secret(text: &str) -> Result<String, Mistakes> {
    let here = std::path::absolute("hosts.json").unwrap_or_default();
    with_surroundings(&here, |surroundings| {
        let mut mistakes = Mistakes::default();
        let path = error::Path::default().key("--token");
        if text.is_empty() {
            mistakes.add(&path, "nothing", "a token");
        }
        surroundings.secret_text(text, &path, &mut mistakes).ok_or(mistakes)
    })
}

/// Reads a file with all that it names. Blocks.
pub fn load(file: &Path) -> Result<Resolved, Mistakes> {
    let (bytes, absolute) = text(file)?;
    with_surroundings(&absolute, |surroundings| read(&bytes, &absolute, surroundings))
}

/// Reads a text as if it stood in a folder with nothing in it, on a machine that says nothing of itself. For `host/fuzz`.
#[doc(hidden)]
pub fn load_text(bytes: &[u8]) -> Result<Resolved, Mistakes> {
    let folder = PathBuf::from("/nonexistent");
    let file = folder.join("hosts.json");
    read(bytes, &file, &Surroundings { folder, variable: &|_| None, disk_free: &|_| None, memory: None })
}

/// The text of a file and its absolute name.
fn text(file: &Path) -> Result<(Vec<u8>, PathBuf), Mistakes> {
    let bytes = files::read(file, MOST_BYTES).map_err(|reason| {
        let mut mistakes = Mistakes::default();
        mistakes.add(&error::Path::file(file), format!("a file {reason}"), "a hosts.json that can be read");
        mistakes
    })?;
    Ok((bytes, std::path::absolute(file).unwrap_or_else(|_| file.to_owned())))
}

/// With what the process has around it.
fn with_surroundings<T>(file: &Path, work: impl FnOnce(&Surroundings<'_>) -> T) -> T {
    work(&Surroundings {
        folder: file.parent().unwrap_or(Path::new("/")).to_owned(),
        variable: &|name| std::env::var_os(name).map(OsStringExt::into_vec),
        disk_free: &defaults::disk_free,
        memory: defaults::memory(),
    })
}

fn parse(bytes: &[u8], file: &Path, mistakes: &mut Mistakes) -> Result<Json, Mistakes> {
    Json::parse(bytes).map_err(|error| {
        mistakes.add(&error::Path::file(file), format!("what is not JSON ({error})"), "JSON");
        std::mem::take(mistakes)
    })
}

/// The same from the text.
fn read(bytes: &[u8], file: &Path, surroundings: &Surroundings<'_>) -> Result<Resolved, Mistakes> {
    let mut mistakes = Mistakes::default();
    let json = parse(bytes, file, &mut mistakes)?;
    schema::FILE_SHAPE.check(&json, &error::Path::default(), &mut mistakes);
    match resolve::resolve(&json, file, surroundings, &mut mistakes) {
        Some(resolved) if mistakes.is_empty() => Ok(resolved),
        _ => {
            if mistakes.is_empty() {
                // The walker and `resolve` share their parsers, so this would be a fault of ours: refused, not guessed.
                mistakes.add(&error::Path::file(file), "what could not be resolved", "a file that can");
            }
            Err(mistakes)
        }
    }
}

#[cfg(test)]
mod tests;
