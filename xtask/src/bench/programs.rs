//! The programs that are measured, each in a folder of its own that goes when the measuring is done, on ports that were free.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// No start takes longer.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How long a program has to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(15);

/// A folder for one run, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it.
    pub fn make() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("proxyhost-bench-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Where a file of it is.
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file of it, and the folders around that.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<PathBuf> {
        let file = self.at(name);
        let written = fs::create_dir_all(file.parent().unwrap_or(&self.0)).and_then(|()| fs::write(&file, bytes));
        written.with_context(|| format!("could not write {}", file.display()))?;
        Ok(file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: could not remove {}: {error}", self.0.display());
        }
    }
}

/// Ports that are free now, all different.
pub fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT]> {
    // All are held until all are known, so that none is given twice.
    let mut held = Vec::with_capacity(COUNT);
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A command whose process may have as many files open as the system allows without asking anybody.
pub fn with_open_files(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n \"$(ulimit -H -n)\" && exec \"$0\" \"$@\""]).arg(program);
    command
}

/// A program at work; it is ended with this.
pub struct Program {
    name: String,
    child: Child,
}

impl Program {
    /// Starts it with its output in files of the folder, and waits until all these ports answer.
    pub fn start(name: &str, command: &mut Command, folder: &Folder, ports: &[u16]) -> Result<Self> {
        let output = |ending: &str| {
            let file = folder.at(&format!("{name}.{ending}"));
            File::create(&file).with_context(|| format!("could not write {}", file.display()))
        };
        command.stdin(Stdio::null()).stdout(output("out")?).stderr(output("err")?);
        let child = command.spawn().with_context(|| format!("could not start {name}"))?;
        let mut program = Self { name: name.to_owned(), child };
        for port in ports {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            program.wait_until(folder, Duration::from_millis(20), || TcpStream::connect(address).is_ok())?;
        }
        Ok(program)
    }

    /// Looks so often whether it answers, and waits until it does.
    pub fn wait_until(&mut self, folder: &Folder, look: Duration, answers: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while !answers() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(folder.at(&format!("{}.err", self.name))).unwrap_or_default();
                bail!("{} does not answer:\n{said}", self.name);
            }
            std::thread::sleep(look);
        }
        Ok(())
    }

    /// Resident memory in KiB, without that of child processes.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = self.of_process(self.child.id(), "status")?.unwrap_or_default();
        kib(&status, "VmRSS:").context("/proc tells no resident memory")
    }

    /// Resident memory in KiB with that of child processes, less the pages of files (programs and libraries). What several of
    /// them share counts once: a forked process shares much, and nginx's caches of sessions and keys are shared.
    pub fn resident_together_kib(&self) -> Result<u64> {
        let mut all = 0;
        for pid in self.processes() {
            let Some(rollup) = self.of_process(pid, "smaps_rollup")? else { continue };
            // Proportional: of a page that two have, each is told the half.
            for part in ["Pss_Anon:", "Pss_Shmem:"] {
                all += kib(&rollup, part).context("/proc tells no proportional memory")?;
            }
        }
        Ok(all)
    }

    /// CPU time that it has used, user and system, with that of its child processes that are alive.
    pub fn cpu(&self) -> Result<Duration> {
        // What /proc counts in; on Linux it is 100 a second everywhere.
        const TICK: Duration = Duration::from_millis(10);
        let mut ticks = 0;
        for pid in self.processes() {
            let Some(stat) = self.of_process(pid, "stat")? else { continue };
            // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            let times = fields.split_whitespace().skip(11).take(2);
            ticks += times.map(str::parse::<u32>).sum::<Result<u32, _>>().context("/proc tells no CPU time")?;
        }
        Ok(TICK * ticks)
    }

    /// Itself and its child processes.
    fn processes(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// What /proc tells of one of them; nothing of a child that has just ended, as nginx's cache loader does.
    fn of_process(&self, pid: u32, what: &str) -> Result<Option<String>> {
        match fs::read_to_string(format!("/proc/{pid}/{what}")) {
            Ok(told) => Ok(Some(told)),
            Err(_) if pid != self.child.id() => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} is gone", self.name)),
        }
    }

    /// Kills it.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Interrupts it, waits until it has ended, and gives what it printed.
    pub fn interrupt(mut self, folder: &Folder) -> Result<String> {
        cargo::succeed(Command::new("kill").args(["-INT", &self.child.id().to_string()]))?;
        let deadline = Instant::now() + END_WITHIN;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "{} does not end when it is interrupted", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::read_to_string(folder.at(&format!("{}.out", self.name))).context("could not read what was printed")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Asked first: nginx's master would leave its workers behind.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let deadline = Instant::now() + END_WITHIN;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("xtask: {} did not end by itself", self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number of `Name:  123 kB` in a file of /proc.
fn kib(told: &str, name: &str) -> Option<u64> {
    let number = told.lines().find_map(|line| line.strip_prefix(name))?;
    number.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// proxyhost with this hosts.json, in a folder of that name.
pub fn proxyhost_command(name: &str, program: &Path, hosts_json: &str, folder: &Folder) -> Result<Command> {
    let file = folder.write(&format!("{name}/hosts.json"), hosts_json)?;
    let mut command = with_open_files(program);
    command.arg("--config").arg(file).current_dir(folder.at(name));
    Ok(command)
}

/// The same, started.
pub fn proxyhost(program: &Path, hosts_json: &str, folder: &Folder, port: u16) -> Result<Program> {
    let mut command = proxyhost_command("proxyhost", program, hosts_json, folder)?;
    Program::start("proxyhost", &mut command, folder, &[port])
}

/// nginx with these servers in it, in a folder of that name.
pub fn nginx_command(name: &str, http: &str, folder: &Folder) -> Result<Command> {
    let place = folder.at(name);
    let place = place.display();
    // As root its workers would become somebody who may not enter the folder.
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let user = if is_root { "user root;" } else { "" };
    let configuration = format!(
        "{user}
daemon off;
worker_processes 2;
pid {place}/pid;
error_log {place}/error.log;
events {{ worker_connections 16384; }}
http {{
    default_type application/octet-stream;
    keepalive_requests 1000000000;
    tcp_nopush off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
{http}
}}
"
    );
    let file = folder.write(&format!("{name}/nginx.conf"), configuration)?;
    let mut command = with_open_files("nginx");
    command.arg("-e").arg(folder.at(name).join("error.log")).arg("-c").arg(file).arg("-p").arg(folder.at(name));
    Ok(command)
}

/// The same, started.
pub fn nginx(name: &str, http: &str, folder: &Folder, ports: &[u16]) -> Result<Program> {
    Program::start(name, &mut nginx_command(name, http, folder)?, folder, ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_its_name() {
        let told = "VmHWM:\t    9000 kB\nVmRSS:\t    8204 kB\nPss_Anon:         1280 kB\nThreads:\t3\n";
        assert_eq!(kib(told, "VmRSS:"), Some(8204));
        assert_eq!(kib(told, "Pss_Anon:"), Some(1280));
        assert_eq!(kib(told, "Threads:"), None);
        assert_eq!(kib(told, "RssFile:"), None);
    }
}
