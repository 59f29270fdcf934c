//! Errors to responses, in one place: status, a short page, Proxy-Status (RFC 9209) and the log line.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::origin::OriginError;
use crate::origin::error::ConnectFailure;
use crate::policy::PolicyFailure;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// A short page for a status: nothing internal in it.
pub fn page(status: StatusCode, why: &str) -> (HeaderMap, bytes::Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let reason = status.canonical_reason().unwrap_or("error");
    let text = if why.is_empty() {
        format!("{} {reason}\n", status.as_u16())
    } else {
        format!("{} {reason}: {why}\n", status.as_u16())
    };
    (headers, text.into())
}

/// The answer to a failed origin.
pub fn of_origin(error: &OriginError) -> (StatusCode, HeaderMap, bytes::Bytes) {
    let word = word_of(error);
    let status = match error {
        OriginError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        OriginError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        OriginError::RequestBody { status, .. } => *status,
        OriginError::Connect { .. }
        | OriginError::Ended { .. }
        | OriginError::Status { .. }
        | OriginError::Broken { .. }
        | OriginError::Altered { .. }
        | OriginError::Configuration { .. } => StatusCode::BAD_GATEWAY,
    };
    if status.is_server_error() {
        tracing::warn!(status = status.as_u16(), %error, "origin failed");
    }
    let (mut headers, body) = page(status, "");
    match error {
        OriginError::Status { status, .. } => {
            set_proxy_status(&mut headers, &format!("{word}; received-status={}", status.as_u16()));
        }
        _ => set_proxy_status(&mut headers, word),
    }
    (status, headers, body)
}

/// The answer to a request that came back to us (RFC 8586 section 2, RFC 9209 section 2.3.30).
pub fn of_loop() -> (StatusCode, HeaderMap, bytes::Bytes) {
    let (mut headers, body) = page(StatusCode::LOOP_DETECTED, "the request has been here already");
    set_proxy_status(&mut headers, "proxy_loop_detected");
    (StatusCode::LOOP_DETECTED, headers, body)
}

/// The word of RFC 9209 for what went wrong with an origin.
pub const fn word_of(error: &OriginError) -> &'static str {
    match error {
        OriginError::Connect { failure, .. } => connect_error(*failure),
        OriginError::Timeout { phase, .. } => match phase.as_bytes() {
            b"connect" => "connection_timeout",
            _ => "http_response_timeout",
        },
        OriginError::Ended { .. } => "connection_terminated",
        OriginError::Status { .. } | OriginError::Unavailable { .. } => "destination_unavailable",
        OriginError::Broken { .. } | OriginError::Altered { .. } => "http_protocol_error",
        OriginError::Configuration { .. } => "proxy_configuration_error",
        OriginError::RequestBody { .. } => "http_request_error",
    }
}

/// RFC 9209 section 2.3.
const fn connect_error(failure: ConnectFailure) -> &'static str {
    match failure {
        ConnectFailure::Name => "dns_error",
        ConnectFailure::Refused => "connection_refused",
        ConnectFailure::Unroutable => "destination_ip_unroutable",
        ConnectFailure::Terminated => "connection_terminated",
        ConnectFailure::Certificate => "tls_certificate_error",
        ConnectFailure::Alert => "tls_alert_received",
        ConnectFailure::Tls => "tls_protocol_error",
        ConnectFailure::Other => "destination_unavailable",
    }
}

/// The answer to a failed policy.
pub fn of_policy(failure: &PolicyFailure) -> (StatusCode, HeaderMap, bytes::Bytes) {
    let (mut headers, body) = page(failure.status, "");
    set_proxy_status(&mut headers, "proxy_internal_error; details=\"policy\"");
    (failure.status, headers, body)
}

/// The answer in place of a body whose coding the client does not take, and which cannot be decoded (RFC 9209 section 2.3.23).
pub fn of_content_coding(coding: &str) -> (StatusCode, HeaderMap, bytes::Bytes) {
    let (mut headers, body) = page(StatusCode::BAD_GATEWAY, "");
    set_proxy_status(&mut headers, &format!("http_response_content_coding; coding={coding}"));
    (StatusCode::BAD_GATEWAY, headers, body)
}

/// The answer in place of a body that broke off before any of it could go out (RFC 9209 section 2.3.17).
pub fn of_incomplete() -> (StatusCode, HeaderMap, bytes::Bytes) {
    let (mut headers, body) = page(StatusCode::BAD_GATEWAY, "");
    set_proxy_status(&mut headers, "http_response_incomplete");
    (StatusCode::BAD_GATEWAY, headers, body)
}

/// The answer when there is too much to do: it will do better in a moment.
pub fn of_load() -> (StatusCode, HeaderMap, bytes::Bytes) {
    let (mut headers, body) = page(StatusCode::SERVICE_UNAVAILABLE, "");
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    set_proxy_status(&mut headers, "proxy_internal_error; details=\"busy\"");
    (StatusCode::SERVICE_UNAVAILABLE, headers, body)
}

fn set_proxy_status(headers: &mut HeaderMap, word: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("proxyhost; error={word}")) {
        headers.insert(PROXY_STATUS, value);
    }
}
