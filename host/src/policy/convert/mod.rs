//! The one place that speaks both tongues: what the generated traits ask, answered from the exchange, and what a phase returns,
//! turned into a `Decision`.
//!
//! Every function counts as a host call and says in which phases it may be made; in another one it ends the policy's call with
//! words to that effect, because an edit that does nothing would be found much later.

mod edits;
pub(super) mod in_place;
mod request;
mod services;

use bytes::Bytes;
use http::HeaderMap;

use super::bindings::proxyhost::policy as wit;
use super::checks;
use super::decision::{Decision, Reply};
use super::error::Fence;
use super::state::State;

type Host<T> = wasmtime::Result<T>;

/// What a phase with a decision returns.
pub(crate) type Returned = (Result<wit::types::Decision, String>,);
/// What configure and on-deliver return.
pub(crate) type ReturnedUnit = (Result<(), String>,);

/// Checks a decision like a client's input.
pub(crate) fn decision(decision: wit::types::Decision) -> Result<Decision, Fence> {
    match decision {
        wit::types::Decision::Next => Ok(Decision::Next),
        wit::types::Decision::Deny(status) => Ok(Decision::Deny(checks::deny_status(status)?)),
        wit::types::Decision::Redirect(redirect) => {
            Ok(Decision::Redirect(checks::redirect_status(redirect.status)?, checks::location(&redirect.location)?))
        }
        wit::types::Decision::Reply(reply) => {
            let body = match reply.body {
                wit::types::Body::None => Bytes::new(),
                wit::types::Body::Text(text) => Bytes::from(text),
                wit::types::Body::Bytes(bytes) => Bytes::from(bytes),
            };
            let status = checks::reply_status(reply.status)?;
            Ok(Decision::Reply(Box::new(Reply { status, headers: checks::headers(&reply.headers)?, body })))
        }
    }
}

fn trap<T>(result: Result<T, Fence>) -> Host<T> {
    result.map_err(wasmtime::Error::new)
}

/// Field lines joined with ", " (RFC 9110 section 5.3). `Err` when a line is not UTF-8.
fn joined(headers: &HeaderMap, name: &str) -> Result<Option<String>, ()> {
    // Names are compared in lower case; what is no name at all is in no message.
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let mut text = std::str::from_utf8(first.as_bytes()).map_err(|_| ())?.to_owned();
    for line in lines {
        text.push_str(", ");
        text.push_str(std::str::from_utf8(line.as_bytes()).map_err(|_| ())?);
    }
    Ok(Some(text))
}

fn names(headers: &HeaderMap) -> Vec<String> {
    headers.keys().map(|name| name.as_str().to_owned()).collect()
}

impl wit::types::Host for State {}
