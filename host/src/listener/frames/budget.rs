//! How much of what a connection may bring: a budget for each kind, that fills up again with time and work.

use super::Flood;

/// How often something may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At once, when nothing of it came for a while. At most four million.
    pub burst: u32,
    /// And again in each second. A connection that is not up to anything else may have this for ever.
    pub per_second: u32,
}

impl Budget {
    /// So many at once and so many again each second.
    pub const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second }
    }
}

/// What a connection may bring beyond what is paid for (see the table of the module). A frame costs h2 0.1 to 0.5 µs,
/// so what is left to somebody who stays under all of these is about a millisecond of CPU time each second, and of
/// `small_data` twenty more.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that the client cancels. Default 500, then 50 a second: a page that is scrolled through or a map that
    /// is zoomed cancels as many images as are under way (128), and that a few times before one of them was complete.
    /// An answer that is complete pays for another one. nghttp2 has 1,000 and 33.
    pub reset: Budget,
    /// Streams that we reset for errors of the client. Default 250, then 10 a second: a good client makes none but by
    /// what crossed our frames. Most open 100 streams before they have seen our SETTINGS (128 are taken), some open all
    /// they have to ask; and a body goes on for a round trip after we have reset its stream.
    pub provoked_reset: Budget,
    /// SETTINGS. Default 100, then 10 a second: one at the start; some clients adapt their window to what they measure
    /// (gRPC), by doubling it. Each may make h2 go through all streams.
    pub settings: Budget,
    /// PING. Default 200, then 20 a second: keep-alive is one in ten seconds, or one a second of a client in a hurry,
    /// and measuring is paid for by the answers measured.
    pub ping: Budget,
    /// PRIORITY and PRIORITY_UPDATE. Default 2,000, then 200 a second: browsers build a tree at the start and move
    /// images in it that are scrolled into view, all of a page at once. A stream pays for 16 more.
    pub priority: Budget,
    /// WINDOW_UPDATE. Default 2,000, then 500 a second: bodies pay for two a frame and two a thousand bytes, which few
    /// clients need; this is for those that open a window ahead of any answer.
    pub window_update: Budget,
    /// CONTINUATION that is not paid for by a full frame before it. Default 100, then 20 a second: clients fill a frame
    /// before they begin the next.
    pub continuation: Budget,
    /// Thousands of bytes of header blocks beyond 16 KiB each. Default 8,000, then 1,000 a second: the page of a
    /// hundred parts that is asked for with 40 KiB of cookies takes 2,400.
    pub headers: Budget,
    /// Frames without a byte. Default 100, then 10 a second: the empty last frame of a body is paid for by its stream.
    /// h2 ends a connection by the 101st that is not the last.
    pub empty: Budget,
    /// DATA of under 64 bytes. Default 50,000, then 20,000 a second: streams of small messages (gRPC) come at such
    /// speeds, and are paid for by messages that go the other way.
    pub small_data: Budget,
    /// GOAWAY. Default 10, then 1 a second: clients send one or two. Each makes h2 go through all streams.
    pub go_away: Budget,
    /// Frames of other types. Default 500, then 50 a second, a thousand bytes more counting as another one: browsers
    /// send some with each stream to keep servers used to them (RFC 9113 section 5.5), which the stream pays for.
    pub unknown: Budget,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reset: Budget::new(500, 50),
            provoked_reset: Budget::new(250, 10),
            settings: Budget::new(100, 10),
            ping: Budget::new(200, 20),
            priority: Budget::new(2_000, 200),
            window_update: Budget::new(2_000, 500),
            continuation: Budget::new(100, 20),
            headers: Budget::new(8_000, 1_000),
            empty: Budget::new(100, 10),
            small_data: Budget::new(50_000, 20_000),
            go_away: Budget::new(10, 1),
            unknown: Budget::new(500, 50),
        }
    }
}

impl Limits {
    pub(super) fn of(&self, flood: Flood) -> Budget {
        match flood {
            Flood::Reset => self.reset,
            Flood::ProvokedReset => self.provoked_reset,
            Flood::Settings => self.settings,
            Flood::Ping => self.ping,
            Flood::Priority => self.priority,
            Flood::WindowUpdate => self.window_update,
            Flood::Continuation => self.continuation,
            Flood::Headers => self.headers,
            Flood::Empty => self.empty,
            Flood::SmallData => self.small_data,
            Flood::GoAway => self.go_away,
            Flood::Unknown => self.unknown,
        }
    }
}

/// What is left of the budgets of one connection.
#[derive(Debug)]
pub(super) struct Buckets {
    /// In the order of `Flood::ALL`, which is that of its numbers.
    buckets: [Bucket; Flood::ALL.len()],
    refilled_ms: u64,
}

/// In thousandths, so that what comes back in a second is what comes back in thousandths in a millisecond.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    full: u32,
    per_ms: u32,
}

impl Buckets {
    pub(super) fn new(limits: &Limits) -> Self {
        let buckets = Flood::ALL.map(|flood| {
            let budget = limits.of(flood);
            let full = budget.burst.saturating_mul(super::ONE);
            Bucket { left: full, full, per_ms: budget.per_second }
        });
        Self { buckets, refilled_ms: 0 }
    }

    /// What time gives back.
    #[inline]
    pub(super) fn refill(&mut self, now_ms: u64) {
        if now_ms <= self.refilled_ms {
            return;
        }
        // Whoever was silent for longer than 49 days has everything back as well.
        let passed_ms = u32::try_from(now_ms - self.refilled_ms).unwrap_or(u32::MAX);
        self.refilled_ms = now_ms;
        for bucket in &mut self.buckets {
            bucket.add(passed_ms.saturating_mul(bucket.per_ms));
        }
    }

    /// What work gives back.
    #[inline]
    pub(super) fn earn(&mut self, flood: Flood, thousandths: u32) {
        self.buckets[flood as usize].add(thousandths);
    }

    /// Takes so much, if it is there.
    #[inline]
    pub(super) fn spend(&mut self, flood: Flood, thousandths: u32) -> Result<(), Flood> {
        let bucket = &mut self.buckets[flood as usize];
        bucket.left = bucket.left.checked_sub(thousandths).ok_or(flood)?;
        Ok(())
    }
}

impl Bucket {
    #[inline]
    fn add(&mut self, thousandths: u32) {
        self.left = self.left.saturating_add(thousandths).min(self.full);
    }
}
