//! What part of requests and bytes the cache's policy answers from a cache of some size, beside exact LRU and S3-FIFO, on traces
//! that anybody can make again. `--plot` draws it; `--check` fails if we are worse than LRU, or two points worse than S3-FIFO.

mod ours;
mod plot;
mod rivals;
mod trace;
/// The file of the cache itself: this crate must be built where the cache cannot be.
#[path = "../../../../host/src/cache/worth.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the program writes down what fades by"))]
mod worth;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use ours::Ours;
use rivals::{Lru, Policy, S3Fifo};
use trace::Trace;

/// Parts of a site's bytes that a cache has room for.
const SIZES: [f64; 6] = [0.003, 0.01, 0.03, 0.1, 0.2, 0.4];
/// What is compared, in the order of `Outcome`.
const POLICIES: [&str; 3] = ["LRU", "S3-FIFO", "proxyhost"];
/// Percent of which we may be behind S3-FIFO, and for chance behind LRU.
const BEHIND_S3_FIFO: f64 = 2.0;
const BEHIND_LRU: f64 = 0.05;

#[derive(clap::Args)]
pub struct Options {
    /// Requests of visitors in each trace; scans come on top.
    #[arg(long, default_value_t = 1_000_000)]
    visits: usize,
    /// What the traces are made from.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Draws the hit ratios into this SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Fails if the goals are missed.
    #[arg(long)]
    check: bool,
}

/// Of a trace at one size: percent of requests and of bytes, by policy.
struct Outcome {
    size: f64,
    hits: [f64; 3],
    byte_hits: [f64; 3],
}

pub fn run(options: &Options) -> Result<()> {
    let mut curves = Vec::new();
    let mut missed = Vec::new();
    for trace in trace::traces(options.visits, options.seed) {
        println!("\n{}: {} requests\n", trace.name, trace.requests.len());
        println!("| cache, of the site | LRU | S3-FIFO | proxyhost | bytes: LRU | S3-FIFO | proxyhost |");
        println!("|---|---|---|---|---|---|---|");
        let mut outcomes = Vec::new();
        for size in SIZES {
            let outcome = play(&trace, size, options.seed);
            let cells = outcome.hits.iter().chain(&outcome.byte_hits).map(|percent| format!(" {percent:.1} |"));
            println!("| {:.1} % |{}", size * 100.0, cells.collect::<String>());
            let failings = if trace.has_goals { failings(&outcome) } else { Vec::new() };
            missed.extend(failings.into_iter().map(|what| format!("{} at {size}: {what}", trace.name)));
            outcomes.push(outcome);
        }
        curves.push((trace.name, outcomes));
    }
    if let Some(file) = &options.plot {
        std::fs::write(file, plot::draw(&curves)).with_context(|| format!("could not write {}", file.display()))?;
    }
    if options.check && !missed.is_empty() {
        bail!("the goals are missed:\n{}", missed.join("\n"));
    }
    Ok(())
}

/// All policies on one trace; `size` is a part of the bytes of the site, without what is only scanned.
fn play(trace: &Trace, size: f64, seed: u64) -> Outcome {
    let capacity = (trace.site_bytes as f64 * size) as u64;
    let mut policies: [Box<dyn Policy + Send>; 3] =
        [Box::new(Lru::new(capacity)), Box::new(S3Fifo::new(capacity)), Box::new(Ours::new(capacity, seed))];
    let ratios = std::thread::scope(|scope| {
        let turns = policies.each_mut().map(|policy| scope.spawn(|| ratios(policy.as_mut(), trace)));
        turns.map(|turn| turn.join().expect("a policy does not panic"))
    });
    Outcome { size, hits: ratios.map(|(hits, _)| hits), byte_hits: ratios.map(|(_, bytes)| bytes) }
}

/// Percent of requests, and of bytes, that a policy answers.
fn ratios(policy: &mut dyn Policy, trace: &Trace) -> (f64, f64) {
    let (mut hits, mut hit_bytes, mut bytes) = (0u64, 0u64, 0u64);
    for request in &trace.requests {
        bytes += request.bytes;
        if policy.ask(*request) {
            hits += 1;
            hit_bytes += request.bytes;
        }
    }
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    (percent(hits, trace.requests.len() as u64), percent(hit_bytes, bytes))
}

/// Which goals an outcome misses.
fn failings(outcome: &Outcome) -> Vec<String> {
    let [lru, s3_fifo, ours] = outcome.hits;
    let mut failings = Vec::new();
    if ours < lru - BEHIND_LRU {
        failings.push(format!("{ours:.2} % of requests, LRU {lru:.2} %"));
    }
    if ours < s3_fifo - BEHIND_S3_FIFO {
        failings.push(format!("{ours:.2} % of requests, S3-FIFO {s3_fifo:.2} %"));
    }
    failings
}

#[cfg(test)]
mod tests {
    use super::trace::Request;
    use super::*;

    fn asked(policy: &mut dyn Policy, objects: &[u64]) -> Vec<bool> {
        objects.iter().map(|object| policy.ask(Request { object: *object, bytes: 1 })).collect()
    }

    #[test]
    fn lru_drops_what_was_not_used_for_longest() {
        assert_eq!(asked(&mut Lru::new(2), &[1, 2, 1, 3, 1, 2]), [false, false, true, false, true, false]);
        assert!(!Lru::new(2).ask(Request { object: 1, bytes: 3 }), "what does not fit");
    }

    #[test]
    fn s3_fifo_keeps_what_was_used_twice_more_and_knows_ghosts_again() {
        let mut policy = S3Fifo::new(10);
        asked(&mut policy, &[1, 1, 1]);
        let scanned: Vec<u64> = (100..112).collect();
        assert!(asked(&mut policy, &scanned).iter().all(|hit| !hit));
        assert_eq!(asked(&mut policy, &[1]), [true], "it is in the main queue");
        // 101 was evicted from the small queue: it comes back into the main queue, where a scan does not reach it.
        assert_eq!(asked(&mut policy, &[101]), [false]);
        asked(&mut policy, &(200..230).collect::<Vec<_>>());
        assert_eq!(asked(&mut policy, &[1, 101]), [true, true]);
    }

    #[test]
    fn we_are_no_worse_than_lru_and_close_to_s3_fifo_with_scans_and_without() {
        for trace in trace::traces(30_000, 7).into_iter().filter(|trace| trace.has_goals) {
            for size in [0.03, 0.1, 0.3] {
                let failings = failings(&play(&trace, size, 7));
                assert!(failings.is_empty(), "{} at {size}: {failings:?}", trace.name);
            }
        }
    }

    #[test]
    fn traces_and_outcomes_are_the_same_for_the_same_seed_and_the_plot_shows_them_all() {
        let outcomes = || play(&trace::traces(2000, 3)[1], 0.1, 3);
        assert_eq!(outcomes().hits, outcomes().hits);
        let drawn = plot::draw(&[("a trace", vec![outcomes(), Outcome { size: 0.2, ..outcomes() }])]);
        assert_eq!(drawn.matches("<polyline").count(), POLICIES.len());
        assert!(drawn.contains("a trace") && drawn.trim_end().ends_with("</svg>"));
    }
}
