//! Hits over TLS 1.3, proxyhost with a policy against nginx's `proxy_cache` without one, by HTTP/1.1 (wrk) and HTTP/2 (h2load), and
//! handshakes (openssl). nginx serves twice, with output buffers of its own choice and with large ones; the better of the two
//! counts. Both show the same ECDSA certificate, and both resume sessions by tickets.

use std::process::{Command, Stdio};

use anyhow::Result;

use super::contest::{Contender, Figures, Turn, Turns, measure};
use super::programs::{self, Folder, free_ports};
use super::sites::{self, Certificate, PLAIN, Ports, SIGNED, SIZES, Stage, nginx_server, signed};
use super::{Built, load};
use crate::cargo::{self, Workspace};

/// The ratios to nginx that are aimed at, by size: HTTP/1.1, HTTP/2.
const AIMS: [(f64, f64); 3] = [(1.2, 1.0), (1.2, 1.15), (1.0, 1.1)];

/// How TLS is measured.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    turns: Turns,
    /// Only this: 1k, 100k, 1m or handshakes.
    #[arg(long)]
    only: Option<String>,
    #[command(flatten)]
    built: Built,
}

/// Measures and prints the tables.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let program = options.built.program(workspace)?;
    let stage = Stage::set(workspace)?;
    let Stage { origin_port, folder, .. } = &stage;
    let certificate = certificate(folder)?;
    let [first_port, buffers_port, http, https_port, admin] = free_ports()?;
    let server = |port, more| nginx_server(*origin_port, port, "ssl http2 backlog=4096", more);
    let servers = [
        sites::nginx_cache(folder),
        sites::nginx_tls(&certificate),
        server(first_port, ""),
        server(buffers_port, "output_buffers 2 512k;"),
    ];
    let peer = programs::nginx("nginx", &servers.concat(), folder, &[first_port, buffers_port])?;
    let ports = Ports { http, admin, https: Some((https_port, certificate)) };
    let proxyhost = programs::proxyhost(&program, &sites::hosts_json(*origin_port, &ports), folder, https_port)?;

    let contender = |name, program, port, host| Contender { name, program, port, host };
    let contenders = [
        contender("nginx", &peer, first_port, PLAIN),
        contender("nginx, buffers", &peer, buffers_port, PLAIN),
        contender("proxyhost, policy", &proxyhost, https_port, SIGNED),
    ];
    let turns = &options.turns;
    turns.print();
    println!("| what | | nginx | nginx, buffers | proxyhost, policy | ratio | aim |");
    println!("|---|---|---|---|---|---|---|");
    for ((size, _), (one, two)) in SIZES.into_iter().zip(AIMS) {
        if options.only.as_deref().is_some_and(|only| only != size) {
            continue;
        }
        let target = signed(size)?;
        let url = |turn: &Turn<'_>| format!("https://127.0.0.1:{}{target}", turn.contender.port);
        let by_wrk = |turn: &Turn<'_>| load::wrk_for(turn, turns.connections, &url(turn));
        let what = format!("{size}, HTTP/1.1");
        print(&what, &measure(turns, &what, &contenders, by_wrk)?, one);
        let by_h2load = |turn: &Turn<'_>| load::h2load_for(turn, turns.connections, &url(turn));
        let what = format!("{size}, HTTP/2");
        print(&what, &measure(turns, &what, &contenders, by_h2load)?, two);
    }
    if options.only.as_deref().is_none_or(|only| only == "handshakes") {
        // openssl s_time resumes with TLS 1.2 only: of 1.3 it does not wait for the tickets.
        let kinds: [(&str, &[&str]); 2] = [
            ("full handshakes, TLS 1.3", &["-new", "-tls1_3"]),
            ("resumed handshakes, TLS 1.2", &["-reuse", "-tls1_2"]),
        ];
        for (what, how) in kinds {
            let by_openssl = |turn: &Turn<'_>| load::handshakes_for(turn, how);
            print(what, &measure(turns, what, &contenders, by_openssl)?, 1.0);
        }
    }
    Ok(())
}

fn print(what: &str, figures: &[Figures; 3], aim: f64) {
    let [first, buffers, own] = *figures;
    let better = if buffers.rate > first.rate { buffers } else { first };
    println!(
        "| {what} | a second | {:.0} | {:.0} | {:.0} | {:.2} | at least {aim} |",
        first.rate,
        buffers.rate,
        own.rate,
        own.rate / better.rate
    );
    println!(
        "| {what} | CPU, µs each | {:.1} | {:.1} | {:.1} | {:.2} | |",
        first.cpu_us,
        buffers.cpu_us,
        own.cpu_us,
        own.cpu_us / better.cpu_us
    );
}

fn certificate(folder: &Folder) -> Result<Certificate> {
    let certificate = Certificate { cert: folder.at("cert.pem"), key: folder.at("key.pem") };
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=plain.test", "-addext", "subjectAltName=DNS:plain.test,DNS:signed.test"])
        .arg("-keyout")
        .arg(&certificate.key)
        .arg("-out")
        .arg(&certificate.cert)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    cargo::succeed(&mut command)?;
    Ok(certificate)
}
