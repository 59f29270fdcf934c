//! Cuts what comes in into lines (RFC 9112 section 2.2).
//!
//! A line ends with CRLF, and neither byte stands anywhere else; nor does any other control byte but HTAB, DEL among
//! them (RFC 9110 section 5.5 lets a recipient refuse them all). So one search does both: the first control byte from
//! here must be the CR that ends the line.

use std::borrow::Cow;

use super::wide::{BLOCK, controls};

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    TooLong,
    BareCr,
    BareLf,
    Control,
}

/// The piece that is looked at, as far as it is not read yet.
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    controls: Controls<'a>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, controls: Controls::from(bytes, 0) }
    }

    /// How much was read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Reads up to so many bytes that are no lines; says how many there were.
    pub(super) fn skip(&mut self, bytes: u64) -> u64 {
        let left = self.bytes.len() - self.at;
        let skipped = usize::try_from(bytes).unwrap_or(usize::MAX).min(left);
        self.at += skipped;
        self.controls = Controls::from(self.bytes, self.at);
        skipped as u64
    }

    /// Reads a line, which is given without its CRLF; `None` when its end has not come yet: then what came of it is
    /// kept in `pending`. `allowed` is how long it may be with its CRLF. What is found does not depend on how the bytes
    /// were cut.
    #[inline]
    pub(super) fn next(&mut self, pending: &mut Vec<u8>, allowed: usize) -> Result<Option<Cow<'a, [u8]>>, Flaw> {
        if !pending.is_empty() {
            return self.resume(pending, allowed);
        }
        let rest = self.rest();
        let Some(found) = self.controls.next() else { return self.keep(pending, allowed) };
        let length = found - self.at;
        match (rest[length], rest.get(length + 1)) {
            (b'\r', Some(b'\n')) if length + 2 <= allowed => {
                self.at = found + 2;
                self.controls.next();
                Ok(Some(Cow::Borrowed(&rest[..length])))
            }
            (b'\r', None) => self.keep(pending, allowed),
            (byte, _) => Err(flaw(byte, length, allowed)),
        }
    }

    /// The same for a line that began in an earlier piece.
    #[cold]
    fn resume(&mut self, pending: &mut Vec<u8>, allowed: usize) -> Result<Option<Cow<'a, [u8]>>, Flaw> {
        let rest = self.rest();
        let (found, length) = if pending.last() == Some(&b'\r') {
            if rest.first() != Some(&b'\n') {
                return Err(flaw(b'\r', pending.len() - 1, allowed));
            }
            (0, pending.len() - 1)
        } else {
            let Some(found) = self.controls.next() else { return self.keep(pending, allowed) };
            let found = found - self.at;
            let length = pending.len() + found;
            match (rest[found], rest.get(found + 1)) {
                (b'\r', Some(b'\n')) if length + 2 <= allowed => (found + 1, length),
                (b'\r', None) => return self.keep(pending, allowed),
                (byte, _) => return Err(flaw(byte, length, allowed)),
            }
        };
        // Up to here the LF is not read, to the control bytes neither.
        self.controls.next();
        self.at += found + 1;
        let mut line = std::mem::take(pending);
        line.extend_from_slice(&rest[..found]);
        line.truncate(length);
        Ok(Some(Cow::Owned(line)))
    }

    #[cold]
    fn keep(&mut self, pending: &mut Vec<u8>, allowed: usize) -> Result<Option<Cow<'a, [u8]>>, Flaw> {
        let rest = self.rest();
        if pending.len() + rest.len() >= allowed {
            return Err(Flaw::TooLong);
        }
        pending.extend_from_slice(rest);
        self.at = self.bytes.len();
        Ok(None)
    }
}

/// What it means that this control byte stands behind so many bytes of a line and does not end it as it should.
#[cold]
fn flaw(byte: u8, length: usize, allowed: usize) -> Flaw {
    match byte {
        // Only the byte behind the CR tells.
        b'\r' if length + 1 >= allowed => Flaw::TooLong,
        _ if length >= allowed => Flaw::TooLong,
        b'\r' => Flaw::BareCr,
        b'\n' => Flaw::BareLf,
        _ => Flaw::Control,
    }
}

/// Where the control bytes stand, in order.
struct Controls<'a> {
    bytes: &'a [u8],
    /// The block that `marks` is of begins here.
    start: usize,
    /// Blocks from here on were not looked at.
    end: usize,
    /// A bit for each control byte of the block that was not given out yet.
    marks: u64,
}

impl<'a> Controls<'a> {
    fn from(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, start: at, end: at, marks: 0 }
    }

    /// The place of the next one.
    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.marks == 0 {
            if self.end == self.bytes.len() {
                return None;
            }
            self.load();
        }
        let place = self.start + self.marks.trailing_zeros() as usize;
        self.marks &= self.marks - 1;
        Some(place)
    }

    #[inline]
    fn load(&mut self) {
        let rest = &self.bytes[self.end..];
        self.start = self.end;
        self.end += rest.len().min(BLOCK);
        self.marks = match (rest.first_chunk(), self.bytes.last_chunk()) {
            (Some(block), _) => controls(block),
            // The last block, with what was looked at before it shifted out.
            (None, Some(block)) => controls(block) >> (BLOCK - rest.len()),
            (None, None) => {
                let mut block = [b' '; BLOCK];
                block[..rest.len()].copy_from_slice(rest);
                controls(&block)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_come_in_order_from_any_start() {
        let bytes: Vec<u8> = (0..200u32).map(|n| if n * n % 7 == 2 { b'\n' } else { b'a' }).collect();
        for length in 0..bytes.len() {
            for at in 0..=length {
                let mut controls = Controls::from(&bytes[..length], at);
                let found: Vec<usize> = std::iter::from_fn(|| controls.next()).collect();
                let expected: Vec<usize> = (at..length).filter(|place| bytes[*place] == b'\n').collect();
                assert_eq!(found, expected, "{at}..{length}");
            }
        }
    }
}
