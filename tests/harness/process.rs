//! The built program as a process: started, followed line by line, and asked where it listens.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// The program of a play that replaces it, beside hosts.json.
pub(crate) const OWN_PROGRAM: &str = "proxyhost";

/// No start takes longer, even when two cores compile policies for many plays.
pub(crate) const START_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn command(program: &Path, folder: &Path, env: &BTreeMap<OsString, OsString>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).envs(env).stdin(Stdio::null()).kill_on_drop(true);
    // Nothing of the surroundings may lend credentials to a play.
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "http_proxy"] {
        if !env.contains_key(std::ffi::OsStr::new(name)) {
            command.env_remove(name);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// Lines of an output as they come.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub(crate) fn follow(&self, output: impl AsyncRead + Unpin + Send + 'static) {
        let lines = self.0.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(text);
                line.clear();
            }
        });
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

/// A process that listens.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) listening: Listening,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    pub(crate) started_in: Duration,
}

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) https: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
}

/// Starts the program and waits for its line `listening`, which names the ports that the system chose.
pub(crate) async fn spawn(
    folder: &Path,
    env: &BTreeMap<OsString, OsString>,
    stdout_is_read: bool,
) -> Result<Spawned, String> {
    let start = Instant::now();
    // A play that replaces the program has one of its own.
    let own = folder.join(OWN_PROGRAM);
    let program = if own.exists() { own } else { crate::program() };
    let mut command = command(&program, folder, env);
    command.arg("--config").arg("hosts.json");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", crate::program().display()))?;
    let (stdout, stderr) = (Lines::default(), Lines::default());
    // Left with the child otherwise: the pipe stays open and fills up.
    if stdout_is_read {
        stdout.follow(child.stdout.take().ok_or("no stdout")?);
    }
    stderr.follow(child.stderr.take().ok_or("no stderr")?);
    loop {
        if let Some(listening) = stderr.all().iter().find_map(|line| listening(line)) {
            return Ok(Spawned { child, listening, stdout, stderr, started_in: start.elapsed() });
        }
        if let Ok(Some(status)) = child.try_wait() {
            // What it said last may still be in the pipe.
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Err(format!("{status}; stderr:\n{}", stderr.all().join("\n")));
        }
        if start.elapsed() > START_WITHIN {
            return Err(format!("it never says that it listens; stderr:\n{}", stderr.all().join("\n")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The addresses in a line such as `{"message":"listening","http":["127.0.0.1:80"],"admin":"127.0.0.1:9900"}`, wherever in
/// the line's object they stand.
fn listening(line: &str) -> Option<Listening> {
    let line: Map<String, Value> = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").and_then(Value::as_object).unwrap_or(&line);
    if fields.get("message")? != "listening" {
        return None;
    }
    // A log line may carry the list as text.
    let addresses = |name: &str| -> Option<Vec<SocketAddr>> {
        let list = match fields.get(name)? {
            Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| json!([text])),
            list => list.clone(),
        };
        let mut addresses = list.as_array()?.iter().map(|address| address.as_str()).collect::<Option<Vec<_>>>()?;
        // Of those the play knows the path.
        addresses.retain(|address| !address.starts_with("unix:"));
        addresses.into_iter().map(|address| address.parse().ok()).collect()
    };
    let http = addresses("http").filter(|http| !http.is_empty())?;
    let admin = fields.get("admin")?.as_str()?.parse().ok()?;
    Some(Listening { http, https: addresses("https").unwrap_or_default(), admin })
}

/// Waits until a line says it.
pub(crate) async fn wait_for_line(lines: &Lines, what: &str) -> String {
    let start = Instant::now();
    loop {
        if let Some(line) = lines.all().into_iter().find(|line| line.contains(what)) {
            return line;
        }
        let all = lines.all();
        assert!(start.elapsed() < Duration::from_secs(20), "no line says {what:?}:\n{}", all.join("\n"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_tells_the_addresses_is_found_flat_or_nested() {
        let flat = r#"{"level":"INFO","message":"listening","http":["127.0.0.1:81"],"admin":"127.0.0.1:82"}"#;
        let nested = r#"{"fields":{"message":"listening","http":"[\"127.0.0.1:81\"]","admin":"127.0.0.1:82"}}"#;
        for line in [flat, nested] {
            let told = listening(line).expect("the addresses are there");
            assert_eq!((told.http[0].port(), told.admin.port()), (81, 82));
        }
        assert_eq!(listening(r#"{"message":"starting"}"#), None);
        assert_eq!(listening("no JSON"), None);
    }
}
