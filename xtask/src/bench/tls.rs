//! Hits over TLS 1.3, proxyhost with a policy against nginx's `proxy_cache` without one, by HTTP/1.1 (wrk) and HTTP/2 (h2load), and
//! handshakes (openssl): in turns, as in `hit`. nginx serves twice, with output buffers of its own choice and with large ones; the
//! better of the two counts. Both show the same ECDSA certificate, and both resume sessions by tickets.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::hit::{SECRET, SIGNED, SIZES, origin, signed};
use super::programs::{self, Folder, Program, free_ports};
use super::{Built, median, policies_folder, rate, requests, wrk};
use crate::cargo::{self, Workspace};

/// The ratios to nginx that are aimed at, by size: HTTP/1.1, HTTP/2.
const AIMS: [(f64, f64); 3] = [(1.2, 1.0), (1.2, 1.15), (1.0, 1.1)];

/// Streams at once on one HTTP/2 connection.
const STREAMS: &str = "8";

/// Processes that make handshakes at once.
const HANDSHAKERS: usize = 4;

/// How TLS is measured.
#[derive(clap::Args)]
pub struct Options {
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How long each time.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Only this: 1k, 100k, 1m or handshakes.
    #[arg(long)]
    only: Option<String>,
    #[command(flatten)]
    built: Built,
}

/// Who is measured.
struct Contender<'a> {
    name: &'static str,
    program: &'a Program,
    port: u16,
    host: &'static str,
}

/// What is measured of each: rate a second, and CPU time in microseconds for one.
type Figures = [(f64, f64); 3];

/// Measures and prints the tables.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let program = options.built.program(workspace)?;
    let policy = policies_folder(workspace)?.join("signed-url.wasm");
    let folder = Folder::make()?;
    let bytes = std::fs::read(&policy).with_context(|| format!("could not read {}", policy.display()))?;
    folder.write("policies/signed-url.wasm", bytes)?;
    for (name, bytes, _) in SIZES {
        folder.write(&format!("files/{name}"), vec![b'x'; bytes])?;
    }
    certificate(&folder)?;
    let [origin_port, first_port, buffers_port, http_port, https_port, admin_port] = free_ports()?;
    let _origin = programs::nginx("origin", &origin(&folder, origin_port), &folder, &[origin_port])?;
    let servers = peer(&folder, origin_port, first_port, buffers_port);
    let peer = programs::nginx("nginx", &servers, &folder, &[first_port, buffers_port])?;
    let hosts_json = hosts_json(&folder, origin_port, [http_port, https_port, admin_port]);
    let proxyhost = programs::proxyhost(&program, &hosts_json, &folder, https_port)?;
    let contender = |name, program, port, host| Contender { name, program, port, host };
    let contenders = [
        contender("nginx", &peer, first_port, "plain.test"),
        contender("nginx, buffers", &peer, buffers_port, "plain.test"),
        contender("proxyhost, policy", &proxyhost, https_port, SIGNED),
    ];
    println!("medians of {} runs of {} s with {} connections", options.rounds, options.seconds, options.connections);
    println!("ratios are to the nginx with the better rate\n");
    println!("| what | | nginx | nginx, buffers | proxyhost, policy | ratio | aim |");
    println!("|---|---|---|---|---|---|---|");
    for ((size, _, _), (one, two)) in SIZES.into_iter().zip(AIMS) {
        if options.only.as_deref().is_some_and(|only| only != size) {
            continue;
        }
        let target = signed(size)?;
        let by_wrk = |contender: &Contender<'_>, seconds: u64| {
            let url = format!("https://127.0.0.1:{}{target}", contender.port);
            let printed = wrk(options.connections, seconds, &["-H", &format!("Host: {}", contender.host)], &url)?;
            Ok((rate(&printed)?, requests(&printed)?))
        };
        print(&format!("{size}, HTTP/1.1"), &measure(options, &contenders, by_wrk)?, one);
        let by_h2load = |contender: &Contender<'_>, seconds: u64| h2load(options, contender, &target, seconds);
        print(&format!("{size}, HTTP/2"), &measure(options, &contenders, by_h2load)?, two);
    }
    if options.only.as_deref().is_none_or(|only| only == "handshakes") {
        let full = |contender: &Contender<'_>, seconds: u64| handshakes(contender, seconds, &["-new", "-tls1_3"]);
        print("full handshakes, TLS 1.3", &measure(options, &contenders, full)?, 1.0);
        // openssl s_time resumes with TLS 1.2 only: of 1.3 it does not wait for the tickets.
        let resumed = |contender: &Contender<'_>, seconds: u64| handshakes(contender, seconds, &["-reuse", "-tls1_2"]);
        print("resumed handshakes, TLS 1.2", &measure(options, &contenders, resumed)?, 1.0);
    }
    Ok(())
}

fn print(what: &str, figures: &Figures, aim: f64) {
    let [(first, first_us), (buffers, buffers_us), (own, own_us)] = *figures;
    let (better, better_us) = if buffers > first { (buffers, buffers_us) } else { (first, first_us) };
    println!("| {what} | a second | {first:.0} | {buffers:.0} | {own:.0} | {:.2} | at least {aim} |", own / better);
    println!("| {what} | CPU, µs each | {first_us:.1} | {buffers_us:.1} | {own_us:.1} | {:.2} | |", own_us / better_us);
}

/// Medians of what each did. `once` gives the rate a second and how many there were.
fn measure(
    options: &Options,
    contenders: &[Contender<'_>; 3],
    once: impl Fn(&Contender<'_>, u64) -> Result<(f64, f64)>,
) -> Result<Figures> {
    let timed = |contender: &Contender<'_>, seconds: u64| {
        let before = contender.program.cpu()?;
        let (rate, count) = once(contender, seconds).with_context(|| contender.name)?;
        let cpu = contender.program.cpu()?.saturating_sub(before);
        anyhow::Ok((rate, cpu.as_secs_f64() * 1e6 / count))
    };
    for contender in contenders {
        // The first requests are misses, and programs warm up.
        timed(contender, 1)?;
    }
    let mut all: [(Vec<f64>, Vec<f64>); 3] = Default::default();
    for round in 0..options.rounds as usize {
        for turn in 0..contenders.len() {
            // Another one begins each time: what runs after what makes a difference.
            let number = (round + turn) % contenders.len();
            let (rate, cpu_us) = timed(&contenders[number], options.seconds)?;
            all[number].0.push(rate);
            all[number].1.push(cpu_us);
        }
    }
    Ok(all.map(|(rates, cpu)| (median(rates), median(cpu))))
}

fn h2load(options: &Options, contender: &Contender<'_>, target: &str, seconds: u64) -> Result<(f64, f64)> {
    let mut command = Command::new("h2load");
    command
        .args(["-t", "2", "-m", STREAMS, "-c", &options.connections.to_string(), "-D", &seconds.to_string()])
        .args(["-H", &format!(":authority: {}", contender.host)])
        .arg(format!("https://127.0.0.1:{}{target}", contender.port));
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
fn read_h2load(printed: &str) -> Option<(f64, f64)> {
    let finished = printed.lines().find(|line| line.starts_with("finished in "))?;
    let rate = finished.split(", ").find_map(|part| part.strip_suffix(" req/s"))?.parse().ok()?;
    let counted = printed.lines().find(|line| line.starts_with("requests: "))?;
    let count = counted.split(", ").find_map(|part| part.strip_suffix(" succeeded"))?.parse().ok()?;
    Some((rate, count))
}

/// Handshakes a second of several clients at once, and how many there were.
fn handshakes(contender: &Contender<'_>, seconds: u64, how: &[&str]) -> Result<(f64, f64)> {
    let address = format!("127.0.0.1:{}", contender.port);
    let start = || {
        let mut command = Command::new("openssl");
        command.args(["s_time", "-connect", &address, "-time", &seconds.to_string()]).args(how);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        command.spawn().context("could not start openssl")
    };
    let clients = (0..HANDSHAKERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let mut count = 0.0;
    for client in clients {
        let output = client.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        count += read_s_time(&printed).with_context(|| format!("openssl s_time printed no count:\n{printed}"))?;
    }
    Ok((count / seconds as f64, count))
}

/// The count of `1234 connections in 4 real seconds, 0 bytes read per connection`.
fn read_s_time(printed: &str) -> Option<f64> {
    printed.lines().rev().find_map(|line| line.split_once(" connections in ")).and_then(|(count, rest)| {
        rest.contains("real seconds").then_some(())?;
        count.trim().parse().ok()
    })
}

fn certificate(folder: &Folder) -> Result<()> {
    let (cert, key) = (folder.at("cert.pem"), folder.at("key.pem"));
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=plain.test", "-addext", "subjectAltName=DNS:plain.test,DNS:signed.test"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(cert)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    cargo::succeed(&mut command)
}

fn peer(folder: &Folder, origin: u16, first: u16, buffers: u16) -> String {
    let place = folder.at("nginx");
    let (place, cert, key) = (place.display(), folder.at("cert.pem"), folder.at("key.pem"));
    let (cert, key) = (cert.display(), key.display());
    let server = |port: u16, way: &str| {
        format!(
            "    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=4096;
        {way}
        location / {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_cache kept;
            proxy_cache_valid 200 1d;
        }}
    }}
"
        )
    };
    format!(
        "    access_log {place}/access.log combined buffer=64k flush=1s;
    open_file_cache max=1000 inactive=1h;
    open_file_cache_valid 1h;
    proxy_cache_path {place}/cache levels=1:2 keys_zone=kept:8m inactive=1d;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:sessions:10m;
{}{}",
        server(first, ""),
        server(buffers, "output_buffers 2 512k;")
    )
}

fn hosts_json(folder: &Folder, origin: u16, [http, https, admin]: [u16; 3]) -> String {
    let (cert, key) = (folder.at("cert.pem"), folder.at("key.pem"));
    let (cert, key) = (cert.display(), key.display());
    format!(
        r#"{{
  "listen": {{ "http": ["127.0.0.1:{http}"], "https": ["127.0.0.1:{https}"], "admin": "127.0.0.1:{admin}" }},
  "tls": {{ "certificates": [{{ "cert": "{cert}", "key": "{key}" }}] }},
  "cache": {{ "dir": "cache", "disk": "1GB", "memory": "64MB" }},
  "origins": {{ "files": {{ "http": {{ "url": "http://127.0.0.1:{origin}" }} }} }},
  "hosts": {{
    "plain.test": {{ "origin": "files" }},
    "signed.test": {{
      "origin": "files",
      "policy": {{ "wasm": "signed-url.wasm", "secrets": {{ "sign": "{SECRET}" }} }}
    }}
  }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_printed_is_read() {
        let printed = "finished in 2.00s, 81234.56 req/s, 9.50MB/s\nrequests: 9 total, 9 started, 7 done, 7 succeeded, 0 failed\n";
        assert_eq!(read_h2load(printed), Some((81234.56, 7.0)));
        let printed =
            "1 connections in 0.1s; 2.0 connections/user sec\n4321 connections in 5 real seconds, 0 bytes read\n";
        assert_eq!(read_s_time(printed), Some(4321.0));
        assert!(read_h2load("").is_none() && read_s_time("").is_none());
    }
}
