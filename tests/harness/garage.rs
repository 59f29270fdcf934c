//! `garage`, a real S3 server from crates.io, as one node in a folder of its own.
//!
//! `cargo xtask test` installs it; here it is only started. Built without what the plays do not use, it needs a C compiler and
//! make, no further packages:
//!
//! ```text
//! cargo install garage --version 2.5.0 --locked --debug --no-default-features --features bundled-libs,lmdb --root FOLDER
//! ```

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, Call};
use crate::s3::REGION;
use crate::setup::AsOrigin;
use crate::sign::sigv4;

/// The program: `PROXYHOST_GARAGE`, or `garage` in the cache folder's `bin`.
pub fn program() -> Option<PathBuf> {
    let candidates = [
        std::env::var_os("PROXYHOST_GARAGE").map(PathBuf::from),
        std::env::var_os("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("proxyhost/bin/garage")),
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/proxyhost/bin/garage")),
    ];
    candidates.into_iter().flatten().find(|file| file.is_file())
}

/// A running server with one bucket. It is killed when it is dropped.
pub struct Garage {
    program: PathBuf,
    folder: TempDir,
    server: Child,
    s3_port: u16,
    access_key: String,
    secret_key: String,
}

impl Drop for Garage {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Garage {
    /// Starts one, gives it a layout, a key and this bucket.
    ///
    /// # Panics
    ///
    /// When it is not installed, with the command that does it, or does not come up.
    pub fn with_bucket(bucket: &str) -> Self {
        let program = program().unwrap_or_else(|| {
            panic!("garage is not installed: `cargo xtask test` does it, or set PROXYHOST_GARAGE to the program")
        });
        // It takes fixed ports only. Between this look and its start another process may take one; then it is tried again.
        (0..5)
            .find_map(|_| Self::start(&program, bucket))
            .unwrap_or_else(|| panic!("{} does not start on any ports", program.display()))
    }

    fn start(program: &Path, bucket: &str) -> Option<Self> {
        let folder = crate::temp_dir("garage");
        let [s3_port, rpc_port, admin_port] = free_ports();
        let path = folder.path().display();
        let config = format!(
            r#"metadata_dir = "{path}/meta"
data_dir = "{path}/data"
db_engine = "lmdb"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc_port}"
rpc_public_addr = "127.0.0.1:{rpc_port}"
rpc_secret = "{}"

[s3_api]
s3_region = "{REGION}"
api_bind_addr = "127.0.0.1:{s3_port}"
root_domain = ".s3.localhost"

[admin]
api_bind_addr = "127.0.0.1:{admin_port}"
"#,
            "5a".repeat(32)
        );
        std::fs::write(folder.path().join("garage.toml"), config).expect("a new folder is writable");
        let log = std::fs::File::create(folder.path().join("log")).expect("a new folder is writable");
        let server = Command::new(program)
            .arg("-c")
            .arg(folder.path().join("garage.toml"))
            .arg("server")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("file handles can be doubled"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let (access_key, secret_key) = (String::new(), String::new());
        let mut garage = Self { program: program.to_owned(), folder, server, s3_port, access_key, secret_key };
        garage.wait_for_boot()?;
        garage.set_up(bucket);
        Some(garage)
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.path().join("garage.toml")).args(arguments).stdin(Stdio::null());
        command.output().expect("the program that runs as a server runs as a command")
    }

    /// Whether it came up, within a minute.
    fn wait_for_boot(&mut self) -> Option<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if self.command(&["status"]).status.success() {
                return Some(());
            }
            if !matches!(self.server.try_wait(), Ok(None)) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        None
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "garage {arguments:?}: {out}{err}");
        out.into_owned()
    }

    fn api(&self, call: &str, body: &Value) -> Value {
        let answer = self.must(&["json-api", call, &body.to_string()]);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("garage json-api {call}: {error}: {answer}"))
    }

    fn set_up(&mut self, bucket: &str) {
        let id = self.must(&["node", "id", "--quiet"]);
        let id: String = id.chars().take(64).collect();
        self.must(&["layout", "assign", &id, "-c", "1G", "-z", "here"]);
        self.must(&["layout", "apply", "--version", "1"]);
        let key = self.api("CreateKey", &json!({ "name": "plays" }));
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        self.access_key = text(&key, "accessKeyId");
        self.secret_key = text(&key, "secretAccessKey");
        let made = self.api("CreateBucket", &json!({ "globalAlias": bucket }));
        self.api(
            "AllowBucketKey",
            &json!({
                "bucketId": text(&made, "id"),
                "accessKeyId": self.access_key,
                "permissions": { "read": true, "write": true, "owner": false },
            }),
        );
    }

    /// Stores an object over the wire.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: impl Into<bytes::Bytes>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let authority = format!("127.0.0.1:{}", self.s3_port);
        let path = format!("/{bucket}/{key}");
        let address = authority.parse().expect("the authority is an address");
        let mut call = Call::new(address, "PUT", &path, &authority).body(body);
        for (name, value) in sigv4("PUT", &authority, &path, &self.access_key, &self.secret_key) {
            call = call.header(&name, &value);
        }
        for (name, value) in headers {
            call = call.header(name, value);
        }
        let answer = call.send().await;
        answer.status(200);
        answer
    }

    /// A bucket as an origin of hosts.json.
    pub fn bucket(&self, name: &str) -> Value {
        json!({ "s3": {
            "bucket": name, "region": REGION, "endpoint": format!("http://127.0.0.1:{}", self.s3_port),
            "path_style": true, "access_key_id": self.access_key, "secret_access_key": self.secret_key,
        }})
        .as_origin()
    }
}

fn free_ports() -> [u16; 3] {
    // All are held before any is let go, so that they differ.
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"));
    held.map(|listener| listener.local_addr().expect("a bound listener has an address").port())
}
