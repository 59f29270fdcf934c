//! A guard on the bytes of an HTTP/2 connection: counts the frames that cost us more than they cost whoever sends them
//! (RFC 9113 section 10.5).
//!
//! h2 parses frames and bounds what it keeps in memory for them. For most of them it has no bound on how many come: a
//! PING, a SETTINGS, a PRIORITY or a WINDOW_UPDATE is worked off and forgotten, at line speed if need be; a request
//! that was handed to the service may be reset and the next one opened for as long as the connection lives
//! (CVE-2023-44487). So each frame that comes in is counted here first, and each one that goes out, by its 9 bytes of
//! header alone.
//!
//! Each kind has a budget that fills up again with time. Work that was done for the client pays as well: a stream that
//! opens, an answer that ends, bytes of a body that go out. So a connection that carries a thousand clients may cancel
//! a thousand times what a browser may, and one that carries nothing has only its budget. What a payment buys costs us
//! about as much as the work it is paid for, or less: whoever wants to keep us busy does as well with plain requests.
//!
//! | frames | spend | paid for by | h2 0.4.20 by itself |
//! |---|---|---|---|
//! | RST_STREAM in | `Reset` | answers that end | 20 at once, of streams not yet accepted |
//! | RST_STREAM out, for a client's error | `ProvokedReset` | answers that end | 256 a connection, but after a 431 |
//! | SETTINGS, acknowledgements too | `Settings` | | keeps one at a time |
//! | PING, acknowledgements too | `Ping` | DATA, HEADERS out | keeps one at a time |
//! | PRIORITY, PRIORITY_UPDATE | `Priority` | streams that open | no limit |
//! | WINDOW_UPDATE | `WindowUpdate` | bytes of DATA out, streams that open | no limit |
//! | CONTINUATION | `Continuation` | bytes of the header block | 5 a block |
//! | header blocks beyond 16 KiB | `Headers` | | the size of each |
//! | DATA and header frames without a byte | `Empty` | streams that open with a body | 100 DATA, not last ones |
//! | DATA of under 64 bytes | `SmallData` | DATA out | while nobody has read them |
//! | GOAWAY | `GoAway` | | no limit |
//! | other types | `Unknown` | streams that open | no limit |
//!
//! (The last column has the numbers that `connection.rs` sets, and those that h2 has for header lists of 64 KiB.)
//!
//! Memory: one `Frames` of some 250 bytes a connection, no allocation. A frame costs a few nanoseconds, a payload none.
//!
//! Deliberately absent: what a frame means, whether it is legal, and how long it is (a frame over the size that we
//! announced is h2's to refuse); how many requests come (they are answered, or refused, as others); what HPACK makes of
//! a header block; time limits, which are the connection's.

mod budget;
mod cutter;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub use budget::Budget;
pub use budget::Limits;

use budget::Buckets;
use cutter::{Cutter, Frame, kind};

/// The client connection preface (RFC 9113 section 3.4), which h2 checks.
const PREFACE_BYTES: u32 = 24;

/// What a header block may have for nothing: twice what most servers take in all.
const BLOCK_BYTES: u32 = 16 << 10;

/// Below this the frame of a body is a small one: h2 and hyper do more for the frame than for its bytes.
const SMALL_BYTES: u32 = 64;

/// Settings in a frame that count as one frame; nghttp2 takes no more at all.
const SETTINGS_BYTES: u32 = 32 * 6;

/// The budget of requests that a client cancels, for HTTP/3: its frames are quinn's, and each stream tells how it ended.
#[derive(Debug)]
pub(super) struct Resets(Buckets);

impl Resets {
    /// Of a new connection.
    pub(super) fn new() -> Self {
        Self(Buckets::new(&Limits::default()))
    }

    /// An answer got to its end: it pays for a request that is cancelled.
    pub(super) fn answered(&mut self) {
        self.0.earn(Flood::Reset, ONE);
    }

    /// The client has cancelled a request. An error: more than it may.
    pub(super) fn cancelled(&mut self, now_ms: u64) -> Result<(), Flood> {
        self.0.refill(now_ms);
        self.0.spend(Flood::Reset, ONE)
    }
}

/// A frame, or what is paid for one: budgets count thousandths, so that time can be paid by the millisecond.
const ONE: u32 = 1000;

/// What a stream that opens pays: a browser gives each image its priority and thinks better of it several times; a
/// client that keeps its own windows opens one for each stream.
const STREAM_PAYS_PRIORITY: u32 = 16 * ONE;
const STREAM_PAYS_WINDOW_UPDATE: u32 = 4 * ONE;
const STREAM_PAYS_UNKNOWN: u32 = 4 * ONE;

/// What an answer's end pays towards streams that we reset for a client's mistake. Less than one, since the 431 that h2
/// sends before such a reset ends an answer too.
const ANSWER_PAYS_PROVOKED: u32 = ONE / 4;

/// Why a connection is ended: what came too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flood {
    /// Requests that the client cancels (CVE-2023-44487).
    Reset,
    /// Streams that we reset for what the client did (CVE-2025-8671).
    ProvokedReset,
    /// SETTINGS (CVE-2019-9515).
    Settings,
    /// PING (CVE-2019-9512).
    Ping,
    /// PRIORITY and PRIORITY_UPDATE (CVE-2019-9513).
    Priority,
    /// WINDOW_UPDATE (CVE-2019-9511).
    WindowUpdate,
    /// CONTINUATION in small pieces (CVE-2024-27316 and its like).
    Continuation,
    /// Large header blocks.
    Headers,
    /// Frames without a byte (CVE-2019-9518).
    Empty,
    /// Bodies in tiny pieces.
    SmallData,
    /// GOAWAY.
    GoAway,
    /// Frames of types that HTTP/2 does not know, or that clients do not send.
    Unknown,
}

impl Flood {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Reset,
        Self::ProvokedReset,
        Self::Settings,
        Self::Ping,
        Self::Priority,
        Self::WindowUpdate,
        Self::Continuation,
        Self::Headers,
        Self::Empty,
        Self::SmallData,
        Self::GoAway,
        Self::Unknown,
    ];

    /// The word for the metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ProvokedReset => "provoked-reset",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::Priority => "priority",
            Self::WindowUpdate => "window-update",
            Self::Continuation => "continuation",
            Self::Headers => "headers",
            Self::Empty => "empty",
            Self::SmallData => "small-data",
            Self::GoAway => "goaway",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Flood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "flood of HTTP/2 frames: {}", self.as_str())
    }
}

impl std::error::Error for Flood {}

/// Watches one connection, of which we are the server.
#[derive(Debug)]
pub struct Frames {
    buckets: Buckets,
    inbound: Cutter,
    outbound: Cutter,
    /// Of the header block that is under way.
    block_bytes: u32,
    flood: Option<Flood>,
}

impl Frames {
    /// A guard for a new connection. The first bytes that come in are those of the preface.
    pub fn new(limits: &Limits) -> Self {
        Self {
            buckets: Buckets::new(limits),
            inbound: Cutter::after(PREFACE_BYTES),
            outbound: Cutter::after(0),
            block_bytes: 0,
            flood: None,
        }
    }

    /// Looks at the next bytes that came in, before h2 does. After an error nothing passes any more, of this piece
    /// neither. `now_ms` is of a clock that does not go back.
    pub fn look(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), Flood> {
        self.proceed(now_ms)?;
        let mut rest = bytes;
        while let Some(frame) = self.inbound.next(&mut rest) {
            self.note(|this| this.received(frame))?;
        }
        Ok(())
    }

    /// Looks at the next bytes that went out, in the order in which they did.
    pub fn sent(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), Flood> {
        self.proceed(now_ms)?;
        let mut rest = bytes;
        while let Some(frame) = self.outbound.next(&mut rest) {
            self.note(|this| this.went_out(frame))?;
        }
        Ok(())
    }

    /// The last frame of the connection: GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 section 7), which says of no stream
    /// that it was left alone. `None` while a frame is half written, in which it would be lost.
    pub fn goodbye(&self) -> Option<[u8; 17]> {
        let goodbye = [0, 0, 8, kind::GO_AWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];
        self.outbound.is_between_frames().then_some(goodbye)
    }

    fn proceed(&mut self, now_ms: u64) -> Result<(), Flood> {
        self.buckets.refill(now_ms);
        self.flood.map_or(Ok(()), Err)
    }

    fn note(&mut self, count: impl FnOnce(&mut Self) -> Result<(), Flood>) -> Result<(), Flood> {
        count(self).inspect_err(|flood| self.flood = Some(*flood))
    }

    fn received(&mut self, frame: Frame) -> Result<(), Flood> {
        let length = frame.length;
        match frame.kind {
            kind::DATA if length == 0 => self.buckets.spend(Flood::Empty, ONE),
            kind::DATA if length < SMALL_BYTES => self.buckets.spend(Flood::SmallData, ONE),
            kind::DATA => Ok(()),
            kind::HEADERS => {
                self.block_bytes = 0;
                self.buckets.earn(Flood::Priority, STREAM_PAYS_PRIORITY);
                self.buckets.earn(Flood::WindowUpdate, STREAM_PAYS_WINDOW_UPDATE);
                self.buckets.earn(Flood::Unknown, STREAM_PAYS_UNKNOWN);
                if !frame.ends_stream() {
                    // For the last frame of its body, which may well be empty or small.
                    self.buckets.earn(Flood::Empty, ONE);
                    self.buckets.earn(Flood::SmallData, ONE);
                }
                self.block(length)
            }
            kind::CONTINUATION => {
                self.block(length)?;
                self.buckets.spend(Flood::Continuation, ONE)
            }
            kind::PRIORITY | kind::PRIORITY_UPDATE => self.buckets.spend(Flood::Priority, by_length(length, 256)),
            kind::RST_STREAM => self.buckets.spend(Flood::Reset, ONE),
            kind::SETTINGS => self.buckets.spend(Flood::Settings, by_length(length, SETTINGS_BYTES)),
            kind::PING => self.buckets.spend(Flood::Ping, ONE),
            kind::GO_AWAY => self.buckets.spend(Flood::GoAway, ONE),
            kind::WINDOW_UPDATE => self.buckets.spend(Flood::WindowUpdate, ONE),
            _ => self.buckets.spend(Flood::Unknown, by_length(length, 1024)),
        }
    }

    /// A piece of a header block.
    fn block(&mut self, length: u32) -> Result<(), Flood> {
        if length == 0 {
            self.buckets.spend(Flood::Empty, ONE)?;
        }
        // A frame that is full, as all but the last of a block are, pays for four CONTINUATION.
        self.buckets.earn(Flood::Continuation, length / 4);
        let before = self.block_bytes;
        self.block_bytes = before.saturating_add(length);
        // One is a thousand bytes.
        self.buckets.spend(Flood::Headers, self.block_bytes.saturating_sub(before.max(BLOCK_BYTES)))
    }

    fn went_out(&mut self, frame: Frame) -> Result<(), Flood> {
        match frame.kind {
            kind::DATA => {
                // Two for the frame and two for each thousand bytes: there are clients that open both windows again
                // after each read. Of a tiny frame only a part: one that goes out since the client opened its window by
                // a byte (CVE-2019-9511) must not pay for the next byte.
                self.buckets.earn(Flood::WindowUpdate, frame.length.min(64) * 31 + frame.length.min(1 << 20) * 2);
                // Some clients measure the way with a PING for what they have read (gRPC).
                self.buckets.earn(Flood::Ping, ONE);
                self.buckets.earn(Flood::SmallData, ONE);
            }
            kind::HEADERS => self.buckets.earn(Flood::Ping, ONE),
            kind::RST_STREAM if is_provoked(frame.code) => return self.buckets.spend(Flood::ProvokedReset, ONE),
            _ => return Ok(()),
        }
        if frame.ends_stream() {
            self.buckets.earn(Flood::Reset, ONE);
            self.buckets.earn(Flood::ProvokedReset, ANSWER_PAYS_PROVOKED);
        }
        Ok(())
    }
}

/// What a frame spends that costs more the longer it is.
fn by_length(length: u32, unit: u32) -> u32 {
    // A length has 24 bits.
    ONE + length / unit * ONE
}

/// Whether we reset a stream for what the client did. Not after a whole answer to a request that is still coming in
/// (NO_ERROR, RFC 9113 section 8.1), nor when our side failed (INTERNAL_ERROR) or gave up (CANCEL).
fn is_provoked(code: u32) -> bool {
    !matches!(code, 0x0 | 0x2 | 0x8)
}
