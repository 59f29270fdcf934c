//! A thread that backs bodies with huge pages, and gives back what is spent.
//!
//! sendfile hands a socket one page after the other. From one huge page that costs a sixth less at 100 KiB than from small
//! ones and half at a megabyte, where small ones lose against a copy (`xtask bench hit`, loopback). But the system takes a huge
//! page back as a whole only: punching a part of it clears that part in place, under a socket that may still hold it. So a chunk
//! that is worn is renewed: what lives there is copied into a fresh one, which takes its place at the same addresses.
//!
//! Copying is bounded in time, not in bytes: where bodies come and go faster than they can be moved, new ones lie in small pages.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::Region;
use super::pages::{CHUNK_BYTES, Chore, PAGE_BYTES, PageSet};
use super::sending::{Backing, wait_for_senders};

/// For each millisecond of moving, so many of rest: no more than a fifth of a core goes into it.
const REST: u32 = 4;

/// How long the system is left alone when it had no huge page.
const RETRY: Duration = Duration::from_secs(10);

/// Wakes the thread.
#[derive(Debug)]
pub(super) struct Bell(SyncSender<()>);

impl Bell {
    pub(super) fn new() -> (Self, Receiver<()>) {
        let (sender, receiver) = sync_channel(1);
        (Self(sender), receiver)
    }

    /// There is something to tend. Once is enough, however often it is rung.
    pub(super) fn ring(&self) {
        let _ = self.0.try_send(());
    }
}

/// Whether there are huge pages to be had.
enum Huge {
    /// So it seems, until then not, or never.
    Yes,
    NotBefore(Instant),
    Never,
}

/// Starts the thread. It ends with the region.
pub(super) fn start(region: &Arc<Region>, rung: Receiver<()>) -> io::Result<()> {
    let region = Arc::downgrade(region);
    thread::Builder::new().name("region".to_owned()).spawn(move || run(&region, &rung))?;
    Ok(())
}

fn run(region: &Weak<Region>, rung: &Receiver<()>) {
    let mut tender = Tender { huge: Huge::Yes };
    while rung.recv().is_ok() {
        loop {
            let Some(region) = region.upgrade() else { return };
            let began = Instant::now();
            if !tender.tend(&region) {
                break;
            }
            drop(region);
            thread::sleep(began.elapsed() * REST);
        }
    }
}

struct Tender {
    huge: Huge,
}

impl Tender {
    fn huge(&mut self) -> bool {
        if let Huge::NotBefore(then) = self.huge
            && Instant::now() >= then
        {
            self.huge = Huge::Yes;
        }
        matches!(self.huge, Huge::Yes)
    }

    /// Does one thing, if there is one to do.
    fn tend(&mut self, region: &Region) -> bool {
        let huge = self.huge();
        let chore = region.pages.lock().chore(huge);
        match chore {
            None => return false,
            Some(Chore::Reset(number)) => region.reset(number),
            Some(Chore::Prepare(number)) => self.prepare(region, number),
            Some(Chore::Renew { from, to, live }) => {
                if let Err(error) = region.renew(from, to, live) {
                    tracing::debug!(%error, "bodies in memory stay where they are");
                    self.huge = Huge::NotBefore(Instant::now() + RETRY);
                }
            }
        }
        true
    }

    fn prepare(&mut self, region: &Region, number: usize) {
        match region.mapping.collapse(number, region.slot(number)) {
            Ok(()) => {
                region.backing[number].set(Backing { slot: region.slot(number), huge: true });
                region.pages.lock().prepared(number);
            }
            Err(error) => {
                self.huge = match error.raw_os_error() {
                    // The kernel does not know how, or may not.
                    Some(libc::EINVAL | libc::EPERM | libc::ENOSYS) => Huge::Never,
                    _ => Huge::NotBefore(Instant::now() + RETRY),
                };
                tracing::debug!(%error, "no huge page for bodies in memory");
                region.reset(number);
            }
        }
    }
}

impl Region {
    /// Gives a chunk of which nothing is used back to the system.
    fn reset(&self, number: usize) {
        let slot = self.slot(number);
        self.backing[number].set(Backing { slot, huge: false });
        let punched = self.mapping.punch(slot, 0, CHUNK_BYTES);
        self.pages.lock().reset(number, punched.is_ok());
    }

    /// Moves what lives in one chunk into another, which is ready, and exchanges their addresses.
    fn renew(&self, from: usize, to: usize, live: PageSet) -> io::Result<()> {
        let (old, new) = (self.slot(from), self.slot(to));
        let copied = live.runs().try_for_each(|(first, count)| {
            let start = self.mapping.start(from, first * PAGE_BYTES);
            #[expect(unsafe_code, reason = "memory of a mapping is reached by no safe function")]
            // SAFETY: it lies in the mapping, which lives as long as the region. These pages were written before this began (nobody
            // is busy in the chunk) and are neither written nor punched while it is held, even if they are given up meanwhile.
            let bytes = unsafe { std::slice::from_raw_parts(start, count * PAGE_BYTES) };
            self.mapping.write(new, first * PAGE_BYTES, bytes)
        });
        if let Err(error) = copied.and_then(|()| self.mapping.attach(from, new, old)) {
            self.pages.lock().left(from);
            self.reset(to);
            return Err(error);
        }
        // Whoever sends from the old chunk of the file is done before this goes on, and the next one finds the new.
        self.backing[from].set(Backing { slot: new, huge: true });
        self.backing[to].set(Backing { slot: old, huge: false });
        wait_for_senders(from);
        self.pages.lock().renewed(from, live);
        match self.mapping.attach(to, old, new) {
            // What was sent from there stays with the sockets that hold it.
            Ok(()) => self.reset(to),
            // Its addresses show what is another's now: it is not used again.
            Err(_) => self.pages.lock().reset(to, false),
        }
        Ok(())
    }
}
