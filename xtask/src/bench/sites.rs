//! What is served in the benchmarks: three files at an nginx that is the origin, kept by another nginx and by proxyhost, which
//! has a host without a policy and one whose policy checks a signature with an HMAC.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::policies_folder;
use super::programs::{self, Folder, Program, free_ports};
use crate::cargo::{self, Workspace};

/// Names of the files and their sizes.
pub const SIZES: [(&str, usize); 3] = [("1k", 1 << 10), ("100k", 100 << 10), ("1m", 1 << 20)];

/// The host whose links are signed.
pub const SIGNED: &str = "signed.test";

/// The one beside it.
pub const PLAIN: &str = "plain.test";

/// The key of the signed links.
const SECRET: &str = "a secret of the benchmark";

/// When they end: in the year 2100.
const EXPIRES: u64 = 4_102_444_800;

/// A folder with the policy in it, and the origin at work there.
pub struct Stage {
    // Dropped in this order.
    _origin: Program,
    /// Where the origin listens.
    pub origin_port: u16,
    /// Everything of this run.
    pub folder: Folder,
}

impl Stage {
    /// Makes the folder and starts the origin.
    pub fn set(workspace: &Workspace) -> Result<Self> {
        let policy = policies_folder(workspace)?.join("signed-url.wasm");
        let folder = Folder::make()?;
        let bytes = std::fs::read(&policy).with_context(|| format!("could not read {}", policy.display()))?;
        folder.write("proxyhost/policies/signed-url.wasm", bytes)?;
        for (name, bytes) in SIZES {
            folder.write(&format!("files/{name}"), vec![b'x'; bytes])?;
        }
        let [origin_port] = free_ports()?;
        let servers = format!(
            "    access_log off;
    server {{
        listen 127.0.0.1:{origin_port};
        root {};
        add_header Cache-Control \"public, max-age=86400\";
    }}",
            folder.at("files").display()
        );
        let _origin = programs::nginx("origin", &servers, &folder, &[origin_port])?;
        Ok(Self { _origin, origin_port, folder })
    }
}

/// A target that the policy lets through, in the scheme of policies/signed-url/README.md.
pub fn signed(size: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(format!("proxyhost-1\nGET\n{SIGNED}\n/{size}\n\n{EXPIRES}\n\n").as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    Ok(format!("/{size}?expires={EXPIRES}&sig={signature}"))
}

/// A chain and its key, in PEM files.
pub struct Certificate {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Certificate {
    /// As nginx is told of it.
    pub fn nginx(&self) -> String {
        format!("    ssl_certificate {};\n    ssl_certificate_key {};\n", self.cert.display(), self.key.display())
    }

    /// As it stands in the list of hosts.json.
    pub fn json(&self) -> String {
        format!(r#"{{ "cert": "{}", "key": "{}" }}"#, self.cert.display(), self.key.display())
    }
}

/// Makes one for both hosts.
pub fn certificate(folder: &Folder) -> Result<Certificate> {
    let certificate = Certificate { cert: folder.at("cert.pem"), key: folder.at("key.pem") };
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=plain.test", "-addext", "subjectAltName=DNS:plain.test,DNS:signed.test"])
        .arg("-keyout")
        .arg(&certificate.key)
        .arg("-out")
        .arg(&certificate.cert)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    cargo::succeed(&mut command)?;
    Ok(certificate)
}

/// What all servers of the nginx of this name that caches share: its cache and its log, which is buffered as ours is.
pub fn nginx_cache(name: &str, folder: &Folder) -> String {
    let place = folder.at(name);
    let place = place.display();
    format!(
        "    access_log {place}/access.log combined buffer=64k flush=1s;
    open_file_cache max=1000 inactive=1h;
    open_file_cache_valid 1h;
    proxy_cache_path {place}/cache levels=1:2 keys_zone=kept:8m inactive=1d;
"
    )
}

/// How nginx speaks TLS.
pub const NGINX_TLS: &str = "    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:sessions:10m;
";

/// One server of the nginx that caches. `listen` stands behind the address, `more` is what is its own.
pub fn nginx_server(origin_port: u16, port: u16, listen: &str, more: &str) -> String {
    format!(
        "    server {{
        listen 127.0.0.1:{port} {listen};
        {more}
        location / {{
            proxy_pass http://127.0.0.1:{origin_port};
            proxy_cache kept;
            proxy_cache_valid 200 1d;
        }}
    }}
"
    )
}

/// proxyhost's hosts.json, as far as it differs.
pub struct HostsJson {
    /// The origin's port.
    pub origin_port: u16,
    /// Where it listens without TLS.
    pub http: u16,
    /// Where it listens for the admin.
    pub admin: u16,
    /// Where it listens with TLS, and an entry in the list of certificates.
    pub https: Option<(u16, String)>,
    /// The hosts.
    pub hosts: String,
}

impl HostsJson {
    /// Its text.
    pub fn text(&self) -> String {
        let Self { origin_port, http, admin, https, hosts } = self;
        let (listen, tls) = match https {
            None => Default::default(),
            Some((port, certificate)) => (
                format!(r#""https": ["127.0.0.1:{port}"], "#),
                format!("\n  \"tls\": {{ \"certificates\": [{certificate}] }},"),
            ),
        };
        format!(
            r#"{{
  "listen": {{ "http": ["127.0.0.1:{http}"], {listen}"admin": "127.0.0.1:{admin}" }},{tls}
  "cache": {{ "dir": "cache", "disk": "1GB", "memory": "64MB" }},
  "origins": {{ "files": {{ "http": {{ "url": "http://127.0.0.1:{origin_port}" }} }} }},
  "hosts": {{
{hosts}
  }}
}}
"#
        )
    }
}

/// One without a policy.
pub fn host(name: &str) -> String {
    format!(r#"    "{name}": {{ "origin": "files" }}"#)
}

/// The host without a policy and the one with it.
pub fn plain_and_signed() -> String {
    format!(
        r#"{},
    "{SIGNED}": {{
      "origin": "files",
      "policy": {{ "wasm": "signed-url.wasm", "secrets": {{ "sign": "{SECRET}" }} }}
    }}"#,
        host(PLAIN)
    )
}
