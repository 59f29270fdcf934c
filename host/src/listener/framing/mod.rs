//! A guard on the bytes of an HTTP/1.x connection: what it lets pass has one reading (RFC 9112).
//!
//! hyper settles some things loosely before a service sees a request: equal Content-Lengths are merged, one beside
//! Transfer-Encoding is dropped, a bare LF ends a line, a fragment is cut from the target. A proxy before us or an
//! origin behind us may settle them in another way, and then one request is two (request smuggling, RFC 9112 section
//! 11.2). So each byte that comes in is looked at here first, in order and in whatever pieces it came, and refused
//! where it breaks a rule.
//!
//! A line has no reading before its LF, to hyper neither, and no LF passes before its line was found good. So pieces
//! may pass on at once, without being held or copied; only a line that is split over two reads is kept, as far as it
//! came.
//!
//! | what | where | RFC 9112 |
//! |---|---|---|
//! | lines end with CRLF and hold no control bytes | `line.rs`, `wide.rs` | section 2.2 |
//! | method, target, version | `request_line.rs` | section 3 |
//! | the forms of a target, and Host | `target.rs`, `authority.rs` | sections 3.2, 3.3 |
//! | names, and the fields that frame a message | `field.rs` | sections 5, 6.1, 6.2 |
//! | a head as a whole, and what body follows | `head.rs` | section 6.3 |
//! | chunks and trailers | `chunks.rs` | section 7.1 |
//!
//! Deliberately absent: what a request means (Connection, Expect, Upgrade), time limits, and the end of the connection:
//! hyper sees a message that is cut short.

mod authority;
mod chunks;
mod field;
mod head;
mod line;
mod request_line;
mod target;
#[cfg(test)]
mod tests;
mod wide;

use chunks::Chunks;
use head::{Framing, Head};
use line::Lines;

/// What a connection may bring.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest head, request line and fields together. Default 64 KiB; longer ones get 431.
    pub head_bytes: usize,
    /// The longest target. Default 16 KiB, twice what RFC 9112 section 3 asks for; longer ones get 414.
    pub target_bytes: usize,
    /// Field lines in a head, and in trailers. Default 100, as hyper has it; more get 431.
    pub fields: usize,
    /// Extensions of all chunks of a body together. Default 8 KiB, half of hyper's: nobody reads them.
    pub extension_bytes: usize,
    /// Trailers of a body together. Default 16 KiB.
    pub trailer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 << 10,
            target_bytes: 16 << 10,
            fields: 100,
            extension_bytes: 8 << 10,
            trailer_bytes: 16 << 10,
        }
    }
}

/// What is wrong with what came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 414, 431, 501 or 505.
    pub status: u16,
    /// For the log.
    pub reason: &'static str,
}

impl Refusal {
    const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }

    const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }
}

/// Where something wrong was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a head: the service never sees the request.
    Head,
    /// In a body: the service has the request, and reads an error.
    Body,
}

/// How much of a piece may pass, and why no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// So many bytes at the front of the piece may pass: those before the head, or before the line of the body, that is
    /// wrong.
    pub pass: usize,
    /// Why the rest may not.
    pub refusal: Refusal,
    /// Who finds out.
    pub place: Place,
}

/// Watches one connection.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    state: State,
    /// The beginning of a line whose end has not come yet.
    pending: Vec<u8>,
}

/// What is expected next.
#[derive(Debug)]
enum State {
    /// A line of a head.
    Head(Head),
    /// So much of a body of known length.
    Length(u64),
    /// A body in chunks.
    Chunked(Chunks),
    /// Nothing, until CONNECT is answered.
    Silence,
    /// Anything.
    Open,
    /// Nothing ever.
    Closed(Refusal, Place),
}

/// Client and proxy must not send into a tunnel that is not there: whoever takes CONNECT for granted and whoever
/// refuses it would read what follows in two ways.
const AFTER_CONNECT: Refusal = Refusal::bad("bytes after CONNECT before its answer");

impl Guard {
    /// A guard for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head(Head::default()), pending: Vec::new() }
    }

    /// Looks at the next bytes of the connection: `Ok` when all of them may pass. After an error nothing passes any
    /// more.
    pub fn look(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut lines = Lines::new(bytes);
        // What is found wrong after this does not touch what is before it.
        let mut pass = 0;
        while !lines.rest().is_empty() {
            let (step, place) = match &mut self.state {
                State::Open => return Ok(()),
                State::Head(head) => (head.advance(&mut lines, &mut self.pending, &self.limits), Place::Head),
                State::Length(left) => {
                    *left -= lines.skip(*left);
                    (Ok((*left == 0).then_some(Framing::Nothing)), Place::Body)
                }
                State::Chunked(chunks) => {
                    (chunks.advance(&mut lines, &mut self.pending, &self.limits, &mut pass), Place::Body)
                }
                State::Silence => (Err(AFTER_CONNECT), Place::Head),
                State::Closed(refusal, place) => (Err(*refusal), *place),
            };
            match step {
                // The bytes are at their end, and the message is not.
                Ok(None) => return Ok(()),
                Ok(Some(framing)) => {
                    pass = lines.at();
                    self.state = match framing {
                        Framing::Nothing => State::Head(Head::default()),
                        Framing::Length(bytes) => State::Length(bytes),
                        Framing::Chunked => State::Chunked(Chunks::default()),
                        Framing::Silence => State::Silence,
                    };
                }
                Err(refusal) => {
                    self.pending = Vec::new();
                    self.state = State::Closed(refusal, place);
                    return Err(Refused { pass, refusal, place });
                }
            }
        }
        Ok(())
    }

    /// Whether all messages that have begun are complete, as far as they came by here.
    pub fn is_between_messages(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.is_new()) && self.pending.is_empty()
    }

    /// From here on everything passes: the connection speaks another protocol now (RFC 9110 sections 7.8 and 9.3.6).
    pub fn open(&mut self) {
        if !matches!(self.state, State::Closed(..)) {
            self.pending = Vec::new();
            self.state = State::Open;
        }
    }
}
