//! A head, line by line, and the framing of the body that follows (RFC 9112 section 6.3).
//!
//! A request has a body of a length that is said once (Content-Length), or in chunks (Transfer-Encoding, in HTTP/1.1
//! only), or none; both is an error, which section 6.1 lets a server refuse. The method does not matter: GET may have a
//! body (RFC 9110 section 9.3.1). CONNECT has none (section 9.3.6): one that says otherwise is refused, because what to
//! one is its body is to another already in the tunnel.

use super::authority::{self, Named};
use super::field::{self, Field, Meaning};
use super::line::{Flaw, Lines};
use super::request_line::{self, METHOD_BYTES_MAX, VERSION_BYTES, Version};
use super::{Limits, Refusal, target};

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The next head.
    Nothing,
    /// So many bytes of a body, at least one.
    Length(u64),
    /// A body in chunks.
    Chunked,
    /// Silence, until CONNECT is answered.
    Silence,
}

/// A head as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Head {
    stage: Stage,
    /// Of the lines that were read.
    bytes: usize,
    version: Version,
    connect: bool,
    fields: usize,
    host: bool,
    /// The target's own authority.
    named: Option<Named>,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Before the request line, and before the one empty line that may precede it (section 2.2): old clients send it
    /// after a body.
    #[default]
    Start,
    RequestLine,
    Fields,
}

impl Head {
    /// Whether nothing of it was read.
    pub(super) fn is_new(&self) -> bool {
        self.bytes == 0
    }

    /// Reads lines; what follows is known with the last.
    #[inline]
    pub(super) fn advance(
        &mut self,
        lines: &mut Lines<'_>,
        pending: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Option<Framing>, Refusal> {
        while self.stage != Stage::Fields {
            let longest = METHOD_BYTES_MAX + 1 + limits.target_bytes + VERSION_BYTES + 2;
            let allowed = longest.min(limits.head_bytes.saturating_sub(self.bytes));
            let line = match lines.next(pending, allowed) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                Err(flaw) => return Err(refusal(flaw, Refusal::new(414, "a request line over the limit"))),
            };
            self.bytes += line.len() + 2;
            if line.is_empty() && self.stage == Stage::Start {
                self.stage = Stage::RequestLine;
            } else {
                self.request_line(&line, limits)?;
            }
        }
        loop {
            let line = match lines.next(pending, limits.head_bytes.saturating_sub(self.bytes)) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                Err(flaw) => return Err(refusal(flaw, Refusal::new(431, "a head over the limit"))),
            };
            self.bytes += line.len() + 2;
            if line.is_empty() {
                return self.framing().map(Some);
            }
            self.field(&line, limits)?;
        }
    }

    #[inline]
    fn request_line(&mut self, line: &[u8], limits: &Limits) -> Result<(), Refusal> {
        let line = request_line::parse(line, limits.target_bytes)?;
        self.named = target::check(line.method, line.target)?;
        self.version = line.version;
        self.connect = line.method == b"CONNECT";
        self.stage = Stage::Fields;
        Ok(())
    }

    #[inline]
    fn field(&mut self, line: &[u8], limits: &Limits) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(Refusal::new(431, "more fields than the limit"));
        }
        let field = Field::parse(line)?;
        match field.meaning {
            Meaning::Other => Ok(()),
            Meaning::Host => self.host(field.value()),
            Meaning::ContentLength => self.content_length(field.value()),
            Meaning::TransferEncoding => self.transfer_encoding(field.value()),
        }
    }

    /// Section 3.2: one Host, and a good one. Section 3.2.2 has the target's authority win over it; a client must send
    /// them equal, and whoever routes by the other one would see another host, so they must be.
    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.host, true) {
            return Err(Refusal::bad("several Host fields"));
        }
        let authority = authority::parse(value)?;
        if self.named.as_ref().is_some_and(|named| !named.is(&authority)) {
            return Err(Refusal::bad("a target and a Host that differ"));
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(BOTH);
        }
        if self.length.is_some() {
            return Err(Refusal::bad("several Content-Length fields"));
        }
        self.length = Some(field::content_length(value)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.version == Version::Http10 {
            return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"));
        }
        if self.length.is_some() {
            return Err(BOTH);
        }
        if self.chunked {
            return Err(Refusal::bad("several Transfer-Encoding fields"));
        }
        field::transfer_encoding(value)?;
        self.chunked = true;
        Ok(())
    }

    #[inline]
    fn framing(&self) -> Result<Framing, Refusal> {
        if !self.host && self.version == Version::Http11 {
            return Err(Refusal::bad("no Host field"));
        }
        match (self.chunked, self.length) {
            (true, _) | (_, Some(1..)) if self.connect => Err(Refusal::bad("CONNECT with a body")),
            (false, None | Some(0)) if self.connect => Ok(Framing::Silence),
            (true, _) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::Nothing),
            (false, Some(bytes)) => Ok(Framing::Length(bytes)),
        }
    }
}

const BOTH: Refusal = Refusal::bad("Content-Length and Transfer-Encoding");

/// What a flaw of a line is answered with; of one that is too long that depends on the line.
#[cold]
pub(super) fn refusal(flaw: Flaw, too_long: Refusal) -> Refusal {
    match flaw {
        Flaw::TooLong => too_long,
        Flaw::BareCr => Refusal::bad("a CR without LF"),
        Flaw::BareLf => Refusal::bad("a LF without CR"),
        Flaw::Control => Refusal::bad("a control byte"),
    }
}
