//! QUIC as h3 sees it: quinn's connection, with everything that comes in on a stream seen by a guard first
//! (`framing.rs`), and answers watched as they go out.
//!
//! h3-quinn, which is the same without the guard, is not used: it gives no way to know when an answer has arrived, ends
//! cleanly what was dropped half said, and panics if reading is given up while it waits.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use http::StatusCode;
use quinn::{ConnectionError, VarInt};

mod receiving;
mod sending;

pub(super) use receiving::Receiving;
pub(super) use sending::Sending;

use super::framing::{Fault, Guard};
use super::streams::Streams;
use receiving::Trouble;

/// A connection.
pub(super) struct Quic {
    opener: Opener,
    streams: Arc<Streams>,
    next: Option<BoxFuture<'static, Result<(quinn::SendStream, quinn::RecvStream), ConnectionError>>>,
    next_one_way: Option<BoxFuture<'static, Result<quinn::RecvStream, ConnectionError>>>,
}

impl Quic {
    pub(super) fn new(connection: quinn::Connection, streams: Arc<Streams>) -> Self {
        Self { opener: Opener { connection, opening: None }, streams, next: None, next_one_way: None }
    }
}

impl quic::Connection<Bytes> for Quic {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        let connection = &self.opener.connection;
        let next = self.next_one_way.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.accept_uni().await })
        });
        let accepted = ready!(next.as_mut().poll(cx));
        self.next_one_way = None;
        let connection = connection.clone();
        let receive = |stream| Receiving::new(stream, connection, Guard::one_way(), None);
        Poll::Ready(accepted.map(receive).map_err(lost))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        loop {
            let connection = &self.opener.connection;
            let next = self.next.get_or_insert_with(|| {
                let connection = connection.clone();
                Box::pin(async move { connection.accept_bi().await })
            });
            let accepted = ready!(next.as_mut().poll(cx));
            self.next = None;
            let (mut send, mut receive) = accepted.map_err(lost)?;
            let Some(progress) = self.streams.begin(&send) else {
                // After GOAWAY: the client may ask somebody else (RFC 9114 section 5.2).
                let code = code(Code::H3_REQUEST_REJECTED);
                let _ = (send.reset(code), receive.stop(code));
                continue;
            };
            return Poll::Ready(Ok(Both {
                send: Sending::new(send, Some((Arc::clone(&progress), self.streams.stall_timeout()))),
                receive: Receiving::new(
                    receive,
                    connection.clone(),
                    Guard::of_request(self.streams.head_bytes()),
                    Some(progress),
                ),
            }));
        }
    }

    fn opener(&self) -> Opener {
        Opener { connection: self.opener.connection.clone(), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Quic {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens streams of ours: those for control.
pub(super) struct Opener {
    connection: quinn::Connection,
    opening: Option<BoxFuture<'static, Result<quinn::SendStream, ConnectionError>>>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown("servers open no streams for requests".into())))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self.opening.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let failed = |error| StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) };
        Poll::Ready(opened.map(|stream| Sending::new(stream, None)).map_err(failed))
    }

    fn close(&mut self, error: Code, reason: &[u8]) {
        self.connection.close(code(error), reason);
    }
}

/// A stream that a request came on.
pub(super) struct Both {
    send: Sending,
    receive: Receiving,
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.send, self.receive)
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let fault = match ready!(self.receive.poll_clean(cx)) {
            Ok(data) => return Poll::Ready(Ok(data)),
            Err(Trouble::Fault(fault)) => fault,
            Err(Trouble::Stream(error)) => return Poll::Ready(Err(error)),
        };
        match fault {
            Fault::TooLong => {
                self.receive.refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
                self.send.refuse(cx);
            }
            Fault::Malformed(_) => {
                self.receive.refuse(StatusCode::BAD_REQUEST);
                quic::SendStream::reset(&mut self.send, Code::H3_MESSAGE_ERROR.value());
            }
            Fault::Connection(..) => {}
        }
        Poll::Ready(Err(self.receive.fail(fault)))
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.receive.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

pub(super) fn code(error: Code) -> VarInt {
    // Codes are ours, or came as such an integer.
    VarInt::from_u64(error.value()).unwrap_or(VarInt::MAX)
}

fn id(stream: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(stream)).expect("both are integers of 62 bits")
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}
