//! What a proxy is started with: a `hosts.json` written from a sentence, and the files beside it; and what the program says
//! when it ends by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::Host;
use crate::process::{OWN_PROGRAM, START_WITHIN, command};

/// What can stand under `origins` in hosts.json.
pub trait AsOrigin {
    /// Its JSON.
    fn as_origin(&self) -> Value;
}

impl AsOrigin for Value {
    fn as_origin(&self) -> Value {
        self.clone()
    }
}

impl AsOrigin for Path {
    fn as_origin(&self) -> Value {
        json!({ "dir": { "path": self } })
    }
}

impl AsOrigin for TempDir {
    fn as_origin(&self) -> Value {
        self.path().as_origin()
    }
}

/// A virtual host of hosts.json, and the files that it needs.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    name: String,
    value: Value,
    origin: Option<Value>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// A virtual host of this name.
pub fn vhost(name: &str) -> VirtualHost {
    VirtualHost { name: name.to_owned(), value: json!({}), origin: None, files: Vec::new() }
}

impl VirtualHost {
    /// Gives it an origin.
    #[must_use]
    pub fn origin(mut self, origin: &(impl AsOrigin + ?Sized)) -> Self {
        self.origin = Some(origin.as_origin());
        self
    }

    /// Sets a member of its object.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.value[name] = value.into();
        self
    }

    /// Gives it a built policy of `policies/` with this stanza beside `wasm`.
    #[must_use]
    pub fn policy(self, name: &str, stanza: Value) -> Self {
        self.wasm(&format!("{name}.wasm"), &crate::policies::built(name), stanza)
    }

    /// Gives it a policy of these bytes with this stanza beside `wasm`.
    #[must_use]
    pub fn wasm(mut self, file: &str, bytes: &[u8], stanza: Value) -> Self {
        self.files.push((PathBuf::from("policies").join(file), bytes.to_vec()));
        let mut policy = json!({ "wasm": file });
        merge(&mut policy, &stanza);
        self.value["policy"] = match self.value.get("policy").cloned() {
            None => policy,
            // A second policy makes a chain.
            Some(Value::Array(mut chain)) => {
                chain.push(policy);
                Value::Array(chain)
            }
            Some(first) => json!([first, policy]),
        };
        self
    }
}

/// Lays the members of one object over another, objects in objects member by member.
pub fn merge(value: &mut Value, over: &Value) {
    match (value, over) {
        (Value::Object(value), Value::Object(over)) => {
            for (name, over) in over {
                merge(value.entry(name.clone()).or_insert(Value::Null), over);
            }
        }
        (value, over) => *value = over.clone(),
    }
}

/// How a host is started.
#[derive(Clone, Debug)]
pub struct Setup {
    pub(crate) config: Value,
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) first: Option<String>,
    pub(crate) stdout_is_read: bool,
    pub(crate) own_program: bool,
}

/// A setup with the listeners on free ports and a small cache.
pub fn setup() -> Setup {
    Setup {
        config: json!({
            "listen": { "http": ["127.0.0.1:0"], "admin": "127.0.0.1:0" },
            "cache": { "dir": "cache", "disk": "1GB", "memory": "32MB" },
            "origins": {},
            "hosts": {},
        }),
        files: Vec::new(),
        env: BTreeMap::new(),
        first: None,
        stdout_is_read: true,
        own_program: false,
    }
}

impl From<VirtualHost> for Setup {
    fn from(virtual_host: VirtualHost) -> Self {
        setup().vhost(virtual_host)
    }
}

impl Setup {
    /// Adds a virtual host. The first one is whom calls ask when they name no other.
    #[must_use]
    pub fn vhost(mut self, virtual_host: VirtualHost) -> Self {
        let VirtualHost { name, mut value, origin, files } = virtual_host;
        if let Some(origin) = origin {
            let origins = self.config["origins"].as_object_mut().expect("setup() puts an object there");
            let known = origins.iter().find(|(_, known)| **known == origin).map(|(name, _)| name.clone());
            let id = known.unwrap_or_else(|| format!("origin{}", origins.len() + 1));
            origins.insert(id.clone(), origin);
            value["origin"] = json!(id);
        }
        self.config["hosts"][&name] = value;
        self.files.extend(files);
        self.first.get_or_insert(name);
        self
    }

    /// Adds an origin under a name of its own, for policies that choose.
    #[must_use]
    pub fn origin(mut self, name: &str, origin: &(impl AsOrigin + ?Sized)) -> Self {
        self.config["origins"][name] = origin.as_origin();
        self
    }

    /// Lays these members over hosts.json.
    #[must_use]
    pub fn config(mut self, members: Value) -> Self {
        merge(&mut self.config, &members);
        self
    }

    /// Writes a file beside hosts.json.
    #[must_use]
    pub fn file(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((PathBuf::from(path), bytes.into()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The program lies beside hosts.json, and can be replaced there.
    #[must_use]
    pub fn own_program(mut self) -> Self {
        self.own_program = true;
        self
    }

    /// Nobody reads the program's stdout: the pipe takes what it holds, and then nothing.
    #[must_use]
    pub fn stdout_unread(mut self) -> Self {
        self.stdout_is_read = false;
        self
    }

    /// Starts the program and waits until it listens.
    pub async fn start(self) -> Host {
        Host::with(self).await
    }

    /// Starts the program, which must refuse, and tells how.
    pub async fn refused(self) -> Refusal {
        let folder = self.lay_out();
        run(folder.path(), &self.env, &["--config", "hosts.json"]).await
    }

    /// Runs `proxyhost` with these arguments in the folder, and waits until it ends.
    pub async fn run(self, arguments: &[&str]) -> Refusal {
        let folder = self.lay_out();
        run(folder.path(), &self.env, arguments).await
    }

    /// hosts.json as it would be written.
    pub fn json(&self) -> &Value {
        &self.config
    }

    /// The virtual host that calls ask when they name no other. Under a wildcard any name will do.
    pub(crate) fn first(&self) -> String {
        self.first.as_deref().unwrap_or("localhost").replace('*', "any")
    }

    pub(crate) fn lay_out(&self) -> TempDir {
        let folder = crate::temp_dir("host");
        let write = |path: &Path, bytes: &[u8]| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("the path lies in the folder"))
                .expect("a new folder is writable");
            std::fs::write(path, bytes).expect("a new folder is writable");
        };
        if self.own_program {
            let own = folder.path().join(OWN_PROGRAM);
            let linked = std::fs::hard_link(crate::program(), &own);
            linked.or_else(|_| std::fs::copy(crate::program(), &own).map(drop)).expect("the program can be copied");
        }
        for (path, bytes) in &self.files {
            write(path, bytes);
        }
        // A file that the play wrote itself counts.
        if !folder.path().join("hosts.json").exists() {
            write(Path::new("hosts.json"), &pretty(&self.config));
        }
        folder
    }
}

pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("JSON values can be written")
}

/// How a run of the program ended.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Exit code, -1 for a signal.
    pub code: i32,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Refusal {
    /// Holds the exit code against this.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "exit code; stdout {:?}, stderr {}", self.stdout, self.stderr);
        self
    }

    /// stderr must say all of this.
    #[track_caller]
    pub fn says(&self, what: &[&str]) -> &Self {
        for what in what {
            assert!(self.stderr.contains(what), "stderr does not say {what:?}: {}", self.stderr);
        }
        self
    }

    /// stderr must not say this.
    #[track_caller]
    pub fn never_says(&self, what: &str) -> &Self {
        assert!(!self.stderr.contains(what), "stderr says {what:?}: {}", self.stderr);
        self
    }
}

pub(crate) async fn run(folder: &Path, env: &BTreeMap<OsString, OsString>, arguments: &[&str]) -> Refusal {
    let mut command = command(&crate::program(), folder, env);
    command.args(arguments);
    let output = tokio::time::timeout(START_WITHIN, command.output());
    let output = output.await.expect("the program ends by itself").expect("the program can be started");
    Refusal {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_the_same_origin_share_it() {
        let origin = json!({ "http": { "url": "http://127.0.0.1:1" } });
        let setup = setup().vhost(vhost("a.test").origin(&origin)).vhost(vhost("b.test").origin(&origin));
        assert_eq!(setup.json()["origins"].as_object().unwrap().len(), 1);
        assert_eq!(setup.json()["hosts"]["b.test"]["origin"], "origin1");
    }

    #[test]
    fn a_second_policy_makes_a_chain() {
        let host =
            vhost("a.test").wasm("a.wasm", b"a", json!({})).wasm("b.wasm", b"b", json!({ "config": { "x": 1 } }));
        assert_eq!(host.value["policy"][1], json!({ "wasm": "b.wasm", "config": { "x": 1 } }));
    }
}
