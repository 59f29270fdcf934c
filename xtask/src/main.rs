//! The project's own chores, as `cargo xtask <chore>`: `setup`, `policies`, `test`, `fuzz`, `demo`, `bench`.
//!
//! On a fresh machine this is the only crate that can be built (the index needs libclang), so it depends on next to
//! nothing and installs what the others need.

mod bench;
mod cargo;
mod fuzz;
mod policies;
mod setup;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cargo::Workspace;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", version, disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Installs the system packages that building needs (Debian as root), or says what is missing.
    Setup,
    /// Sets up, builds the program and the policies as the tests and the demo use them, and prints the folder of the program.
    Build,
    /// Builds the policies to WebAssembly and prints the folder they are in.
    Policies,
    /// Sets up, installs what the tests start, builds the policies, and runs all tests and, briefly, the fuzz
    /// targets. What follows is handed to `cargo test`; where that picks tests the fuzz targets are left out.
    Test {
        /// As for `cargo test`, for example `-p proxyhost-e2e -- purge`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Feeds parsers and records at random, and keeps what was found for the next time.
    Fuzz(fuzz::Options),
    /// Sets up, builds all, and serves a small site from an S3 server of its own, with URLs to try.
    Demo {
        /// Makes the requests itself and exits by the result.
        #[arg(long)]
        check: bool,
    },
    /// Measures the program, built with the release profile, on this machine.
    #[command(subcommand)]
    Bench(bench::Bench),
}

/// Builds everything with the features that the tests have: naming a package would give the dependencies others, and build
/// RocksDB and wasmtime once more.
fn build_all(workspace: &Workspace) -> Result<()> {
    cargo::succeed(workspace.cargo("test").args(["--workspace", "--no-run", "--quiet"]))
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::as_compiler() {
        return code;
    }
    match run(Arguments::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match chore {
        Chore::Setup => setup::run()?,
        Chore::Build => {
            setup::run()?;
            policies::build(&workspace)?;
            build_all(&workspace)?;
            println!("{}", workspace.target.join("debug").display());
        }
        Chore::Policies => println!("{}", policies::build(&workspace)?.display()),
        Chore::Test { arguments } => {
            setup::run()?;
            tools::install(&workspace)?;
            let folder = policies::build(&workspace)?;
            let mut test = workspace.cargo("test");
            // A package named by the caller stands in place of the whole workspace.
            if !arguments.iter().any(|argument| argument == "-p" || argument.starts_with("--package")) {
                test.arg("--workspace");
            }
            test.args(&arguments).env(policies::FOLDER_VARIABLE, folder);
            // Who picks some of the tests does not mean these.
            let all = arguments.iter().all(|argument| matches!(argument.as_str(), "--no-fail-fast" | "--quiet" | "-q"));
            if !all {
                return cargo::exit_code(&mut test);
            }
            cargo::succeed(&mut test)?;
            fuzz::check(&workspace)?;
        }
        Chore::Fuzz(options) => fuzz::run(&options, &workspace)?,
        Chore::Demo { check } => {
            setup::run()?;
            let folder = policies::build(&workspace)?;
            build_all(&workspace)?;
            let mut demo = std::process::Command::new(workspace.target.join("debug/demo"));
            demo.env(policies::FOLDER_VARIABLE, folder);
            return cargo::exit_code(demo.args(check.then_some("--check")));
        }
        Chore::Bench(bench) => bench::run(&bench, &workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
