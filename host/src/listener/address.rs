//! Where a listener listens: an IP address and a port, or a unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What a unix socket's path is written behind, as nginx has it.
pub const UNIX: &str = "unix:";

/// By this address whoever comes over a unix socket is known: a process of this machine, and nothing tells it from others.
pub(super) const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP; port 0 is any.
    Ip(SocketAddr),
    /// A unix socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// Reads `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/proxyhost.sock`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(UNIX) {
            Some(path) if !path.is_empty() => Some(Self::Unix(PathBuf::from(path))),
            Some(_) => None,
            None => text.parse().ok().map(Self::Ip),
        }
    }

    /// The address and port; none of a unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path of a unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// An IPv4 client of an IPv6 socket is known by its IPv4 address, as in every list of addresses that people write.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, peer.port()),
        IpAddr::V6(_) => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["127.0.0.1:80", "[::1]:8080", "unix:/run/a.sock", "unix:a b"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "unix:", "localhost:80", "127.0.0.1", "/run/a.sock"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let peer: SocketAddr = "[::ffff:192.0.2.7]:99".parse().expect("an address");
        assert_eq!(canonical(peer), "192.0.2.7:99".parse().expect("an address"));
        let six: SocketAddr = "[2001:db8::1]:99".parse().expect("an address");
        assert_eq!(canonical(six), six);
    }
}
