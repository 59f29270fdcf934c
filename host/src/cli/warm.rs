//! `proxyhost warm`: lists of any length, sitemaps and what origins have, fetched by the running program. A list is sent in parts;
//! what becomes of each thing is told as it is known.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use proxyhost::units::ByteSize;
use proxyhost::warm::{self, Kept, Tally};
use serde_json::{Map, Value, json};

use super::admin::Admin;
use super::lines::Lines;
use super::print::{complain, escaped, say};
use super::progress::ProgressLine;
use super::{Door, Failure};

/// Lines of a list that go in one request.
const PART_LINES: usize = 2_000;
/// ... and their bytes.
const PART_BYTES: usize = 1 << 20;
/// How often a part is asked for again that broke off without anything new: a program that takes over answers at once, and one that
/// is started again soon.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);
/// What was told of a part, at most: more than that is not asked for again by itself.
const TOLD_MOST: usize = 1 << 20;

/// What is fetched, and how.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Warm {
    /// Paths of --host, or whole URLs.
    #[arg(value_name = "PATH", required_unless_present_any = ["from", "sitemap", "prefix"])]
    path: Vec<String>,
    /// The host, as clients ask for it.
    #[arg(long)]
    host: Option<String>,
    /// A list of paths or URLs, one a line, `-` for stdin; empty lines and those that begin with `#` are passed over.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// A sitemap of a host that is served here, as XML or gzip, or an index of them: its path, or a URL.
    #[arg(long, value_name = "PATH")]
    sitemap: Vec<String>,
    /// All that the host's bucket or folder has below this path; `/` is all of it.
    #[arg(long)]
    prefix: Vec<String>,
    /// A field of each request, such as `Accept-Language: de`, where answers depend on it; can be given many times.
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = super::header)]
    header: Vec<(String, String)>,
    /// How many are fetched at once.
    #[arg(long, default_value_t = warm::order::JOBS)]
    jobs: usize,
}

/// Fetches by the running program.
pub fn run(file: &Path, warm: &Warm, door: &Door) -> Result<(), Failure> {
    let admin = Admin::find(file, door.admin, door.token.as_deref())?;
    let mut progress = Progress { json: door.json, ..Progress::default() };
    if !(warm.path.is_empty() && warm.sitemap.is_empty() && warm.prefix.is_empty()) {
        let lists = [("paths", &warm.path), ("sitemaps", &warm.sitemap), ("prefixes", &warm.prefix)];
        send(&admin, warm, &lists, None, &mut progress)?;
    }
    if let Some(list) = &warm.from {
        from_list(&admin, warm, list, &mut progress)?;
    }
    progress.end()
}

fn from_list(admin: &Admin, warm: &Warm, list: &Path, progress: &mut Progress) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::mendable(&format!("{} cannot be read: {error}", list.display()));
    let mut lines = Lines::of(list).map_err(cannot)?;
    let (mut part, mut part_bytes, mut named) = (Vec::new(), 0, false);
    let mut from = 0;
    loop {
        let line = lines.next().map_err(cannot)?;
        let ended = line.is_none();
        if let Some(line) = line {
            named = true;
            let checked = line.map_err(str::to_owned).and_then(|text| {
                warm::item(warm.host.as_deref(), &text)?;
                Ok(text)
            });
            match checked {
                Ok(text) => {
                    part_bytes += text.len();
                    part.push(text);
                }
                // One bad line of a million must not keep the others from being fetched.
                Err(why) => progress.failed(&format!("line {}", lines.number), &why),
            }
        }
        if !part.is_empty() && (ended || part.len() == PART_LINES || part_bytes >= PART_BYTES) {
            let place = lines.place().map(|(to, all)| Place { from, to, all, things: part.len() as u64 });
            send(admin, warm, &[("paths", &part)], place, progress)?;
            from = lines.place().map_or(0, |(to, _)| to);
            part.clear();
            part_bytes = 0;
        }
        if ended {
            break;
        }
    }
    if named { Ok(()) } else { Err(Failure::mendable(&format!("{} names nothing", list.display()))) }
}

fn send(
    admin: &Admin,
    warm: &Warm,
    lists: &[(&str, &Vec<String>)],
    place: Option<Place>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut body = Map::new();
    if let Some(host) = &warm.host {
        body.insert("host".to_owned(), host.clone().into());
    }
    for (name, texts) in lists.iter().filter(|(_, texts)| !texts.is_empty()) {
        body.insert((*name).to_owned(), json!(texts));
    }
    let headers: Map<String, Value> =
        warm.header.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    body.insert("headers".to_owned(), headers.into());
    body.insert("jobs".to_owned(), warm.jobs.into());
    let body = Value::Object(body);
    // What the listener would refuse is refused here, in the same words.
    warm::parse_request(body.to_string().as_bytes()).map_err(|error| Failure::mendable(&error))?;
    progress.begin(place);
    let mut tries = 0;
    loop {
        let (mut ended, before) = (false, progress.told.len());
        let asked = admin.ask_for_lines("/warm", &body, |line| ended |= progress.take(&line));
        progress.line.clear();
        if ended {
            return Ok(());
        }
        let failure =
            asked.map_or_else(Failure::from, |()| Failure::Other("the running program ended in the middle".to_owned()));
        // Another one may have taken over. What was told already is fresh there, as a rule.
        tries = if progress.told.len() > before { 1 } else { tries + 1 };
        let in_vain = !progress.heard || tries == TRIES || progress.told.len() >= TOLD_MOST;
        if in_vain || matches!(failure, Failure::Mendable(_)) {
            return Err(with(failure, progress));
        }
        progress.again = true;
        std::thread::sleep(PAUSE);
    }
}

/// What was done before it failed stays done.
fn with(failure: Failure, progress: &Progress) -> Failure {
    match failure {
        Failure::Other(reason) => Failure::Other(format!("{reason}; so far {}", progress.counts())),
        mendable => mendable,
    }
}

/// Where a part lies in its list: from one byte to another, of so many.
struct Place {
    from: u64,
    to: u64,
    all: u64,
    /// What it names.
    things: u64,
}

/// What is shown while it goes on.
#[derive(Default)]
struct Progress {
    tally: Tally,
    json: bool,
    line: ProgressLine,
    place: Option<Place>,
    /// Things of this part that were told, by a hash of each; none: it could not be had.
    told: HashMap<u64, Option<Kept>>,
    /// It is asked for again: those that were told are not counted once more.
    again: bool,
    /// The program has begun to answer.
    heard: bool,
}

impl Progress {
    /// A part is asked for.
    fn begin(&mut self, place: Option<Place>) {
        self.told.clear();
        (self.place, self.again, self.heard) = (place, false, false);
    }

    /// A line of the answer; whether it was the last.
    fn take(&mut self, line: &Value) -> bool {
        if line.get("done").is_some() {
            return true;
        }
        self.heard = true;
        let text = |name: &str| line[name].as_str().unwrap_or_default();
        let bytes = line["bytes"].as_u64().unwrap_or(0);
        let kept = match text("result") {
            "fetched" => Some(Kept { fetched: true, bytes }),
            "fresh" => Some(Kept { fetched: false, bytes }),
            "failed" => None,
            // How far it is, or that another program goes on.
            _ => return false,
        };
        if !self.is_news(text("url"), kept) {
            return false;
        }
        match kept {
            None if !self.json => self.failed(text("url"), text("because")),
            _ => self.tally.count(&kept.ok_or_else(String::new)),
        }
        if self.json {
            say(&line.to_string());
        }
        self.draw();
        false
    }

    /// Takes note of a thing; not of one that another program told in the same way before. Where it was another, that counts no
    /// more.
    fn is_news(&mut self, url: &str, kept: Option<Kept>) -> bool {
        let mut hasher = DefaultHasher::new();
        url.hash(&mut hasher);
        let thing = hasher.finish();
        let before = self.told.get(&thing).copied();
        if before.is_some() || self.told.len() < TOLD_MOST {
            self.told.insert(thing, kept);
        }
        let Some(before) = before.filter(|_| self.again) else { return true };
        if before.is_some() == kept.is_some() {
            return false;
        }
        match before {
            Some(Kept { fetched: true, bytes }) => {
                self.tally.fetched -= 1;
                self.tally.bytes -= bytes;
            }
            Some(_) => self.tally.fresh -= 1,
            None => self.tally.failed -= 1,
        }
        true
    }

    fn failed(&mut self, what: &str, why: &str) {
        self.tally.failed += 1;
        self.line.clear();
        if self.json {
            say(&json!({ "url": what, "result": "failed", "because": why }).to_string());
        } else {
            complain(&format!("{}: {}", escaped(what), escaped(why)));
        }
    }

    fn counts(&self) -> String {
        let Tally { fetched, fresh, failed, bytes } = self.tally;
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        format!("{fetched} fetched ({}), {fresh} fresh{failed}", ByteSize(bytes))
    }

    fn draw(&mut self) {
        self.line.place = self.place.as_ref().map(|Place { from, to, all, things }| {
            let told = (self.told.len() as u64).min(*things);
            (from + (to - from) * told / (*things).max(1), *all)
        });
        let counts = self.counts();
        self.line.draw(&counts);
    }

    fn end(mut self) -> Result<(), Failure> {
        self.line.clear();
        if self.json {
            say(&json!({ "done": self.tally }).to_string());
        } else {
            say(&self.counts());
        }
        match self.tally.failed {
            0 => Ok(()),
            failed => Err(Failure::Other(format!("{failed} could not be warmed"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up() {
        let mut progress = Progress { json: false, ..Progress::default() };
        for line in [
            json!({ "url": "a", "result": "fetched", "bytes": 1000 }),
            json!({ "url": "b", "result": "fresh", "bytes": 7 }),
            json!({ "progress": { "fetched": 1, "fresh": 1, "failed": 0, "bytes": 1000 } }),
            json!({ "url": "c", "result": "failed", "because": "x" }),
        ] {
            assert!(!progress.take(&line));
        }
        // Another program goes on: what it tells alike is the same, and what it tells otherwise is so.
        progress.again = true;
        for line in [
            json!({ "url": "a", "result": "fresh", "bytes": 1000 }),
            json!({ "url": "b", "result": "failed", "because": "x" }),
            json!({ "url": "c", "result": "fetched", "bytes": 5 }),
            json!({ "url": "d", "result": "fresh", "bytes": 5 }),
        ] {
            assert!(!progress.take(&line));
        }
        assert!(progress.take(&json!({ "done": {} })));
        assert_eq!(progress.tally, Tally { fetched: 2, fresh: 1, failed: 1, bytes: 1005 });
        assert!(progress.counts().ends_with("1 fresh, 1 failed"), "{}", progress.counts());
        assert!(matches!(progress.end(), Err(Failure::Other(_))));
    }
}
