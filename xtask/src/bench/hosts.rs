//! Many hosts, each with a certificate of its own, beside one: how long a start takes until the https port answers, and full
//! handshakes for one of them. proxyhost and nginx, which has a server block for each, and no policy.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::contest::{Contender, Figures, Turns, measure};
use super::programs::{self, Folder, Program, free_ports};
use super::sites::{self, Certificate, HostsJson, NGINX_TLS, Stage};
use super::{hello, load, median};
use crate::cargo::{self, Workspace};

/// How many are many.
const MANY: usize = 1000;

/// The one that is asked for.
const ASKED: (usize, &str) = (500, "host500.test");

/// How often it is looked whether a program answers.
const LOOK: Duration = Duration::from_millis(2);

/// Makes a key and a certificate for each of the hosts 1 to $1.
const CERTIFICATES: &str = "i=1; while [ $i -le $1 ]; do \
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
        -subj /CN=host$i.test -addext subjectAltName=DNS:host$i.test \
        -keyout host$i.test.key -out host$i.test.pem || exit 1; i=$((i + 1)); done";

/// A program with one or many hosts.
struct Side {
    /// What it and its folder are called.
    name: &'static str,
    command: Command,
    port: u16,
}

/// Measures and prints the tables.
pub fn run(turns: &Turns, workspace: &Workspace, program: &Path) -> Result<()> {
    let stage = Stage::set(workspace)?;
    let folder = &stage.folder;
    certificates(folder)?;
    let mut sides = [
        nginx("nginx-one", &stage, &[ASKED.0])?,
        nginx("nginx-many", &stage, &all())?,
        proxyhost("proxyhost-one", program, &stage, "one", &[ASKED.0])?,
        proxyhost("proxyhost-many", program, &stage, "many", &all())?,
    ];

    let mut starts: [Vec<f64>; 4] = Default::default();
    for round in 0..turns.rounds as usize {
        for turn in 0..sides.len() {
            let number = (round + turn) % sides.len();
            let Side { name, command, port } = &mut sides[number];
            let begun = Instant::now();
            Program::start(name, command, folder, &[])?.wait_until(folder, LOOK, || hello::answers(*port, ASKED.1))?;
            starts[number].push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let shown: Vec<String> = starts.iter().filter_map(|all| all.last()).map(|ms| format!("{ms:.0}")).collect();
        eprintln!("xtask: start, round {}: {}", round + 1, shown.join(" "));
    }
    let [one, many, own_one, own_many] = starts.map(median);
    println!("\nhosts with a certificate each; medians of {} starts, until a handshake is answered\n", turns.rounds);
    println!("| | | 1 host | {MANY} hosts | ratio |");
    println!("|---|---|---|---|---|");
    println!("| nginx | start, ms | {one:.0} | {many:.0} | {:.2} |", many / one);
    println!("| proxyhost | start, ms | {own_one:.0} | {own_many:.0} | {:.2} |", own_many / own_one);

    let mut programs = Vec::new();
    for Side { name, command, port } in &mut sides {
        programs.push(Program::start(name, command, folder, &[*port])?);
    }
    let contender = |number: usize| {
        let Side { name, port, .. } = sides[number];
        Contender { name, program: &programs[number], port, host: ASKED.1 }
    };
    let contenders = [contender(0), contender(1), contender(2), contender(3)];
    let [one, many, own_one, own_many] =
        measure(turns, "handshakes among hosts", &contenders, |turn| load::newcomers_for(turn, "/1k"))?;
    print("nginx", one, many);
    print("proxyhost", own_one, own_many);
    Ok(())
}

fn print(name: &str, one: Figures, many: Figures) {
    let (rate, ratio) = (one.rate, many.rate / one.rate);
    println!("| {name} | full handshakes a second | {rate:.0} | {:.0} | {ratio:.2} |", many.rate);
    let (cpu_us, ratio) = (one.cpu_us, many.cpu_us / one.cpu_us);
    println!("| {name} | CPU, µs each | {cpu_us:.1} | {:.1} | {ratio:.2} |", many.cpu_us);
}

fn all() -> Vec<usize> {
    (1..=MANY).collect()
}

fn nginx(name: &'static str, stage: &Stage, hosts: &[usize]) -> Result<Side> {
    let [port] = free_ports()?;
    let Stage { origin_port, folder, .. } = stage;
    let mut servers = sites::nginx_cache(name, folder) + NGINX_TLS;
    // Else it refuses so many names.
    servers += "    server_names_hash_max_size 8192;\n";
    for (position, number) in hosts.iter().enumerate() {
        // What is told of a socket is told once.
        let listen = if position == 0 { "ssl http2 backlog=4096" } else { "ssl http2" };
        let file = |ending: &str| folder.at(&format!("certificates/many/host{number}.test.{ending}"));
        let certificate = Certificate { cert: file("pem"), key: file("key") };
        let more = format!("server_name host{number}.test;\n{}", certificate.nginx());
        servers += &sites::nginx_server(*origin_port, port, listen, &more);
    }
    Ok(Side { name, command: programs::nginx_command(name, &servers, folder)?, port })
}

fn proxyhost(name: &'static str, program: &Path, stage: &Stage, certificates: &str, hosts: &[usize]) -> Result<Side> {
    let [http, port, admin] = free_ports()?;
    let Stage { origin_port, folder, .. } = stage;
    let certificates = folder.at(&format!("certificates/{certificates}"));
    let https = Some((port, format!(r#"{{ "cert": "{}" }}"#, certificates.display())));
    let hosts: Vec<String> = hosts.iter().map(|number| sites::host(&format!("host{number}.test"))).collect();
    let hosts_json = HostsJson { origin_port: *origin_port, http, admin, https, hosts: hosts.join(",\n") };
    let command = programs::proxyhost_command(name, program, &hosts_json.text(), folder)?;
    Ok(Side { name, command, port })
}

/// Makes them: all in one folder, and a second one with that of the host that is asked for.
fn certificates(folder: &Folder) -> Result<()> {
    eprintln!("xtask: making {MANY} certificates");
    folder.write("certificates/many/.keep", "")?;
    let mut command = Command::new("sh");
    command.args(["-c", CERTIFICATES, "sh", &MANY.to_string()]).current_dir(folder.at("certificates/many"));
    cargo::succeed(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    for ending in ["pem", "key"] {
        let name = format!("{}.{ending}", ASKED.1);
        let bytes = std::fs::read(folder.at(&format!("certificates/many/{name}")))?;
        folder.write(&format!("certificates/one/{name}"), bytes)?;
    }
    Ok(())
}
