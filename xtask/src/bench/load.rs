//! The programs that make load, and what they print: wrk (HTTP/1.1), h2load (HTTP/2) and `openssl s_time` (handshakes).

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::contest::{Contender, Done, Turn};
use crate::cargo;

/// Streams at once on one HTTP/2 connection.
const STREAMS: &str = "8";

/// Requests from which h2load's rate is first guessed: a second or two of the largest bodies.
const WARM_UP_REQUESTS: u32 = 1000;

/// Connections that h2load makes at once where each has one request: fewer than what a system lets it have open, and than any
/// backlog.
const NEWCOMERS: u32 = 500;

/// How much longer than asked h2load may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processes that make handshakes at once. Each waits for its server in between: with few of them it is the latency for one client
/// that is measured, and the throughput is to be.
const HANDSHAKERS: usize = 16;

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

/// The same for a turn, with what it printed read.
pub fn wrk_for(turn: &Turn<'_>, connections: u32, url: &str) -> Result<Done> {
    let printed = wrk(connections, turn.seconds, &["-H", &format!("Host: {}", turn.contender.host)], url)?;
    Ok(Done { rate: rate(&printed)?, count: requests(&printed)? })
}

/// Requests a second, as wrk printed them.
pub fn rate(printed: &str) -> Result<f64> {
    let line = printed.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    line.and_then(|number| number.trim().parse().ok()).with_context(|| format!("wrk printed no rate:\n{printed}"))
}

/// Requests that were answered, as wrk printed them.
pub fn requests(printed: &str) -> Result<f64> {
    let line = printed.lines().find_map(|line| line.split_once(" requests in "));
    line.and_then(|(number, _)| number.trim().parse().ok()).with_context(|| format!("wrk printed no count:\n{printed}"))
}

/// Runs h2load for a turn: by a count that should take as long, since by a duration it goes on for ever against nginx when bodies
/// are large.
pub fn h2load_for(turn: &Turn<'_>, connections: u32, url: &str) -> Result<Done> {
    let limit = Duration::from_secs(turn.seconds) + PATIENCE;
    let authority = format!(":authority: {}", turn.contender.host);
    let run = |requests: u32| h2load(connections, requests.max(connections), &["-H", &authority], url, limit);
    let rate = match turn.last_rate {
        Some(rate) => rate,
        // Roughly: handshakes take their part of it.
        None => run(WARM_UP_REQUESTS)?.rate,
    };
    run((rate * turn.seconds as f64) as u32)
}

/// Runs h2load for a turn with a connection for each request, and so with a full handshake. It names the host of the URL by SNI.
pub fn newcomers_for(turn: &Turn<'_>, path: &str) -> Result<Done> {
    let Contender { host, port, .. } = turn.contender;
    let (url, connect_to) = (format!("https://{host}{path}"), format!("127.0.0.1:{port}"));
    let (mut count, mut seconds) = (0.0, 0.0);
    while seconds < turn.seconds as f64 {
        let done = h2load(NEWCOMERS, NEWCOMERS, &["--connect-to", &connect_to], &url, PATIENCE)?;
        count += done.count;
        seconds += done.count / done.rate;
    }
    Ok(Done { rate: count / seconds, count })
}

fn h2load(connections: u32, requests: u32, arguments: &[&str], url: &str, limit: Duration) -> Result<Done> {
    let mut command = Command::new("h2load");
    command
        .args(["-t", "2", "-m", STREAMS, "-c", &connections.to_string(), "-n", &requests.to_string()])
        .args(arguments)
        .arg(url);
    let printed = printed_within(&mut command, limit)?;
    read_h2load(&printed)
        .with_context(|| format!("{} found something other than answers:\n{printed}", cargo::shown(&command)))
}

/// What a command printed that must succeed, and end in time.
fn printed_within(command: &mut Command, limit: Duration) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("could not start {}", cargo::shown(command)))?;
    // Read meanwhile, lest a pipe fills and it waits.
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let printed = stdout.join().unwrap_or_default();
    let said = stderr.join().unwrap_or_default();
    match status {
        Some(status) if status.success() => Ok(printed),
        Some(status) => bail!("{} failed ({status}):\n{printed}{said}", cargo::shown(command)),
        None => bail!("{} did not end in {} s:\n{printed}{said}", cargo::shown(command), limit.as_secs()),
    }
}

/// Reads in a thread of its own.
fn read_all(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came until then is told.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Rate and count out of `finished in 4.00s, 81234.56 req/s, 9.50MB/s`, `requests: 1000 total, ..., 1000 succeeded, ...` and
/// `status codes: 1000 2xx, ...`; nothing unless all were answered with 2xx.
fn read_h2load(printed: &str) -> Option<Done> {
    let line = |start| printed.lines().find_map(|line: &str| line.strip_prefix(start));
    let number = |line: &str, unit| line.split(", ").find_map(|part| part.strip_suffix(unit))?.trim().parse().ok();
    let rate = number(line("finished in ")?, " req/s")?;
    let count = number(line("requests: ")?, " total")?;
    let succeeded: f64 = number(line("requests: ")?, " succeeded")?;
    let good: f64 = number(line("status codes: ")?, " 2xx")?;
    (succeeded == count && good == count).then_some(Done { rate, count })
}

/// Handshakes of several clients at once for a turn.
pub fn handshakes_for(turn: &Turn<'_>, how: &[&str]) -> Result<Done> {
    let (seconds, address) = (turn.seconds, format!("127.0.0.1:{}", turn.contender.port));
    let start = || {
        let mut command = Command::new("openssl");
        command.args(["s_time", "-connect", &address, "-time", &seconds.to_string()]).args(how);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().context("could not start openssl")
    };
    let begun = Instant::now();
    let clients = (0..HANDSHAKERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let mut count = 0.0;
    for client in clients {
        let output = client.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        count += read_s_time(&printed).with_context(|| format!("openssl s_time printed no count:\n{printed}"))?;
    }
    // It looks at whole seconds of the clock, and so takes up to a second more than it is asked to.
    Ok(Done { rate: count / begun.elapsed().as_secs_f64(), count })
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
        let printed = |succeeded, good| {
            format!(
                "finished in 2.00s, 81234.56 req/s, 9.50MB/s\n\
                 requests: 9 total, 9 started, 9 done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout\n\
                 status codes: {good} 2xx, 0 3xx, 0 4xx, 0 5xx\n"
            )
        };
        let done = read_h2load(&printed(9, 9)).expect("figures");
        assert_eq!((done.rate, done.count), (81234.56, 9.0));
        assert!(read_h2load(&printed(8, 9)).is_none(), "one had no answer");
        assert!(read_h2load(&printed(9, 8)).is_none(), "one had an answer of another kind");
        assert!(read_h2load("").is_none());
    }

    #[test]
    fn what_does_not_end_is_killed() {
        let begun = Instant::now();
        let limit = Duration::from_millis(100);
        let error = printed_within(Command::new("sleep").arg("60"), limit).expect_err("an error");
        assert!(error.to_string().contains("sleep 60 did not end in"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(printed_within(Command::new("echo").arg("done"), PATIENCE).expect("what it printed"), "done\n");
    }

    #[test]
    fn what_openssl_printed_is_read() {
        let printed =
            "1 connections in 0.1s; 2.0 connections/user sec\n4321 connections in 5 real seconds, 0 bytes read\n";
        assert_eq!(read_s_time(printed), Some(4321.0));
        assert!(read_s_time("").is_none());
    }
}
