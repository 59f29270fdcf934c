//! `uri-host [ ":" port ]`, as in Host, in absolute-form and in authority-form (RFC 9110 section 7.2, RFC 3986 section
//! 3.2).
//!
//! Narrower than RFC 3986: a name has letters, digits, `-`, `.` and `_`, an address in brackets has digits, colons and
//! dots. Percent-encoding and sub-delimiters (`,`, `;`, `!`) are in no name of DNS, no client sends them, and who
//! decodes or splits them sees another host. User information is an error (RFC 9110 section 4.2.4), and so is an empty
//! host: no http URI has one (section 4.2.1). Whether a name may be one, and an address is one, is
//! `semantics/authority.rs`'s to say.

use super::Refusal;

/// A host and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    pub(super) host: &'a [u8],
    pub(super) port: Option<u16>,
}

/// The authority of an absolute target, kept until Host comes.
#[derive(Debug)]
pub(super) struct Named {
    host: Box<[u8]>,
    port: u16,
    own_port: u16,
}

impl Named {
    /// `own_port` is the one that the scheme has when none is said.
    pub(super) fn new(authority: &Authority<'_>, own_port: u16) -> Self {
        Self { host: Box::from(authority.host), port: authority.port.unwrap_or(own_port), own_port }
    }

    /// Whether this is the same place.
    pub(super) fn is(&self, other: &Authority<'_>) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port == other.port.unwrap_or(self.own_port)
    }
}

/// Bytes of a name.
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'.' | b'_');
        byte += 1;
    }
    table
};

/// Reads an authority. An empty port (`host:`) is none, as RFC 3986 has it.
#[inline]
pub(super) fn parse(text: &[u8]) -> Result<Authority<'_>, Refusal> {
    let host_end = match text.first() {
        Some(b'[') => address_bytes(text),
        _ => text.iter().position(|byte| !NAME[usize::from(*byte)]).unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    let port = match rest {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return Err(Refusal::bad("a byte that no host has")),
    };
    if host.is_empty() {
        return Err(Refusal::bad("an empty host"));
    }
    Ok(Authority { host, port })
}

/// The length of an address with its brackets; none is 0.
#[cold]
fn address_bytes(text: &[u8]) -> usize {
    let inner = text[1..].iter().take_while(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')).count();
    if inner > 0 && text.get(1 + inner) == Some(&b']') { inner + 2 } else { 0 }
}

fn port(digits: &[u8]) -> Result<u16, Refusal> {
    let value = digits.iter().try_fold(0u16, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    });
    value.filter(|_| digits.len() <= 5).ok_or(Refusal::bad("a port that is none"))
}
