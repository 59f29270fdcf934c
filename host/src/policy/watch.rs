//! Watches the folder of policies, so that dropping in a file is all it takes.
//!
//! Events of the file system come in bursts while a file is written, so they are gathered for a moment; where there are no
//! events (network file systems, a folder that does not exist yet) a look every two seconds finds the change. One thread does
//! all of it, compiling included, at a lower priority than those that serve; it ends when the policies do.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::error::PolicyError;
use super::registry::Policies;

/// Quiet time after which a burst of events is over.
const QUIET: Duration = Duration::from_millis(200);
/// A burst that does not end is looked at after this long.
const BURST_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_secs(2);
/// Nice value of the thread.
const NICE: libc::c_int = 10;

impl Policies {
    /// Starts the watcher. It ends with the last `Arc` of the policies, within two seconds.
    pub fn watch(self: &Arc<Self>) -> Result<(), PolicyError> {
        let policies = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("policy-watch".to_owned())
            .spawn(move || run(&policies))
            .map(|_| ())
            .map_err(|error| PolicyError(format!("the thread that watches policies can't be started: {error}")))
    }
}

fn run(policies: &Weak<Policies>) {
    lower_priority();
    let (events, arrivals) = channel();
    let mut watched: Option<(PathBuf, RecommendedWatcher)> = None;
    while let Some(strong) = policies.upgrade() {
        let folder = strong.settings.load().folder.clone();
        if watched.as_ref().is_none_or(|(own, _)| *own != folder) {
            watched = watch(&folder, &events).map(|watcher| (folder.clone(), watcher));
        } else if !folder.exists() {
            // A folder that comes back is another one: the old watch is blind to it.
            watched = None;
        }
        strong.refresh_with(false);
        drop(strong);
        match arrivals.recv_timeout(POLL) {
            Ok(()) => settle(&arrivals),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
        }
    }
}

fn watch(folder: &Path, events: &Sender<()>) -> Option<RecommendedWatcher> {
    let events = events.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reads are events too on some systems.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = events.send(());
        }
    })
    .ok()?;
    watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

/// Waits until no event has come for a moment.
fn settle(arrivals: &Receiver<()>) {
    let began = Instant::now();
    while began.elapsed() < BURST_MAX && arrivals.recv_timeout(QUIET).is_ok() {}
}

fn lower_priority() {
    #[expect(unsafe_code, reason = "the standard library has no thread priorities")]
    // SAFETY: setpriority takes plain values; on Linux `0` means the calling thread only. That it fails costs nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}
