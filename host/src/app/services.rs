//! What answers on the listeners: the proxy, and the administration.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;

use super::Inner;
use crate::admin::{Admin, AdminBody};
use crate::listener::{self, Connection, RequestBody};
use crate::local::Local;
use crate::proxy::{self, Peer, Proxy};

/// Answers what clients ask.
pub(super) struct ProxyService(pub(super) Arc<Proxy>);

impl listener::Service for ProxyService {
    type Body = proxy::Body;
    type Future = Answering;

    fn call(&self, connection: &Arc<Connection>, request: Request<RequestBody>) -> Answering {
        let peer = Peer {
            address: connection.peer,
            port: connection.local.port(),
            scheme: connection.scheme,
            tls: connection.tls.as_ref(),
            interim: connection.interim.as_ref(),
        };
        let request = request.map(|body| {
            // Most requests bring none: nothing to box.
            (!http_body::Body::is_end_stream(&body)).then(|| proxy::Upload::new(body))
        });
        Answering(Box::pin(Proxy::serve(Local::of(&self.0), peer, request)))
    }

    fn unreadable(&self, connection: &Connection, status: StatusCode) {
        self.0.log_unreadable(connection.peer.ip(), status);
    }
}

/// The future of one answer. Boxed: it is large, and hyper keeps it inline in the connection's state otherwise.
pub(super) struct Answering(Pin<Box<dyn Future<Output = Response<proxy::Body>> + Send>>);

impl Future for Answering {
    type Output = Result<Response<proxy::Body>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

/// Answers on the admin listener.
pub(super) struct AdminService(pub(super) Arc<Admin<Inner>>);

impl listener::Service for AdminService {
    type Body = http_body_util::combinators::MapErr<AdminBody, fn(std::convert::Infallible) -> std::io::Error>;
    type Future = BoxFuture<'static, Result<Response<Self::Body>, std::convert::Infallible>>;

    fn call(&self, connection: &Arc<Connection>, request: Request<RequestBody>) -> Self::Future {
        let (admin, peer) = (Arc::clone(&self.0), connection.peer);
        Box::pin(async move {
            let response = admin.answer(peer, request).await;
            Ok(response.map(|body| body.map_err((|never| match never {}) as fn(_) -> _)))
        })
    }
}
