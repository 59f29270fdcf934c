//! The programs that make load, and what they print: wrk (HTTP/1.1), h2load (HTTP/2) and `openssl s_time` (handshakes).

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::contest::Done;
use crate::cargo;

/// Streams at once on one HTTP/2 connection.
const STREAMS: &str = "8";

/// Processes that make handshakes at once.
const HANDSHAKERS: usize = 4;

/// Runs wrk and gives what it printed. `arguments` are added to those that all runs share.
pub fn wrk(connections: u32, seconds: u64, arguments: &[&str], url: &str) -> Result<String> {
    let mut command = Command::new("wrk");
    command
        .args(["-t", "2", "--timeout", "30s", "-c", &connections.to_string(), "-d", &format!("{seconds}s")])
        .args(arguments)
        .arg(url);
    let output = command.output().context("could not start wrk")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || printed.contains("Non-2xx") || printed.contains("Socket errors") {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} found something other than answers:\n{printed}{said}", cargo::shown(&command));
    }
    Ok(printed)
}

/// The same for this host, with what it printed read.
pub fn wrk_at(connections: u32, seconds: u64, host: &str, url: &str) -> Result<Done> {
    let printed = wrk(connections, seconds, &["-H", &format!("Host: {host}")], url)?;
    Ok(Done { rate: rate(&printed)?, count: requests(&printed)? })
}

/// Requests a second, as wrk printed them.
pub fn rate(printed: &str) -> Result<f64> {
    let line = printed.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    line.and_then(|number| number.trim().parse().ok()).with_context(|| format!("wrk printed no rate:\n{printed}"))
}

/// Requests that were answered, as wrk printed them.
fn requests(printed: &str) -> Result<f64> {
    let line = printed.lines().find_map(|line| line.split_once(" requests in "));
    line.and_then(|(number, _)| number.trim().parse().ok()).with_context(|| format!("wrk printed no count:\n{printed}"))
}

/// Runs h2load for this host.
pub fn h2load_at(connections: u32, seconds: u64, host: &str, url: &str) -> Result<Done> {
    let mut command = Command::new("h2load");
    command
        .args(["-t", "2", "-m", STREAMS, "-c", &connections.to_string(), "-D", &seconds.to_string()])
        .args(["-H", &format!(":authority: {host}")])
        .arg(url);
    let output = command.output().context("could not start h2load")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = printed
        .lines()
        .find(|line| line.starts_with("status codes:"))
        .is_none_or(|line| ["0 3xx", "0 4xx", "0 5xx"].iter().any(|none| !line.contains(none)));
    if !output.status.success() || failed {
        bail!("{} found something other than answers:\n{printed}", cargo::shown(&command));
    }
    read_h2load(&printed).with_context(|| format!("h2load printed no rate:\n{printed}"))
}

/// Rate and count out of `finished in 4.00s, 81234.56 req/s, 9.50MB/s` and `requests: 1000 total, ..., 990 succeeded, ...`.
fn read_h2load(printed: &str) -> Option<Done> {
    let finished = printed.lines().find(|line| line.starts_with("finished in "))?;
    let rate = finished.split(", ").find_map(|part| part.strip_suffix(" req/s"))?.parse().ok()?;
    let counted = printed.lines().find(|line| line.starts_with("requests: "))?;
    let count = counted.split(", ").find_map(|part| part.strip_suffix(" succeeded"))?.parse().ok()?;
    Some(Done { rate, count })
}

/// Handshakes of several clients at once.
pub fn handshakes(port: u16, seconds: u64, how: &[&str]) -> Result<Done> {
    let address = format!("127.0.0.1:{port}");
    let start = || {
        let mut command = Command::new("openssl");
        command.args(["s_time", "-connect", &address, "-time", &seconds.to_string()]).args(how);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().context("could not start openssl")
    };
    let clients = (0..HANDSHAKERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let mut count = 0.0;
    for client in clients {
        let output = client.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        count += read_s_time(&printed).with_context(|| format!("openssl s_time printed no count:\n{printed}"))?;
    }
    Ok(Done { rate: count / seconds as f64, count })
}

/// The count of `1234 connections in 4 real seconds, 0 bytes read per connection`.
fn read_s_time(printed: &str) -> Option<f64> {
    printed.lines().rev().find_map(|line| line.split_once(" connections in ")).and_then(|(count, rest)| {
        rest.contains("real seconds").then_some(())?;
        count.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_printed_is_read() {
        let printed = "  162469 requests in 2.00s, 9MB read\nRequests/sec:  81234.56\nTransfer/sec: 9MB\n";
        assert_eq!(rate(printed).expect("a rate"), 81234.56);
        assert_eq!(requests(printed).expect("a count"), 162_469.0);
        assert!(rate("nothing").is_err() && requests("nothing").is_err());
    }

    #[test]
    fn what_h2load_printed_is_read() {
        let printed = "finished in 2.00s, 81234.56 req/s, 9.50MB/s\nrequests: 9 total, 9 started, 7 done, 7 succeeded, 0 failed\n";
        let done = read_h2load(printed).expect("figures");
        assert_eq!((done.rate, done.count), (81234.56, 7.0));
        assert!(read_h2load("").is_none());
    }

    #[test]
    fn what_openssl_printed_is_read() {
        let printed =
            "1 connections in 0.1s; 2.0 connections/user sec\n4321 connections in 5 real seconds, 0 bytes read\n";
        assert_eq!(read_s_time(printed), Some(4321.0));
        assert!(read_s_time("").is_none());
    }
}
