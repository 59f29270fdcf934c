//! Connections, and what a fault does to an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use s3s::service::S3Service;
use s3s::{S3Error, S3ErrorCode};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Fault, Seen, State};

type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;

pub(super) async fn accept(listener: TcpListener, service: S3Service, state: Arc<State>) {
    // Dropping the set ends the connections: a server that is gone does not answer.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.book().connections += 1;
        let (service, state) = (service.clone(), state.clone());
        connections.spawn(async move {
            let serve = hyper::service::service_fn(move |request| {
                let (service, state) = (service.clone(), state.clone());
                async move { Ok::<_, Infallible>(answer(&service, &state, request).await) }
            });
            // An error here is a cut connection, mostly one that a fault cut.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Notes the request, lets `s3s` answer it, and then does to the answer what the fault says.
async fn answer(service: &S3Service, state: &State, request: Request<Incoming>) -> Response<AnyBody> {
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let (index, fault) = {
        let mut book = state.book();
        book.seen.push(Seen {
            method: request.method().to_string(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            headers: request.headers().clone(),
            status: 0,
        });
        let due = book.faults.iter().position(|(of, _)| of.as_deref().is_none_or(|of| of == key));
        let fault = due.and_then(|due| book.faults.remove(due)).map(|(_, fault)| fault).or_else(|| book.always.clone());
        (book.seen.len() - 1, fault)
    };
    let refused = |code: S3ErrorCode| {
        S3Error::with_message(code, "by order of the test").to_http_response().map_err(|_| StatusCode::BAD_GATEWAY)
    };
    let answered = match &fault {
        Some(Fault::SlowDown) => refused(S3ErrorCode::SlowDown),
        Some(Fault::InternalError) => refused(S3ErrorCode::InternalError),
        Some(Fault::AccessDenied) => refused(S3ErrorCode::AccessDenied),
        Some(Fault::Hang) => std::future::pending().await,
        _ => {
            if let Some(Fault::Late(by)) = fault {
                tokio::time::sleep(by).await;
            }
            service.call(request.map(s3s::Body::from)).await.map_err(|_| StatusCode::BAD_REQUEST)
        }
    };
    let response = match answered {
        Ok(response) => response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()),
        Err(status) => {
            let mut response = Response::new(AnyBody::default());
            *response.status_mut() = status;
            response
        }
    };
    if let Some(seen) = state.book().seen.get_mut(index) {
        seen.status = response.status().as_u16();
    }
    match fault {
        Some(Fault::CloseAfter(bytes)) => response.map(|body| cut(body, bytes, true)),
        Some(Fault::StallAfter(bytes)) => response.map(|body| cut(body, bytes, false)),
        Some(Fault::Slow(pause)) => response.map(|body| {
            let paced = body.into_data_stream().then(move |piece| async move {
                tokio::time::sleep(pause).await;
                piece.map(Frame::data)
            });
            StreamBody::new(paced).boxed_unsync()
        }),
        Some(Fault::ClaimMore(more)) => {
            let length = response.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
            let mut response = response.map(|body| {
                StreamBody::new(body.into_data_stream().map(|piece| piece.map(Frame::data))).boxed_unsync()
            });
            let claimed: u64 = length.unwrap_or(0u64) + more;
            response.headers_mut().insert("content-length", claimed.into());
            response
        }
        Some(Fault::ReplaceAfterwards(object)) => {
            if let Some(bucket) = state.book().buckets.get_mut(bucket) {
                bucket.objects.insert(key.to_owned(), *object);
            }
            response
        }
        _ => response,
    }
}

/// The first so many bytes of a body; then an error, which cuts the connection, or nothing ever.
fn cut(body: AnyBody, bytes: u64, close: bool) -> AnyBody {
    let mut left = bytes as usize;
    let first = body.into_data_stream().scan((), move |(), piece| {
        let kept = piece.ok().map(|piece: Bytes| piece.slice(..piece.len().min(left))).filter(|kept| !kept.is_empty());
        left -= kept.as_ref().map_or(0, Bytes::len);
        std::future::ready(kept.map(|kept| Ok(Frame::data(kept))))
    });
    let end = futures_util::stream::once(async move {
        if !close {
            std::future::pending::<()>().await;
        }
        // What was sent must have left before the connection goes, or the peer may never see it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut by order of the test"))
    });
    StreamBody::new(first.chain(end)).boxed_unsync()
}
