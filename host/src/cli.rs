//! The command line: what can be asked, and in which exit code it ends. 0: done; 2: what the user can mend (arguments,
//! hosts.json, a request that the running program refuses); 1: all else.
//!
//! `check` and `config` read files alone. `explain`, `purge`, `warm`, `stats`, `reload` and `upgrade` ask the running program through its admin
//! listener, which they find by the same hosts.json, or by `--admin` and `--token`.

mod admin;
mod lines;
mod print;
mod progress;
mod purge;
mod warm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use proxyhost::app::{self, StartError};
use proxyhost::config::{self, Mistakes};
use serde_json::{Value, json};

use admin::{Admin, AdminError};
use print::{complain, say, say_json};

/// A caching proxy in front of an S3 bucket, an HTTP origin or a folder, with a WebAssembly policy per domain.
///
/// Without a command it serves what the configuration says.
#[derive(Debug, Parser)]
#[command(name = "proxyhost", version, disable_help_subcommand = true)]
struct Arguments {
    /// The configuration.
    #[arg(long, short, global = true, value_name = "FILE", default_value = "hosts.json")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks at the configuration and the policies, and names all mistakes; serves nothing.
    Check {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Tells of the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Asks the running program what it would do with a URL: host, policy decision, key, entry, freshness.
    Explain {
        /// Such as `http://a.example/path?query`; the scheme may be left out.
        url: String,
        /// The method.
        #[arg(long, short = 'X', default_value = "GET")]
        method: String,
        /// A field of the request, such as `Accept-Language: de`; can be given many times.
        #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
        header: Vec<(String, String)>,
        #[command(flatten)]
        door: Door,
    },
    /// Purges paths, prefixes, patterns, tags, a host or everything; from arguments or a list.
    Purge {
        #[command(flatten)]
        purge: purge::Purge,
        #[command(flatten)]
        door: Door,
    },
    /// Fetches into the cache: paths, lists, sitemaps, or what a bucket or folder has. What is fresh there is not fetched again.
    Warm {
        #[command(flatten)]
        warm: warm::Warm,
        #[command(flatten)]
        door: Door,
    },
    /// Numbers and states of the running program.
    Stats {
        #[command(flatten)]
        door: Door,
    },
    /// Makes the running program read its configuration again: all or nothing.
    Reload {
        #[command(flatten)]
        door: Door,
    },
    /// Replaces the running program by the one that now lies in its file, without a request lost. If that one does not come up,
    /// the running one goes on.
    Upgrade {
        #[command(flatten)]
        door: Door,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Prints the JSON Schema of hosts.json.
    Schema,
    /// Prints what is in force, defaults included, secrets hidden.
    Show,
}

/// How the running program is reached.
#[derive(Debug, Args)]
struct Door {
    /// Address and port of the admin listener; by default what the configuration says.
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<std::net::SocketAddr>,
    /// Its token: literal, `env:NAME` or `file:PATH`; by default what the configuration says.
    // One that was made here may begin with a hyphen.
    #[arg(long, allow_hyphen_values = true)]
    token: Option<String>,
    /// For programs: the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// How a command ended.
enum Failure {
    /// Lines for the user, who can mend it.
    Mendable(Vec<String>),
    /// All else.
    Other(String),
}

impl Failure {
    fn mendable(why: &str) -> Self {
        Self::Mendable(vec![format!("proxyhost: {why}")])
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mendable(mistakes.lines())
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Refused(lines) => Self::Mendable(lines),
            AdminError::NotNow(reason) | AdminError::Unreachable(reason) => Self::Other(reason),
        }
    }
}

/// Runs the command that was given.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse(); // ends with exit code 2 if they are wrong
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Mendable(lines)) => {
            lines.iter().for_each(|line| complain(line));
            ExitCode::from(2)
        }
        Err(Failure::Other(reason)) => {
            complain(&format!("proxyhost: {reason}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let file = arguments.config;
    match arguments.command {
        None => serve(file),
        Some(Command::Check { json }) => check(&file, json),
        Some(Command::Config(ConfigCommand::Schema)) => {
            say_json(&config::json_schema());
            Ok(())
        }
        Some(Command::Config(ConfigCommand::Show)) => {
            say_json(&config::load(&file)?.show());
            Ok(())
        }
        Some(Command::Explain { url, method, header, door }) => {
            let answer = ask(&file, &door, "GET", &question(&url, &method, &header), None)?;
            if door.json {
                say_json(&answer)
            } else {
                print::readable(&answer).iter().for_each(|line| say(line))
            }
            Ok(())
        }
        Some(Command::Purge { purge, door }) => purge::run(&file, &purge, &door),
        Some(Command::Warm { warm, door }) => warm::run(&file, &warm, &door),
        Some(Command::Stats { door }) => {
            let answer = ask(&file, &door, "GET", "/stats", None)?;
            if door.json {
                say_json(&answer)
            } else {
                print::readable(&answer).iter().for_each(|line| say(line))
            }
            Ok(())
        }
        Some(Command::Upgrade { door }) => {
            let answer = ask(&file, &door, "POST", "/upgrade", None)?;
            match (door.json, answer.get("pid")) {
                (false, Some(pid)) => say(&format!("upgraded: process {pid} serves")),
                _ => say_json(&answer),
            }
            Ok(())
        }
        Some(Command::Reload { door }) => {
            let answer = ask(&file, &door, "POST", "/reload", None)?;
            if door.json {
                say_json(&answer);
            } else {
                say("reloaded");
                print::readable(&answer).iter().for_each(|line| say(line));
            }
            Ok(())
        }
    }
}

fn serve(file: PathBuf) -> Result<(), Failure> {
    // Only fails if a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("proxyhost")
        // They wait for the disk. tokio's default of 512 was seen to take half a gigabyte under a load of misses: each thread
        // has a heap of its own.
        .max_blocking_threads(32)
        .build()
        .map_err(|error| Failure::Other(format!("the runtime cannot start: {error}")))?;
    let shown = file.clone();
    match runtime.block_on(app::run(file)) {
        Ok(()) => Ok(()),
        Err(StartError::Configuration(mistakes)) => Err(with_title(&shown, mistakes)),
        Err(StartError::Machine(reason)) => Err(Failure::Mendable(vec![format!("proxyhost: {reason}")])),
        Err(error) => Err(Failure::Other(format!("{error:#}"))),
    }
}

fn check(file: &Path, json: bool) -> Result<(), Failure> {
    let resolved = match config::load(file) {
        Ok(resolved) => resolved,
        Err(mistakes) if json => {
            let list: Vec<Value> = mistakes
                .iter()
                .map(|one| json!({ "path": one.path, "found": one.found, "expected": one.expected }))
                .collect();
            say_json(&json!({ "ok": false, "mistakes": list }));
            return Err(Failure::Mendable(Vec::new()));
        }
        Err(mistakes) => return Err(with_title(file, mistakes)),
    };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match (app::check(&resolved), json) {
        (Ok(lines), false) => lines.iter().for_each(|line| say(line)),
        (Ok(lines), true) => say_json(&json!({ "ok": true, "summary": lines })),
        (Err(lines), false) => return Err(Failure::Mendable(lines)),
        (Err(lines), true) => {
            let list: Vec<Value> = lines.iter().map(|line| json!({ "path": null, "found": line })).collect();
            say_json(&json!({ "ok": false, "mistakes": list }));
            return Err(Failure::Mendable(Vec::new()));
        }
    }
    Ok(())
}

fn ask(file: &Path, door: &Door, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let admin = Admin::find(file, door.admin, door.token.as_deref())?;
    Ok(admin.ask(method, path, body)?)
}

fn with_title(file: &Path, mistakes: Mistakes) -> Failure {
    let mut lines = vec![format!("proxyhost: {} cannot be used:", file.display())];
    lines.extend(mistakes.lines().into_iter().map(|line| format!("  {line}")));
    if !file.exists() {
        lines.push("  name the configuration with --config FILE".to_owned());
    }
    Failure::Mendable(lines)
}

/// `explain` as the admin listener takes it.
fn question(url: &str, method: &str, headers: &[(String, String)]) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let mut question = format!("/explain?url={}&method={}", encode(&with_scheme(url)), encode(method));
    for (name, value) in headers {
        question += &format!("&header={}", encode(&format!("{name}: {value}")));
    }
    question
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a field is written as \"Name: value\"")?;
    let name = http::HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| "the name of the field is wrong")?;
    let value = value.trim();
    http::HeaderValue::from_str(value).map_err(|_| "the value of the field is wrong")?;
    Ok((name.as_str().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_are_read() {
        assert_eq!(parse("proxyhost").expect("serves").config, Path::new("hosts.json"));
        for line in [
            "proxyhost --config a.json",
            "proxyhost check --config a.json",
            "proxyhost --config a.json check --json",
            "proxyhost config schema",
            "proxyhost config show -c a.json",
            "proxyhost explain a.example/x -X HEAD -H a:b -H c:d --admin 127.0.0.1:1 --token x",
            "proxyhost purge --host a --path /x",
            "proxyhost purge --host a",
            "proxyhost purge --host a --path /x --path /y --tag z --glob /* --soft",
            "proxyhost purge --tag z --refresh --dry-run",
            "proxyhost purge --from - --each glob --host a",
            "proxyhost purge --all --json",
            "proxyhost warm --host a /x /y --jobs 8",
            "proxyhost warm http://a/x",
            "proxyhost warm --host a --from - -H accept-language:de",
            "proxyhost warm --host a --prefix / --json",
            "proxyhost warm --sitemap http://a/sitemap.xml",
            "proxyhost stats --json",
            "proxyhost stats --token -Cx",
            "proxyhost reload",
            "proxyhost upgrade --json",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in [
            "proxyhost serve",
            "proxyhost purge",
            "proxyhost purge --soft",
            "proxyhost purge --all --host a",
            "proxyhost purge --all --soft --refresh",
            "proxyhost purge --from list --path /x",
            "proxyhost purge --host a --each tag",
            "proxyhost warm",
            "proxyhost warm --host a",
            "proxyhost warm /x --jobs many",
            "proxyhost explain",
            "proxyhost explain a -H b",
            "proxyhost stats --admin here",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn questions_are_encoded() {
        let headers = [("accept".to_owned(), "a&b".to_owned())];
        let asked = question("a.example/x?y=1&z", "GET", &headers);
        assert_eq!(asked, "/explain?url=http%3A%2F%2Fa%2Eexample%2Fx%3Fy%3D1%26z&method=GET&header=accept%3A%20a%26b");
    }

    #[test]
    fn a_url_without_scheme_is_http() {
        assert_eq!(with_scheme("a.example/x"), "http://a.example/x");
        assert_eq!(with_scheme("https://a.example/x"), "https://a.example/x");
    }
}
