//! What a policy decided, checked like a client's input: what cannot be sent never gets this far.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

/// What to do with a request or response.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Go on.
    Next,
    /// Refuse with this status (400 to 599).
    Deny(StatusCode),
    /// 301, 302, 303, 307 or 308 with a Location that can be sent.
    Redirect(StatusCode, HeaderValue),
    /// Answer now.
    Reply(Box<Reply>),
    /// A policy failed and `on_failure` is closed: the status is 503, or 500 in on-deliver.
    Failed(PolicyFailure),
}

/// An answer made by a policy.
#[derive(Clone, Debug)]
pub struct Reply {
    /// A final status (200 to 599).
    pub status: StatusCode,
    /// End-to-end fields without Content-Length.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A failure of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy} failed in {phase} ({kind:?}): {message}")]
pub struct PolicyFailure {
    /// Name of the policy file.
    pub policy: String,
    /// `on-request` and so on.
    pub phase: &'static str,
    /// How.
    pub kind: FailureKind,
    /// In words, for the log; never sent to a client.
    pub message: String,
    /// What the client gets.
    pub status: StatusCode,
}

/// How a policy failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// It returned an error.
    Error,
    /// It trapped.
    Trap,
    /// It used up its CPU time.
    Time,
    /// It wanted more memory than its limit.
    Memory,
    /// It made too many host calls, or added too much.
    Calls,
    /// It returned what cannot be sent.
    Invalid,
    /// It is in quarantine.
    Quarantine,
    /// It could not be loaded, or is missing.
    Load,
}
