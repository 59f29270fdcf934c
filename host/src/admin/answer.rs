//! A request to the admin listener, answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::auth::{authorized, authorized_by_password};
use super::{Control, NotDone, Settings, Token, warming};
use crate::telemetry::metrics;
use crate::warm::event::Events;

/// The longest body.
const BODY_BYTES: usize = 64 << 10;

/// The longest body of a purge or a warm-up, which may bring a list.
const LIST_BYTES: usize = 4 << 20;

/// What is read and thrown away of a body that is longer.
const PASSED_OVER_BYTES: usize = 64 << 20;

/// Time for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Request fields that `explain` takes.
const EXPLAIN_HEADERS: usize = 64;

/// The body of an answer.
pub type AdminBody = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// The admin endpoints over what they control.
pub struct Admin<C> {
    control: Arc<C>,
    token: Token,
    body_timeout: Duration,
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Health,
    Ready,
    Purge,
    Warm,
    Events,
    Reload,
    Upgrade,
    Stats,
    Policies,
    ForgetPolicy,
    Metrics,
    Explain,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/purge" => Self::Purge,
            "/warm" => Self::Warm,
            "/events" => Self::Events,
            "/reload" => Self::Reload,
            "/upgrade" => Self::Upgrade,
            "/stats" => Self::Stats,
            "/policies" => Self::Policies,
            "/policies/forget" => Self::ForgetPolicy,
            "/metrics" => Self::Metrics,
            "/explain" => Self::Explain,
            _ => return None,
        })
    }

    /// Load balancers and init systems have no token.
    fn needs_token(self) -> bool {
        !matches!(self, Self::Health | Self::Ready)
    }

    fn changes_something(self) -> bool {
        matches!(self, Self::Purge | Self::Warm | Self::Events | Self::Reload | Self::Upgrade | Self::ForgetPolicy)
    }

    /// The methods as `Allow` lists them.
    fn allow(self) -> &'static str {
        if self.changes_something() { "POST" } else { "GET, HEAD" }
    }

    fn allows(self, method: &Method) -> bool {
        if self.changes_something() { method == Method::POST } else { method == Method::GET || method == Method::HEAD }
    }
}

impl<C: Control> Admin<C> {
    /// Endpoints over `control`, guarded by the token of the settings.
    pub fn new(settings: &Settings, control: Arc<C>) -> Self {
        Self { control, token: settings.token.clone(), body_timeout: BODY_TIMEOUT }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, peer: SocketAddr, request: Request<B>) -> Response<AdminBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let endpoint = Endpoint::at(request.uri().path());
        let token = self.token.get();
        // Who sends events may know no other way: SNS takes a password in the URL.
        let is_for_events = endpoint == Some(Endpoint::Events);
        let allowed = authorized(request.headers(), &token)
            || (is_for_events && authorized_by_password(request.headers(), &token));
        if endpoint.is_none_or(Endpoint::needs_token) && !allowed {
            let mut response = unauthorized();
            if is_for_events {
                let basic = HeaderValue::from_static("Basic realm=\"proxyhost admin\"");
                response.headers_mut().append(WWW_AUTHENTICATE, basic);
            }
            return response;
        }
        let Some(endpoint) = endpoint else {
            return failure(StatusCode::NOT_FOUND, "no such endpoint");
        };
        if !endpoint.allows(request.method()) {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "this endpoint has other methods");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(endpoint.allow()));
            return response;
        }
        match endpoint {
            Endpoint::Health => answer(StatusCode::OK, &json!({ "status": "ok" })),
            Endpoint::Ready => match self.control.ready() {
                Ok(state) => answer(StatusCode::OK, &state),
                Err(state) => answer(StatusCode::SERVICE_UNAVAILABLE, &state),
            },
            Endpoint::Purge => self.purge(peer, request).await,
            Endpoint::Warm => self.warm(peer, request).await,
            Endpoint::Events => self.events(peer, request).await,
            Endpoint::Reload => self.reload(peer).await,
            Endpoint::Upgrade => match self.control.upgrade().await {
                Ok(pid) => answer(StatusCode::OK, &json!({ "pid": pid })),
                Err(NotDone::Failed(error)) => answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "errors": [error] })),
                Err(NotDone::NotNow(error)) => answer(StatusCode::CONFLICT, &json!({ "errors": [error] })),
            },
            Endpoint::Stats => answer(StatusCode::OK, &self.control.stats().await),
            Endpoint::Policies => {
                let mut stats = self.control.stats().await;
                let policies = stats.get_mut("policies").map(Value::take).unwrap_or(Value::Null);
                answer(StatusCode::OK, &json!({ "policies": policies }))
            }
            Endpoint::ForgetPolicy => self.forget_policy(peer, request).await,
            Endpoint::Metrics => text(StatusCode::OK, metrics::CONTENT_TYPE, self.control.metrics()),
            Endpoint::Explain => self.explain(request.uri().query().unwrap_or_default()).await,
        }
    }

    /// What the body of a request asks for.
    async fn order<B, T>(
        &self,
        request: Request<B>,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, Response<AdminBody>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = read(request.into_body(), LIST_BYTES, self.body_timeout).await?;
        parse(&body).map_err(|error| failure(StatusCode::BAD_REQUEST, &error))
    }

    async fn purge<B>(&self, peer: SocketAddr, request: Request<B>) -> Response<AdminBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let order = match self.order(request, crate::purge::parse_request).await {
            Ok(order) => order,
            Err(refusal) => return refusal,
        };
        // A list would fill the log.
        let (first, scopes, action) = (order.scopes.first().cloned(), order.scopes.len(), order.action);
        match self.control.purge(order.clone()).await {
            Ok(done) => {
                if !order.dry_run {
                    tracing::info!(%peer, sequence = done.sequence.0, ?first, scopes, ?action, "purged");
                }
                answer(StatusCode::OK, &done.json(&order))
            }
            Err(error) => {
                match &error {
                    NotDone::Failed(error) => tracing::error!(%peer, error, ?first, scopes, "cannot purge"),
                    NotDone::NotNow(error) => tracing::warn!(%peer, error, ?first, scopes, "cannot purge"),
                }
                not_done(&error)
            }
        }
    }

    async fn warm<B>(&self, peer: SocketAddr, request: Request<B>) -> Response<AdminBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let order = match self.order(request, crate::warm::parse_request).await {
            Ok(order) => order,
            Err(refusal) => return refusal,
        };
        let named = order.wanted.len() + order.sitemaps.len() + order.prefixes.len();
        match self.control.warm(order) {
            Ok(told) => {
                tracing::info!(%peer, named, "warming up");
                let mut response = text(StatusCode::OK, "application/x-ndjson", String::new());
                *response.body_mut() = StreamBody::new(warming::lines(told)).boxed_unsync();
                response
            }
            Err(error) => not_done(&error),
        }
    }

    async fn events<B>(&self, peer: SocketAddr, request: Request<B>) -> Response<AdminBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let events = match self.order(request, Events::parse).await {
            Ok(events) => events,
            Err(refusal) => return refusal,
        };
        for note in &events.notes {
            tracing::warn!(%peer, note, "events");
        }
        let errors: Vec<Value> = events.errors.iter().map(|(at, error)| json!({ "at": at, "error": error })).collect();
        let (ignored, notes) = (events.ignored, events.notes.clone());
        match self.control.events(events).await {
            Ok(mut told) => {
                told["ignored"] = ignored.into();
                if !notes.is_empty() {
                    told["notes"] = notes.into();
                }
                if errors.is_empty() {
                    return answer(StatusCode::OK, &told);
                }
                tracing::warn!(%peer, errors = errors.len(), first = %errors[0], "events that cannot be read");
                told["errors"] = errors.into();
                answer(StatusCode::BAD_REQUEST, &told)
            }
            Err(error) => not_done(&error),
        }
    }

    async fn reload(&self, peer: SocketAddr) -> Response<AdminBody> {
        match self.control.reload().await {
            Ok(changes) => {
                tracing::info!(%peer, ?changes, "reloaded");
                answer(StatusCode::OK, &json!({ "changes": changes }))
            }
            Err(errors) => {
                tracing::warn!(%peer, ?errors, "not reloaded, the old configuration stays");
                answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "errors": errors }))
            }
        }
    }

    async fn forget_policy<B>(&self, peer: SocketAddr, request: Request<B>) -> Response<AdminBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = match read(request.into_body(), BODY_BYTES, BODY_TIMEOUT).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let host = serde_json::from_slice::<Value>(&body).ok().and_then(|body| match body {
            Value::Object(fields) if fields.len() == 1 => fields.get("host")?.as_str().map(str::to_owned),
            _ => None,
        });
        let Some(host) = host else {
            return failure(StatusCode::BAD_REQUEST, "expected {\"host\": \"name as in hosts.json\"}");
        };
        let forgotten = self.control.forget_policy(host.clone()).await;
        tracing::info!(%peer, host, forgotten, "policy forgotten");
        answer(StatusCode::OK, &json!({ "forgotten": forgotten }))
    }

    async fn explain(&self, query: &str) -> Response<AdminBody> {
        let (url, method, headers) = match question(query) {
            Ok(question) => question,
            Err(error) => return failure(StatusCode::BAD_REQUEST, &error),
        };
        match self.control.explain(method, url, headers).await {
            Ok(value) => answer(StatusCode::OK, &value),
            Err(error) => failure(StatusCode::BAD_REQUEST, &error),
        }
    }
}

fn not_done(error: &NotDone) -> Response<AdminBody> {
    match error {
        NotDone::Failed(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error),
        NotDone::NotNow(error) => failure(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}

/// URL, method and request fields out of the query of `explain`.
type Question = (String, String, Vec<(String, String)>);

fn question(query: &str) -> Result<Question, String> {
    let (mut url, mut method, mut headers) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| format!("the value of {name:?} is not UTF-8"))?;
        match name {
            "url" if url.is_none() => url = Some(value),
            "method" if method.is_none() => method = Some(value),
            "header" if headers.len() < EXPLAIN_HEADERS => {
                let (name, value) = value.split_once(':').ok_or("a header is \"Name: value\"")?;
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "header" => return Err(format!("at most {EXPLAIN_HEADERS} headers")),
            "url" | "method" => return Err(format!("{name} is given twice")),
            _ => return Err(format!("unknown parameter {name:?}, expected url, method or header")),
        }
    }
    let url = url.filter(|url| !url.is_empty()).ok_or("the parameter url is missing")?;
    Ok((url, method.unwrap_or_else(|| "GET".to_owned()), headers))
}

/// Decodes a value of a query as forms encode it.
fn decode(value: &str) -> Option<String> {
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
}

/// Reads a body within its limits, or says how it is refused.
async fn read<B>(body: B, most_bytes: usize, at_most: Duration) -> Result<Bytes, Response<AdminBody>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_long = || failure(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is longer than {most_bytes} bytes"));
    let mut length = 0;
    let all = async {
        let mut body = std::pin::pin!(body);
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len();
            if length > most_bytes {
                read = BytesMut::new();
            } else {
                read.extend_from_slice(&data);
            }
            // Who is still sending would not see the answer: his connection would be reset under him.
            if length > most_bytes + PASSED_OVER_BYTES {
                break;
            }
        }
        Ok::<_, B::Error>(read.freeze())
    };
    match tokio::time::timeout(at_most, all).await {
        _ if length > most_bytes => Err(too_long()),
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => Err(failure(StatusCode::BAD_REQUEST, &format!("cannot read the body: {}", error.into()))),
        Err(_) => Err(failure(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

fn unauthorized() -> Response<AdminBody> {
    let mut response = failure(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"proxyhost admin\""));
    response
}

fn failure(status: StatusCode, error: &str) -> Response<AdminBody> {
    answer(status, &json!({ "error": error }))
}

fn answer(status: StatusCode, value: &Value) -> Response<AdminBody> {
    text(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<AdminBody> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
