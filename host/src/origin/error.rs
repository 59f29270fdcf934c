//! What can go wrong between us and an origin.

/// Why an origin gave no (whole) answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OriginError {
    /// Name not found, connection refused, TLS failed: 502.
    #[error("cannot connect to origin {origin}: {reason}")]
    Connect {
        /// Name in hosts.json.
        origin: String,
        /// What of it failed.
        failure: ConnectFailure,
        /// In words.
        reason: String,
    },
    /// Nothing came in time: 504.
    #[error("origin {origin} timed out ({phase})")]
    Timeout {
        /// Name in hosts.json.
        origin: String,
        /// `connect`, `first byte` or `idle`.
        phase: &'static str,
    },
    /// The connection ended before the head of a response: 502.
    #[error("origin {origin} closed the connection: {reason}")]
    Ended {
        /// Name in hosts.json.
        origin: String,
        /// In words.
        reason: String,
        /// It was a kept connection, which may have ended before the request went out.
        idle: bool,
    },
    /// It answered with a status that says it failed, and nothing that could be passed on: 502.
    #[error("origin {origin} failed: {reason}")]
    Status {
        /// Name in hosts.json.
        origin: String,
        /// What it answered with.
        status: http::StatusCode,
        /// In words.
        reason: String,
    },
    /// It broke off a body, lied about its length, or broke HTTP: 502.
    #[error("origin {origin} broke off: {reason}")]
    Broken {
        /// Name in hosts.json.
        origin: String,
        /// In words.
        reason: String,
    },
    /// A body is not what the origin's own digest of it says: 502.
    #[error("origin {origin} sent a body that is not what its digest says")]
    Altered {
        /// Name in hosts.json.
        origin: String,
    },
    /// It has too much to do, or we have for it: 503.
    #[error("origin {origin} is not available: {reason}")]
    Unavailable {
        /// Name in hosts.json.
        origin: String,
        /// In words.
        reason: String,
    },
    /// The client's own body broke off or was too long: the client's fault, 400 or 413.
    #[error("request body: {reason}")]
    RequestBody {
        /// In words.
        reason: String,
        /// The status to answer with.
        status: http::StatusCode,
    },
    /// The configuration of the origin cannot work: a bad CA file or a missing folder at start; a bucket that does not
    /// exist or is in another region, as S3 says when it is asked: 502.
    #[error("origin {origin}: {reason}")]
    Configuration {
        /// Name in hosts.json.
        origin: String,
        /// In words.
        reason: String,
    },
}

/// What failed of connecting; the kinds that RFC 9209 section 2.3 tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The name was not resolved.
    Name,
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    Unroutable,
    /// It closed during the handshake.
    Terminated,
    /// Its certificate is not one that is trusted for the name.
    Certificate,
    /// It refused our TLS.
    Alert,
    /// It broke TLS, or speaks none.
    Tls,
    /// Anything else.
    Other,
}
