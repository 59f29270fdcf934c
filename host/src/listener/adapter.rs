//! Our service as hyper calls it, and the answers that it gives: each tells the connection's times whose turn it is.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::activity::{Activity, Flight, Limits};
use super::request_body::{RequestBody, Source};
use super::{Connection, Service};

/// The largest piece of an answer that goes to a stream of HTTP/2 at once.
const PIECE_BYTES: usize = 64 << 10;

/// Runs the streams of one HTTP/2 connection.
///
/// What is kept is answered with the first poll, so that is done here, in the connection's own task; who has to wait gets a task
/// of its own, which can be ended alone. A connection that has done much in this turn of its task leaves the rest to tasks, so
/// that others have theirs.
#[derive(Clone)]
pub(super) struct StreamExecutor(pub(super) Arc<Activity>);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        // Whoever is polled again later, by its own task, leaves that one's waker.
        let mut nobody = Context::from_waker(Waker::noop());
        if pin!(tokio::task::consume_budget()).poll(&mut nobody).is_ready() {
            // A panic ends its stream, as it would in a task; the hook has told of it.
            let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut nobody)));
            if !matches!(polled, Ok(Poll::Pending)) {
                return;
            }
        }
        // hyper has called the service for the same stream just now.
        self.0.streams().lives_in(tokio::spawn(future).abort_handle());
    }
}

/// Our service as hyper calls it.
pub(super) struct Adapter<S> {
    pub(super) service: Arc<S>,
    pub(super) connection: Arc<Connection>,
    pub(super) activity: Arc<Activity>,
    pub(super) limits: Limits,
}

impl<S> Clone for Adapter<S> {
    fn clone(&self) -> Self {
        let Self { service, connection, activity, limits } = self;
        Self { service: service.clone(), connection: connection.clone(), activity: activity.clone(), limits: *limits }
    }
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Adapter<S> {
    type Response = Response<Answer<S::Body>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let flight = self.activity.begin();
        if request.method() == Method::CONNECT {
            // Refused, and what follows could be meant for the tunnel that is not there.
            flight.is_now_last();
        }
        let request = request.map(|body| {
            let comes = !body.is_end_stream();
            let body = RequestBody::new(Source::Hyper(body), self.limits);
            if comes { body.received_by(self.activity.receive()) } else { body }
        });
        Answering { inner: self.service.call(&self.connection, request), flight: Some(flight), limits: self.limits }
    }
}

pin_project! {
    /// A request that the service works on.
    pub(super) struct Answering<F> {
        #[pin]
        inner: F,
        flight: Option<Flight>,
        limits: Limits,
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let mut flight = this.flight.take();
        if let Some(flight) = &mut flight {
            flight.head_is_there(this.limits);
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                flight.upgrades();
            } else if flight.is_last() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        let limits = *this.limits;
        Poll::Ready(Ok(response.map(|inner| Answer { inner, rest: Bytes::new(), flight, limits })))
    }
}

pin_project! {
    /// The body of an answer, which tells whose turn it is. With HTTP/2 it comes in pieces that are not too large to tell by them
    /// how the client takes it, and of which h2 keeps one for each stream.
    pub(super) struct Answer<B> {
        #[pin]
        inner: B,
        rest: Bytes,
        flight: Option<Flight>,
        limits: Limits,
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error = io::Error>,
{
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let mut this = self.project();
        let mut frame = match this.rest.is_empty() {
            true => this.inner.as_mut().poll_frame(cx),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.rest))))),
        };
        if this.flight.as_ref().is_some_and(Flight::is_of_a_stream)
            && let Poll::Ready(Some(Ok(piece))) = &mut frame
            && let Some(data) = piece.data_mut().filter(|data| data.len() > PIECE_BYTES)
        {
            *this.rest = data.split_off(PIECE_BYTES);
        }
        if let Some(flight) = this.flight {
            match &frame {
                Poll::Pending => flight.waits_for_us(),
                Poll::Ready(piece) => {
                    let piece = piece.as_ref().and_then(|piece| piece.as_ref().ok()?.data_ref());
                    flight.waits_for_peer(piece.map_or(0, Bytes::len), this.limits);
                }
            }
        }
        let is_last = this.rest.is_empty() && this.inner.is_end_stream();
        // The last piece of a stream is under way until h2 is done with it, which the stream's future does not wait for.
        let flight = this.flight.take_if(|flight| is_last && flight.is_of_a_stream());
        frame.map_ok(|frame| frame.map_data(|bytes| Piece { bytes, _flight: flight }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole
    }
}

/// A piece of an answer's body, as hyper holds it until it is sent or not wanted any more.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    /// Of the last piece.
    _flight: Option<Flight>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}
