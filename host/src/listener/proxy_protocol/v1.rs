//! Version 1: a line of text of at most 107 bytes (section 2.1).
//!
//! ```text
//! PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n
//! PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n
//! PROXY UNKNOWN anything\r\n
//! ```
//!
//! One space between fields and none around them, numbers without leading zeros, and CRLF at the end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::{FromStr, Split};

use super::{Header, LENGTH_MIN, Unread, address};

/// What a line begins with.
pub(super) const BEGINNING: &[u8] = b"PROXY ";

/// The longest line, its end included.
const LINE_BYTES: usize = 107;

pub(super) fn read(bytes: &[u8]) -> Result<Header<'static>, Unread> {
    let seen = &bytes[..bytes.len().min(LINE_BYTES)];
    let length = match seen.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        None if seen.len() >= LINE_BYTES - 1 => return Err(Unread::Bad("line too long")),
        None => return Err(Unread::Incomplete { more: LENGTH_MIN.saturating_sub(seen.len()).max(2) }),
        Some(at) if seen[at] == b'\n' => return Err(Unread::Bad("line ends without CR")),
        Some(at) => match seen.get(at + 1) {
            None if seen.len() == LINE_BYTES => return Err(Unread::Bad("line too long")),
            None => return Err(Unread::Incomplete { more: 1 }),
            Some(b'\n') => at + 2,
            Some(_) => return Err(Unread::Bad("CR within the line")),
        },
    };
    // The caller has found the beginning, in which no line ends.
    let fields = &bytes[BEGINNING.len()..length - 2];
    if fields == b"UNKNOWN" || fields.starts_with(b"UNKNOWN ") {
        return Ok(Header::nameless(length));
    }
    let fields = str::from_utf8(fields).map_err(|_| Unread::Bad("line is not ASCII"))?;
    let mut fields = fields.split(' ');
    match fields.next() {
        Some("TCP4") => addresses::<Ipv4Addr>(fields, length),
        Some("TCP6") => addresses::<Ipv6Addr>(fields, length),
        _ => Err(Unread::Bad("unknown protocol")),
    }
}

fn addresses<Ip: FromStr + Into<IpAddr>>(
    mut fields: Split<'_, char>,
    length: usize,
) -> Result<Header<'static>, Unread> {
    let mut next = || fields.next().ok_or(Unread::Bad("field missing"));
    let ip = |field: &str| field.parse::<Ip>().map_err(|_| Unread::Bad("not an address of its family"));
    let (source, destination) = (ip(next()?)?, ip(next()?)?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if fields.next().is_some() {
        return Err(Unread::Bad("one field too many"));
    }
    Ok(Header {
        source: Some(address(source, source_port)),
        destination: Some(address(destination, destination_port)),
        ..Header::nameless(length)
    })
}

fn port(field: &str) -> Result<u16, Unread> {
    // `parse` takes a sign and leading zeros.
    let plain = field.bytes().all(|byte| byte.is_ascii_digit()) && (field == "0" || !field.starts_with('0'));
    field.parse().ok().filter(|_| plain).ok_or(Unread::Bad("not a port"))
}
