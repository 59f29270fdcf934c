//! Benchmarks of the whole program on this machine. The load generator shares its cores, and so may others, so nothing here
//! fails on a figure: `hit` prints ratios to nginx, measured in turns, and `soak` prints how memory goes.

mod contest;
mod eviction;
mod hello;
mod hit;
mod hosts;
mod idle;
mod load;
mod programs;
mod scale;
mod sites;
mod soak;
mod tls;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::cargo::{self, Workspace};
use crate::{policies, setup};

/// What is measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Hits: wrk against proxyhost and nginx's proxy_cache in turns, at three sizes, with and without a policy.
    Hit(hit::Options),
    /// Over TLS, proxyhost beside nginx: hits by HTTP/1.1 and HTTP/2, handshakes, idle connections, and many hosts.
    Tls(tls::Options),
    /// Hit ratios of the cache's policy beside exact LRU and S3-FIFO, simulated on traces with scans.
    Eviction(eviction::Options),
    /// What ten million entries cost beside ten thousand: start, hits, the index, memory, purges and disk.
    Scale(scale::Options),
    /// Memory: over hits and over misses, and while one huge object is fetched once for many clients.
    Soak(soak::Options),
}

/// The program to measure.
#[derive(clap::Args)]
struct Built {
    /// A built proxyhost, instead of building one with the release profile.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

impl Built {
    fn program(&self, workspace: &Workspace) -> Result<PathBuf> {
        if let Some(program) = &self.program {
            return program.canonicalize().with_context(|| format!("could not find {}", program.display()));
        }
        setup::run()?;
        cargo::succeed(workspace.cargo("build").args(["--release", "--workspace", "--bin", "proxyhost"]))?;
        Ok(workspace.target.join("release/proxyhost"))
    }
}

/// Installs what is missing, and measures.
pub fn run(bench: &Bench, workspace: &Workspace) -> Result<()> {
    // A simulation needs nothing installed.
    if !matches!(bench, Bench::Eviction(_)) {
        setup::for_benchmarks()?;
    }
    match bench {
        Bench::Eviction(options) => eviction::run(options),
        Bench::Hit(options) => hit::run(options, workspace),
        Bench::Tls(options) => tls::run(options, workspace),
        Bench::Scale(options) => scale::run(options, workspace),
        Bench::Soak(options) => soak::run(options, workspace),
    }
}

/// The folder of the built policies: as the tests are told, or built now.
fn policies_folder(workspace: &Workspace) -> Result<PathBuf> {
    match std::env::var_os(policies::FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => policies::build(workspace),
    }
}

/// The middle one; the mean of the two in the middle when their number is even.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    match numbers.len() {
        0 => f64::NAN,
        length if length % 2 == 0 => f64::midpoint(numbers[half - 1], numbers[half]),
        _ => numbers[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
        assert!(median(Vec::new()).is_nan());
    }
}
