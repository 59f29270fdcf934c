//! Our client under the SDK: its requests go out here, and their answers are taken before the SDK reads them.

use std::collections::HashMap;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use parking_lot::Mutex;
use rustls::ClientConfig;

use super::super::body::{InBody, OutBody, Upload};
use super::super::client::Client;
use super::super::connect::Versions;
use super::super::{OriginError, Timeouts};

/// Most of an error document that is read.
const MAX_ERROR_DOCUMENT: usize = 64 * 1024;
/// Hosts that one origin's requests go to: one, but for access points and the like.
const MAX_HOSTS: usize = 16;

/// An answer of S3, taken before the SDK reads it.
pub(super) enum Taken {
    /// What was asked for.
    Object { status: StatusCode, headers: HeaderMap, body: InBody },
    /// Anything else.
    Refusal { status: StatusCode, headers: HeaderMap, document: String },
}

impl Taken {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Object { status, .. } | Self::Refusal { status, .. } => *status,
        }
    }
}

/// What goes with a request through the SDK: how it is to be sent, and where its answer is put.
#[derive(Clone, Default)]
pub(super) struct Slot {
    pub(super) retry: bool,
    pub(super) answer: Arc<Mutex<Option<Result<Taken, OriginError>>>>,
}

/// Our client as the SDK sees it.
#[derive(Clone)]
pub(super) struct Transport(pub(super) Arc<Hosts>);

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transport")
    }
}

/// A client for each host that requests go to.
pub(super) struct Hosts {
    origin: Arc<str>,
    tls: ClientConfig,
    timeouts: Timeouts,
    clients: Mutex<HashMap<String, Arc<Client>>>,
}

impl Hosts {
    pub(super) fn new(origin: Arc<str>, tls: ClientConfig, timeouts: Timeouts) -> Self {
        Self { origin, tls, timeouts, clients: Mutex::default() }
    }

    fn client(&self, uri: &Uri) -> Result<Arc<Client>, http::Error> {
        let (scheme, authority) = (uri.scheme_str().unwrap_or("https"), uri.authority().map_or("", |a| a.as_str()));
        let base = format!("{scheme}://{authority}/");
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&base) {
            return Ok(Arc::clone(client));
        }
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build()?;
        let client = Client::new(Arc::clone(&self.origin), uri, self.tls.clone(), Versions::One, self.timeouts);
        let client = Arc::new(client);
        if clients.len() >= MAX_HOSTS {
            clients.clear();
        }
        clients.insert(base, Arc::clone(&client));
        Ok(client)
    }

    async fn exchange(&self, request: Request<SdkBody>, retry: bool) -> Result<Taken, OriginError> {
        let broken = |reason: String| OriginError::Broken { origin: self.origin.to_string(), reason };
        let uri = request.uri().clone();
        let client = self.client(&uri).map_err(|e| broken(format!("S3 endpoint: {e}")))?;
        let mut head = request.map(|_| ());
        if !head.headers().contains_key(header::HOST) {
            let host = HeaderValue::from_str(&host_field(&uri)).map_err(|e| broken(format!("S3 endpoint: {e}")))?;
            head.headers_mut().insert(header::HOST, host);
        }
        *head.uri_mut() = uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);

        let (parts, mut body) = client.send(head, OutBody::Empty, &Upload::new(), retry).await?.into_parts();
        let (status, headers) = (parts.status, parts.headers);
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
            return Ok(Taken::Object { status, headers, body });
        }
        let mut document = Vec::new();
        let reading = async {
            // An error document that breaks off or never ends still has its status.
            while let Some(Ok(piece)) = body.next().await {
                document.extend_from_slice(&piece);
                if document.len() > MAX_ERROR_DOCUMENT {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(self.timeouts.idle, reading).await;
        Ok(Taken::Refusal { status, headers, document: String::from_utf8_lossy(&document).into_owned() })
    }
}

/// The Host field as the SDK signs it: without the port that goes without saying.
fn host_field(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match (uri.port_u16(), uri.scheme_str()) {
        (None, _) | (Some(80), Some("http")) | (Some(443), Some("https")) => host.to_owned(),
        (Some(port), _) => format!("{host}:{port}"),
    }
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let hosts = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let lost = |reason: &'static str| ConnectorError::other(reason.into(), None);
            let Some(slot) = request.extension::<Slot>().cloned() else {
                return Err(lost("a request that is not ours"));
            };
            let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
            let taken = hosts.exchange(request, slot.retry).await;
            let failed = taken.is_err();
            // In place of the answer; a status of its own keeps the SDK from reading an error into an empty body.
            *slot.answer.lock() = Some(taken);
            if failed {
                return Err(lost("no answer"));
            }
            Ok(HttpResponse::new(StatusCode::OK.into(), SdkBody::empty()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_field_is_what_was_signed() {
        for (uri, host) in [
            ("http://127.0.0.1:9000/b/k", "127.0.0.1:9000"),
            ("https://b.s3.amazonaws.com:443/k", "b.s3.amazonaws.com"),
            ("http://s3.test:80/k", "s3.test"),
        ] {
            assert_eq!(host_field(&uri.parse().unwrap()), host);
        }
    }
}
