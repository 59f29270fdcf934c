//! Whom a trusted proxy speaks for: the PROXY protocol at the front of its connections (haproxy's proxy-protocol.txt).
//!
//! It is required of the peers that it is configured for, and never read from others: whoever could choose would pass for anybody.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::proxy_protocol::{LENGTH_MAX, Parsed, parse};

/// What a proxy said of its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Via {
    /// The client's address; none when the proxy speaks for itself.
    pub(super) source: Option<SocketAddr>,
    /// The client came to the proxy by TLS.
    pub(super) secure: bool,
}

/// Reads the header and not a byte more. None when there is none, or a bad one: such a connection is closed.
pub(super) async fn read(socket: &mut TcpStream) -> Option<Via> {
    let mut bytes = Vec::with_capacity(128);
    loop {
        let more = match parse(&bytes) {
            Parsed::Found(header) => return Some(Via { source: header.source, secure: header.secure }),
            Parsed::Incomplete { more } => more,
            Parsed::Absent => return refused("there is none"),
            Parsed::Bad(reason) => return refused(reason),
        };
        let start = bytes.len();
        if start + more > LENGTH_MAX {
            return refused("it is too long");
        }
        bytes.resize(start + more, 0);
        socket.read_exact(&mut bytes[start..]).await.ok()?;
    }
}

fn refused(reason: &str) -> Option<Via> {
    tracing::debug!(reason, "no PROXY protocol header that can be read, where one has to be");
    None
}
