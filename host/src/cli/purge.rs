//! `proxyhost purge`: from arguments, or from a list of any length, line by line, which is sent in parts.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use proxyhost::purge::{self, Kind};
use serde_json::{Map, Value, json};

use super::lines::Lines;
use super::print::{complain, escaped, say, say_json};
use super::progress::ProgressLine;
use super::{Door, Failure, ask};

/// Lines of a list that go in one request, and their bytes.
const PART_LINES: usize = 5_000;
/// The same of patterns, of which only so many can wait to be applied.
const PART_GLOBS: usize = 100;
/// How often a part is sent that there was no room for, and the pause in between: a minute.
const PART_TRIES: u32 = 120;
const PART_PAUSE: Duration = Duration::from_millis(500);
const PART_BYTES: usize = 1 << 20;

/// What is purged, and how.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Purge {
    /// The host, as clients ask for it. Alone: all of it.
    #[arg(long, required_unless_present_any = ["all", "path", "prefix", "glob", "tag", "from"])]
    host: Option<String>,
    /// A path, as in URLs, with all its queries and variants; without --host a whole URL. Can be given many times, as the others.
    #[arg(long)]
    path: Vec<String>,
    /// All paths that begin so.
    #[arg(long)]
    prefix: Vec<String>,
    /// All paths that match: `*` stays between two slashes, `**` does not, `?` is one character.
    #[arg(long)]
    glob: Vec<String>,
    /// All that bears a tag; without --host that of any host.
    #[arg(long)]
    tag: Vec<String>,
    /// Everything of all hosts.
    #[arg(long, conflicts_with_all = ["host", "path", "prefix", "glob", "tag", "from"])]
    all: bool,
    /// A list, one a line, `-` for stdin; empty lines and those that begin with `#` are passed over.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["path", "prefix", "glob", "tag"])]
    from: Option<PathBuf>,
    /// What the lines of the list are.
    #[arg(long, value_enum, default_value = "path", requires = "from")]
    each: Each,
    /// Makes stale instead of removing: used again when the origin says so, and if the origin fails.
    #[arg(long, conflicts_with = "refresh")]
    soft: bool,
    /// Makes stale, and asks the origin again at once for what was kept.
    #[arg(long)]
    refresh: bool,
    /// Purges nothing, and tells how many entries it would be.
    #[arg(long)]
    dry_run: bool,
}

/// What a line is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Each {
    Path,
    Prefix,
    Glob,
    Tag,
    Host,
}

impl Each {
    fn kind(self) -> (Kind, &'static str) {
        match self {
            Self::Path => (Kind::Path, "paths"),
            Self::Prefix => (Kind::Prefix, "prefixes"),
            Self::Glob => (Kind::Glob, "globs"),
            Self::Tag => (Kind::Tag, "tags"),
            Self::Host => (Kind::Host, "hosts"),
        }
    }
}

impl Purge {
    fn body(&self, lists: &[(&str, &[String])]) -> Value {
        let mut body = Map::new();
        if let Some(host) = &self.host {
            body.insert("host".to_owned(), host.clone().into());
        }
        for (name, texts) in lists.iter().filter(|(_, texts)| !texts.is_empty()) {
            body.insert((*name).to_owned(), json!(texts));
        }
        if self.all {
            body.insert("all".to_owned(), true.into());
        }
        let mode = match (self.soft, self.refresh) {
            (true, _) => "soft",
            (_, true) => "refresh",
            _ => "hard",
        };
        body.insert("mode".to_owned(), mode.into());
        body.insert("dry_run".to_owned(), self.dry_run.into());
        Value::Object(body)
    }
}

/// Purges by the running program.
pub fn run(file: &Path, purge: &Purge, door: &Door) -> Result<(), Failure> {
    let answer = match &purge.from {
        Some(list) => from_list(file, purge, list, door)?,
        None => {
            let lists: [(&str, &[String]); 4] =
                [("paths", &purge.path), ("prefixes", &purge.prefix), ("globs", &purge.glob), ("tags", &purge.tag)];
            let body = purge.body(&lists);
            // What the listener would refuse is refused here, in the same words.
            if let Err(error) = purge::parse_request(body.to_string().as_bytes()) {
                return Err(Failure::mendable(&error));
            }
            ask(file, door, "POST", "/purge", Some(&body))?
        }
    };
    if door.json {
        say_json(&answer);
        return Ok(());
    }
    say(&readable(&answer));
    for host in answer["unknown_hosts"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        complain(&format!("{}: there is no such host here; what was kept of it is purged", escaped(host)));
    }
    if answer["entries"] == 0 && purge.path.iter().any(|path| path.contains('*')) {
        complain("a path has no patterns: `*` stands for itself in it, and --glob takes patterns");
    }
    Ok(())
}

/// Sends a list in parts. What was sent before a mistake is found is purged, and the answer says so.
fn from_list(file: &Path, purge: &Purge, list: &Path, door: &Door) -> Result<Value, Failure> {
    let cannot = |error: io::Error| Failure::mendable(&format!("{} cannot be read: {error}", list.display()));
    let mut lines = Lines::of(list).map_err(cannot)?;
    let (kind, name) = purge.each.kind();
    let most_lines = if kind == Kind::Glob { PART_GLOBS } else { PART_LINES };
    let host = match (&purge.host, kind) {
        (Some(_), Kind::Host) => return Err(Failure::mendable("--host and --each host say both which host")),
        (host, _) => host.as_deref(),
    };
    let mut sum = Sum::default();
    let mut part: Vec<String> = Vec::new();
    let mut part_bytes = 0;
    while let Some(line) = lines.next().map_err(cannot)? {
        let wrong = |why: &str, sum: &Sum| Failure::mendable(&format!("line {} {why}{}", lines.number, sum.so_far()));
        let text = match line {
            Ok(text) => text,
            Err(why) => return Err(wrong(why, &sum)),
        };
        if let Err(error) = purge::item(kind, host, &text) {
            return Err(wrong(&error, &sum));
        }
        part_bytes += text.len();
        part.push(text);
        if part.len() == most_lines || part_bytes >= PART_BYTES {
            sum.line.place = lines.place();
            send(file, purge, door, (name, &part), &mut sum)?;
            part.clear();
            part_bytes = 0;
        }
    }
    sum.line.place = lines.place();
    if !part.is_empty() {
        send(file, purge, door, (name, &part), &mut sum)?;
    } else if sum.purged == 0 {
        return Err(Failure::mendable(&format!("{} names nothing", list.display())));
    }
    Ok(sum.answer(purge.dry_run))
}

fn send(file: &Path, purge: &Purge, door: &Door, list: (&str, &[String]), sum: &mut Sum) -> Result<(), Failure> {
    let body = purge.body(&[list]);
    let mut tries = 1;
    let answer = loop {
        match ask(file, door, "POST", "/purge", Some(&body)) {
            Err(Failure::Other(reason)) if tries < PART_TRIES && reason.contains("ask again later") => {
                tries += 1;
                std::thread::sleep(PART_PAUSE);
            }
            answer => break answer,
        }
    };
    let answer = answer.map_err(|failure| match failure {
        Failure::Other(reason) => Failure::Other(format!("{reason}{}", sum.so_far())),
        Failure::Mendable(mut lines) => {
            lines.extend(Some(sum.so_far()).filter(|text| !text.is_empty()));
            Failure::Mendable(lines)
        }
    })?;
    sum.add(&answer, list.1.len() as u64);
    sum.line.draw(&format!("{} done", sum.purged));
    Ok(())
}

/// What the parts of a list came to.
#[derive(Default)]
struct Sum {
    purged: u64,
    sequence: u64,
    entries: Option<u64>,
    incomplete: bool,
    unknown_hosts: BTreeSet<String>,
    line: ProgressLine,
}

impl Sum {
    fn add(&mut self, answer: &Value, named: u64) {
        self.purged += named;
        self.sequence = self.sequence.max(answer["sequence"].as_u64().unwrap_or(0));
        if let Some(entries) = answer["entries"].as_u64() {
            *self.entries.get_or_insert(0) += entries;
        }
        self.incomplete |= answer["complete"] == false;
        let unknown = answer["unknown_hosts"].as_array().into_iter().flatten().filter_map(Value::as_str);
        self.unknown_hosts.extend(unknown.map(str::to_owned));
    }

    fn so_far(&self) -> String {
        if self.purged == 0 { String::new() } else { format!("; the {} before are done", self.purged) }
    }

    fn answer(&self, dry_run: bool) -> Value {
        let mut answer = json!({ "sequence": self.sequence, "purged": if dry_run { 0 } else { self.purged } });
        if let Some(entries) = self.entries {
            answer["entries"] = entries.into();
            answer["complete"] = (!self.incomplete).into();
        }
        if dry_run {
            answer["dry_run"] = true.into();
        }
        if !self.unknown_hosts.is_empty() {
            answer["unknown_hosts"] = self.unknown_hosts.iter().map(String::as_str).collect();
        }
        answer
    }
}

/// An answer as a person reads it.
fn readable(answer: &Value) -> String {
    let least = if answer["complete"] == false { "at least " } else { "" };
    let entries = answer["entries"].as_u64().map(|entries| match entries {
        1 => format!("{least}1 entry"),
        many => format!("{least}{many} entries"),
    });
    if answer["dry_run"] == true {
        return format!("would purge {}", entries.unwrap_or_default());
    }
    match (entries, answer["sequence"].as_u64()) {
        (Some(entries), Some(sequence)) => format!("purged {entries} (sequence {sequence})"),
        (None, Some(sequence)) => format!("purged (sequence {sequence})"),
        (_, None) => answer.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_in_a_line() {
        for (answer, line) in [
            (json!({ "sequence": 3 }), "purged (sequence 3)"),
            (json!({ "sequence": 3, "entries": 1, "complete": true }), "purged 1 entry (sequence 3)"),
            (json!({ "sequence": 3, "entries": 2, "complete": false }), "purged at least 2 entries (sequence 3)"),
            (json!({ "sequence": 3, "entries": 0, "complete": true, "dry_run": true }), "would purge 0 entries"),
        ] {
            assert_eq!(readable(&answer), line);
        }
    }

    #[test]
    fn parts_add_up() {
        let mut sum = Sum::default();
        sum.add(&json!({ "sequence": 7, "entries": 2, "complete": true }), 5);
        sum.add(&json!({ "sequence": 9, "entries": 1, "complete": false }), 4);
        assert_eq!(sum.answer(false), json!({ "sequence": 9, "purged": 9, "entries": 3, "complete": false }));
        assert_eq!(sum.so_far(), "; the 9 before are done");
    }
}
