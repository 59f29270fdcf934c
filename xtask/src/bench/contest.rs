//! Who is measured, and how: in turns, so that what else goes on here meets all alike, with medians of the turns.
//!
//! Beside the rates stands the CPU time that each took for a request: it says the same about work, and less of what else runs
//! on these cores gets into it.

use anyhow::{Context, Result};

use super::median;
use super::programs::Program;

/// How often and how long each is measured.
#[derive(clap::Args)]
pub struct Turns {
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// How long each time.
    #[arg(long, default_value_t = 4)]
    pub seconds: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 64)]
    pub connections: u32,
}

impl Turns {
    /// Says how, above a table.
    pub fn print(&self) {
        println!("medians of {} runs of {} s with {} connections", self.rounds, self.seconds, self.connections);
        println!("ratios are to the nginx with the better rate\n");
    }
}

/// Who is measured.
pub struct Contender<'a> {
    /// What it is called where something fails.
    pub name: &'static str,
    /// Whose CPU time counts.
    pub program: &'a Program,
    /// Where it listens.
    pub port: u16,
    /// The host that it is asked for.
    pub host: &'static str,
}

/// One turn.
pub struct Turn<'a> {
    /// Whose it is.
    pub contender: &'a Contender<'a>,
    /// How long it is to take.
    pub seconds: u64,
    /// How many that one did in a second when it was last its turn; none in the warm-up.
    pub last_rate: Option<f64>,
}

/// What one did in its turn.
pub struct Done {
    /// How many in a second.
    pub rate: f64,
    /// How many in all.
    pub count: f64,
}

/// The medians of what one did.
#[derive(Clone, Copy)]
pub struct Figures {
    /// How many in a second.
    pub rate: f64,
    /// CPU time in microseconds for one.
    pub cpu_us: f64,
}

/// Measures each of them in turns, after a warm-up. `once` has one at work for a turn.
pub fn measure<const COUNT: usize>(
    turns: &Turns,
    what: &str,
    contenders: &[Contender<'_>; COUNT],
    once: impl Fn(&Turn<'_>) -> Result<Done>,
) -> Result<[Figures; COUNT]> {
    let timed = |turn: Turn<'_>| {
        let Contender { name, program, .. } = turn.contender;
        let before = program.cpu()?;
        let done = once(&turn).with_context(|| *name)?;
        let cpu = program.cpu()?.saturating_sub(before);
        anyhow::Ok(Figures { rate: done.rate, cpu_us: cpu.as_secs_f64() * 1e6 / done.count })
    };
    let mut last_rates = [0.0; COUNT];
    for (contender, last_rate) in contenders.iter().zip(&mut last_rates) {
        // The first requests are misses, and programs warm up.
        *last_rate = timed(Turn { contender, seconds: 1, last_rate: None })?.rate;
    }
    let mut all: [Vec<Figures>; COUNT] = std::array::from_fn(|_| Vec::new());
    for round in 0..turns.rounds as usize {
        for turn in 0..COUNT {
            // Another one begins each time: what runs after what makes a difference.
            let number = (round + turn) % COUNT;
            let (contender, last_rate) = (&contenders[number], Some(last_rates[number]));
            let figures = timed(Turn { contender, seconds: turns.seconds, last_rate })?;
            last_rates[number] = figures.rate;
            all[number].push(figures);
        }
        let shown: Vec<String> = last_rates.iter().map(|rate| format!("{rate:.0}")).collect();
        eprintln!("xtask: {what}, round {}: {}", round + 1, shown.join(" "));
    }
    Ok(all.map(|figures| Figures {
        rate: median(figures.iter().map(|figures| figures.rate).collect()),
        cpu_us: median(figures.iter().map(|figures| figures.cpu_us).collect()),
    }))
}
