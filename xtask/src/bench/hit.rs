//! Hits, proxyhost against nginx's `proxy_cache`: both keep what the same origin gave, both write an access log to a file, and
//! they are measured in turns, so that what else goes on here meets all alike.
//!
//! nginx serves twice, since its better way depends on the size: with sendfile, and without it from large buffers. `tcp_nopush`
//! is off in both: with it nginx stalls on loopback. Its log is buffered, as ours is. The better of the two counts, without a
//! policy; proxyhost serves without and with one, which checks a signature with an HMAC. All are sent the same request, a
//! signed link: those who do not check it read, look up and log it like any other.
//!
//! Beside the rates stands the CPU time that each took for a request: it says the same about work, and less of what else runs
//! on these cores gets into it.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::programs::{self, Folder, Program, free_ports};
use super::{Built, median, policies_folder, rate, requests, wrk};
use crate::cargo::Workspace;

/// Sizes of bodies, and the ratio to nginx that is aimed at with a policy on.
pub(super) const SIZES: [(&str, usize, f64); 3] =
    [("1k", 1 << 10, 1.0), ("100k", 100 << 10, 0.75), ("1m", 1 << 20, 1.0)];

/// The key of the signed links.
pub(super) const SECRET: &str = "a secret of the benchmark";

/// When they end: in the year 2100.
const EXPIRES: u64 = 4_102_444_800;

/// How hits are measured.
#[derive(clap::Args)]
pub struct Options {
    /// How often each is measured at each size; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How long each time.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Only this size: 1k, 100k or 1m.
    #[arg(long)]
    size: Option<String>,
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

/// The host whose links are signed.
pub(super) const SIGNED: &str = "signed.test";

/// Measures and prints the table.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let program = options.built.program(workspace)?;
    let policy = policies_folder(workspace)?.join("signed-url.wasm");
    let folder = Folder::make()?;
    folder.write(
        "policies/signed-url.wasm",
        std::fs::read(&policy).with_context(|| format!("could not read {}", policy.display()))?,
    )?;
    for (name, bytes, _) in SIZES {
        folder.write(&format!("files/{name}"), vec![b'x'; bytes])?;
    }
    let [origin_port, sendfile_port, buffers_port, proxyhost_port, admin_port] = free_ports()?;
    let _origin = programs::nginx("origin", &origin(&folder, origin_port), &folder, &[origin_port])?;
    let servers = peer(&folder, origin_port, sendfile_port, buffers_port);
    let peer = programs::nginx("nginx", &servers, &folder, &[sendfile_port, buffers_port])?;
    let hosts_json = hosts_json(origin_port, proxyhost_port, admin_port);
    let proxyhost = programs::proxyhost(&program, &hosts_json, &folder, proxyhost_port)?;

    let contender = |name, program, port, host| Contender { name, program, port, host };
    let contenders = [
        contender("nginx, sendfile", &peer, sendfile_port, "plain.test"),
        contender("nginx, buffers", &peer, buffers_port, "plain.test"),
        contender("proxyhost", &proxyhost, proxyhost_port, "plain.test"),
        contender("proxyhost, policy", &proxyhost, proxyhost_port, SIGNED),
    ];
    println!("medians of {} runs of {} s with {} connections", options.rounds, options.seconds, options.connections);
    println!("ratios are to the nginx with the better rate\n");
    println!("| size | | nginx, sendfile | nginx, buffers | proxyhost | ratio | with policy | ratio | aim |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (size, _, aim) in SIZES {
        if options.size.as_deref().is_some_and(|only| only != size) {
            continue;
        }
        let (rates, cpu) = measure(options, size, &contenders)?;
        let better = usize::from(rates[1] > rates[0]);
        let row = |what: &str, numbers: &[f64; 4], digits: usize, aim: &str| {
            let [sendfile, buffers, plain, policy] = numbers;
            let (ratio, policy_ratio) = (plain / numbers[better], policy / numbers[better]);
            println!(
                "| {size} | {what} | {sendfile:.digits$} | {buffers:.digits$} | {plain:.digits$} | {ratio:.2} \
                 | {policy:.digits$} | {policy_ratio:.2} | {aim} |"
            );
        };
        row("requests a second", &rates, 0, &format!("at least {aim}"));
        row("CPU, µs a request", &cpu, 1, "");
    }
    Ok(())
}

/// The median rate of each contender at one size, and the median of the CPU time, in microseconds, that it took for a request.
fn measure(options: &Options, size: &str, contenders: &[Contender<'_>; 4]) -> Result<([f64; 4], [f64; 4])> {
    let once = |contender: &Contender<'_>, seconds: u64| {
        let url = format!("http://127.0.0.1:{}{}", contender.port, signed(size)?);
        let before = contender.program.cpu()?;
        let printed = wrk(options.connections, seconds, &["-H", &format!("Host: {}", contender.host)], &url);
        let printed = printed.with_context(|| contender.name)?;
        let cpu = contender.program.cpu()?.saturating_sub(before);
        anyhow::Ok((rate(&printed)?, cpu.as_secs_f64() * 1e6 / requests(&printed)?))
    };
    for contender in contenders {
        // The first requests are misses, and programs warm up.
        once(contender, 1)?;
    }
    let mut rates: [Vec<f64>; 4] = Default::default();
    let mut cpu: [Vec<f64>; 4] = Default::default();
    for round in 0..options.rounds as usize {
        for turn in 0..contenders.len() {
            // Another one begins each time: what runs after what makes a difference.
            let number = (round + turn) % contenders.len();
            let (rate, cpu_us) = once(&contenders[number], options.seconds)?;
            rates[number].push(rate);
            cpu[number].push(cpu_us);
        }
        let shown: Vec<String> = rates.iter().map(|rates| format!("{:.0}", rates.last().unwrap_or(&0.0))).collect();
        eprintln!("xtask: {size}, round {}: {}", round + 1, shown.join(" "));
    }
    Ok((rates.map(median), cpu.map(median)))
}

/// A target that the policy lets through, in the scheme of policies/signed-url/README.md.
pub(super) fn signed(size: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(format!("proxyhost-1\nGET\n{SIGNED}\n/{size}\n\n{EXPIRES}\n\n").as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    Ok(format!("/{size}?expires={EXPIRES}&sig={signature}"))
}

pub(super) fn origin(folder: &Folder, port: u16) -> String {
    format!(
        "    access_log off;
    server {{
        listen 127.0.0.1:{port};
        root {};
        add_header Cache-Control \"public, max-age=86400\";
    }}",
        folder.at("files").display()
    )
}

fn peer(folder: &Folder, origin: u16, sendfile: u16, buffers: u16) -> String {
    let place = folder.at("nginx");
    let place = place.display();
    let server = |port: u16, way: &str| {
        format!(
            "    server {{
        listen 127.0.0.1:{port} backlog=4096;
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
{}{}",
        server(sendfile, "sendfile on;"),
        server(buffers, "sendfile off; output_buffers 2 512k;")
    )
}

fn hosts_json(origin: u16, port: u16, admin: u16) -> String {
    format!(
        r#"{{
  "listen": {{ "http": ["127.0.0.1:{port}"], "admin": "127.0.0.1:{admin}" }},
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
