//! What two programs say to each other while both answer requests: each makes the other go by its purges.
//!
//! One of them has the cache folder, and the order of purges is that in which it records them. What is purged in the other one is
//! asked of it (`Purge`), recorded there under the next number, told to whoever still answers (`Purged`), and answered
//! (`Recorded`). Both may do so at once: one task reads, never waits for anything but the next message, and gives what comes to
//! whoever waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use super::channel::{Channel, Message};
use crate::cache::Cache;
use crate::cache::purges::{Purge, PurgeSequence};

/// How long a purge waits for the other program to go by it too.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// How long a purge waits for the other program to record it: a write to the disk, and a round of `HEARD_WITHIN` at worst.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);

/// Purges that are asked of the other program at once; it takes one at a time anyway.
const ASKED_AT_ONCE: usize = 64;

/// The way to the other program.
#[derive(Debug)]
pub(super) struct Link {
    channel: Channel,
    waiting: Mutex<Waiting>,
    /// It has not answered in time, and has said nothing since: nobody waits for it again until it does.
    silent: AtomicBool,
    next: AtomicU64,
    asking: Semaphore,
}

/// Who waits for an answer. Dropped senders tell them that the other program is gone.
#[derive(Debug, Default)]
struct Waiting {
    gone: bool,
    heard: HashMap<PurgeSequence, oneshot::Sender<()>>,
    recorded: HashMap<u64, oneshot::Sender<Result<PurgeSequence, String>>>,
}

impl Link {
    /// Over a channel that `listen` will read.
    pub fn over(channel: Channel) -> Self {
        let asking = Semaphore::new(ASKED_AT_ONCE);
        let silent = AtomicBool::new(false);
        Self { channel, waiting: Mutex::default(), silent, next: AtomicU64::new(1), asking }
    }

    /// The channel, to be read by somebody else as long as `listen` is not.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Hears what the other program says until it is gone.
    pub async fn listen(self: Arc<Self>, cache: Cache) {
        let end = loop {
            match self.channel.receive().await {
                Ok(Some((message, _))) => self.hear(&cache, message),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = end {
            tracing::warn!(%error, "the other program is not heard any more");
        }
        *self.waiting.lock() = Waiting { gone: true, ..Waiting::default() };
    }

    /// Does what a message asks for, without waiting.
    pub fn hear(self: &Arc<Self>, cache: &Cache, message: Message) {
        self.silent.store(false, Ordering::Relaxed);
        match message {
            Message::Purged { sequence, scope, mode } => {
                let told = cache.purged_elsewhere(sequence, Purge { scope, mode });
                let link = Arc::clone(self);
                tokio::spawn(async move {
                    told.await;
                    link.answer(&Message::Heard { sequence }).await;
                });
            }
            Message::Purge { number, scope, mode, synced } => {
                let (link, cache) = (Arc::clone(self), cache.clone());
                tokio::spawn(async move {
                    let answer = match cache.purge_for_other(Purge { scope, mode }, synced).await {
                        Ok(sequence) => Message::Recorded { number, sequence },
                        Err(error) => Message::NotRecorded { number, reason: error.to_string() },
                    };
                    link.answer(&answer).await;
                });
            }
            Message::Heard { sequence } => {
                if let Some(waiting) = self.waiting.lock().heard.remove(&sequence) {
                    let _ = waiting.send(());
                }
            }
            Message::Recorded { number, sequence } => self.recorded(number, Ok(sequence)),
            Message::NotRecorded { number, reason } => self.recorded(number, Err(reason)),
            // A later version has more to say. Whoever waits for an answer does not wait for ever.
            other => tracing::debug!(message = ?other, "the other program says what is not for now"),
        }
    }

    fn recorded(&self, number: u64, outcome: Result<PurgeSequence, String>) {
        if let Some(waiting) = self.waiting.lock().recorded.remove(&number) {
            let _ = waiting.send(outcome);
        }
    }

    async fn answer(&self, message: &Message) {
        if let Err(error) = self.channel.send(message, &[]).await {
            tracing::debug!(%error, "the other program is gone before it was answered");
        }
    }

    /// Makes the other program go by a purge that is recorded here.
    pub async fn purged(&self, sequence: PurgeSequence, purge: Purge) {
        let (sender, heard) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.gone {
                return;
            }
            waiting.heard.insert(sequence, sender);
        }
        let exchange = async {
            let Purge { scope, mode } = purge;
            if let Err(error) = self.channel.send(&Message::Purged { sequence, scope, mode }, &[]).await {
                return tracing::debug!(%error, "the other program is gone and needs no purge");
            }
            let _ = heard.await;
        };
        let silent = self.silent.load(Ordering::Relaxed);
        let within = if silent { Duration::ZERO } else { HEARD_WITHIN };
        if tokio::time::timeout(within, exchange).await.is_err() && !silent {
            tracing::warn!("the other program has not heard of a purge in time");
            self.silent.store(true, Ordering::Relaxed);
        }
        self.waiting.lock().heard.remove(&sequence);
    }

    /// Asks the other program, which has the cache folder, for a purge; its number there.
    ///
    /// # Errors
    ///
    /// Says why it was not recorded, or not as far as is known.
    pub async fn purge(&self, purge: Purge, synced: bool) -> Result<PurgeSequence, String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let exchange = async {
            // Never closed.
            let _permit = self.asking.acquire().await;
            let (sender, recorded) = oneshot::channel();
            {
                let mut waiting = self.waiting.lock();
                if waiting.gone {
                    return Err("it is gone".to_owned());
                }
                waiting.recorded.insert(number, sender);
            }
            let Purge { scope, mode } = purge;
            let sent = self.channel.send(&Message::Purge { number, scope, mode, synced }, &[]).await;
            sent.map_err(|error| format!("it cannot be told: {error}"))?;
            recorded.await.unwrap_or_else(|_| Err("it is gone".to_owned()))
        };
        let outcome = tokio::time::timeout(RECORDED_WITHIN, exchange).await;
        self.waiting.lock().recorded.remove(&number);
        outcome.unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cache::Settings;
    use crate::cache::purges::PurgeScope;
    use crate::clock::Clock;
    use crate::telemetry::metrics::Metrics;

    fn open(folder: &Path) -> Cache {
        let settings =
            Settings { dir: folder.to_owned(), disk_bytes: 1 << 30, memory_bytes: 1 << 20, ..Settings::default() };
        Cache::open(settings, Clock::System, Metrics::new().0).unwrap()
    }

    fn ends() -> (Arc<Link>, Arc<Link>) {
        let (ours, theirs) = Channel::pair().unwrap();
        (Arc::new(Link::over(ours)), Arc::new(Link::over(Channel::over(theirs).unwrap())))
    }

    /// Two caches over one folder, as after an upgrade.
    async fn both(folder: &Path) -> (Cache, Cache) {
        let old = open(folder);
        old.hand_over().await.unwrap();
        let new = open(folder);
        let (of_old, of_new) = ends();
        tokio::spawn(Arc::clone(&of_old).listen(old.clone()));
        tokio::spawn(Arc::clone(&of_new).listen(new.clone()));
        old.purges_go_to(Box::new(move |purge, synced| {
            let link = Arc::clone(&of_old);
            Box::pin(async move { link.purge(purge, synced).await })
        }));
        new.tell_purges_to(Box::new(move |sequence, purge| {
            let link = Arc::clone(&of_new);
            Box::pin(async move { link.purged(sequence, purge).await })
        }));
        (old, new)
    }

    fn path(number: usize) -> PurgeScope {
        PurgeScope::Path { host: "a.test".into(), path: format!("/{number}") }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_programs_purge_at_once_and_each_purge_gets_its_own_number() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = both(folder.path()).await;
        let mut purges = tokio::task::JoinSet::new();
        for number in 0..200 {
            let cache = if number % 2 == 0 { old.clone() } else { new.clone() };
            purges.spawn(async move {
                if number % 3 == 0 {
                    cache.purge(path(number)).await
                } else {
                    cache.invalidate(vec![path(number)], None).await.map(|purged| purged.last)
                }
            });
        }
        let mut numbers: Vec<u64> = purges.join_all().await.into_iter().map(|purge| purge.unwrap().0).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=200).collect::<Vec<u64>>());
        assert_eq!((old.sequence(), new.sequence()), (PurgeSequence(200), PurgeSequence(200)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_purge_waits_while_the_folder_passes_and_says_when_nobody_records_it() {
        let folder = tempfile::tempdir().unwrap();
        let old = open(folder.path());
        old.hand_over().await.unwrap();
        let purging = tokio::spawn({
            let old = old.clone();
            async move { old.purge(path(1)).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!purging.is_finished());
        old.take_back().await;
        assert_eq!(purging.await.unwrap().unwrap(), PurgeSequence(1));
        // The other program ends without a word.
        old.hand_over().await.unwrap();
        let (link, other) = ends();
        tokio::spawn(Arc::clone(&link).listen(old.clone()));
        old.purges_go_to(Box::new(move |purge, synced| {
            let link = Arc::clone(&link);
            Box::pin(async move { link.purge(purge, synced).await })
        }));
        drop(other);
        let error = old.purge(path(2)).await.unwrap_err().to_string();
        assert!(error.contains("the program that took over"), "{error}");
        // In force here all the same.
        assert_eq!(old.sequence(), PurgeSequence(2));
    }

    #[tokio::test]
    async fn one_that_hangs_delays_one_purge_and_not_each() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path());
        let (ours, theirs) = ends();
        tokio::spawn(Arc::clone(&ours).listen(cache.clone()));
        let purged = |number: u64| ours.purged(PurgeSequence(number), path(1).into());
        let begun = std::time::Instant::now();
        for number in 1..=10 {
            purged(number).await;
        }
        assert!(begun.elapsed() < 3 * HEARD_WITHIN, "{:?}", begun.elapsed());
        // It was told of them all, and is waited for again when it answers.
        tokio::spawn(Arc::clone(&theirs).listen(cache.clone()));
        while ours.silent.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        purged(11).await;
        assert_eq!(cache.sequence(), PurgeSequence(11));
    }

    #[tokio::test]
    async fn what_a_later_version_says_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path());
        let (ours, end) = Channel::pair().unwrap();
        for later in ["{\"greeting\":{\"loudly\":true}}", "\"farewell\"", "no JSON"] {
            rustix::net::send(&end, later.as_bytes(), rustix::net::SendFlags::empty()).unwrap();
        }
        let (ours, theirs) = (Arc::new(Link::over(ours)), Arc::new(Link::over(Channel::over(end).unwrap())));
        tokio::spawn(ours.listen(cache.clone()));
        tokio::spawn(Arc::clone(&theirs).listen(cache.clone()));
        assert_eq!(theirs.purge(path(1).into(), true).await, Ok(PurgeSequence(1)));
    }
}
