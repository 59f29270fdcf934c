//! Which protocol a connection speaks: HTTP/2 with prior knowledge opens with a fixed preface (RFC 9113 section 3.4), anything
//! else is HTTP/1.1.
//!
//! One differing byte settles it, so an HTTP/1.1 client is recognised by what comes first. The bytes that were read are kept
//! for the protocol's own parser.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The client connection preface of HTTP/2.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that were read before it was known who should read them.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    bytes: [u8; PREFACE.len()],
    start: usize,
    end: usize,
}

impl Prefix {
    /// What is left to read.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes note that so many bytes of the rest were read.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, or something its parser will refuse.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads until the protocol is settled; `None` when the peer closed without a word. Has no time limit of its own.
pub(super) async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Protocol, Prefix)>> {
    let mut prefix = Prefix::default();
    loop {
        let read = stream.read(&mut prefix.bytes[prefix.end..]).await?;
        prefix.end += read;
        let seen = prefix.rest();
        let protocol = match () {
            () if seen.is_empty() => return Ok(None),
            () if *seen != PREFACE[..seen.len()] || read == 0 => Protocol::Http1,
            () if seen.len() == PREFACE.len() => Protocol::Http2,
            () => continue,
        };
        return Ok(Some((protocol, prefix)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn settle(pieces: &[&[u8]]) -> Option<(Protocol, Vec<u8>)> {
        let (mut client, mut server) = tokio::io::duplex(1024);
        let sniffing = tokio::spawn(async move { sniff(&mut server).await.expect("a pipe does not fail") });
        for piece in pieces {
            tokio::io::AsyncWriteExt::write_all(&mut client, piece).await.expect("room in the pipe");
            tokio::task::yield_now().await;
        }
        drop(client);
        let found = sniffing.await.expect("no panic");
        found.map(|(protocol, prefix)| (protocol, prefix.rest().to_vec()))
    }

    #[tokio::test]
    async fn the_preface_is_recognised_in_any_pieces() {
        let whole = Some((Protocol::Http2, PREFACE.to_vec()));
        assert_eq!(settle(&[PREFACE]).await, whole);
        assert_eq!(settle(&[&PREFACE[..1], &PREFACE[1..17], &PREFACE[17..]]).await, whole);
    }

    #[tokio::test]
    async fn everything_else_is_http1_and_nothing_is_lost() {
        assert_eq!(settle(&[b"G"]).await, Some((Protocol::Http1, b"G".to_vec())));
        assert_eq!(
            settle(&[b"PRI", b"NT / HTTP/1.1\r\n"]).await,
            Some((Protocol::Http1, b"PRINT / HTTP/1.1\r\n".to_vec()))
        );
        assert_eq!(settle(&[b"PRI * HTTP/2.0"]).await, Some((Protocol::Http1, b"PRI * HTTP/2.0".to_vec())));
        assert_eq!(settle(&[]).await, None);
    }

    #[test]
    fn a_prefix_is_read_in_pieces() {
        let mut prefix = Prefix { bytes: *PREFACE, start: 0, end: 5 };
        assert_eq!(prefix.rest(), b"PRI *");
        prefix.advance(3);
        assert_eq!(prefix.rest(), b" *");
        prefix.advance(9);
        assert_eq!(prefix.rest(), b"");
    }
}
