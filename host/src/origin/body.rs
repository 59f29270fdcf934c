//! Bodies on their way through the client: a request's going out, a response's coming in.
//!
//! A body that is not as long as its head said is an error of the stream and never a silent end (RFC 9112 section 8), so
//! that nobody keeps half of an object for the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::pool::Lease;
use super::{BodyStream, OriginError, RequestBody};

/// What is known of a request body while it goes out: who is waited for, and what broke it.
#[derive(Debug)]
pub(super) struct Upload {
    state: Mutex<UploadState>,
}

#[derive(Debug)]
struct UploadState {
    /// When the origin was last seen to take something, or was given everything.
    moved: Instant,
    /// The client is who everybody waits for.
    waiting_for_client: bool,
    /// Why the body could not be read to its end.
    failure: Option<OriginError>,
}

impl Upload {
    pub(super) fn new() -> Arc<Self> {
        let state = UploadState { moved: Instant::now(), waiting_for_client: false, failure: None };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Since when the origin has been silent; the present while it is the client's turn.
    pub(super) fn silent_since(&self) -> Instant {
        let state = self.state.lock();
        if state.waiting_for_client { Instant::now() } else { state.moved }
    }

    /// The clock of the origin starts now.
    pub(super) fn start(&self) {
        self.state.lock().moved = Instant::now();
    }

    /// What the client did wrong, if it did.
    pub(super) fn failure(&self) -> Option<OriginError> {
        self.state.lock().failure.clone()
    }

    fn moved(&self) {
        let mut state = self.state.lock();
        state.moved = Instant::now();
        state.waiting_for_client = false;
    }
}

/// A request body as hyper sends it.
pub(super) enum OutBody {
    /// None.
    Empty,
    /// A stream, its length and how far it has come.
    Stream {
        /// The pieces; none after the end.
        stream: Option<BodyStream>,
        /// What is still to come, when the client told the length.
        remaining: Option<u64>,
        /// Told of every step.
        upload: Arc<Upload>,
    },
}

impl OutBody {
    /// The body of a request; one that is known to be empty is none.
    pub(super) fn new(body: Option<RequestBody>, upload: &Arc<Upload>) -> Self {
        match body {
            Some(body) if body.length != Some(0) => {
                Self::Stream { stream: Some(body.stream), remaining: body.length, upload: Arc::clone(upload) }
            }
            _ => Self::Empty,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// The client's body was not what it said.
fn misfit(reason: &str) -> OriginError {
    OriginError::RequestBody { reason: reason.to_owned(), status: StatusCode::BAD_REQUEST }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = OriginError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        let Self::Stream { stream: slot, remaining, upload } = self.get_mut() else { return Poll::Ready(None) };
        let Some(stream) = slot.as_mut() else { return Poll::Ready(None) };
        let failure = match stream.as_mut().poll_next(cx) {
            Poll::Pending => {
                upload.state.lock().waiting_for_client = true;
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(piece))) => {
                upload.moved();
                let length = piece.len() as u64;
                match remaining {
                    Some(left) if *left < length => misfit("longer than its content-length"),
                    Some(left) => {
                        *left -= length;
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    None => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                }
            }
            Poll::Ready(Some(Err(error))) => error,
            Poll::Ready(None) => {
                upload.moved();
                *slot = None;
                match remaining {
                    Some(left) if *left > 0 => misfit("shorter than its content-length"),
                    _ => return Poll::Ready(None),
                }
            }
        };
        *slot = None;
        let mut state = upload.state.lock();
        state.waiting_for_client = false;
        state.failure = Some(failure.clone());
        Poll::Ready(Some(Err(failure)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            // With a known length hyper stops asking at the last byte; the misfit checks need the end to be seen only
            // when the length is unknown.
            Self::Stream { stream, .. } => stream.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { remaining: Some(left), .. } => SizeHint::with_exact(*left),
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}

/// A response body: gives its connection back at the end, closes it when dropped before.
pub(super) struct InBody {
    incoming: Option<Incoming>,
    lease: Option<Lease>,
    origin: Arc<str>,
}

impl InBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, origin: Arc<str>) -> Self {
        let mut body = Self { incoming: Some(incoming), lease: Some(lease), origin };
        body.release_at_end();
        body
    }

    /// Length of what is still to come, when the head told it.
    pub(super) fn length(&self) -> Option<u64> {
        self.incoming.as_ref().map_or(Some(0), |incoming| incoming.size_hint().exact())
    }

    fn release_at_end(&mut self) {
        if self.incoming.as_ref().is_none_or(Body::is_end_stream)
            && let Some(lease) = self.lease.take()
        {
            self.incoming = None;
            lease.release();
        }
    }
}

impl Stream for InBody {
    type Item = Result<Bytes, OriginError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let Some(incoming) = this.incoming.as_mut() else { return Poll::Ready(None) };
            match Pin::new(incoming).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are dropped: they may be discarded by any hop (RFC 9110 section 6.5.1).
                    let Ok(piece) = frame.into_data() else { continue };
                    this.release_at_end();
                    return Poll::Ready(Some(Ok(piece)));
                }
                Poll::Ready(Some(Err(error))) => {
                    this.incoming = None;
                    this.lease = None;
                    let reason = format!("response body: {}", chain(&error));
                    return Poll::Ready(Some(Err(OriginError::Broken { origin: this.origin.to_string(), reason })));
                }
                Poll::Ready(None) => {
                    this.incoming = None;
                    if let Some(lease) = this.lease.take() {
                        lease.release();
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// An error and its sources in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = error.source();
    }
    text
}
