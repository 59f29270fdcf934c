//! The cache against a map, with everything among its operations that can go wrong: crashes of the process and of the machine,
//! failing and full disks, flipped bits, purges of all kinds, freshening, and a clock that jumps.
//!
//! Whatever happens, a body is one that was kept, byte for byte, and not one that was purged before; nothing is fresh that the
//! clock says is stale; and the budget is kept. While nothing fails, the newest that was kept is there, and the total of bytes is
//! right. `PROXYHOST_REFERENCE_CASES=20000 cargo test --workspace reference` runs it for long.

mod model;
mod process;

use super::faults::{FAULTS, Fault};
use super::*;
use process::Run;

const PATHS: [&str; 5] = ["/", "/1", "/d/1", "/d/2", "/d/e/1"];
const SIZES: [usize; 5] = [0, 5, 40_000, SLICE_BYTES as usize + 1, 2 * SLICE_BYTES as usize + 7];
const LIFE: Duration = Duration::from_secs(1000);
/// A clock that goes back by less is one that was set right.
const CLOCK_STEP: Duration = Duration::from_secs(10);
const LARGE: u64 = 1 << 30;
/// Some of the bodies, never all.
const SMALL: u64 = 5 << 20;
/// What a step may take; the longest wait in the cache is some seconds, but machines stand still.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
enum Step {
    Put(usize, usize),
    /// Half of a body comes; the rest with `Finish`.
    Begin(usize, usize),
    Finish(usize),
    /// It breaks off.
    Break(usize),
    Get(usize),
    /// What is missing of a body that can be completed is fetched.
    Mend(usize),
    Purge(u8, How),
    Revalidate(usize),
    /// Memory forgets.
    Cool,
    /// What else is done in the background now and then.
    Housekeep,
    /// All that was purged is removed, and the purges forgotten.
    Forget,
    /// Closed and opened.
    Restart,
    /// Killed and started, in the middle of what is under way or when all is written.
    Kill(bool),
    /// The same, and what was not synced is lost in part.
    PowerLoss(usize, u64),
    Fail(Fault, u32, u32),
    Heal,
    /// Seconds, forwards or backwards.
    Clock(i64),
    FlipInBody(u64),
    FlipInRecord(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Hard,
    Soft,
    /// As after an unsafe request: not safe against the loss of power.
    Invalidate,
}

fn steps() -> impl Strategy<Value = (bool, Vec<Step>)> {
    let path = || 0..PATHS.len();
    let size = || 0..SIZES.len();
    let how = prop::sample::select(vec![How::Hard, How::Hard, How::Soft, How::Soft, How::Invalidate]);
    let back = prop_oneof![-100_000..-60i64, Just(-10_000_000i64)];
    let step = prop_oneof![
        8 => (path(), size()).prop_map(|(path, size)| Step::Put(path, size)),
        3 => (path(), size()).prop_map(|(path, size)| Step::Begin(path, size)),
        3 => path().prop_map(Step::Finish),
        1 => path().prop_map(Step::Break),
        8 => path().prop_map(Step::Get),
        2 => path().prop_map(Step::Mend),
        4 => (any::<u8>(), how).prop_map(|(number, how)| Step::Purge(number, how)),
        2 => path().prop_map(Step::Revalidate),
        3 => Just(Step::Cool),
        1 => Just(Step::Housekeep),
        1 => Just(Step::Forget),
        1 => Just(Step::Restart),
        2 => any::<bool>().prop_map(Step::Kill),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(batches, chance)| Step::PowerLoss(batches, chance)),
        2 => (prop::sample::select(FAULTS.to_vec()), 0..6u32, 1..8u32).prop_map(|(fault, after, times)| Step::Fail(fault, after, times)),
        2 => Just(Step::Heal),
        1 => (1..2000i64).prop_map(Step::Clock),
        1 => back.prop_map(Step::Clock),
        1 => any::<u64>().prop_map(Step::FlipInBody),
        1 => any::<u64>().prop_map(Step::FlipInRecord),
    ];
    (any::<bool>(), prop::collection::vec(step, 1..50))
}

async fn run(small: bool, steps: Vec<Step>) {
    let mut run = Run::new(small);
    for step in steps {
        let told = format!("{step:?}");
        let done = tokio::time::timeout(PATIENCE, run.step(step)).await;
        assert!(done.is_ok(), "{told} hangs");
    }
    assert!(tokio::time::timeout(PATIENCE, run.end()).await.is_ok(), "the end hangs");
}

fn play(small: bool, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(small, steps));
}

/// What a long run has found.
#[test]
fn what_was_found_once_is_not_found_again() {
    use Step::*;
    let over_budget = vec![
        Begin(2, 0),
        Put(0, 3),
        Kill(false),
        Break(4),
        Put(1, 4),
        PowerLoss(3264278603699103106, 7445997218726331192),
        Put(3, 4),
        Cool,
        Purge(112, How::Hard),
        Put(0, 3),
        Revalidate(2),
        PowerLoss(591265693662870724, 6264670001235579795),
        FlipInBody(13844203688149545937),
    ];
    play(true, over_budget);
}

fn cases() -> u32 {
    std::env::var("PROXYHOST_REFERENCE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_fails_the_cache_shows_nothing_that_a_map_would_not((small, steps) in steps()) {
        play(small, steps);
    }
}
