//! Memory of the program: over a minute of hits, over a minute of misses (each another path, each kept), and while one huge
//! object, which the cache has nothing of, goes to many clients at once.
//!
//! Each part has a program and a cache of its own. Resident memory is what /proc tells. Buffers and the memory tier fill in a
//! warm-up that is shown and not counted.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Built;
use super::load::{rate, wrk};
use super::programs::{self, Folder, Program, free_ports};
use crate::cargo::Workspace;

/// Bytes of one slice of a body in the cache.
const SLICE_MIB: f64 = 1.0;

/// Memory tier of the program that is watched: small, so that it is full soon.
const MEMORY_TIER_MIB: u32 = 32;

/// How often memory is looked at while the object streams.
const LOOK: Duration = Duration::from_millis(100);

/// How long a client waits for the next bytes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks for another path each time.
const MISSES_SCRIPT: &str = r#"
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end
local count = 0
function request()
  count = count + 1
  return wrk.format("GET", "/any/" .. id .. "/" .. count)
end
"#;

/// How memory is watched.
#[derive(clap::Args)]
pub struct Options {
    /// How long hits and misses are made each, after the warm-up.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long they are made before memory counts: misses fill the index's buffers and block cache in about a minute.
    #[arg(long, default_value_t = 60)]
    warm_up: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 256)]
    connections: u32,
    /// Clients of the huge object.
    #[arg(long, default_value_t = 50)]
    clients: u32,
    /// Its size in MiB.
    #[arg(long, default_value_t = 2048)]
    object_mib: u64,
    /// Only this part: hits, misses or object.
    #[arg(long)]
    part: Option<String>,
    #[command(flatten)]
    built: Built,
}

/// Runs the parts.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let program = options.built.program(workspace)?;
    let wanted = |part: &str| options.part.as_deref().is_none_or(|only| only == part);
    if wanted("hits") {
        watched(options, &program, "hits", &["-H", "Host: soak.test"], "/file")?;
    }
    if wanted("misses") {
        watched(options, &program, "misses", &["-H", "Host: soak.test", "-s"], "/any")?;
    }
    if wanted("object") {
        object(options, &program)?;
    }
    Ok(())
}

/// An origin, and proxyhost before it with an empty cache.
struct Scene {
    // Dropped in this order.
    proxyhost: Program,
    _origin: Program,
    port: u16,
    folder: Folder,
}

impl Scene {
    fn set(program: &Path, object_mib: u64) -> Result<Self> {
        let folder = Folder::make()?;
        folder.write("files/file", vec![b'x'; 1 << 10])?;
        let object = File::create(folder.at("files/object"));
        // Sparse: no disk is read for it.
        object.and_then(|file| file.set_len(object_mib << 20)).context("could not make the object")?;
        let [origin_port, port, admin_port] = free_ports()?;
        let filler = "x".repeat(1 << 10);
        let files = folder.at("files");
        let log = folder.at("fetches.log");
        let (files, log) = (files.display(), log.display());
        let origin = format!(
            "    access_log off;
    sendfile on;
    add_header Cache-Control \"public, max-age=86400\";
    server {{
        listen 127.0.0.1:{origin_port} backlog=4096;
        root {files};
        location /any {{ return 200 \"{filler}\"; }}
        location = /object {{ access_log {log}; }}
    }}"
        );
        let hosts_json = format!(
            r#"{{
  "listen": {{ "http": ["127.0.0.1:{port}"], "admin": "127.0.0.1:{admin_port}" }},
  "cache": {{ "dir": "cache", "disk": "8GB", "memory": "{MEMORY_TIER_MIB}MiB" }},
  "origins": {{ "files": {{ "http": {{ "url": "http://127.0.0.1:{origin_port}" }} }} }},
  "hosts": {{ "soak.test": {{ "origin": "files" }} }}
}}
"#
        );
        let _origin = programs::nginx("origin", &origin, &folder, &[origin_port])?;
        let proxyhost = programs::proxyhost(program, &hosts_json, &folder, port)?;
        Ok(Self { proxyhost, _origin, port, folder })
    }

    fn resident_mib(&self) -> Result<f64> {
        Ok(self.proxyhost.resident_kib()? as f64 / 1024.0)
    }
}

/// Hits or misses for a while.
fn watched(options: &Options, program: &Path, name: &str, arguments: &[&str], path: &str) -> Result<()> {
    let scene = Scene::set(program, 0)?;
    let url = format!("http://127.0.0.1:{}{path}", scene.port);
    let script = scene.folder.write("misses.lua", MISSES_SCRIPT)?;
    let script = script.to_string_lossy().into_owned();
    let mut arguments = arguments.to_vec();
    if arguments.last() == Some(&"-s") {
        arguments.push(&script);
    }
    println!("{name}, {} connections; resident memory in MiB:", options.connections);
    let seconds = options.warm_up + options.seconds;
    let (looks, printed) = thread::scope(|scope| {
        let load = scope.spawn(|| wrk(options.connections, seconds, &arguments, &url));
        let begun = Instant::now();
        let mut looks = Vec::new();
        while !load.is_finished() {
            thread::sleep(Duration::from_secs(5));
            if load.is_finished() {
                break;
            }
            let (second, resident) = (begun.elapsed().as_secs(), scene.resident_mib()?);
            let counted = second >= options.warm_up;
            println!("  {second:>4} s  {resident:>8.1}{}", if counted { "" } else { "  (warm-up)" });
            if counted {
                looks.push(resident);
            }
        }
        let printed = load.join().map_err(|_| anyhow::anyhow!("the thread of wrk panicked"))??;
        anyhow::Ok((looks, printed))
    })?;
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { bail!("too short to look at memory") };
    let (least, most) = looks.iter().fold((f64::MAX, 0.0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
    println!(
        "  {:.0} requests a second; last to first {:+.1} %; between {least:.1} and {most:.1} ({:.1} %)\n",
        rate(&printed)?,
        (last / first - 1.0) * 100.0,
        (most / least - 1.0) * 100.0
    );
    Ok(())
}

/// One huge object for many clients.
fn object(options: &Options, program: &Path) -> Result<()> {
    let scene = Scene::set(program, options.object_mib)?;
    let size = options.object_mib << 20;
    fetch(scene.port, "/file", 1 << 10)?;
    let base = scene.resident_mib()?;
    let begun = Instant::now();
    let peak = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..options.clients).map(|_| scope.spawn(|| fetch(scene.port, "/object", size))).collect();
        let mut peak = base;
        while clients.iter().any(|client| !client.is_finished()) {
            thread::sleep(LOOK);
            peak = peak.max(scene.resident_mib()?);
        }
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("the thread of a client panicked"))??;
        }
        anyhow::Ok(peak)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let fetches = fs::read_to_string(scene.folder.at("fetches.log")).context("the origin wrote no log")?;
    println!(
        "an object of {} MiB for {} clients at once: {} fetch(es) from the origin in {seconds:.0} s ({:.0} MiB/s)",
        options.object_mib,
        options.clients,
        fetches.lines().count(),
        (options.object_mib * u64::from(options.clients)) as f64 / seconds,
    );
    println!(
        "  resident memory {base:.1} MiB before, {peak:.1} at most: {:.0} slices more, of which the memory tier has up to \
         {MEMORY_TIER_MIB}",
        (peak - base) / SLICE_MIB
    );
    Ok(())
}

/// Gets a body of this size and throws it away.
fn fetch(port: u16, path: &str, size: u64) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: soak.test\r\nConnection: close\r\n\r\n")?;
    let mut buffer = vec![0; 256 << 10];
    let mut head = Vec::new();
    let end = loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0 && head.len() < 64 << 10, "no head came");
        head.extend_from_slice(&buffer[..read]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]);
    ensure!(text.starts_with("HTTP/1.1 200"), "the answer was {text}");
    let mut got = (head.len() - end) as u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            read => got += read as u64,
        }
    }
    ensure!(got == size, "{got} bytes came instead of {size}");
    Ok(())
}
