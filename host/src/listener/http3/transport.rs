//! QUIC's settings: the limits that quinn keeps for us.

use std::io;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{IdleTimeout, ServerConfig, TransportConfig, VarIntBoundsExceeded};

use super::super::Settings;

/// Requests at once on a connection, as with HTTP/2 (RFC 9114 section 6.1 recommends at least 100).
const STREAMS: u32 = 128;

/// One-way streams of the client: one for control, two for QPACK, and some of types that nobody knows (RFC 9114 section
/// 6.2).
const ONE_WAY_STREAMS: u32 = 8;

/// What a stream and a connection may send of request bodies before somebody reads them, as with HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// What a connection may have under way to a client that has not said that it came: as much as 80 Mbit/s at a distance
/// of 100 ms take. It is kept here until then, so it is also what a client can make us hold.
const SEND_BYTES: u64 = 1 << 20;

/// Connections that wait to be accepted, and what of their packets is kept until then.
const INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 16 << 10;
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// Room for messages of the handshake that come out of order.
const CRYPTO_BYTES: usize = 16 << 10;

/// The settings of all connections, under TLS as `Tls` has it for QUIC.
pub(super) fn config(settings: &Settings) -> io::Result<ServerConfig> {
    let tls = settings.tls.as_ref().ok_or_else(|| io::Error::other("HTTP/3 without TLS"))?;
    let tls = tls.quic().map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(io::Error::other)?));
    let idle = IdleTimeout::try_from(settings.idle_timeout).map_err(|error: VarIntBoundsExceeded| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the idle timeout is too long: {error}"))
    })?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(ONE_WAY_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(SEND_BYTES)
        .crypto_buffer_size(CRYPTO_BYTES)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(None)
        // No datagrams (RFC 9221): nobody here would read them.
        .datagram_receive_buffer_size(None);
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
        // Phones change networks, and routers change ports: requests see the address that is in force when they come.
        .migration(true);
    // Tokens for later connections would have to be remembered, so that each is used once.
    config.validation_token.sent(0);
    Ok(config)
}
