//! Where bytes come from: an S3 bucket, an HTTP server or a folder. Each gives a head and a stream, and each knows
//! conditional and ranged reads, which are asked for with the fields of RFC 9110 (Range, If-Match, If-None-Match,
//! If-Modified-Since) whatever the origin's own tongue is.
//!
//! Around each stand the same decorators, from the outside in: how many requests at once and what they are worth
//! (`limit.rs`), one retry of what is safe (`retry.rs`), and how long to wait (`timeout.rs`). http and s3 origins share a
//! pooled client (`client.rs`).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use hyper::upgrade::OnUpgrade;

mod body;
mod client;
mod connect;
mod dir;
pub mod error;
mod http_server;
mod limit;
mod listing;
mod pool;
mod retry;
mod s3;
mod timeout;

#[cfg(test)]
mod tests;

pub use error::OriginError;
pub use listing::{Listed, Page, Place as ListingPlace};

use crate::semantics::interim::Interim;

/// A body in either direction: pieces until the end or an error.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, OriginError>> + Send>>;

/// What is asked of an origin.
pub struct OriginRequest {
    /// GET and HEAD; others only of origins that take every method.
    pub method: Method,
    /// Decoded path with the host's prefix joined; the origin encodes it once.
    pub path: String,
    /// Query as it goes out, without the question mark. Buckets and folders ignore it.
    pub query: Option<String>,
    /// End-to-end fields: what the client sent as edited, and conditions and ranges of the cache.
    pub headers: HeaderMap,
    /// The client's authority, for origins configured to hand it on.
    pub authority: String,
    /// Request body and its length if known; none for reads.
    pub body: Option<RequestBody>,
    /// It is sent for the second time, by the origin's own decorator: on a connection that was just made.
    pub retry: bool,
    /// The way for interim responses to the client.
    pub interim: Option<Interim>,
    /// The connection is to speak WebSocket (RFC 6455): it goes out once, on a connection of its own.
    pub upgrade: bool,
}

/// A request body on its way through.
pub struct RequestBody {
    /// Length, when the client told it.
    pub length: Option<u64>,
    /// The pieces.
    pub stream: BodyStream,
}

/// What an origin answered. Hop-by-hop fields are already gone.
pub struct OriginResponse {
    /// A final status.
    pub status: StatusCode,
    /// End-to-end fields.
    pub headers: HeaderMap,
    /// Length of this body, when known beforehand. A body that ends short of it is an error of the stream, never an end.
    pub length: Option<u64>,
    /// The pieces.
    pub body: BodyStream,
    /// The connection, when the origin agreed to speak WebSocket.
    pub upgraded: Option<OnUpgrade>,
}

impl std::fmt::Debug for OriginResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OriginResponse")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// What kind of origin it is, where that matters to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginKind {
    /// An S3 bucket.
    S3,
    /// An HTTP server: scheme and query are part of the key.
    Http,
    /// A folder.
    Dir,
}

/// Where bytes come from.
pub trait Origin: Send + Sync + 'static {
    /// Asks for one thing. Statuses are answers, not errors: a 404 or a 503 of the origin is an `Ok`.
    fn fetch(&self, request: OriginRequest) -> BoxFuture<'_, Result<OriginResponse, OriginError>>;
    /// A page of what it has, where it has a list: a bucket, a folder. `retry`: not over a connection that lay idle.
    fn list(&self, place: ListingPlace, retry: bool) -> BoxFuture<'_, Result<Page, OriginError>>;
    /// What kind of origin it is.
    fn kind(&self) -> OriginKind;
    /// Its name in hosts.json.
    fn name(&self) -> &str;
    /// The name of its bucket, where it is one.
    fn bucket(&self) -> Option<&str> {
        None
    }
}

/// One origin of hosts.json, valid.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name in hosts.json.
    pub name: String,
    /// Where.
    pub place: Place,
    /// How long to wait.
    pub timeouts: Timeouts,
}

/// Where an origin is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A bucket.
    S3(S3Settings),
    /// A server.
    Http(HttpSettings),
    /// A folder; links that lead out of it are refused.
    Dir(std::path::PathBuf),
}

/// An S3 bucket.
#[derive(Clone)]
pub struct S3Settings {
    /// Bucket.
    pub bucket: String,
    /// Region; `us-east-1` if none.
    pub region: Option<String>,
    /// Endpoint URL for S3 servers that are not AWS.
    pub endpoint: Option<String>,
    /// Path style instead of virtual-host style.
    pub path_style: bool,
    /// How requests are signed.
    pub credentials: S3Credentials,
}

/// How requests to a bucket are signed.
#[derive(Clone)]
pub enum S3Credentials {
    /// Not at all: a public bucket.
    Anonymous,
    /// With these keys.
    Static {
        /// Access key id.
        access_key_id: String,
        /// Secret access key.
        secret_access_key: String,
    },
    /// As the SDK's chain finds them (environment, profile, web identity, ECS, IMDS).
    Chain,
}

impl std::fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Settings")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// An HTTP server.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Base URL; its path stands in front of every request's.
    pub url: http::Uri,
    /// What the Host field says.
    pub host: HostField,
    /// PEM file of the CA that signed its certificate, instead of the system's.
    pub ca: Option<std::path::PathBuf>,
}

/// What the Host field of a request to an http origin says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostField {
    /// The URL's authority.
    Origin,
    /// The client's.
    Client,
    /// This.
    Literal(String),
}

/// How long an origin may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect (TLS included). Default 5 s.
    pub connect: Duration,
    /// From the request sent to the response's head. Default 30 s.
    pub first_byte: Duration,
    /// Between two pieces of a body. Default 30 s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), first_byte: Duration::from_secs(30), idle: Duration::from_secs(30) }
    }
}

/// Builds an origin with its decorators (limits, one retry of what is safe, timeouts). Asks nobody yet; what is found
/// wrong here is a mistake of the configuration: an unreadable CA file, a folder that is none.
pub async fn build(
    settings: &Settings,
    metrics: Arc<crate::telemetry::metrics::Metrics>,
) -> Result<Arc<dyn Origin>, OriginError> {
    let (name, timeouts) = (settings.name.as_str(), settings.timeouts);
    Ok(match &settings.place {
        Place::S3(place) => decorate(s3::S3Origin::new(name, place, timeouts).await?, timeouts, metrics),
        Place::Http(place) => decorate(http_server::HttpOrigin::new(name, place, timeouts)?, timeouts, metrics),
        Place::Dir(folder) => decorate(dir::DirOrigin::new(name, folder)?, timeouts, metrics),
    })
}

fn decorate(
    origin: impl Origin,
    timeouts: Timeouts,
    metrics: Arc<crate::telemetry::metrics::Metrics>,
) -> Arc<dyn Origin> {
    let timed = timeout::TimedOrigin::new(origin, timeouts);
    Arc::new(limit::LimitedOrigin::new(retry::RetryingOrigin::new(timed), timeouts.connect, metrics))
}

/// An answer of our own where an origin has none to pass on: a line of text.
fn short_answer(method: &Method, status: StatusCode, text: &'static str) -> OriginResponse {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(text.len()));
    if method == Method::HEAD {
        return OriginResponse { status, headers, length: Some(0), body: no_body(), upgraded: None };
    }
    let body = futures_util::stream::iter([Ok(Bytes::from_static(text.as_bytes()))]);
    OriginResponse { status, headers, length: Some(text.len() as u64), body: Box::pin(body), upgraded: None }
}

/// 405 of an origin that can only be read.
fn read_only(method: &Method) -> OriginResponse {
    let mut answer = short_answer(method, StatusCode::METHOD_NOT_ALLOWED, "this origin can only be read\n");
    answer.headers.insert(http::header::ALLOW, http::HeaderValue::from_static("GET, HEAD"));
    answer
}

fn no_body() -> BodyStream {
    Box::pin(futures_util::stream::empty())
}
