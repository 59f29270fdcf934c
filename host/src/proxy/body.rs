//! The body of an answer, and the access-log record that is written when it ends, with the bytes that went out.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::header::{REFERER, USER_AGENT};
use http::{HeaderValue, Method, StatusCode, Version};
use http_body::{Frame, SizeHint};

use super::Proxy;
use super::steps::Carried;
use crate::local::Local;
use crate::telemetry::access_log::Record;

/// Pieces of a body in order.
pub type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The body of an answer.
pub struct Body {
    kind: Kind,
    sent: u64,
    pending: Option<Pending>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream { pieces: Pieces, remaining: Option<u64> },
}

/// What the access log will say of a request that no site took.
pub struct Logged {
    pub client: IpAddr,
    pub method: Method,
    pub target: String,
    pub version: Version,
    pub status: StatusCode,
    pub referer: Option<HeaderValue>,
    pub user_agent: Option<HeaderValue>,
}

/// Whose record is written when the body ends.
enum Pending {
    /// The request's own, with the status that it got.
    Carried(Box<Carried>, StatusCode),
    Refused(Local<Proxy>, Box<Logged>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self { kind: Kind::Empty, sent: 0, pending: None }
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> Self {
        let kind = if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) };
        Self { kind, sent: 0, pending: None }
    }

    /// Pieces as they come; of this length, if it is known.
    pub fn stream(pieces: Pieces, length: Option<u64>) -> Self {
        Self { kind: Kind::Stream { pieces, remaining: length }, sent: 0, pending: None }
    }

    /// Bytes of the body, if that is known.
    pub fn length(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty => Some(0),
            Kind::Full(bytes) => Some(bytes.len() as u64),
            Kind::Stream { remaining, .. } => *remaining,
        }
    }

    /// All of the body, if it lies here.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Full(bytes) => Some(bytes),
            Kind::Empty | Kind::Stream { .. } => None,
        }
    }

    /// Writes the request's record when the body ends, however it ends.
    pub fn logged(mut self, carried: Box<Carried>, status: StatusCode) -> Self {
        self.pending = Some(Pending::Carried(carried, status));
        self
    }

    /// The same for a request that no site took.
    pub fn refused(mut self, proxy: Local<Proxy>, logged: Logged) -> Self {
        self.pending = Some(Pending::Refused(proxy, Box::new(logged)));
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let piece = match &mut this.kind {
            Kind::Empty => None,
            Kind::Full(_) => match std::mem::replace(&mut this.kind, Kind::Empty) {
                Kind::Full(bytes) => Some(bytes),
                Kind::Empty | Kind::Stream { .. } => None,
            },
            Kind::Stream { pieces, remaining } => match std::task::ready!(pieces.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) => {
                    if let Some(left) = remaining {
                        *left = left.saturating_sub(bytes.len() as u64);
                    }
                    Some(bytes)
                }
                Some(Err(error)) => {
                    this.kind = Kind::Empty;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    let short = remaining.is_some_and(|left| left > 0);
                    this.kind = Kind::Empty;
                    if short {
                        let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the body ended early");
                        return Poll::Ready(Some(Err(error)));
                    }
                    None
                }
            },
        };
        if let Some(bytes) = &piece {
            this.sent += bytes.len() as u64;
        }
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        match &self.pending {
            Some(Pending::Carried(carried, status)) => {
                let request = &carried.exchange.request;
                self.write(
                    &carried.proxy,
                    &Record {
                        client: carried.exchange.client.ip,
                        at: carried.proxy.clock.now(),
                        method: &request.method,
                        target: request.target.raw(),
                        version: carried.version,
                        status: *status,
                        bytes: self.sent,
                        referer: request.headers.get(REFERER),
                        user_agent: request.headers.get(USER_AGENT),
                    },
                );
            }
            Some(Pending::Refused(proxy, logged)) => self.write(
                proxy,
                &Record {
                    client: logged.client,
                    at: proxy.clock.now(),
                    method: &logged.method,
                    target: &logged.target,
                    version: logged.version,
                    status: logged.status,
                    bytes: self.sent,
                    referer: logged.referer.as_ref(),
                    user_agent: logged.user_agent.as_ref(),
                },
            ),
            None => {}
        }
    }
}

impl Body {
    fn write(&self, proxy: &Proxy, record: &Record<'_>) {
        proxy.metrics.response_bytes.inc_by(self.sent);
        proxy.log.write(record);
    }
}
