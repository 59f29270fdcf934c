//! A body in chunks (RFC 9112 section 7.1).
//!
//! A chunk's line is its size in hexadecimal digits, perhaps extensions, and CRLF; CRLF follows the data at once.
//! Extensions must be ignored (section 7.1.1), so they are not refused, but they must be what the grammar has: whoever
//! searches their end in another way finds it elsewhere. Whitespace stands only around their `;` and `=`, where the
//! grammar has it.

use super::field::{Field, may_trail, token_bytes};
use super::head::{Framing, refusal};
use super::line::Lines;
use super::{Limits, Refusal};

/// The longest size: 64 bits. Leading zeros are allowed (some clients write sizes in a fixed width) and count.
const SIZE_DIGITS_MAX: usize = 16;

/// A body in chunks as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    next: Next,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Size,
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
}

impl Chunks {
    /// Reads on; a body that is at its end is followed by nothing. `pass` follows behind what was found good.
    pub(super) fn advance(
        &mut self,
        lines: &mut Lines<'_>,
        pending: &mut Vec<u8>,
        limits: &Limits,
        pass: &mut usize,
    ) -> Result<Option<Framing>, Refusal> {
        while !lines.rest().is_empty() {
            self.next = match self.next {
                Next::Size => {
                    let extension_bytes = limits.extension_bytes.saturating_sub(self.extension_bytes);
                    let line = match lines.next(pending, SIZE_DIGITS_MAX + extension_bytes + 2) {
                        Ok(Some(line)) => line,
                        Ok(None) => return Ok(None),
                        Err(flaw) => return Err(refusal(flaw, Refusal::bad("a line of a chunk over the limit"))),
                    };
                    let (size, extensions) = size(&line)?;
                    if extensions.len() > extension_bytes {
                        return Err(Refusal::bad("extensions of chunks over the limit"));
                    }
                    if !are_extensions(extensions) {
                        return Err(Refusal::bad("something other than extensions behind the size of a chunk"));
                    }
                    self.extension_bytes += extensions.len();
                    if size == 0 { Next::Trailer } else { Next::Data(size) }
                }
                Next::Data(left) => match left - lines.skip(left) {
                    0 => Next::DataCr,
                    left => Next::Data(left),
                },
                Next::DataCr => expect(lines, b'\r', Next::DataLf)?,
                Next::DataLf => expect(lines, b'\n', Next::Size)?,
                Next::Trailer => {
                    let line = match lines.next(pending, limits.trailer_bytes.saturating_sub(self.trailer_bytes)) {
                        Ok(Some(line)) => line,
                        Ok(None) => return Ok(None),
                        Err(flaw) => return Err(refusal(flaw, Refusal::new(431, "trailers over the limit"))),
                    };
                    self.trailer_bytes += line.len() + 2;
                    if line.is_empty() {
                        return Ok(Some(Framing::Nothing));
                    }
                    self.trailer(&line, limits)?;
                    Next::Trailer
                }
            };
            *pass = lines.at();
        }
        Ok(None)
    }

    fn trailer(&mut self, line: &[u8], limits: &Limits) -> Result<(), Refusal> {
        self.trailers += 1;
        if self.trailers > limits.fields {
            return Err(Refusal::new(431, "more trailers than the limit"));
        }
        if may_trail(Field::parse(line)?.name) {
            Ok(())
        } else {
            Err(Refusal::bad("a trailer that belongs into a head"))
        }
    }
}

fn expect(lines: &mut Lines<'_>, byte: u8, next: Next) -> Result<Next, Refusal> {
    if lines.rest().first() == Some(&byte) {
        lines.skip(1);
        Ok(next)
    } else {
        Err(Refusal::bad("a chunk whose data does not end with its size"))
    }
}

/// The size at the front of a chunk's line, and the rest. As for Content-Length, a signed number must hold it.
fn size(line: &[u8]) -> Result<(u64, &[u8]), Refusal> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    if size.is_empty() {
        return Err(Refusal::bad("a chunk without a size"));
    }
    let value = size.iter().fold(0u64, |value, digit| value << 4 | u64::from(hex(*digit)));
    if size.len() > SIZE_DIGITS_MAX || i64::try_from(value).is_err() {
        return Err(Refusal::bad("a size of a chunk that nobody can count"));
    }
    Ok((value, rest))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`, where a value is a token or a quoted string.
fn are_extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let Some(named) = after(text, b';').and_then(after_token) else { return false };
        text = match after(named, b'=') {
            None => named,
            Some([b'"', quoted @ ..]) => match after_quoted(quoted) {
                Some(rest) => rest,
                None => return false,
            },
            Some(value) => match after_token(value) {
                Some(rest) => rest,
                None => return false,
            },
        };
    }
    true
}

/// What follows this byte and the whitespace around it.
fn after(text: &[u8], byte: u8) -> Option<&[u8]> {
    Some(text.trim_ascii_start().strip_prefix(&[byte])?.trim_ascii_start())
}

fn after_token(text: &[u8]) -> Option<&[u8]> {
    let bytes = token_bytes(text);
    (bytes > 0).then(|| &text[bytes..])
}

/// What follows a quoted string (RFC 9110 section 5.6.4), without its opening quote here.
fn after_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return None,
        };
    }
}
