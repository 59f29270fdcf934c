//! The HTTP client that http and s3 origins share: connects, keeps connections, and sends a request in a way that can't
//! be the origin's undoing or ours.
//!
//! A pooled connection may have died without our knowing. So only what can be sent again without harm (an idempotent method
//! of RFC 9110 section 9.2.2 without a body) is sent on one, and its failure before the head of a response is an error of its
//! own, for `retry.rs` to act on. Everything else only ever goes out on a connection that was just made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::client::conn::{http1, http2};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower_service::Service;

use super::body::{InBody, OutBody, Upload, chain};
use super::connect::{self, Connector, Versions};
use super::pool::{Connection, Lease, MAX_STREAMS, Pool};
use super::{OriginError, Timeouts};
use crate::semantics::hop_by_hop;

/// Largest head of a response, and of a chunked body's trailers: as much as any server sends, and more.
const MAX_HEAD: usize = 64 * 1024;
/// Fields of a response head.
const MAX_FIELDS: usize = 256;
/// What one HTTP/1.1 connection reads ahead.
const READ_BUFFER: usize = 128 * 1024;
/// What one HTTP/2 stream may send ahead of its reader.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Connections being made at once: bounds the threads that a dead resolver can hold.
const MAX_CONNECTING: usize = 64;

/// A client for one scheme and authority.
pub(super) struct Client {
    origin: Arc<str>,
    /// Scheme and authority; what is connected to.
    base: Uri,
    connector: Connector,
    connecting: Semaphore,
    timeouts: Timeouts,
    pool: Arc<Pool>,
}

impl Client {
    /// A client for the scheme and authority of `base`.
    pub(super) fn new(origin: Arc<str>, base: Uri, tls: ClientConfig, versions: Versions, timeouts: Timeouts) -> Self {
        let connector = connect::connector(tls, versions);
        let connecting = Semaphore::new(MAX_CONNECTING);
        Self { origin, base, connector, connecting, timeouts, pool: Arc::default() }
    }

    /// Sends a request whose URI is path and query and whose Host field is set, once, and waits for the head of the
    /// response. With `fresh` it goes out on a connection that was just made.
    pub(super) async fn send(
        &self,
        request: Request<()>,
        body: OutBody,
        upload: &Arc<Upload>,
        fresh: bool,
    ) -> Result<Response<InBody>, OriginError> {
        let reuse = !fresh && body.is_empty() && is_idempotent(request.method());
        let pooled = if reuse { self.pool.take() } else { None };
        let lease = match pooled {
            Some(lease) => lease,
            None => self.connect(reuse).await?,
        };
        self.exchange(lease, request, body, upload).await
    }

    /// A fresh connection; or, with `reuse`, one that came free while we waited for our turn to connect.
    async fn connect(&self, reuse: bool) -> Result<Lease, OriginError> {
        let connecting = async {
            let Ok(_permit) = self.connecting.try_acquire() else {
                let _permit = self.connecting.acquire().await.map_err(|e| self.cannot_connect(&e))?;
                if reuse && let Some(lease) = self.pool.take() {
                    return Ok(lease);
                }
                return self.make_connection().await;
            };
            self.make_connection().await
        };
        match tokio::time::timeout(self.timeouts.connect, connecting).await {
            Ok(done) => done,
            Err(_) => Err(OriginError::Timeout { origin: self.origin.to_string(), phase: "connect" }),
        }
    }

    fn cannot_connect(&self, error: &(dyn std::error::Error + 'static)) -> OriginError {
        let failure = connect::failure(error);
        OriginError::Connect { origin: self.origin.to_string(), failure, reason: chain(error) }
    }

    async fn make_connection(&self) -> Result<Lease, OriginError> {
        let mut connector = self.connector.clone();
        let connected = async {
            std::future::poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(self.base.clone()).await
        };
        let io = connected.await.map_err(|e| self.cannot_connect(&*e))?;
        if io.connected().is_negotiated_h2() {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(STREAM_WINDOW * MAX_STREAMS as u32)
                .max_header_list_size(MAX_HEAD as u32)
                .keep_alive_interval(Duration::from_secs(20))
                .keep_alive_timeout(Duration::from_secs(10))
                .handshake(io)
                .await
                .map_err(|e| self.cannot_connect(&e))?;
            let limit = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
            let told = Arc::clone(&limit);
            let mut connection = Box::pin(connection);
            let followed = std::future::poll_fn(move |cx| {
                let end = connection.as_mut().poll(cx);
                // The server's limit may change with any frame that was just read.
                told.store(connection.current_max_send_streams(), Ordering::Relaxed);
                end
            });
            tokio::spawn(run(Arc::clone(&self.origin), followed));
            Ok(self.pool.lease_many(sender, limit))
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(READ_BUFFER)
                .max_header_size(MAX_HEAD)
                .max_headers(MAX_FIELDS)
                // A proxy removes it (RFC 9112 section 5.1).
                .allow_spaces_after_header_name_in_responses(true)
                .handshake(io)
                .await
                .map_err(|e| self.cannot_connect(&e))?;
            tokio::spawn(run(Arc::clone(&self.origin), connection.with_upgrades()));
            Ok(self.pool.lease_one(sender))
        }
    }

    /// Sends a request on a connection and waits for the head, at most `first_byte` after the origin last moved.
    async fn exchange(
        &self,
        mut lease: Lease,
        request: Request<()>,
        body: OutBody,
        upload: &Arc<Upload>,
    ) -> Result<Response<InBody>, OriginError> {
        upload.start();
        let pooled = lease.is_pooled();
        let ended = |reason: String, idle| OriginError::Ended { origin: self.origin.to_string(), reason, idle };
        let sending = async {
            match lease.connection() {
                Some(Connection::One(sender)) => sender.send_request(request.map(|()| body)).await,
                Some(Connection::Many(sender)) => {
                    let request = self.for_http2(request)?;
                    sender.send_request(request.map(|()| body)).await
                }
                None => return Err(ended("connection is gone".to_owned(), pooled)),
            }
            .map_err(|error| match upload.failure() {
                Some(failure) => failure,
                None if error.is_parse() => self.broken(chain(&error)),
                None => ended(chain(&error), pooled && !is_stream_reset(&error)),
            })
        };
        let response = self.within_first_byte(sending, upload).await?;
        if pooled && response.status() == StatusCode::REQUEST_TIMEOUT {
            // Said to the silence before our request, which it crossed on its way (RFC 9110 section 15.5.9).
            return Err(ended("408 to a connection that was kept".to_owned(), true));
        }
        if let Some(coding) = unknown_coding(response.headers()) {
            return Err(self.broken(format!("its Transfer-Encoding is {coding}, which nobody asked for")));
        }
        Ok(response.map(|incoming| InBody::new(incoming, lease, Arc::clone(&self.origin))))
    }

    /// Runs `sending` for as long as the origin is not silent for longer than `first_byte`. While a body goes out, the
    /// time that the client takes for it is not the origin's.
    async fn within_first_byte<T>(
        &self,
        sending: impl Future<Output = Result<T, OriginError>>,
        upload: &Upload,
    ) -> Result<T, OriginError> {
        let mut sending = std::pin::pin!(sending);
        loop {
            let deadline = upload.silent_since() + self.timeouts.first_byte;
            if let Ok(done) = tokio::time::timeout_at(deadline, &mut sending).await {
                return done;
            }
            if upload.silent_since() + self.timeouts.first_byte <= Instant::now() {
                return Err(OriginError::Timeout { origin: self.origin.to_string(), phase: "first byte" });
            }
        }
    }

    /// HTTP/2 wants scheme and authority in the target, and no Host (RFC 9113 section 8.3.1).
    fn for_http2(&self, mut request: Request<()>) -> Result<Request<()>, OriginError> {
        let host = request.headers_mut().remove(header::HOST);
        let authority = host.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
        let uri = Uri::builder()
            .scheme(self.base.scheme_str().unwrap_or("https"))
            .authority(authority)
            .path_and_query(request.uri().path_and_query().map_or("/", |p| p.as_str()))
            .build()
            .map_err(|e| self.broken(format!("request target: {e}")))?;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        Ok(request)
    }

    fn broken(&self, reason: String) -> OriginError {
        OriginError::Broken { origin: self.origin.to_string(), reason }
    }
}

/// Drives a connection to its end.
async fn run<C>(origin: Arc<str>, connection: C)
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    if let Err(error) = connection.await {
        tracing::debug!(%origin, error = chain(&error), "connection to origin ended");
    }
}

/// Codings of IANA's two registries (HTTP transfer codings, HTTP content codings) and their aliases, but `identity`.
const CODINGS: [&str; 13] = [
    "aes128gcm",
    "br",
    "compress",
    "dcb",
    "dcz",
    "deflate",
    "exi",
    "gzip",
    "pack200-gzip",
    "trailers",
    "x-compress",
    "x-gzip",
    "zstd",
];

/// What a Transfer-Encoding says beyond hyper's understanding of it, if that makes the body unreadable. hyper takes off one
/// `chunked`; a coding that is left would be taken for the content (RFC 9112 section 7).
///
/// A single word that is no coding at all (a server whose author took the field for something else) codes nothing: the body
/// goes to the end of the connection (section 6.3, rule 4), as Apache and browsers read it. Beside a Content-Length there would
/// be two ends, and what only looks like `chunked` could be read as that by somebody else: both are refused.
fn unknown_coding(headers: &HeaderMap) -> Option<String> {
    let codings: Vec<_> = headers.get_all(header::TRANSFER_ENCODING).iter().collect();
    let known = match codings.as_slice() {
        [] => true,
        [coding] => {
            let name = coding.as_bytes().trim_ascii().to_ascii_lowercase();
            name == b"chunked" || (is_no_coding(&name) && !headers.contains_key(header::CONTENT_LENGTH))
        }
        _ => false,
    };
    let shown =
        || codings.iter().map(|coding| String::from_utf8_lossy(coding.as_bytes())).collect::<Vec<_>>().join(", ");
    (!known).then(shown)
}

/// Whether this name, in lower case, is that of no coding, nor close to `chunked`.
fn is_no_coding(name: &[u8]) -> bool {
    let word = !name.is_empty() && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
    word && !CODINGS.iter().any(|coding| coding.as_bytes() == name)
        && !name.windows(b"chunk".len()).any(|part| part == b"chunk")
}

/// Whether the server gave up one HTTP/2 stream, and not the connection.
fn is_stream_reset(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .is_some_and(h2::Error::is_reset)
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

/// Makes a response's fields end-to-end ones. `length` is that of the body as it will come.
pub(super) fn end_to_end(method: &Method, status: StatusCode, headers: &mut HeaderMap, length: Option<u64>) {
    settle_length(headers, bodiless(method, status), length);
    hop_by_hop::strip(headers);
}

/// Whether a response to this has no body whatever its Content-Length says (RFC 9112 section 6.3).
fn bodiless(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Leaves one Content-Length that is true, or none: beside a Transfer-Encoding it does not count (RFC 9112 section 6.1),
/// and of several equal ones the first does.
fn settle_length(headers: &mut HeaderMap, bodiless: bool, length: Option<u64>) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
        return;
    }
    if !headers.contains_key(header::CONTENT_LENGTH) {
        return;
    }
    let told = if bodiless {
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(|value| {
            let text = value.to_str().ok()?;
            if text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u64>().ok() } else { None }
        });
        let first = lengths.next().flatten();
        first.filter(|_| lengths.all(|other| other == first))
    } else {
        length
    };
    match told {
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.remove(header::CONTENT_LENGTH)),
    }
}
