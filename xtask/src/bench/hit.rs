//! Hits, proxyhost against nginx's `proxy_cache`: both keep what the same origin gave, and both write an access log to a file.
//!
//! nginx serves twice, since its better way depends on the size: with sendfile, and without it from large buffers. `tcp_nopush`
//! is off in both: with it nginx stalls on loopback. The better of the two counts, without a policy; proxyhost serves without
//! and with one. All are sent the same request, a signed link: those who do not check it read, look up and log it like any
//! other.

use anyhow::Result;

use super::contest::{Contender, Figures, Turn, Turns, measure};
use super::programs::{self, free_ports};
use super::sites::{self, HostsJson, PLAIN, SIGNED, SIZES, Stage, nginx_server, signed};
use super::{Built, load};
use crate::cargo::Workspace;

/// The ratio to nginx that is aimed at with a policy on, by size.
const AIMS: [f64; 3] = [1.0; 3];

/// How hits are measured.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    turns: Turns,
    /// Only this size: 1k, 100k or 1m.
    #[arg(long)]
    size: Option<String>,
    #[command(flatten)]
    built: Built,
}

/// Measures and prints the table.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let program = options.built.program(workspace)?;
    let stage = Stage::set(workspace)?;
    let Stage { origin_port, folder, .. } = &stage;
    let [sendfile_port, buffers_port, http, admin] = free_ports()?;
    let server = |port, more| nginx_server(*origin_port, port, "backlog=4096", more);
    let servers = [
        sites::nginx_cache("nginx", folder),
        server(sendfile_port, "sendfile on;"),
        server(buffers_port, "sendfile off; output_buffers 2 512k;"),
    ];
    let peer = programs::nginx("nginx", &servers.concat(), folder, &[sendfile_port, buffers_port])?;
    let hosts = sites::plain_and_signed();
    let hosts_json = HostsJson { origin_port: *origin_port, http, admin, https: None, hosts };
    let proxyhost = programs::proxyhost(&program, &hosts_json.text(), folder, http)?;

    let contender = |name, program, port, host| Contender { name, program, port, host };
    let contenders = [
        contender("nginx, sendfile", &peer, sendfile_port, PLAIN),
        contender("nginx, buffers", &peer, buffers_port, PLAIN),
        contender("proxyhost", &proxyhost, http, PLAIN),
        contender("proxyhost, policy", &proxyhost, http, SIGNED),
    ];
    options.turns.print();
    println!("| size | | nginx, sendfile | nginx, buffers | proxyhost | ratio | with policy | ratio | aim |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for ((size, _), aim) in SIZES.into_iter().zip(AIMS) {
        if options.size.as_deref().is_some_and(|only| only != size) {
            continue;
        }
        let target = signed(size)?;
        let by_wrk = |turn: &Turn<'_>| {
            let url = format!("http://127.0.0.1:{}{target}", turn.contender.port);
            load::wrk_for(turn, options.turns.connections, &url)
        };
        print(size, &measure(&options.turns, size, &contenders, by_wrk)?, aim);
    }
    Ok(())
}

fn print(size: &str, figures: &[Figures; 4], aim: f64) {
    let better = usize::from(figures[1].rate > figures[0].rate);
    let row = |what: &str, numbers: [f64; 4], digits: usize, aim: &str| {
        let [sendfile, buffers, plain, policy] = numbers;
        let (ratio, policy_ratio) = (plain / numbers[better], policy / numbers[better]);
        println!(
            "| {size} | {what} | {sendfile:.digits$} | {buffers:.digits$} | {plain:.digits$} | {ratio:.2} \
             | {policy:.digits$} | {policy_ratio:.2} | {aim} |"
        );
    };
    row("requests a second", figures.map(|one| one.rate), 0, &format!("at least {aim}"));
    row("CPU, µs a request", figures.map(|one| one.cpu_us), 1, "");
}
