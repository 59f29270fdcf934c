//! What goes on in a connection and since when, and what that means for how long it may go on.
//!
//! The times are kept where bytes move, as cheaply as can be: a request that meets no obstacle reads the clock twice (when its
//! head begins and when its answer is complete) and sets no timer. The connection's one timer fires after the shortest of the
//! limits, asks `verdict`, and is set again to the answer; since whatever begins in the meantime can't be over sooner, that
//! is exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::Settings;
use super::frames::Flood;
use super::interim::Line;
use super::patience::{Looked, Patience, Streams};
use super::sniff::Protocol;
use crate::clock::monotonic_ms;

/// No moment.
const NEVER: u64 = u64::MAX;

/// A connection that was used so long ago rests.
const REST_AFTER_MS: u64 = 1000;

/// The limits of time, as `Settings` has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) stall: Duration,
    /// Bytes a second.
    pub(super) least_rate: u64,
}

impl Limits {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            head: settings.head_timeout,
            idle: settings.idle_timeout,
            stall: settings.stall_timeout,
            least_rate: settings.least_rate,
        }
    }

    /// The longest time after which the timer has to look.
    pub(super) fn shortest(&self) -> Duration {
        self.head.min(self.idle).min(self.stall)
    }
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The head of a request did not come in time.
    Head,
    /// No request came for too long.
    Idle,
    /// The peer takes nothing of what the socket holds for it.
    Write,
    /// HTTP/2: an answer waits for the peer to open its windows.
    Window,
}

impl Overdue {
    /// The word for the metric's label.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Write => "write",
            Self::Window => "window",
        }
    }
}

/// What the timer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again after this time.
    Wait(Duration),
    /// Over.
    Over(Overdue),
}

/// The times of one connection. Times are milliseconds since it was accepted. The connection's task writes most; tasks of
/// HTTP/2 streams write when they end. All is advisory, so relaxed ordering is enough.
#[derive(Debug)]
pub(super) struct Activity {
    /// When it was accepted, by the monotonic clock.
    accepted_ms: u64,
    protocol: Protocol,
    /// Requests whose answers are not complete.
    in_flight: AtomicUsize,
    /// The same one by one (HTTP/2).
    streams: Streams,
    /// Those of them that wait for us: for the answer's head or for the next piece of its body.
    ours: AtomicUsize,
    /// Bytes that the socket has taken.
    taken: AtomicU64,
    /// Pieces of answers that were handed over.
    pieces: AtomicU64,
    /// When the peer last got or finished something: the end of the last answer, or the last piece that was handed over.
    served: AtomicU64,
    /// When the head that is under way began (HTTP/1.1).
    head_since: AtomicU64,
    /// Since when the socket has taken nothing of what we have for it.
    blocked_since: AtomicU64,
    /// Bodies of requests that are still coming in, whether they are answered or not.
    receiving: AtomicUsize,
    /// A message has begun to come in and is not complete (HTTP/1.1).
    amid: AtomicBool,
    /// Interim responses (HTTP/1.1).
    line: Arc<Line>,
    /// The listener drains: no time for courtesies.
    hurry: AtomicBool,
    /// The next answer is the last (HTTP/1.1).
    last: AtomicBool,
    /// Status of what came in and was refused unread; 0 for nothing.
    refused: AtomicU16,
    /// The connection speaks another protocol now.
    upgraded: AtomicBool,
    /// The flood that it was ended for: its place in `Flood::ALL`, from 1.
    flood: AtomicU8,
    /// Milliseconds that a test pretends have passed.
    #[cfg(test)]
    pretended: AtomicU64,
}

impl Activity {
    /// A connection whose first bytes have just told its protocol.
    pub(super) fn new(accepted_ms: u64, protocol: Protocol) -> Arc<Self> {
        Arc::new(Self {
            accepted_ms,
            protocol,
            in_flight: AtomicUsize::new(0),
            streams: Streams::default(),
            taken: AtomicU64::new(0),
            ours: AtomicUsize::new(0),
            pieces: AtomicU64::new(0),
            served: AtomicU64::new(0),
            head_since: AtomicU64::new(match protocol {
                Protocol::Http1 => 0,
                Protocol::Http2 => NEVER,
            }),
            blocked_since: AtomicU64::new(NEVER),
            receiving: AtomicUsize::new(0),
            amid: AtomicBool::new(false),
            line: Arc::default(),
            hurry: AtomicBool::new(false),
            last: AtomicBool::new(false),
            refused: AtomicU16::new(0),
            upgraded: AtomicBool::new(false),
            flood: AtomicU8::new(0),
            #[cfg(test)]
            pretended: AtomicU64::new(0),
        })
    }

    fn now(&self) -> u64 {
        let passed = monotonic_ms().saturating_sub(self.accepted_ms);
        #[cfg(test)]
        let passed = passed + self.pretended.load(Ordering::Relaxed);
        passed
    }

    /// Bytes came in.
    pub(super) fn received(&self) {
        if self.protocol == Protocol::Http1
            && self.head_since.load(Ordering::Relaxed) == NEVER
            && self.in_flight.load(Ordering::Relaxed) == 0
            && self.receiving.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The socket took so many bytes.
    pub(super) fn sent(&self, bytes: usize) {
        // By one task at a time.
        self.taken.store(self.taken.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
        if self.blocked_since.load(Ordering::Relaxed) != NEVER {
            self.blocked_since.store(NEVER, Ordering::Relaxed);
            self.served.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Bytes that the socket has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The socket takes nothing now.
    pub(super) fn blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == NEVER {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether the socket takes nothing now.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.load(Ordering::Relaxed) != NEVER
    }

    /// The peer took something after all, out of what the kernel holds for it.
    pub(super) fn unblocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) != NEVER {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether an HTTP/1.1 client waits for us, and how many pieces it has had: the same number later means that it still waits
    /// for the same one.
    pub(super) fn waits_for_us(&self) -> Option<u64> {
        let waits = self.protocol == Protocol::Http1 && self.ours.load(Ordering::Relaxed) > 0;
        waits.then(|| self.pieces.load(Ordering::Relaxed))
    }

    /// Whether the connection speaks another protocol now.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// Tells whether all messages that began to come in are complete.
    pub(super) fn between_messages(&self, between: bool) {
        self.amid.store(!between, Ordering::Relaxed);
    }

    /// The body of a request comes in until what is returned is dropped.
    pub(super) fn receive(self: &Arc<Self>) -> Receiving {
        self.receiving.fetch_add(1, Ordering::Relaxed);
        Receiving(Arc::clone(self))
    }

    /// Whether nobody has wanted anything for a while.
    pub(super) fn rests(&self) -> bool {
        !self.is_busy()
            && !self.is_blocked()
            && self.receiving.load(Ordering::Relaxed) == 0
            && !self.amid.load(Ordering::Relaxed)
            && self.head_since.load(Ordering::Relaxed) == NEVER
            && self.now().saturating_sub(self.served.load(Ordering::Relaxed)) >= REST_AFTER_MS
    }

    /// Whether an answer is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// It is ended for a flood.
    pub(super) fn flood(&self, flood: Flood) {
        let place = Flood::ALL.iter().position(|one| *one == flood).map_or(0, |place| place + 1);
        self.flood.store(u8::try_from(place).unwrap_or(u8::MAX), Ordering::Relaxed);
    }

    /// The flood that it was ended for.
    pub(super) fn flooded(&self) -> Option<Flood> {
        Flood::ALL.get(usize::from(self.flood.load(Ordering::Relaxed)).checked_sub(1)?).copied()
    }

    /// What came in is refused, with this status.
    pub(super) fn refuse(&self, status: u16) {
        self.refused.store(status, Ordering::Relaxed);
    }

    /// The status that what came in was refused with.
    pub(super) fn refused(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.refused.load(Ordering::Relaxed)).ok()
    }

    /// The listener drains.
    pub(super) fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// The next answer shall say that it is the last. False for HTTP/2, which has GOAWAY.
    pub(super) fn tell_last(&self) -> bool {
        self.last.store(self.protocol == Protocol::Http1, Ordering::Relaxed);
        self.protocol == Protocol::Http1
    }

    /// Whether the listener drains.
    pub(super) fn hurries(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }

    /// A request came in whole (its head).
    pub(super) fn begin(self: &Arc<Self>) -> Flight {
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.line.begin();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.ours.fetch_add(1, Ordering::Relaxed);
        let patience = (self.protocol == Protocol::Http2).then(|| self.streams.begin());
        Flight { activity: self.clone(), ours: true, patience }
    }

    /// Interim responses.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// The streams of HTTP/2 under way.
    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Ends streams of HTTP/2 whose client takes nothing. The next moment is in so many milliseconds from now.
    pub(super) fn end_stalled(&self) -> Looked {
        let now = self.now();
        let looked = self.streams.look(now);
        Looked { next: looked.next.map(|next| next - now), ..looked }
    }

    /// Whether the connection may go on, and until when it may without being asked again.
    pub(super) fn verdict(&self, limits: &Limits) -> Verdict {
        let now = self.now();
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        let head = self.head_since.load(Ordering::Relaxed);
        let served = self.served.load(Ordering::Relaxed);
        let (since, limit, overdue) = if blocked != NEVER {
            (blocked, limits.stall, Overdue::Write)
        } else if self.in_flight.load(Ordering::Relaxed) + self.receiving.load(Ordering::Relaxed) > 0 {
            // Waiting for the origin, say: that wait has its own limits; or for the windows of one stream, which has its own.
            return Verdict::Wait(limits.shortest());
        } else if head != NEVER {
            (head, limits.head, Overdue::Head)
        } else {
            (served, limits.idle, Overdue::Idle)
        };
        let until = since.saturating_add(limit.as_millis() as u64);
        if until <= now {
            return Verdict::Over(overdue);
        }
        Verdict::Wait(Duration::from_millis(until - now).min(limits.shortest()))
    }
}

/// One request under way. Dropping it says that its answer is complete, or that nobody wants it any more.
#[derive(Debug)]
pub(super) struct Flight {
    activity: Arc<Activity>,
    ours: bool,
    /// Of a stream of HTTP/2.
    patience: Option<Arc<Patience>>,
}

impl Flight {
    /// The answer is the last of its connection (HTTP/1.1).
    pub(super) fn is_now_last(&self) {
        self.activity.tell_last();
    }

    /// Whether it is of a stream among others (HTTP/2).
    pub(super) fn is_of_a_stream(&self) -> bool {
        self.patience.is_some()
    }

    /// Whether the answer is the last of its connection.
    pub(super) fn is_last(&self) -> bool {
        self.activity.last.load(Ordering::Relaxed)
    }

    /// The answer gives the connection over to another protocol.
    pub(super) fn upgrades(&self) {
        self.activity.upgraded.store(true, Ordering::Relaxed);
    }

    /// The head of the answer was handed over: with HTTP/2 nothing of its body is asked for before the client has room for it.
    pub(super) fn head_is_there(&mut self, limits: &Limits) {
        self.activity.line.answered();
        if self.patience.is_some() {
            self.waits_for_peer(0, limits);
        }
    }

    /// The answer waits for us.
    pub(super) fn waits_for_us(&mut self) {
        if !self.ours {
            self.ours = true;
            self.activity.ours.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(patience) = &self.patience {
            patience.is_ours();
        }
    }

    /// A piece of so many bytes was handed over: now it is the peer's turn, for as long as it may take to take that.
    pub(super) fn waits_for_peer(&mut self, bytes: usize, limits: &Limits) {
        if self.ours {
            self.ours = false;
            self.activity.ours.fetch_sub(1, Ordering::Relaxed);
        }
        self.activity.pieces.fetch_add(1, Ordering::Relaxed);
        // With HTTP/1.1 the socket itself shows whether the peer takes what it is given.
        if let Some(patience) = &self.patience {
            let now = self.activity.now();
            self.activity.served.store(now, Ordering::Relaxed);
            let least = bytes as u64 * 1000 / limits.least_rate.max(1);
            patience.until(now + limits.stall.as_millis() as u64 + least);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.ours {
            self.activity.ours.fetch_sub(1, Ordering::Relaxed);
        }
        self.activity.served.store(self.activity.now(), Ordering::Relaxed);
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a request that is coming in.
#[derive(Debug)]
pub(super) struct Receiving(Arc<Activity>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.served.store(self.0.now(), Ordering::Relaxed);
        self.0.receiving.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        stall: Duration::from_secs(60),
        least_rate: 500,
    };

    fn after(activity: &Activity, seconds: u64) {
        activity.pretended.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn over(activity: &Activity) -> Option<Overdue> {
        match activity.verdict(&LIMITS) {
            Verdict::Over(overdue) => Some(overdue),
            Verdict::Wait(until) => {
                assert!(!until.is_zero() && until <= LIMITS.shortest());
                None
            }
        }
    }

    #[test]
    fn a_head_has_its_time_from_its_first_byte() {
        let activity = Activity::new(monotonic_ms(), Protocol::Http1);
        after(&activity, 8);
        activity.received();
        assert_eq!(over(&activity), None);
        after(&activity, 2);
        assert_eq!(over(&activity), Some(Overdue::Head));
    }

    #[test]
    fn a_request_waits_for_us_without_limit_and_idleness_counts_from_its_end() {
        let activity = Activity::new(monotonic_ms(), Protocol::Http1);
        let mut flight = activity.begin();
        assert!(!activity.rests());
        after(&activity, 1_000);
        assert_eq!(over(&activity), None);
        flight.waits_for_peer(0, &LIMITS);
        after(&activity, 1_000);
        assert_eq!(over(&activity), None, "with HTTP/1.1 only a blocked socket shows that the peer is late");
        drop(flight);
        after(&activity, 73);
        assert_eq!(over(&activity), None);
        after(&activity, 2);
        assert_eq!(over(&activity), Some(Overdue::Idle));
        activity.received();
        assert_eq!(over(&activity), None, "a new head begins");
    }

    #[test]
    fn a_blocked_socket_has_its_time_from_the_last_progress() {
        let activity = Activity::new(monotonic_ms(), Protocol::Http1);
        let flight = activity.begin();
        activity.blocked();
        after(&activity, 58);
        activity.blocked();
        assert_eq!(over(&activity), None);
        activity.sent(1);
        activity.blocked();
        drop(flight);
        after(&activity, 58);
        assert_eq!(over(&activity), None);
        activity.unblocked();
        after(&activity, 58);
        assert_eq!(over(&activity), None);
        after(&activity, 2);
        assert_eq!(over(&activity), Some(Overdue::Write));
        activity.sent(1);
        assert_eq!(over(&activity), None, "idleness counts from when the peer had everything");
        after(&activity, 75);
        assert_eq!(over(&activity), Some(Overdue::Idle));
    }

    #[test]
    fn what_is_not_complete_does_not_rest() {
        let activity = Activity::new(monotonic_ms(), Protocol::Http1);
        assert!(!activity.rests(), "the first head is waited for");
        drop(activity.begin());
        after(&activity, 2);
        assert!(activity.rests());
        // A request was answered before all of it had come.
        let body = activity.receive();
        drop(activity.begin());
        after(&activity, 2);
        activity.received();
        assert_eq!((activity.rests(), over(&activity)), (false, None));
        after(&activity, 100);
        assert_eq!(over(&activity), None, "the body has limits of its own, and what comes of it is no head");
        drop(body);
        assert!(!activity.rests(), "hyper has to hear of it first");
        after(&activity, 2);
        assert!(activity.rests());
        activity.between_messages(false);
        assert!(!activity.rests());
    }

    #[test]
    fn a_stream_that_waits_for_its_window_has_its_own_time_whatever_others_do() {
        let activity = Activity::new(monotonic_ms(), Protocol::Http2);
        let mut first = activity.begin();
        let mut second = activity.begin();
        first.waits_for_peer(LIMITS.least_rate as usize * 30, &LIMITS);
        second.waits_for_peer(0, &LIMITS);
        after(&activity, 59);
        assert_eq!((over(&activity), activity.end_stalled().ended), (None, 0));
        second.waits_for_us();
        drop(activity.begin());
        after(&activity, 30);
        assert_eq!(activity.end_stalled(), Looked { ended: 0, stuck: false, next: Some(1_000) });
        after(&activity, 1_000);
        assert_eq!(over(&activity), None);
        // It has no task that could be ended.
        assert_eq!(activity.end_stalled(), Looked { ended: 0, stuck: true, next: None });
        drop((first, second));
        after(&activity, 75);
        assert_eq!(over(&activity), Some(Overdue::Idle));
    }
}
