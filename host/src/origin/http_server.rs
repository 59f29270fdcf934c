//! An HTTP server as an origin: the request goes out as it is, less what ends at this hop; so does the answer come in.
//!
//! The path is encoded once from its decoded form and stands behind the path of the origin's URL. Bodies are not decoded:
//! what is compressed stays so. `Expect` is not handed on, for whoever sends the body to us has been asked to already
//! (RFC 9110 section 10.1.1).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::upgrade::OnUpgrade;

use super::body::{OutBody, Upload};
use super::client::{Client, end_to_end};
use super::connect::{Versions, no_tls, tls_config};
use super::{
    HostField, HttpSettings, Origin, OriginError, OriginKind, OriginRequest, OriginResponse, Timeouts, short_answer,
};
use crate::semantics::{forwarded, hop_by_hop, target};

/// An HTTP server.
pub(super) struct HttpOrigin {
    name: Arc<str>,
    client: Client,
    /// Connections that are given over to WebSocket: HTTP/1.1.
    upgrades: Client,
    /// Path of the URL, without a slash at its end.
    base_path: String,
    host: HostField,
    /// What the Host field says of the origin itself.
    authority: HeaderValue,
}

impl HttpOrigin {
    /// Reads the CA file or the system's roots; connects to nobody yet.
    pub(super) fn new(name: &str, settings: &HttpSettings, timeouts: Timeouts) -> Result<Self, OriginError> {
        let configuration = |reason: String| OriginError::Configuration { origin: name.to_owned(), reason };
        let parts = settings.url.clone().into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(configuration(format!("url {} has no scheme or no host", settings.url)));
        };
        let tls = match scheme.as_str() {
            "http" => no_tls(name)?,
            "https" => tls_config(name, settings.ca.as_deref())?,
            other => return Err(configuration(format!("url scheme {other} is neither http nor https"))),
        };
        // A user and password before the host are not for the Host field, nor for anybody's log.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let authority = HeaderValue::from_str(host).map_err(|e| configuration(format!("url: {e}")))?;
        let base = Uri::builder()
            .scheme(scheme)
            .authority(host)
            .path_and_query("/")
            .build()
            .map_err(|e| configuration(format!("url: {e}")))?;
        let name: Arc<str> = name.into();
        Ok(Self {
            upgrades: Client::new(Arc::clone(&name), base.clone(), tls.clone(), Versions::One, timeouts),
            client: Client::new(Arc::clone(&name), base, tls, Versions::OneAndTwo, timeouts),
            name,
            base_path: settings.url.path().trim_end_matches('/').to_owned(),
            host: settings.host.clone(),
            authority,
        })
    }

    /// Path and query as they go out.
    fn target(&self, request: &OriginRequest) -> Option<PathAndQuery> {
        let mut text = self.base_path.clone();
        text.push_str(&target::encode_path(&request.path));
        if let Some(query) = &request.query {
            text.push('?');
            text.push_str(query);
        }
        PathAndQuery::try_from(text).ok()
    }

    fn host_field(&self, request: &OriginRequest) -> Option<HeaderValue> {
        match &self.host {
            HostField::Origin => Some(self.authority.clone()),
            HostField::Client if request.authority.is_empty() => Some(self.authority.clone()),
            HostField::Client => HeaderValue::from_str(&request.authority).ok(),
            HostField::Literal(text) => HeaderValue::from_str(text).ok(),
        }
    }

    async fn ask(&self, request: OriginRequest) -> Result<OriginResponse, OriginError> {
        let (Some(target), Some(host)) = (self.target(&request), self.host_field(&request)) else {
            return Ok(short_answer(&request.method, StatusCode::BAD_REQUEST, "the request target cannot be sent\n"));
        };
        let method = request.method;
        let mut headers = request.headers;
        hop_by_hop::strip(&mut headers);
        // The length is told by the body itself, so that it is never told twice.
        for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TE, header::EXPECT] {
            headers.remove(name);
        }
        headers.insert(header::HOST, host);
        if request.upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }

        let upload = Upload::new();
        let body = OutBody::new(request.body, &upload);
        if body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
            // Where a body is usual, its absence is told (RFC 9110 section 8.6).
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        let mut head = Request::new(());
        *head.method_mut() = method.clone();
        *head.uri_mut() = Uri::from(target);
        *head.headers_mut() = headers;
        if let Some(interim) = request.interim {
            hyper::ext::on_informational(&mut head, move |told| interim.pass_on(told.status(), told.headers()));
        }

        let client = if request.upgrade { &self.upgrades } else { &self.client };
        let fresh = request.retry || request.upgrade;
        let (mut parts, body) = client.send(head, body, &upload, fresh).await?.into_parts();
        let switched = request.upgrade && parts.status == StatusCode::SWITCHING_PROTOCOLS;
        // RFC 9110 section 7.8: it says what it changes to, and that is to be what was asked for.
        let to = parts.headers.get(header::UPGRADE);
        if switched && !to.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            let reason = "101 to another protocol than WebSocket".to_owned();
            return Err(OriginError::Broken { origin: self.name.to_string(), reason });
        }
        let upgraded = parts.extensions.remove::<OnUpgrade>().filter(|_| switched);
        if parts.status.is_informational() && upgraded.is_none() {
            let reason = format!("unasked-for status {}", parts.status);
            return Err(OriginError::Broken { origin: self.name.to_string(), reason });
        }
        let mut headers = parts.headers;
        let length = body.length();
        end_to_end(&method, parts.status, &mut headers, length);
        forwarded::add_via(&mut headers, parts.version);
        Ok(OriginResponse { status: parts.status, headers, length, body: Box::pin(body), upgraded })
    }
}

impl Origin for HttpOrigin {
    fn fetch(&self, request: OriginRequest) -> BoxFuture<'_, Result<OriginResponse, OriginError>> {
        Box::pin(self.ask(request))
    }

    fn list(&self, _: super::ListingPlace, _retry: bool) -> BoxFuture<'_, Result<super::Page, OriginError>> {
        Box::pin(std::future::ready(Err(super::listing::none(&self.name))))
    }

    fn kind(&self) -> OriginKind {
        OriginKind::Http
    }

    fn name(&self) -> &str {
        &self.name
    }
}
