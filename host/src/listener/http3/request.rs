//! One request: its head, the service's answer, and the way back.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::super::activity::Overdue;
use super::super::request_body::{RequestBody, Source};
use super::super::{Connection, Service};
use super::body::Body;
use super::connection::Server;
use super::head;
use super::quic::{Quic, Sending};
use super::streams::{Accepted, Stopped};
use crate::clock::Clock;
use crate::semantics::date;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There was a request, and an answer, whatever became of it.
    Request,
    /// There was a request, and the client did not want the answer any more.
    Cancelled,
    /// There was none that could be read.
    Nothing,
}

/// Why an answer did not get to its end.
enum Broken {
    /// The client is gone, wants no more, or was too slow.
    Client(StreamError),
    /// The service cannot go on.
    Service(io::Error),
}

type Answer = RequestStream<Sending, Bytes>;

/// Serves what comes on one stream.
pub(super) async fn serve<S: Service>(
    server: Arc<Server<S>>,
    connection: Arc<Connection>,
    resolver: RequestResolver<Quic, Bytes>,
    accepted: Accepted,
) -> End {
    let Accepted { progress, mut stopped } = accepted;
    let unreadable = |status| {
        server.service().unreadable(&connection, status);
        End::Nothing
    };
    // The future is large (it holds what it has read), and gone when the service begins.
    let resolved = tokio::time::timeout(server.limits().head, Box::pin(resolver.resolve_request())).await;
    let (mut request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            tracing::debug!(peer = %connection.peer, %error, "no request");
            return match (progress.refused(), error) {
                (Some(status), _) => unreadable(status),
                (None, StreamError::HeaderTooBig { .. }) => unreadable(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
                (None, StreamError::StreamError { code: Code::H3_MESSAGE_ERROR, .. }) => {
                    unreadable(StatusCode::BAD_REQUEST)
                }
                _ => End::Nothing,
            };
        }
        Err(_) => {
            server.count(Overdue::Head);
            return End::Nothing;
        }
    };
    progress.readable();
    let (mut send, mut receive) = stream.split();
    let head = match head::check(&mut request) {
        Ok(head) => head,
        Err(why) => {
            tracing::debug!(peer = %connection.peer, why, "malformed request");
            send.stop_stream(Code::H3_MESSAGE_ERROR);
            receive.stop_sending(Code::H3_MESSAGE_ERROR);
            return unreadable(StatusCode::BAD_REQUEST);
        }
    };
    let mut body = Body::new(receive, head.length);
    if let Err(error) = poll_fn(|cx| Poll::Ready(body.look(cx))).await {
        tracing::debug!(peer = %connection.peer, %error, "malformed request");
        send.stop_stream(Code::H3_MESSAGE_ERROR);
        return unreadable(StatusCode::BAD_REQUEST);
    }
    let wanted = (head.expects && !body.is_end_stream()).then(|| body.wanted());
    let is_head = request.method() == Method::HEAD;
    let request = request.map(|()| RequestBody::new(Source::Http3(Box::new(body)), *server.limits()));

    let ended = {
        let answering = pin!(answer(&server, &connection, request, &mut send, wanted, is_head));
        tokio::select! {
            biased;
            stop = &mut stopped => {
                tracing::debug!(peer = %connection.peer, ?stop, "the client wants no answer any more");
                None
            }
            ended = answering => Some(ended),
        }
    };
    match ended {
        // What is under way is dropped with the streams.
        None => {
            send.stop_stream(Code::H3_REQUEST_CANCELLED);
            return End::Cancelled;
        }
        Some(Ok(())) => arrived(&server, stopped).await,
        Some(Err(Broken::Service(error))) => {
            tracing::debug!(peer = %connection.peer, %error, "an answer broke off");
            send.stop_stream(Code::H3_INTERNAL_ERROR);
        }
        Some(Err(Broken::Client(error))) => {
            tracing::debug!(peer = %connection.peer, %error, "an answer did not arrive");
            if progress.is_stalled() {
                server.count(Overdue::Window);
                send.stop_stream(Code::H3_REQUEST_CANCELLED);
            } else {
                send.stop_stream(Code::H3_INTERNAL_ERROR);
            }
        }
    }
    End::Request
}

/// Waits until the client has all of an answer: closing the connection before would take away what is under way. The
/// transport goes on by itself if it takes longer.
async fn arrived<S: Service>(server: &Server<S>, stopped: Stopped) {
    let _ = tokio::time::timeout(server.limits().stall, stopped).await;
}

async fn answer<S: Service>(
    server: &Server<S>,
    connection: &Arc<Connection>,
    request: Request<RequestBody>,
    send: &mut Answer,
    wanted: Option<oneshot::Receiver<()>>,
    is_head: bool,
) -> Result<(), Broken> {
    let mut answering = pin!(server.service().call(connection, request));
    let answered = match wanted {
        None => answering.await,
        Some(wanted) => {
            let early = tokio::select! {
                biased;
                answered = answering.as_mut() => Some(answered),
                wanted = wanted => {
                    if wanted.is_ok() {
                        let mut proceed = Response::new(());
                        *proceed.status_mut() = StatusCode::CONTINUE;
                        send.send_response(proceed).await.map_err(Broken::Client)?;
                    }
                    None
                }
            };
            match early {
                Some(answered) => answered,
                None => answering.await,
            }
        }
    };
    let (head, body) = match answered {
        Ok::<_, Infallible>(response) => response.into_parts(),
    };
    let mut body = pin!(body);
    let status = head.status;
    if status.is_informational() {
        // HTTP/3 has no 101 (RFC 9114 section 4.5), and the others are not the last word.
        return Err(Broken::Service(io::Error::other(format!("a final answer of {status}"))));
    }
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let mut response = Response::from_parts(head, ());
    // An empty body of an answer to HEAD says nothing of the length that GET would bring.
    let length = body.size_hint().exact().filter(|length| !bodiless && (!is_head || *length > 0));
    complete(response.headers_mut(), length);
    send.send_response(response).await.map_err(Broken::Client)?;
    if !is_head && !bodiless {
        pass(body.as_mut(), send).await?;
    }
    send.finish().await.map_err(Broken::Client)
}

/// What hyper does for the other versions.
fn complete(headers: &mut HeaderMap, length: Option<u64>) {
    head::strip(headers);
    if let Some(length) = length {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    headers.entry(DATE).or_insert_with(|| date::to_value(Clock::System.now()));
}

/// Passes a body on, piece by piece: the next is asked for when the transport has taken the last.
async fn pass<B>(mut body: Pin<&mut B>, send: &mut Answer) -> Result<(), Broken>
where
    B: http_body::Body<Data = Bytes, Error = io::Error>,
{
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map_err(Broken::Service)?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => send.send_data(data).await.map_err(Broken::Client)?,
            Err(frame) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    head::strip(&mut trailers);
                    send.send_trailers(trailers).await.map_err(Broken::Client)?;
                }
                break;
            }
        }
    }
    Ok(())
}
