//! What many entries cost: start, hits, looks into the index, memory, purges and disk, with ten million small entries beside ten
//! thousand of the same. All entries come through the program, from an nginx.
//!
//! A look into the index is timed by the program itself (`proxyhost_cache_index_read_seconds`), from the page cache: the index is read
//! before each round, since the balloon of a virtual machine takes pages out again that nobody asked for in a while. What a client
//! waits for it is more, since wrk shares these cores.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::contest::{Contender, Done, Figures, Turn, Turns, measure};
use super::load::{rate, requests, wrk};
use super::programs::{self, Folder, Program, free_ports};
use super::{Built, median};
use crate::cargo::Workspace;

const HOST: &str = "scale.test";
/// Entries that are asked for again and again.
const HOT: u64 = 1000;
/// Each entry has one of so many tags.
const TAGS: u64 = 1000;
/// How long one run that fills takes at most.
const FILL_SECONDS: u64 = 20;
/// Looks whether a program that starts answers.
const LOOK: Duration = Duration::from_millis(1);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Purges of tags that are timed.
const PURGES: u64 = 9;

/// How it is measured.
#[derive(clap::Args)]
pub struct Options {
    /// Entries of the large cache.
    #[arg(long, default_value_t = 10_000_000)]
    entries: u64,
    /// Entries of the small one.
    #[arg(long, default_value_t = 10_000)]
    few: u64,
    /// Memory tier of each in MiB.
    #[arg(long, default_value_t = 64)]
    memory: u64,
    /// Starts of each; the median counts.
    #[arg(long, default_value_t = 5)]
    starts: u32,
    /// The folder of the large cache, which stays there and is used again: filling it takes most of the time. The purge of its host
    /// is then left out.
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    #[command(flatten)]
    turns: Turns,
    #[command(flatten)]
    built: Built,
}

/// One cache, with the program that serves it.
struct Site {
    name: &'static str,
    cache: PathBuf,
    entries: u64,
    port: u16,
    admin: u16,
    hosts_json: String,
    program: Option<Program>,
}

/// Measures and prints a table.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    ensure!(
        options.few >= HOT && options.entries >= options.few,
        "that is no scale: at least {HOT} and not fewer than few"
    );
    let binary = options.built.program(workspace)?;
    let folder = Folder::make()?;
    let origin_port = origin_port(options.cache.as_deref())?;
    let _origin = programs::nginx("origin", &origin(origin_port), &folder, &[origin_port])?;
    let large = options.cache.clone().unwrap_or_else(|| folder.at("many/cache"));
    let mut few = Site::new("few", folder.at("few/cache"), options.few, options, origin_port)?;
    let mut many = Site::new("many", large, options.entries, options, origin_port)?;
    for site in [&mut few, &mut many] {
        site.start(&binary, &folder)?;
        site.fill(&folder)?;
        // What is still to be written down and to be put together.
        site.stop();
    }

    println!("\n{} entries beside {}, memory tier {} MiB each\n", options.entries, options.few, options.memory);
    println!("| what | few | many | aim for many |");
    println!("|---|---|---|---|");
    let starts = [&mut few, &mut many].map(|site| site.starts(&binary, &folder, options.starts));
    let [few_starts, many_starts] = starts;
    let ((few_start, few_killed), (many_start, many_killed)) = (few_starts?, many_starts?);
    println!("| start to first byte, ms | {few_start:.0} | {many_start:.0} | under 1000 |");
    println!("| the same after SIGKILL, ms | {few_killed:.0} | {many_killed:.0} | under 1000 |");

    // The page cache shall have all of it, and the programs what they hold of it.
    for site in [&few, &many] {
        read_all(&site.cache)?;
    }
    let [few_hot, many_hot] = hot(&options.turns, &few, &many, &folder)?;
    let ratio = many_hot.rate / few_hot.rate;
    println!("| hits of {HOT}, a second | {:.0} | {:.0} ({ratio:.2}) | 1.00 |", few_hot.rate, many_hot.rate);
    let ratio = many_hot.cpu_us / few_hot.cpu_us;
    println!("| CPU of one, µs | {:.1} | {:.1} ({ratio:.2}) | 1.00 |", few_hot.cpu_us, many_hot.cpu_us);

    let random = many.random(&options.turns, &folder)?;
    println!("| hits of all at random, a second | | {:.0} | |", random.rate);
    println!("| look into the index, median, µs | | at most {} | 20 |", shown_us(random.median));
    println!("| ... p99, µs | | at most {} | 150 |", shown_us(random.p99));
    let beyond = |kib: u64| kib as f64 / 1024.0 - options.memory as f64;
    let few_resident = few.program()?.resident_kib()?;
    println!(
        "| resident memory beyond the tier, MiB | {:.0} | {:.0} | 256 |",
        beyond(few_resident),
        beyond(random.most_resident)
    );
    println!("| disk, bytes an entry | {:.0} | {:.0} | |", few.bytes_an_entry()?, many.bytes_an_entry()?);
    println!(
        "| purge of a tag, ms, longest of {PURGES} | {:.1} | {:.1} | under 10 |",
        few.purge_tags()?,
        many.purge_tags()?
    );
    if options.cache.is_none() {
        let body = format!(r#"{{ "hosts": ["{HOST}"] }}"#);
        println!("| purge of the host, ms | {:.1} | {:.1} | under 10 |", few.purge(&body)?, many.purge(&body)?);
        for site in [&few, &many] {
            let answer = get(site.port, &path(1))?;
            ensure!(!answer.contains("; hit"), "purged, and a hit:\n{answer}");
        }
    }
    Ok(())
}

/// The origin's port, which is part of every key: a cache that is used again has to find it where it was.
fn origin_port(cache: Option<&Path>) -> Result<u16> {
    let [port] = free_ports()?;
    let Some(cache) = cache else { return Ok(port) };
    let file = cache.with_added_extension("origin-port");
    match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} has no port", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            ensure!(
                !cache.exists(),
                "{} is there, and {} is not: nobody knows its keys",
                cache.display(),
                file.display()
            );
            fs::create_dir_all(cache.parent().unwrap_or(cache))?;
            fs::write(&file, port.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(port)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Answers all paths at once.
fn origin(port: u16) -> String {
    format!(
        "    access_log off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/(?<section>s[0-9]+)/ {{
            add_header Cache-Control \"public, max-age=8640000\";
            add_header Surrogate-Key $section;
            return 200 \"{{ \\\"path\\\": \\\"$uri\\\", \\\"state\\\": \\\"in stock, ships within two days\\\" }}\";
        }}
    }}"
    )
}

fn path(number: u64) -> String {
    format!("/s{}/{number}", number % TAGS)
}

/// wrk's script for paths that `number`, an expression of Lua, chooses.
fn script(begin: &str, number: &str) -> String {
    format!(
        "local threads = {{}}
function setup(thread)
  thread:set('id', #threads)
  table.insert(threads, thread)
end
function init()
  math.randomseed(os.time() * 2 + id)
  {begin}
end
function request()
  local number = {number}
  return wrk.format('GET', string.format('/s%d/%d', number % {TAGS}, number))
end
function done()
  for _, thread in ipairs(threads) do print('next ' .. tostring(thread:get('following') or 0)) end
end
"
    )
}

struct Random {
    rate: f64,
    median: f64,
    p99: f64,
    most_resident: u64,
}

impl Site {
    fn new(name: &'static str, cache: PathBuf, entries: u64, options: &Options, origin: u16) -> Result<Self> {
        let [port, admin] = free_ports()?;
        let (dir, memory) = (cache.display(), options.memory);
        let hosts_json = format!(
            r#"{{
  "listen": {{ "http": ["127.0.0.1:{port}"], "admin": "127.0.0.1:{admin}" }},
  "cache": {{ "dir": "{dir}", "disk": "60GB", "memory": "{memory}MiB" }},
  "origins": {{ "answers": {{ "http": {{ "url": "http://127.0.0.1:{origin}" }} }} }},
  "hosts": {{ "{HOST}": {{ "origin": "answers" }} }}
}}
"#
        );
        Ok(Self { name, cache, entries, port, admin, hosts_json, program: None })
    }

    fn program(&self) -> Result<&Program> {
        self.program.as_ref().with_context(|| format!("{} does not run", self.name))
    }

    /// Starts it, and tells how long it took until an answer came.
    fn start(&mut self, binary: &Path, folder: &Folder) -> Result<Duration> {
        let mut command = programs::proxyhost_command(self.name, binary, &self.hosts_json, folder)?;
        let begun = Instant::now();
        let mut program = Program::start(self.name, &mut command, folder, &[])?;
        let asked = path(1);
        program.wait_until(folder, LOOK, || {
            get(self.port, &asked).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        })?;
        let took = begun.elapsed();
        self.program = Some(program);
        Ok(took)
    }

    fn stop(&mut self) {
        self.program = None;
    }

    /// Medians in milliseconds: after it was told to end, and after it was killed.
    fn starts(&mut self, binary: &Path, folder: &Folder, times: u32) -> Result<(f64, f64)> {
        let (mut ended, mut killed) = (Vec::new(), Vec::new());
        for _ in 0..times {
            self.stop();
            ended.push(self.start(binary, folder)?.as_secs_f64() * 1000.0);
            if let Some(program) = self.program.take() {
                program.kill();
            }
            killed.push(self.start(binary, folder)?.as_secs_f64() * 1000.0);
            // Of another path than the one that was waited for: that one may have been fetched.
            let answer = get(self.port, &path(2))?;
            ensure!(answer.contains("; hit"), "{}: it was kept before it was killed:\n{answer}", self.name);
        }
        Ok((median(ended), median(killed)))
    }

    /// Asks for every entry once, unless they are there.
    fn fill(&self, folder: &Folder) -> Result<()> {
        let there = metric(&self.metrics()?, "proxyhost_cache_entries").unwrap_or(0.0);
        if there >= self.entries as f64 * 0.99 {
            return Ok(());
        }
        let begun = Instant::now();
        let (mut from, mut rate_now) = (0, 5000.0);
        while from < self.entries {
            let begin = format!("following = {from} + id");
            let number = format!("math.min(following, {} - 1); following = following + 2", self.entries);
            let file = folder.write("fill.lua", script(&begin, &number))?;
            let seconds = ((self.entries - from) as f64 / rate_now).ceil().clamp(1.0, FILL_SECONDS as f64) as u64;
            let printed = self.wrk(256, seconds, &file)?;
            rate_now = rate(&printed)?.max(1.0);
            // Both threads have had all below.
            let next = printed.lines().filter_map(|line| line.strip_prefix("next ")?.trim().parse::<f64>().ok());
            let next = next.fold(f64::MAX, f64::min) as u64;
            ensure!(next > from, "nothing was asked for:\n{printed}");
            from = next;
            let (shown, of) = (from.min(self.entries), self.entries);
            eprintln!("xtask: {}: {shown} of {of} entries, {rate_now:.0} a second", self.name);
        }
        eprintln!("xtask: {}: filled in {:.0} s", self.name, begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn wrk(&self, connections: u32, seconds: u64, script: &Path) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/", self.port);
        wrk(connections, seconds, &["-H", &format!("Host: {HOST}"), "-s", &script.to_string_lossy()], &url)
    }

    /// Asks for any of all.
    fn random(&self, turns: &Turns, folder: &Folder) -> Result<Random> {
        let file = folder.write("random.lua", script("", &format!("math.random(0, {} - 1)", self.entries)))?;
        let connections = turns.connections;
        self.wrk(connections, 2, &file)?;
        let before = self.metrics()?;
        let (mut rates, mut most_resident) = (Vec::new(), 0);
        for _ in 0..turns.rounds {
            read_all(&self.cache.join("index"))?;
            rates.push(rate(&self.wrk(connections, turns.seconds, &file)?)?);
            most_resident = most_resident.max(self.program()?.resident_kib()?);
        }
        let after = self.metrics()?;
        let reads = Reads::between(&before, &after);
        let misses = |text: &str| metric(text, "proxyhost_origin_response_bytes_total").unwrap_or(0.0);
        ensure!(misses(&after) - misses(&before) < 1e6, "these were no hits");
        Ok(Random { rate: median(rates), median: reads.quantile(0.5)?, p99: reads.quantile(0.99)?, most_resident })
    }

    fn metrics(&self) -> Result<String> {
        self.admin("GET", "/metrics", "")
    }

    fn admin(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let token = fs::read_to_string(self.cache.join("admin-token")).context("there is no token")?;
        let more = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", token.trim());
        ask(self.admin, method, path, &more, body)
    }

    /// How long a purge takes, in milliseconds.
    fn purge(&self, body: &str) -> Result<f64> {
        let begun = Instant::now();
        let answer = self.admin("POST", "/purge", body)?;
        let took = begun.elapsed();
        ensure!(answer.starts_with("HTTP/1.1 200"), "the purge {body} was answered\n{answer}");
        Ok(took.as_secs_f64() * 1000.0)
    }

    fn purge_tags(&self) -> Result<f64> {
        let times =
            (0..PURGES).map(|tag| self.purge(&format!(r#"{{ "host": "{HOST}", "tags": ["s{}"] }}"#, 500 + tag)));
        times.collect::<Result<Vec<_>>>().map(|times| times.into_iter().fold(0.0, f64::max))
    }

    fn bytes_an_entry(&self) -> Result<f64> {
        let mut bytes = 0;
        each_file(&self.cache, &mut |file| {
            bytes += fs::metadata(file)?.blocks() * 512;
            Ok(())
        })?;
        Ok(bytes as f64 / self.entries as f64)
    }
}

/// Hits of the hot ones, in turns.
fn hot(turns: &Turns, few: &Site, many: &Site, folder: &Folder) -> Result<[Figures; 2]> {
    let file = folder.write("hot.lua", script("", &format!("math.random(0, {HOT} - 1)")))?;
    let contender = |site: &'static str, program, port| Contender { name: site, program, port, host: HOST };
    let contenders = [contender("few", few.program()?, few.port), contender("many", many.program()?, many.port)];
    measure(turns, "hot", &contenders, |turn: &Turn<'_>| {
        let site = if turn.contender.port == few.port { few } else { many };
        let printed = site.wrk(turns.connections, turn.seconds, &file)?;
        Ok(Done { rate: rate(&printed)?, count: requests(&printed)? })
    })
}

/// Counts of a histogram, by upper bound in seconds.
struct Reads(Vec<(f64, f64)>);

impl Reads {
    fn of(text: &str) -> Vec<(f64, f64)> {
        let lines =
            text.lines().filter_map(|line| line.strip_prefix("proxyhost_cache_index_read_seconds_bucket{le=\""));
        lines
            .filter_map(|line| {
                let (bound, count) = line.split_once("\"} ")?;
                Some((bound.parse().unwrap_or(f64::INFINITY), count.trim().parse().ok()?))
            })
            .collect()
    }

    fn between(before: &str, after: &str) -> Self {
        let (before, after) = (Self::of(before), Self::of(after));
        Self(after.into_iter().zip(before).map(|((bound, after), (_, before))| (bound, after - before)).collect())
    }

    /// The bound of the bucket that this part of all lies in.
    fn quantile(&self, part: f64) -> Result<f64> {
        let Some((_, all)) = self.0.last().filter(|(_, all)| *all > 0.0) else { bail!("the index was never read") };
        let found = self.0.iter().find(|(_, count)| *count >= all * part);
        found.map(|(bound, _)| *bound).context("the histogram has no such bucket")
    }
}

fn shown_us(seconds: f64) -> String {
    format!("{:.0}", seconds * 1e6)
}

/// A metric without labels.
fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn get(port: u16, path: &str) -> Result<String> {
    ask(port, "GET", path, "", "")
}

/// One request on a connection of its own.
fn ask(port: u16, method: &str, path: &str, more: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn each_file(folder: &Path, look: &mut impl FnMut(&Path) -> std::io::Result<()>) -> Result<()> {
    for item in fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let item = item?;
        if item.file_type()?.is_dir() {
            each_file(&item.path(), look)?;
        } else {
            // Files of an index come and go.
            let _ = look(&item.path());
        }
    }
    Ok(())
}

/// Reads all files, so that the page cache has them.
fn read_all(folder: &Path) -> Result<()> {
    each_file(folder, &mut |file| {
        let mut command = Command::new("cat");
        command.arg(file).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().map(|_| ())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let text = |counts: [u32; 3]| {
            let [one, two, all] = counts;
            let bucket =
                |bound: &str, count| format!("proxyhost_cache_index_read_seconds_bucket{{le=\"{bound}\"}} {count}\n");
            [bucket("0.00001", one), bucket("0.00002", two), bucket("+Inf", all)].concat()
        };
        let reads = Reads::between(&text([5, 5, 5]), &text([55, 103, 105]));
        assert_eq!(reads.quantile(0.5).unwrap(), 0.00001);
        assert_eq!(reads.quantile(0.98).unwrap(), 0.00002);
        assert_eq!(reads.quantile(0.99).unwrap(), f64::INFINITY);
        assert!(Reads::between(&text([1, 1, 1]), &text([1, 1, 1])).quantile(0.5).is_err());
        assert_eq!(metric("proxyhost_cache_entries 12\n", "proxyhost_cache_entries"), Some(12.0));
    }
}
