//! Hits over TLS 1.3, proxyhost with a policy against nginx's `proxy_cache` without one, by HTTP/1.1 (wrk) and HTTP/2 (h2load), and
//! handshakes (openssl). nginx serves twice, with output buffers of its own choice and with large ones; the better of the two
//! counts. Both show the same ECDSA certificate, and both resume sessions by tickets.

use std::path::Path;

use anyhow::Result;

use super::contest::{Contender, Figures, Turn, Turns, measure};
use super::programs::{self, free_ports};
use super::sites::{self, HostsJson, NGINX_TLS, PLAIN, SIGNED, SIZES, Stage, nginx_server, signed};
use super::{Built, hosts, idle, load};
use crate::cargo::Workspace;

/// The ratios to nginx that are aimed at, by size: HTTP/1.1, HTTP/2.
const AIMS: [(f64, f64); 3] = [(1.2, 1.0), (1.2, 1.15), (1.0, 1.1)];

/// The parts, by what the command line calls them.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    #[value(name = "1k")]
    OneKib,
    #[value(name = "100k")]
    HundredKib,
    #[value(name = "1m")]
    OneMib,
    /// Handshakes, full and resumed.
    Handshakes,
    /// Memory of idle connections.
    Idle,
    /// Start and handshakes with many hosts.
    Hosts,
}

/// Those that measure hits, in the order of the sizes.
const HITS: [Part; 3] = [Part::OneKib, Part::HundredKib, Part::OneMib];

/// How TLS is measured.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    turns: Turns,
    /// Only this part.
    #[arg(long)]
    only: Option<Part>,
    /// Idle connections whose memory is measured.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    connections_idle: u32,
    #[command(flatten)]
    built: Built,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// Measures and prints the tables.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let program = options.built.program(workspace)?;
    if HITS.into_iter().any(|part| options.wants(part)) || options.wants(Part::Handshakes) {
        rates(options, workspace, &program)?;
    }
    if options.wants(Part::Idle) {
        idle::run(options.connections_idle, workspace, &program)?;
    }
    if options.wants(Part::Hosts) {
        hosts::run(&options.turns, workspace, &program)?;
    }
    Ok(())
}

fn rates(options: &Options, workspace: &Workspace, program: &Path) -> Result<()> {
    let stage = Stage::set(workspace)?;
    let Stage { origin_port, folder, .. } = &stage;
    let certificate = sites::certificate(folder)?;
    let [first_port, buffers_port, http, https_port, admin] = free_ports()?;
    let server = |port, more| nginx_server(*origin_port, port, "ssl http2 backlog=4096", more);
    let servers = [
        sites::nginx_cache("nginx", folder),
        NGINX_TLS.to_owned(),
        certificate.nginx(),
        server(first_port, ""),
        server(buffers_port, "output_buffers 2 512k;"),
    ];
    let peer = programs::nginx("nginx", &servers.concat(), folder, &[first_port, buffers_port])?;
    let (https, hosts) = (Some((https_port, certificate.json())), sites::plain_and_signed());
    let hosts_json = HostsJson { origin_port: *origin_port, http, admin, https, hosts };
    let proxyhost = programs::proxyhost(program, &hosts_json.text(), folder, https_port)?;

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
    for (((size, _), (one, two)), part) in SIZES.into_iter().zip(AIMS).zip(HITS) {
        if !options.wants(part) {
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
    if options.wants(Part::Handshakes) {
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
