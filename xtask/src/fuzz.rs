//! The fuzz targets of `host/fuzz`, by libFuzzer, with a stable compiler.
//!
//! cargo-fuzz asks for a nightly compiler because of the sanitizers; libFuzzer itself needs only that the compiler counts which
//! branches are taken, and that every compiler can. This program stands in for rustc for the crates of the workspace and adds
//! those flags, so that the dependencies, RocksDB and wasmtime among them, are those of the tests and not built once more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Workspace};
use crate::setup;

/// Says that this program is to be rustc.
const AS_COMPILER: &str = "PROXYHOST_XTASK_AS_COMPILER";

/// What cargo-fuzz gives rustc without a sanitizer.
const COUNTING: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// For each target of a check: enough to find what is easily found, little enough that all take less than a minute.
const CHECK_RUNS: u32 = 200_000;
const CHECK_SECONDS: u32 = 4;

/// An input that takes longer is a fault. None of the targets has more than a millisecond to do, but a machine may stand still.
const TIMEOUT_SECONDS: u32 = 120;
const MEMORY_MIB: u32 = 1024;
const MOST_BYTES: u32 = 4096;

/// What is fed.
#[derive(clap::Args)]
pub struct Options {
    /// One target; without it, all of them in turn.
    target: Option<String>,
    /// How long each is fed.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Only this input, as a failure left it.
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
    /// Puts what was found into the kept corpus, as few inputs as reach the same.
    #[arg(long, conflicts_with = "input")]
    keep: bool,
}

/// Where the inputs of a target lie.
struct Folders {
    /// Committed.
    kept: PathBuf,
    /// What was found on this machine.
    found: PathBuf,
    /// Inputs that fail begin with this.
    failures: PathBuf,
}

impl Folders {
    fn of(target: &str, workspace: &Workspace) -> Result<Self> {
        let below = |name: &str| workspace.target.join("fuzz").join(name).join(target);
        let folders = Self {
            kept: workspace.root.join("host/fuzz/corpus").join(target),
            found: below("found"),
            failures: below("failures").join(""),
        };
        for folder in [&folders.kept, &folders.found, &folders.failures] {
            fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        }
        Ok(folders)
    }
}

/// Feeds the targets for as long as is told.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let mut targets = targets(workspace)?;
    if let Some(wanted) = &options.target {
        if !targets.contains(wanted) {
            bail!("there is no target {wanted}; there are {}", targets.join(", "));
        }
        targets = vec![wanted.clone()];
    }
    setup::run()?;
    let programs = build(workspace, &targets)?;
    for (target, program) in targets.iter().zip(&programs) {
        let folders = Folders::of(target, workspace)?;
        if let Some(input) = &options.input {
            cargo::succeed(command(program, &folders).arg(std::path::absolute(input)?))?;
            continue;
        }
        eprintln!("xtask: {target}");
        let mut feeding = command(program, &folders);
        feeding.arg(format!("-max_total_time={}", options.seconds)).arg(&folders.found).arg(&folders.kept);
        cargo::succeed(&mut feeding)?;
        if options.keep {
            keep(program, &folders)?;
        }
    }
    Ok(())
}

/// Feeds each target its kept corpus, and a little more. What fails is shown.
pub fn check(workspace: &Workspace) -> Result<()> {
    let targets = targets(workspace)?;
    let programs = build(workspace, &targets)?;
    for (target, program) in targets.iter().zip(&programs) {
        let mut folders = Folders::of(target, workspace)?;
        // What was found before stays out of it: each check takes as long as any other.
        folders.found = emptied(&folders.found.with_extension("check"))?;
        let mut feeding = command(program, &folders);
        feeding.arg(format!("-runs={CHECK_RUNS}")).arg(format!("-max_total_time={CHECK_SECONDS}"));
        let output = feeding.arg(&folders.found).arg(&folders.kept).output()?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = told.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
            bail!(
                "the fuzz target {target} failed; again, by `cargo xtask fuzz {target} --input` and the file named above"
            );
        }
        println!("fuzz target {target} ... ok");
    }
    Ok(())
}

/// The targets of `host/fuzz`, by their files.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root.join("host/fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))? {
        let path = entry?.path();
        if let (Some(name), Some("rs")) = (path.file_stem(), path.extension().and_then(|end| end.to_str())) {
            targets.push(name.to_string_lossy().into_owned());
        }
    }
    targets.sort_unstable();
    Ok(targets)
}

/// Builds the targets, with the features that the whole workspace has.
fn build(workspace: &Workspace, targets: &[String]) -> Result<Vec<PathBuf>> {
    let mut build = workspace.cargo("build");
    build.args(["--quiet", "--workspace"]).env(AS_COMPILER, "1");
    build.env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe().context("could not find this program")?);
    for target in targets {
        build.args(["--bin", target]);
    }
    cargo::succeed(&mut build)?;
    Ok(targets.iter().map(|target| workspace.target.join("debug").join(target)).collect())
}

/// libFuzzer's program with what holds for every way to run it.
fn command(program: &Path, folders: &Folders) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("-artifact_prefix={}", folders.failures.display()));
    command.arg(format!("-timeout={TIMEOUT_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.arg(format!("-max_len={MOST_BYTES}"));
    command
}

/// Replaces the kept corpus by few inputs that reach what all do, leaving out what only a long one reaches: the corpus is for
/// everyone who clones.
fn keep(program: &Path, folders: &Folders) -> Result<()> {
    let fewest = emptied(&folders.found.with_extension("fewest"))?;
    cargo::succeed(command(program, folders).args(["-set_cover_merge=1", "-max_len=256"]).args([
        &fewest,
        &folders.kept,
        &folders.found,
    ]))?;
    emptied(&folders.kept)?;
    for entry in fs::read_dir(&fewest)? {
        let entry = entry?;
        fs::copy(entry.path(), folders.kept.join(entry.file_name()))?;
    }
    Ok(())
}

fn emptied(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("could not empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    Ok(folder.to_owned())
}

/// Runs rustc in this program's place where cargo was told that this is it: the first argument is the compiler.
pub fn as_compiler() -> Option<ExitCode> {
    std::env::var_os(AS_COMPILER)?;
    let mut arguments = std::env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next()?);
    rustc.args(arguments).args(COUNTING);
    let code = cargo::exit_code(&mut rustc).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    });
    Some(code)
}
