//! The PROXY protocol, versions 1 and 2 (haproxy, `doc/proxy-protocol.txt`): what a proxy that hands on whole
//! connections writes before the client's first byte, so that we know the client's address.
//!
//! Whoever writes it, says who they are: it is read only from peers that are trusted, and from these it must come.
//! Whether it is there is not guessed (section 2 forbids it): a trusted peer that begins with anything else is refused
//! by closing the connection, since without its header the proxy itself would pass for the client in limits, logs and
//! access lists. From other peers it is not read at all; their bytes are TLS or HTTP, in which a header is nonsense.
//!
//! Where the text leaves a choice, one reading is taken and the rest refused: a field twice, bytes that no field
//! covers, an address with a zone. `LOCAL`, `UNKNOWN` and families without IP addresses name no client: the peer is the
//! client then (a health check of the proxy's own), or nobody knows better.
//!
//! | what | where | section |
//! |---|---|---|
//! | a line of text | `v1.rs` | 2.1 |
//! | a binary block, its fields and checksum | `v2.rs` | 2.2 |
//!
//! The rest of the connection has other readers, so whoever reads the header must not read on: `Parsed::Incomplete`
//! says how many bytes still belong to it for certain. Deliberately absent: who is trusted, time limits, and writing
//! headers.

mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

/// The longest header that is taken: of version 1 what section 2.1 allows, of version 2 what names and certificates
/// need. Its 16 bits of length would let a peer have 64 KiB kept for each connection.
pub const LENGTH_MAX: usize = 4096;

/// No header is shorter: `PROXY UNKNOWN` and the end of its line.
const LENGTH_MIN: usize = 15;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A header as far as it goes. At least so many bytes of it are still to come (one or more), so reading that many
    /// and no more takes nothing of what follows.
    Incomplete {
        /// So many.
        more: usize,
    },
    /// Something else.
    Absent,
    /// A header; what follows it is the client's.
    Found(Header<'a>),
    /// A header that breaks a rule; for the log.
    Bad(&'static str),
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// How many bytes it has.
    pub length: usize,
    /// The client. An IPv4 address that is written as an IPv6 one appears as the IPv4 address. None: it names no
    /// client, and the peer itself is it.
    pub source: Option<SocketAddr>,
    /// Where the client connected to; there if `source` is.
    pub destination: Option<SocketAddr>,
    /// The name that the client asked for (SNI), as the proxy has it; not checked to be a host name.
    pub authority: Option<&'a str>,
    /// The client spoke TLS with the proxy.
    pub secure: bool,
}

impl Header<'_> {
    /// One that names no client.
    const fn nameless(length: usize) -> Self {
        Self { length, source: None, destination: None, authority: None, secure: false }
    }
}

/// Reads a header at the front of a connection's first bytes, which may have more behind it.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let read = if begins(bytes, v1::BEGINNING) {
        v1::read(bytes)
    } else if begins(bytes, v2::SIGNATURE) {
        v2::read(bytes)
    } else {
        return Parsed::Absent;
    };
    match read {
        Ok(header) => Parsed::Found(header),
        Err(Unread::Incomplete { more }) => Parsed::Incomplete { more },
        Err(Unread::Bad(reason)) => Parsed::Bad(reason),
    }
}

/// Why there is no header yet, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    Incomplete { more: usize },
    Bad(&'static str),
}

/// As far as both go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

fn address(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into().to_canonical(), port)
}
