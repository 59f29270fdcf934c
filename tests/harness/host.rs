//! The built program in a folder of its own: a `hosts.json` written from a sentence, ports of the system's choice, and every
//! way to talk to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;

use crate::client::{Answer, Call, RawAnswer, send_raw};
use crate::process::{Lines, Listening, START_WITHIN, Spawned, spawn, wait_for_line};
use crate::setup::{Refusal, Setup, merge, pretty, run};
use crate::tls::Secure;

/// A running proxy. It is killed when it is dropped.
pub struct Host {
    folder: TempDir,
    setup: Setup,
    child: Child,
    listening: Listening,
    stdout: Lines,
    stderr: Lines,
    started_in: Duration,
    /// Programs that took over, which are nobody's children here.
    successors: Vec<libc::pid_t>,
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("stderr of the proxy:\n{}", self.stderr.all().join("\n"));
        }
        // kill_on_drop does it as well, but only when the runtime gets to it.
        let _ = self.child.start_kill();
        for pid in &self.successors {
            kill(*pid, libc::SIGKILL);
        }
    }
}

impl Host {
    /// Starts the program with one virtual host, or a whole setup, and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not, with what it said.
    pub async fn with(setup: impl Into<Setup>) -> Self {
        let setup = setup.into();
        let folder = setup.lay_out();
        match Self::start_in(folder, setup).await {
            Ok(host) => host,
            Err(said) => panic!("the proxy does not start: {said}"),
        }
    }

    async fn start_in(folder: TempDir, setup: Setup) -> Result<Self, String> {
        let Spawned { child, listening, stdout, stderr, started_in } =
            spawn(folder.path(), &setup.env, setup.stdout_is_read).await?;
        Ok(Self { folder, setup, child, listening, stdout, stderr, started_in, successors: Vec::new() })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.listening.http[0]
    }

    /// Where it serves over TLS.
    pub fn tls_address(&self) -> SocketAddr {
        *self.listening.https.first().expect("the setup has listen.https")
    }

    /// A request over TLS to the host that the connection is made for.
    pub fn tls(&self, secure: &Secure, host: &str, target: &str) -> Call {
        Call::new(self.tls_address(), "GET", target, host).secure(secure)
    }

    /// Where its admin listener is.
    pub fn admin_address(&self) -> SocketAddr {
        self.listening.admin
    }

    /// How long it took from the start of the process to the listeners.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process is running")
    }

    /// A file or folder beside hosts.json.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A request to its first virtual host.
    #[track_caller]
    pub fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.address(), method, target, &self.setup.first())
    }

    /// GET from its first virtual host.
    pub async fn get(&self, target: &str) -> Answer {
        self.call("GET", target).send().await
    }

    /// HEAD from its first virtual host.
    pub async fn head(&self, target: &str) -> Answer {
        self.call("HEAD", target).send().await
    }

    /// GET from another virtual host.
    pub async fn get_from(&self, host: &str, target: &str) -> Answer {
        self.call("GET", target).host(host).send().await
    }

    /// GET until the answer is as it should be, for what takes effect a little later than it is asked for.
    pub async fn get_until(&self, target: &str, so: impl Fn(&Answer) -> bool) -> Answer {
        let start = Instant::now();
        loop {
            let answer = self.get(target).await;
            if so(&answer) {
                return answer;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{target} never became what it should be: {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends bytes as they are, and reads until the server closes or says nothing for a second.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> RawAnswer {
        self.raw_for(bytes, Duration::from_secs(1)).await
    }

    /// Sends bytes as they are, and reads until the server closes or says nothing for so long.
    pub async fn raw_for(&self, bytes: impl AsRef<[u8]>, patience: Duration) -> RawAnswer {
        send_raw(self.address(), bytes.as_ref(), patience).await
    }

    /// The token of hosts.json, or the one that the program made for its admin listener.
    pub fn token(&self) -> String {
        if let Some(token) = self.setup.config["admin"]["token"].as_str() {
            return token.to_owned();
        }
        let file = self.path("cache/admin-token");
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
    }

    /// A request to the admin listener, with the token.
    #[track_caller]
    pub fn admin(&self, method: &str, target: &str) -> Call {
        self.admin_without_token(method, target).header("authorization", &format!("Bearer {}", self.token()))
    }

    /// A request to the admin listener, without the token.
    #[track_caller]
    pub fn admin_without_token(&self, method: &str, target: &str) -> Call {
        Call::new(self.listening.admin, method, target, &self.listening.admin.to_string())
    }

    /// Purges by `POST /purge`; the sequence.
    pub async fn purge(&self, what: Value) -> u64 {
        let call = self.admin("POST", "/purge").header("content-type", "application/json").body(what.to_string());
        let answer = call.send().await;
        answer.status(200);
        answer.json()["sequence"].as_u64().unwrap_or_else(|| panic!("no sequence in {}", answer.text()))
    }

    /// `POST /reload`.
    pub async fn reload(&self) -> Answer {
        self.admin("POST", "/reload").send().await
    }

    /// hosts.json as it was last written by `rewrite` or at the start.
    pub fn config(&self) -> &Value {
        &self.setup.config
    }

    /// Writes hosts.json anew with these members laid over what is there, without reloading it.
    pub fn rewrite(&mut self, members: Value) {
        merge(&mut self.setup.config, &members);
        self.write_config(&self.setup.config.clone());
    }

    /// Writes hosts.json anew.
    pub fn write_config(&self, config: &Value) {
        self.write("hosts.json", &pretty(config));
    }

    /// Writes a file beside hosts.json, by rename, as a careful person would.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("the path lies in the folder")).expect("the folder is writable");
        let new = path.with_extension("new");
        std::fs::write(&new, bytes).expect("the folder is writable");
        std::fs::rename(&new, &path).expect("the folder is writable");
    }

    /// `GET /stats`.
    pub async fn stats(&self) -> Value {
        self.admin("GET", "/stats").send().await.status(200).json()
    }

    /// `GET /metrics`.
    pub async fn metrics(&self) -> String {
        self.admin("GET", "/metrics").send().await.status(200).text()
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// `proxyhost explain URL`, run as a person would.
    pub async fn explain(&self, url: &str) -> Refusal {
        // The configuration says port 0; which one it became only the running program knows.
        let admin = self.listening.admin.to_string();
        self.cli(&["explain", "--config", "hosts.json", "--admin", &admin, "--token", &self.token(), url]).await
    }

    /// Runs a command that asks the running program, as a person would: with these arguments, and its address and token.
    pub async fn asking(&self, arguments: &[&str]) -> Refusal {
        let (admin, token) = (self.listening.admin.to_string(), self.token());
        let door = ["--config", "hosts.json", "--admin", &admin, "--token", &token];
        self.cli(&[arguments, &door].concat()).await
    }

    /// Runs the program with these arguments beside hosts.json.
    pub async fn cli(&self, arguments: &[&str]) -> Refusal {
        run(self.folder.path(), &self.setup.env, arguments).await
    }

    /// Lines of stdout so far: the access log.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// Lines of stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// Waits for a line of stdout that contains this.
    pub async fn stdout_line(&self, what: &str) -> String {
        wait_for_line(&self.stdout, what).await
    }

    /// Waits for a line of stderr that contains this.
    pub async fn stderr_line(&self, what: &str) -> String {
        wait_for_line(&self.stderr, what).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.pid()).expect("process ids are small");
        assert!(kill(pid, signal), "the process takes signals");
    }

    /// `proxyhost upgrade`, run as a person would.
    pub async fn upgrade(&mut self) -> Refusal {
        let admin = self.listening.admin.to_string();
        let arguments = ["upgrade", "--json", "--config", "hosts.json", "--admin", &admin, "--token", &self.token()];
        let outcome = self.cli(&arguments).await;
        if let Ok(answer) = serde_json::from_str::<Value>(&outcome.stdout)
            && let Some(pid) = answer["pid"].as_i64()
        {
            self.successors.push(libc::pid_t::try_from(pid).expect("process ids are small"));
        }
        outcome
    }

    /// The program that took over last; it ends with the play.
    pub fn successor(&self) -> libc::pid_t {
        *self.successors.last().expect("one took over")
    }

    /// A program that took over by a signal: its process id is in the line that says so.
    pub async fn succeeded_by_signal(&mut self) -> libc::pid_t {
        let begun = Instant::now();
        loop {
            for line in self.stderr().iter().filter(|line| line.contains("the new program serves, draining")) {
                let line: Value = serde_json::from_str(line).expect("lines are JSON");
                let pid = line["pid"].as_i64().and_then(|pid| libc::pid_t::try_from(pid).ok()).expect("a process id");
                if !self.successors.contains(&pid) {
                    self.successors.push(pid);
                    return pid;
                }
            }
            assert!(begun.elapsed() < START_WITHIN, "nobody took over:\n{}", self.stderr().join("\n"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the process ends; its exit code, or minus the signal.
    pub async fn ended(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let status = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        let status = status.expect("the process ends").expect("the process can be waited for");
        status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
    }

    /// Kills the process as `kill -9` does, and starts it again on the same folder.
    pub async fn crash_and_restart(&mut self) {
        self.signal(libc::SIGKILL);
        self.ended().await;
        self.start_again().await;
    }

    /// Ends the process with SIGTERM, and starts it again on the same folder.
    pub async fn restart(&mut self) {
        self.signal(libc::SIGTERM);
        assert_eq!(self.ended().await, 0, "SIGTERM is a clean end; stderr:\n{}", self.stderr().join("\n"));
        self.start_again().await;
    }

    /// Starts the process again after it has ended.
    pub async fn start_again(&mut self) {
        match spawn(self.folder.path(), &self.setup.env, self.setup.stdout_is_read).await {
            Ok(Spawned { child, listening, stdout, stderr, started_in }) => {
                self.child = child;
                self.listening = listening;
                self.stdout = stdout;
                self.stderr = stderr;
                self.started_in = started_in;
            }
            Err(said) => panic!("the proxy does not start again: {said}"),
        }
    }

    /// Starts the process again, which must refuse.
    pub async fn start_again_refused(&self) -> Refusal {
        self.cli(&["--config", "hosts.json"]).await
    }

    /// The memory that the process has in use (RSS), in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("VmRSS is a number") * 1024
    }
}

/// Sends a signal to a process that is known to be one of ours.
fn kill(pid: libc::pid_t, signal: libc::c_int) -> bool {
    // A wrapper for this one call would be a dependency more.
    #[expect(unsafe_code, reason = "kill(2) has no safe form in libc")]
    // SAFETY: kill takes no pointers. A child has not been waited for, so the id is still its own; a program that took over has
    // told its id and ends by our signal alone.
    let result = unsafe { libc::kill(pid, signal) };
    result == 0
}
