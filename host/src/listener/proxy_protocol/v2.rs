//! Version 2: a binary block (section 2.2).
//!
//! ```text
//! | bytes | field                                                                       |
//! |-------|-----------------------------------------------------------------------------|
//! | 0..12 | signature                                                                   |
//! | 12    | version (2), command (0 LOCAL, 1 PROXY)                                     |
//! | 13    | family (0 none, 1 IPv4, 2 IPv6, 3 UNIX), transport (0 none, 1 TCP, 2 UDP)   |
//! | 14..16| length of what follows                                                      |
//! | 16..  | addresses: source, destination, and their ports (12, 36 or 216 bytes)       |
//! |       | fields to the end: type (1), length (2), value                              |
//! ```
//!
//! A client that came by UDP (QUIC) is as good as one that came by TCP: its address is what we are told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, LENGTH_MAX, Unread, address};

/// What a block begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What comes before the addresses.
const FIXED_BYTES: usize = 16;

/// Of a path, twice.
const UNIX_BYTES: usize = 216;

/// Types of fields.
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;

/// The bit of an `SSL` field which says that the client came by TLS.
const CLIENT_SSL: u8 = 0x01;

pub(super) fn read(bytes: &[u8]) -> Result<Header<'_>, Unread> {
    let Some((fixed, _)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Err(Unread::Incomplete { more: FIXED_BYTES - bytes.len() });
    };
    let [.., version_command, family_transport, l0, l1] = *fixed;
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([l0, l1]));
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Unread::Bad("unknown version or command")),
    };
    if length > LENGTH_MAX {
        return Err(Unread::Bad("block too long"));
    }
    let Some(block) = bytes.get(..length) else {
        return Err(Unread::Incomplete { more: length - bytes.len() });
    };
    if is_local {
        return Ok(Header::nameless(length));
    }
    let body = &block[FIXED_BYTES..];
    let (addresses, fields) = match (family_transport >> 4, family_transport & 0xf) {
        // Their addresses are to be ignored, so nobody knows where they end.
        (0, 0..=2) | (1..=3, 0) => return Ok(Header::nameless(length)),
        (1, 1 | 2) => split::<4, Ipv4Addr>(body)?,
        (2, 1 | 2) => split::<16, Ipv6Addr>(body)?,
        (3, 1 | 2) => (None, body.get(UNIX_BYTES..).ok_or(SHORT)?),
        _ => return Err(Unread::Bad("unknown family or transport")),
    };
    let mut header = Header::nameless(length);
    if let Some((source, destination)) = addresses {
        (header.source, header.destination) = (Some(source), Some(destination));
    }
    let mut seen = Seen::default();
    let mut fields = Fields { rest: fields };
    while let Some(field) = fields.next() {
        let (kind, value) = field?;
        match kind {
            AUTHORITY => {
                once(&mut seen.authority)?;
                let name = str::from_utf8(value).map_err(|_| Unread::Bad("authority is not UTF-8"))?;
                header.authority = Some(name);
            }
            SSL => {
                once(&mut seen.ssl)?;
                // What the client is, how its certificate was found, and fields of its own.
                let Some(([client, ..], inner)) = value.split_first_chunk::<5>() else { return Err(SHORT) };
                header.secure = client & CLIENT_SSL != 0;
                for field in (Fields { rest: inner }) {
                    field?;
                }
            }
            CRC32C => {
                once(&mut seen.checksum)?;
                check(block, length - fields.rest.len(), value)?;
            }
            _ => {}
        }
    }
    Ok(header)
}

const SHORT: Unread = Unread::Bad("block too short for what it says");

/// Fields that may stand in a block once.
#[derive(Default)]
struct Seen {
    authority: bool,
    ssl: bool,
    checksum: bool,
}

fn once(seen: &mut bool) -> Result<(), Unread> {
    if std::mem::replace(seen, true) { Err(Unread::Bad("field twice")) } else { Ok(()) }
}

/// What a block says of both ends, and what follows.
type Addressed<'a> = (Option<(SocketAddr, SocketAddr)>, &'a [u8]);

fn split<const IP: usize, Ip: From<[u8; IP]> + Into<IpAddr>>(body: &[u8]) -> Result<Addressed<'_>, Unread> {
    let (source, rest) = body.split_first_chunk::<IP>().ok_or(SHORT)?;
    let (destination, rest) = rest.split_first_chunk::<IP>().ok_or(SHORT)?;
    let ([s0, s1, d0, d1], rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let source = address(Ip::from(*source), u16::from_be_bytes([*s0, *s1]));
    let destination = address(Ip::from(*destination), u16::from_be_bytes([*d0, *d1]));
    Ok((Some((source, destination)), rest))
}

/// Types and values, up to the last byte or to what breaks the bounds.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let field = rest.split_first_chunk::<3>().and_then(|([kind, l0, l1], rest)| {
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
            self.rest = rest;
            Some((*kind, value))
        });
        Some(field.ok_or(SHORT))
    }
}

/// Holds a block against its checksum (section 2.2.3), `value`, which ends there in it and counts as zeros.
fn check(block: &[u8], end: usize, value: &[u8]) -> Result<(), Unread> {
    let Ok(said) = <[u8; 4]>::try_from(value) else { return Err(Unread::Bad("checksum of another length")) };
    let sum = crc32c(crc32c(crc32c(!0, &block[..end - said.len()]), &[0; 4]), &block[end..]);
    if !sum == u32::from_be_bytes(said) { Ok(()) } else { Err(Unread::Bad("checksum does not match")) }
}

/// CRC-32C (RFC 9260 appendix B) over more bytes, bit by bit: a hundred bytes, once a connection.
pub(super) fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}
