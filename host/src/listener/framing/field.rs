//! Field lines (RFC 9112 section 5), and the two fields that frame a message (sections 6.1 and 6.2).
//!
//! A name is a token and the colon follows at once (section 5.1); a line that begins with whitespace is a continuation,
//! or one to somebody (sections 2.2 and 5.2). Values hold no control bytes, which `line.rs` has seen to; bytes above
//! ASCII are allowed (RFC 9110 section 5.5).
//!
//! A name that differs from Content-Length or Transfer-Encoding only in what stands for the hyphen is refused: CGI and
//! its heirs turn `-`, `_` and `.` into one (RFC 3875 section 4.1.18), and an origin would see a second length.

use super::Refusal;
use super::wide::name_bytes;

/// Which bytes a token has (RFC 9110 section 5.6.2).
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// How many bytes of a token stand here.
#[inline]
pub(super) fn token_bytes(text: &[u8]) -> usize {
    let plain = text.first_chunk().map_or(0, name_bytes);
    plain + text[plain..].iter().take_while(|byte| TOKEN[usize::from(**byte)]).count()
}

/// What a field is to the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Host,
    ContentLength,
    TransferEncoding,
    Other,
}

/// A field line, read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) meaning: Meaning,
    pub(super) name: &'a [u8],
    /// With the whitespace around it.
    value: &'a [u8],
}

impl<'a> Field<'a> {
    #[inline]
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let name_end = token_bytes(line);
        let (name, rest) = line.split_at(name_end);
        match rest {
            [b':', value @ ..] if !name.is_empty() => Ok(Self { meaning: meaning(name)?, name, value }),
            _ => Err(nameless(name, rest)),
        }
    }

    /// The value without the whitespace around it. There are no control bytes, so that means SP and HTAB.
    pub(super) fn value(&self) -> &'a [u8] {
        self.value.trim_ascii()
    }
}

#[cold]
fn nameless(name: &[u8], rest: &[u8]) -> Refusal {
    Refusal::bad(match (name, rest.first()) {
        ([], Some(b' ' | b'\t')) => "a line that begins with whitespace",
        ([], Some(b':')) => "a field without a name",
        (_, Some(b' ' | b'\t')) => "whitespace in the name of a field",
        (_, None) => "a field line without a colon",
        _ => "a byte that no name of a field has",
    })
}

/// Few names are as long as those that matter, so that most are settled by their length.
#[inline]
fn meaning(name: &[u8]) -> Result<Meaning, Refusal> {
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => Ok(Meaning::Host),
        14 => framing(name, b"content", b"length", Meaning::ContentLength),
        17 => framing(name, b"transfer", b"encoding", Meaning::TransferEncoding),
        _ => Ok(Meaning::Other),
    }
}

fn framing(name: &[u8], first: &[u8], second: &[u8], meaning: Meaning) -> Result<Meaning, Refusal> {
    let between = name[first.len()];
    if between.is_ascii_alphanumeric()
        || !name[..first.len()].eq_ignore_ascii_case(first)
        || !name[first.len() + 1..].eq_ignore_ascii_case(second)
    {
        Ok(Meaning::Other)
    } else if between == b'-' {
        Ok(meaning)
    } else {
        Err(Refusal::bad("a name that could be taken for Content-Length or Transfer-Encoding"))
    }
}

/// Reads a Content-Length (RFC 9110 section 8.6): digits and nothing else, no list of equal ones either. A leading zero
/// is refused although the grammar has it: to some, what begins with it is octal. So is more than a signed number
/// holds.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::bad("a Content-Length that is no number"));
    }
    if value[0] == b'0' && value.len() > 1 {
        return Err(Refusal::bad("a Content-Length with a leading zero"));
    }
    let length = value.iter().try_fold(0u64, |length, digit| {
        length.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|length| i64::try_from(*length).is_ok())
    });
    length.ok_or(Refusal::bad("a Content-Length that nobody can count"))
}

/// Checks a Transfer-Encoding: `chunked` and nothing else. When chunked is not the last coding, or is there twice,
/// nobody knows where the body ends: 400 (RFC 9112 sections 6.1 and 6.3). Another coding below it is merely unknown
/// here: 501 (section 6.1).
pub(super) fn transfer_encoding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") { Ok(()) } else { Err(other_codings(value)) }
}

#[cold]
fn other_codings(value: &[u8]) -> Refusal {
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).rev();
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let last = codings.next().is_some_and(chunked);
    if last && codings.all(|coding| !chunked(coding) && token_bytes(coding) == coding.len() && !coding.is_empty()) {
        Refusal::new(501, "a transfer coding other than chunked")
    } else {
        Refusal::bad("a Transfer-Encoding that does not end with chunked, once")
    }
}

/// Fields that say how a message is framed, where it goes or what becomes of the connection: in trailers they come too
/// late (RFC 9110 section 6.5.1), and whoever merges trailers into the head would take them for the head's.
const NOT_IN_TRAILERS: [&[u8]; 9] = [
    b"connection",
    b"content-length",
    b"host",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

pub(super) fn may_trail(name: &[u8]) -> bool {
    !NOT_IN_TRAILERS.iter().any(|other| name.eq_ignore_ascii_case(other))
}
