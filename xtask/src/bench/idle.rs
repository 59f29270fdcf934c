//! Memory of idle connections: over TLS 1.3 by HTTP/1.1, after one request each, of nginx and of proxyhost with a policy.
//!
//! What counts is how resident memory grows between a warm-up and when all have been idle for half a minute. What a program sets aside for
//! connections when it starts is not in it: nginx has about 400 bytes for each that may come.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load;
use super::programs::{self, Folder, Program, free_ports, with_open_files};
use super::sites::{self, HostsJson, NGINX_TLS, PLAIN, SIGNED, Stage, signed};
use crate::cargo::Workspace;

/// How much more than nginx one may take.
const AIM: f64 = 1.5;

/// Processes that hold connections. One starts when those before are idle: of more handshakes at once, on slow or busy cores, the
/// last would be given up by the server, and made again for ever.
const CLIENTS: u32 = 10;

/// How long all have been idle when memory is read: proxyhost gives back what a connection does not need when it has been idle for
/// some ten seconds, and both close it after more than a minute.
const IDLE: Duration = Duration::from_secs(30);

/// Files that a server opens beside connections, generously.
const OTHER_FILES: u64 = 1024;

/// How long the connections of one process may take, and then a server to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Over this time a server at rest uses less CPU than that.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(20));

/// Measures and prints a table.
pub fn run(connections: u32, workspace: &Workspace, program: &Path) -> Result<()> {
    let each = connections.div_ceil(CLIENTS);
    let connections = each * CLIENTS;
    enough_files(u64::from(connections) + OTHER_FILES)?;
    let stage = Stage::set(workspace)?;
    let Stage { origin_port, folder, .. } = &stage;
    let certificate = sites::certificate(folder)?;
    let [nginx_port] = free_ports()?;
    let servers = [
        sites::nginx_cache("nginx", folder),
        NGINX_TLS.to_owned(),
        certificate.nginx(),
        sites::nginx_server(*origin_port, nginx_port, "ssl http2 backlog=4096", ""),
    ];
    let peer = programs::nginx("nginx", &servers.concat(), folder, &[nginx_port])?;
    let peer = growth(folder, &peer, nginx_port, PLAIN, each)?;
    // Only now: the connections before this took ports of their own.
    let [http, https_port, admin] = free_ports()?;
    let (https, hosts) = (Some((https_port, certificate.json())), sites::plain_and_signed());
    let hosts_json = HostsJson { origin_port: *origin_port, http, admin, https, hosts };
    let own = programs::proxyhost(program, &hosts_json.text(), folder, https_port)?;
    let own = growth(folder, &own, https_port, SIGNED, each)?;

    println!("\n{connections} idle connections, each after one request\n");
    println!("| what | nginx | proxyhost, policy | ratio | aim |");
    println!("|---|---|---|---|---|");
    let (peer, own) = (peer / f64::from(connections), own / f64::from(connections));
    println!("| memory, bytes a connection | {peer:.0} | {own:.0} | {:.2} | at most {AIM} |", own / peer);
    Ok(())
}

/// How many bytes a server grows by while clients hold that many connections each.
fn growth(folder: &Folder, server: &Program, port: u16, host: &str, each: u32) -> Result<f64> {
    let url = format!("https://127.0.0.1:{port}{}", signed("1k")?);
    let host = format!("Host: {host}");
    load::wrk(64, 1, &["-H", &host], &url)?;
    at_rest(server)?;
    let before = server.resident_together_kib()?;

    // The first requests come at once: a server does not wait long for the head of one.
    let script =
        format!("local calls = 0\nfunction delay() calls = calls + 1 return calls > {each} and 3600000 or 0 end\n");
    let script = folder.write("idle.lua", script)?;
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        let mut command = with_open_files("wrk");
        command.args(["-t", "1", "-c", &each.to_string(), "-d", "1h", "-H", &host, "-s"]).arg(&script).arg(&url);
        clients.push(Program::start(&format!("client-{number}"), &mut command, folder, &[])?);
        let deadline = Instant::now() + PATIENCE;
        while established_at(port)? < each * number && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        at_rest(server).with_context(|| format!("with {} connections", each * number))?;
    }
    thread::sleep(IDLE);
    let connections = each * CLIENTS;
    let after = server.resident_together_kib()?;
    let open = established_at(port)?;
    ensure!(open >= connections, "{open} of {connections} connections are open");

    let mut answered = 0.0;
    for client in clients {
        answered += load::requests(&client.interrupt(folder)?)?;
    }
    ensure!(answered == f64::from(connections), "{connections} connections made {answered} requests, not one each");
    eprintln!("xtask: idle: {before} KiB before, {after} KiB with {open} connections");
    Ok((after as f64 - before as f64) * 1024.0)
}

/// Waits until a server has nothing to do.
fn at_rest(server: &Program) -> Result<()> {
    let (time, most) = REST;
    let deadline = Instant::now() + PATIENCE;
    let mut used = server.cpu()?;
    loop {
        thread::sleep(time);
        let now = server.cpu()?;
        if now.saturating_sub(used) < most {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the server does not come to rest");
        used = now;
    }
}

/// Fails unless a process may have so many files open.
fn enough_files(needed: u64) -> Result<()> {
    let output = with_open_files("sh").args(["-c", "ulimit -n"]).output().context("could not start sh")?;
    let limit = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let is_enough = limit == "unlimited" || limit.parse::<u64>().is_ok_and(|limit| limit >= needed);
    ensure!(is_enough, "these connections need {needed} open files, and the hard limit is {limit} (ulimit -H -n)");
    Ok(())
}

/// Connections that are open at a port of this machine.
fn established_at(port: u16) -> Result<u32> {
    Ok(established(&fs::read_to_string("/proc/net/tcp").context("/proc tells no connections")?, port))
}

/// Those of /proc/net/tcp whose local port this is: `sl local_address rem_address st ...` in hexadecimal, 01 for established.
fn established(table: &str, port: u16) -> u32 {
    let ending = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&ending)) && fields.nth(1) == Some("01")
    };
    table.lines().filter(is_one).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_connections_are_counted_by_their_local_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0050 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0100007F:C001 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   3: 0100007F:0050 0100007F:C002 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0 0 0 0 0 0
   4: 0100007F:0050 0100007F:C003 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0 20 4 30 10 -1
";
        assert_eq!(established(table, 80), 2);
        assert_eq!(established(table, 0xC001), 1);
        assert_eq!(established("", 80), 0);
    }
}
