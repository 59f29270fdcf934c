//! A thread that writes lines, behind a bounded queue: what hands a line over never waits, neither for a lock nor for a system
//! call, and what the queue cannot hold is dropped and counted. A reader that blocks (a full pipe) blocks this thread only.
//!
//! While lines come, the thread looks at the queue every few milliseconds, so nobody has to wake it; when none came for a
//! while, it sleeps until the next line wakes it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use prometheus_client::metrics::counter::Counter;

/// How often the queue is looked at while there is traffic.
const LOOK: Duration = Duration::from_millis(10);

/// How long nothing must come before the thread sleeps until it is woken.
const CALM: Duration = Duration::from_millis(500);

/// The longest sleep: a wake-up that got lost (it is not worth a memory fence in every request) delays a line by so much.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Bytes that are written at once.
const BATCH_BYTES: usize = 128 << 10;

/// How long to wait before a descriptor is tried again that is not ready or failed. A pipe that is shared with another process
/// can be non-blocking without our doing.
const RETRY: Duration = Duration::from_millis(10);

/// The longest that `flush` waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Something that becomes a line.
pub(super) trait Line: Send + 'static {
    /// What formatting remembers from line to line.
    type Memory: Default + Send;
    /// Appends the line, with its end.
    fn append(&self, memory: &mut Self::Memory, out: &mut Vec<u8>);
}

/// The way to the thread. Cheap to clone.
#[derive(Debug)]
pub(super) struct LineWriter<L>(Arc<Shared<L>>);

impl<L> Clone for LineWriter<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Shared<L> {
    queue: ArrayQueue<L>,
    dropped: Counter,
    /// The thread sleeps and wants to be woken.
    asleep: AtomicBool,
    /// Nobody reads any more.
    closed: AtomicBool,
    flushes_wanted: AtomicU64,
    flushes_done: AtomicU64,
    thread: std::sync::OnceLock<Thread>,
}

impl<L: Line> LineWriter<L> {
    /// Starts the thread. `capacity` lines can wait; `dropped` counts what is lost.
    pub(super) fn start(name: &str, sink: impl Write + Send + 'static, capacity: usize, dropped: Counter) -> Self {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(capacity.max(1)),
            dropped,
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            flushes_wanted: AtomicU64::new(0),
            flushes_done: AtomicU64::new(0),
            thread: std::sync::OnceLock::new(),
        });
        let spawned = thread::Builder::new().name(name.to_owned()).spawn({
            let shared = shared.clone();
            move || Worker { shared, sink, batch: Vec::new(), lines: 0, memory: L::Memory::default() }.run()
        });
        match spawned {
            Ok(handle) => {
                // The cell is fresh, so it takes the value.
                let _ = shared.thread.set(handle.thread().clone());
            }
            // Without a thread lines are dropped and counted, as if nobody read them.
            Err(_) => shared.closed.store(true, Ordering::Relaxed),
        }
        Self(shared)
    }

    /// Hands a line over, or drops it when the queue is full or nobody reads.
    pub(super) fn write(&self, line: L) {
        let shared = &*self.0;
        if shared.closed.load(Ordering::Relaxed) || shared.queue.push(line).is_err() {
            shared.dropped.inc();
            return;
        }
        if shared.asleep.load(Ordering::Relaxed) && shared.asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Waits until what was handed over before is written, at most a second.
    pub(super) fn flush(&self) {
        let shared = &*self.0;
        let mine = shared.flushes_wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let begun = Instant::now();
        self.wake();
        while shared.flushes_done.load(Ordering::SeqCst) < mine
            && !shared.closed.load(Ordering::Relaxed)
            && begun.elapsed() < FLUSH_TIMEOUT
        {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }
}

/// The thread's side.
struct Worker<L: Line, W> {
    shared: Arc<Shared<L>>,
    sink: W,
    batch: Vec<u8>,
    /// Lines in the batch.
    lines: u64,
    memory: L::Memory,
}

impl<L: Line, W: Write> Worker<L, W> {
    fn run(mut self) {
        let mut calm_since = Instant::now();
        loop {
            let wanted = self.shared.flushes_wanted.load(Ordering::SeqCst);
            let wrote = match self.drain() {
                Ok(wrote) => wrote,
                Err(_) => return self.close(),
            };
            self.shared.flushes_done.fetch_max(wanted, Ordering::SeqCst);
            if wrote {
                calm_since = Instant::now();
                thread::park_timeout(LOOK);
            } else if calm_since.elapsed() < CALM {
                thread::park_timeout(LOOK);
            } else if Arc::strong_count(&self.shared) == 1 {
                // Only the thread itself knows the queue any more.
                return;
            } else {
                self.shared.asleep.store(true, Ordering::SeqCst);
                if self.shared.queue.is_empty() {
                    thread::park_timeout(LONGEST_SLEEP);
                }
                self.shared.asleep.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Writes what is queued; tells whether there was anything. The error says that nobody will ever read.
    fn drain(&mut self) -> io::Result<bool> {
        let mut wrote = false;
        while let Some(line) = self.shared.queue.pop() {
            line.append(&mut self.memory, &mut self.batch);
            self.lines += 1;
            if self.batch.len() >= BATCH_BYTES {
                self.write_batch()?;
            }
            wrote = true;
        }
        self.write_batch()?;
        Ok(wrote)
    }

    fn write_batch(&mut self) -> io::Result<()> {
        let mut rest = self.batch.as_slice();
        let result = loop {
            if rest.is_empty() {
                break Ok(());
            }
            match self.sink.write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break Err(error),
                // A full disk, say: this batch is lost, a later one may not be.
                Err(_) => {
                    thread::sleep(RETRY);
                    self.shared.dropped.inc_by(self.lines);
                    break Ok(());
                }
            }
        };
        if result.is_ok() {
            self.batch.clear();
            self.batch.shrink_to(2 * BATCH_BYTES);
            self.lines = 0;
        }
        result
    }

    fn close(self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let mut lost = self.lines;
        while self.shared.queue.pop().is_some() {
            lost += 1;
        }
        self.shared.dropped.inc_by(lost);
    }
}

/// A descriptor of our own for an output that the standard library would lock and buffer.
pub(super) fn own(output: &impl AsFd) -> io::Result<File> {
    Ok(File::from(output.as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    impl Line for u32 {
        type Memory = ();
        fn append(&self, (): &mut (), out: &mut Vec<u8>) {
            // Writing into a vector cannot fail.
            let _ = writeln!(out, "{self}");
        }
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no panic under the lock").clone()).expect("digits")
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let some = bytes.len().min(7);
            self.0.lock().expect("no panic under the lock").extend_from_slice(&bytes[..some]);
            Ok(some)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_in_order_and_whole() {
        let (sink, dropped) = (Sink::default(), Counter::default());
        let writer = LineWriter::start("test", sink.clone(), 1000, dropped.clone());
        for n in 0..500_u32 {
            writer.write(n);
        }
        writer.flush();
        let expected: String = (0..500).map(|n| format!("{n}\n")).collect();
        assert_eq!(sink.text(), expected);
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn a_line_wakes_a_thread_that_sleeps() {
        let sink = Sink::default();
        let writer = LineWriter::start("test", sink.clone(), 10, Counter::default());
        thread::sleep(CALM + 10 * LOOK);
        writer.write(7_u32);
        let begun = Instant::now();
        while sink.text() != "7\n" {
            assert!(begun.elapsed() < 3 * LONGEST_SLEEP);
            thread::sleep(Duration::from_millis(1));
        }
    }

    struct Blocked(mpsc::Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_reader_costs_lines_and_never_time() {
        let (release, blocked) = mpsc::channel();
        let dropped = Counter::default();
        let writer = LineWriter::start("test", Blocked(blocked), 8, dropped.clone());
        let begun = Instant::now();
        for n in 0..1000_u32 {
            writer.write(n);
        }
        assert!(begun.elapsed() < Duration::from_millis(500));
        assert!(dropped.get() >= 1000 - 8 - 1000 / 2, "{}", dropped.get());
        writer.flush();
        assert!(begun.elapsed() < 3 * FLUSH_TIMEOUT);
        drop(release);
    }

    struct Failing(Vec<io::ErrorKind>, Sink);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.pop() {
                Some(kind) => Err(kind.into()),
                None => self.1.write(bytes),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_is_not_ready_is_tried_again_and_a_failed_batch_is_counted() {
        let (sink, dropped) = (Sink::default(), Counter::default());
        let failing = Failing(vec![io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted], sink.clone());
        let writer = LineWriter::start("test", failing, 8, dropped.clone());
        writer.write(1_u32);
        writer.flush();
        assert_eq!(sink.text(), "1\n");

        let failing = Failing(vec![io::ErrorKind::StorageFull], sink.clone());
        let writer = LineWriter::start("test", failing, 8, dropped.clone());
        writer.write(2_u32);
        writer.flush();
        writer.write(3_u32);
        writer.flush();
        assert_eq!(sink.text(), "1\n3\n");
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn a_closed_pipe_ends_the_thread_quietly_and_what_follows_is_counted() {
        let dropped = Counter::default();
        let failing = Failing(vec![io::ErrorKind::BrokenPipe], Sink::default());
        let writer = LineWriter::start("test", failing, 8, dropped.clone());
        writer.write(1_u32);
        writer.flush();
        writer.write(2_u32);
        assert_eq!(dropped.get(), 2);
    }
}
