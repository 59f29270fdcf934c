//! The TLS handshake of one connection: off the accept path, within the time for a head, a bounded number at once (`turns.rs`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::wire::Wire;
use crate::tls::{Choice, Session, Tls};

/// The record of a fatal alert `unrecognized_name` (RFC 8446 section 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What may come of a connection once its handshake was refused: enough for the alert to arrive.
const LINGER_BYTES: u64 = 64 << 10;

/// How long it may take.
const LINGER: Duration = Duration::from_secs(2);

/// How a handshake ended.
pub(super) enum Shaken {
    /// The connection is up.
    Up(Box<TlsStream<Wire>>, Arc<Session>),
    /// It was for a challenge of an ACME server, and all is said.
    Challenge,
    /// No host of that name is served over HTTPS.
    Refused,
}

/// Carries a handshake through. Has no time limit of its own.
pub(super) async fn shake(socket: TcpStream, tls: &Tls) -> io::Result<Shaken> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), Wire::over(socket)).await?;
    match tls.choose(&start.client_hello()) {
        Choice::Serve(config, client_ca) => {
            let stream = match start.into_stream(config).into_fallible().await {
                Ok(stream) => stream,
                Err((error, socket)) => {
                    linger(socket).await;
                    return Err(error);
                }
            };
            let session = Session::of(stream.get_ref().1, client_ca);
            Ok(Shaken::Up(Box::new(stream), Arc::new(session)))
        }
        Choice::Challenge(config) => {
            // The certificate was the answer (RFC 8737 section 3).
            start.into_stream(config).await?.shutdown().await?;
            Ok(Shaken::Challenge)
        }
        Choice::Refuse => {
            let mut socket = start.io;
            socket.write_all(&UNRECOGNIZED_NAME).await?;
            linger(socket).await;
            Ok(Shaken::Refused)
        }
    }
}

/// Closes a socket behind an alert: with unread bytes in it, a reset would overtake the alert.
async fn linger(mut socket: Wire) {
    if socket.shutdown().await.is_ok() {
        let mut rest = socket.take(LINGER_BYTES);
        let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
}
