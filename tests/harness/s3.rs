//! An S3 server on loopback: `s3s` speaks the protocol and checks every SigV4 signature, the objects and the faults are ours.
//!
//! It does what a cache needs of the real one and what `s3s-fs` leaves out: conditional and ranged reads, entity tags of both
//! kinds, and everything that a bucket does on a bad day. Writing goes by [`S3::put`], not over the wire.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::dto::{
    ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, Range, StreamingBlob,
    Timestamp,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use crate::content::Content;
use crate::setup::AsOrigin;

/// The access key that the server knows.
pub const ACCESS_KEY: &str = "AKIAHARNESSEXAMPLE";
/// Its secret.
pub const SECRET_KEY: &str = "harness/secret+key/0123456789abcdefEXAMPLE";
/// The region that requests must be signed for.
pub const REGION: &str = "eu-central-1";

/// An object as it is stored.
#[derive(Clone, Debug)]
pub struct Object {
    content: Content,
    etag: String,
    last_modified: SystemTime,
    content_type: Option<String>,
    cache_control: Option<String>,
    content_encoding: Option<String>,
    content_disposition: Option<String>,
    content_language: Option<String>,
    website_redirect: Option<String>,
    metadata: Vec<(String, String)>,
}

/// An object of these bytes, last modified an hour ago.
pub fn object(content: impl Into<Content>) -> Object {
    let content = content.into();
    Object {
        etag: content.etag(),
        content,
        last_modified: whole_seconds(SystemTime::now() - Duration::from_secs(3600)),
        content_type: None,
        cache_control: None,
        content_encoding: None,
        content_disposition: None,
        content_language: None,
        website_redirect: None,
        metadata: Vec::new(),
    }
}

impl From<Content> for Object {
    fn from(content: Content) -> Self {
        object(content)
    }
}

macro_rules! text_fields {
    ($($field:ident, $help:literal;)*) => {
        impl Object {
            $(#[doc = $help]
            #[must_use]
            pub fn $field(mut self, value: &str) -> Self {
                self.$field = Some(value.to_owned());
                self
            })*
        }
    };
}

text_fields! {
    content_type, "Sets Content-Type.";
    cache_control, "Sets Cache-Control.";
    content_encoding, "Sets Content-Encoding.";
    content_disposition, "Sets Content-Disposition.";
    content_language, "Sets Content-Language.";
    website_redirect, "Sets x-amz-website-redirect-location.";
}

impl Object {
    /// Sets the entity tag, without quotes.
    #[must_use]
    pub fn etag(mut self, value: &str) -> Self {
        self.etag = value.to_owned();
        self
    }

    /// Sets Last-Modified.
    #[must_use]
    pub fn last_modified(mut self, at: SystemTime) -> Self {
        self.last_modified = whole_seconds(at);
        self
    }

    /// Adds a field of the user's own (`x-amz-meta-...`).
    #[must_use]
    pub fn meta(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The entity tag as a field value, quoted.
    pub fn quoted_etag(&self) -> String {
        format!("\"{}\"", self.etag)
    }

    /// Last-Modified as a field value.
    pub fn last_modified_text(&self) -> String {
        httpdate::fmt_http_date(self.last_modified)
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// 503 SlowDown.
    SlowDown,
    /// 500 InternalError.
    InternalError,
    /// 403 AccessDenied.
    AccessDenied,
    /// No answer at all, until the client leaves.
    Hang,
    /// A head that promises everything, so many bytes of the body, and then the connection is cut.
    CloseAfter(u64),
    /// So many bytes of the body, and then silence.
    StallAfter(u64),
    /// The answer comes late by this much.
    Late(Duration),
    /// Pieces of 64 KiB at most come with this pause between them.
    Slow(Duration),
    /// The head claims this many bytes more than there are; the connection ends where the bytes do.
    ClaimMore(u64),
    /// The object is replaced by this one right after the head of the answer (still the old one's) was made.
    ReplaceAfterwards(Box<Object>),
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// GET or HEAD.
    pub method: String,
    /// Bucket of the path.
    pub bucket: String,
    /// Decoded key.
    pub key: String,
    /// Field lines.
    pub headers: HeaderMap,
    /// What was answered; 0 while nothing was.
    pub status: u16,
}

impl Seen {
    /// The value of a field, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Bucket {
    public: bool,
    refuses: bool,
    objects: BTreeMap<String, Object>,
}

#[derive(Default)]
struct Book {
    buckets: BTreeMap<String, Bucket>,
    seen: Vec<Seen>,
    /// Faults to come, each for one request; `None` as key: any key.
    faults: VecDeque<(Option<String>, Fault)>,
    always: Option<Fault>,
    connections: u64,
}

struct State {
    book: Mutex<Book>,
}

impl State {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A running server. It stops when it is dropped.
pub struct S3Server {
    state: Arc<State>,
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl S3Server {
    /// Starts with one private, empty bucket.
    pub async fn with_bucket(name: &str) -> Self {
        let server = Self::start().await;
        server.create_bucket(name);
        server
    }

    /// Starts without buckets, on a port of the system's choice.
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("a literal address")).await
    }

    /// Starts on this address.
    pub async fn start_on(address: SocketAddr) -> Self {
        let state = Arc::new(State { book: Mutex::default() });
        let mut builder = S3ServiceBuilder::new(Objects(state.clone()));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        builder.set_access(Access(state.clone()));
        let service = builder.build();
        let listener = TcpListener::bind(address).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let accepting = tokio::spawn(accept(listener, service, state.clone())).abort_handle();
        Self { state, address, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds an empty bucket that only signed requests may read.
    pub fn create_bucket(&self, name: &str) {
        self.state.book().buckets.entry(name.to_owned()).or_default();
    }

    /// Makes a bucket readable for everyone.
    pub fn publish(&self, bucket: &str) {
        self.state.book().buckets.entry(bucket.to_owned()).or_default().public = true;
    }

    /// Makes a bucket refuse everyone with 403, signed or not.
    pub fn refuse(&self, bucket: &str, refuses: bool) {
        self.state.book().buckets.entry(bucket.to_owned()).or_default().refuses = refuses;
    }

    /// Stores an object, in place of what was there.
    pub fn put(&self, bucket: &str, key: &str, object: Object) {
        let mut book = self.state.book();
        book.buckets.entry(bucket.to_owned()).or_default().objects.insert(key.to_owned(), object);
    }

    /// Removes an object.
    pub fn delete(&self, bucket: &str, key: &str) {
        if let Some(bucket) = self.state.book().buckets.get_mut(bucket) {
            bucket.objects.remove(key);
        }
    }

    /// The next `times` requests, for whatever key, go wrong like this.
    pub fn fail_next(&self, times: usize, fault: Fault) {
        let mut book = self.state.book();
        for _ in 0..times {
            book.faults.push_back((None, fault.clone()));
        }
    }

    /// The next request for this key goes wrong like this.
    pub fn fail_key(&self, key: &str, fault: Fault) {
        self.state.book().faults.push_back((Some(key.to_owned()), fault));
    }

    /// Every request goes wrong like this, until [`Self::heal`].
    pub fn fail(&self, fault: Fault) {
        self.state.book().always = Some(fault);
    }

    /// All is well again.
    pub fn heal(&self) {
        let mut book = self.state.book();
        book.always = None;
        book.faults.clear();
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.book().seen.clone()
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.state.book().seen.len()
    }

    /// How many requests of this method there were for this key.
    pub fn count(&self, method: &str, key: &str) -> usize {
        self.state.book().seen.iter().filter(|seen| seen.method == method && seen.key == key).count()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.state.book().connections
    }

    /// Forgets what was seen.
    pub fn forget(&self) {
        self.state.book().seen.clear();
    }

    /// A bucket as an origin of hosts.json, with the credentials that work.
    pub fn bucket(&self, name: &str) -> BucketOrigin {
        BucketOrigin {
            value: json!({ "s3": {
                "bucket": name, "region": REGION, "endpoint": self.endpoint(), "path_style": true,
                "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY,
            }}),
        }
    }
}

/// An origin of hosts.json that is a bucket.
#[derive(Clone, Debug)]
pub struct BucketOrigin {
    value: Value,
}

impl BucketOrigin {
    /// Asks without credentials.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        if let Some(s3) = self.value["s3"].as_object_mut() {
            s3.remove("access_key_id");
            s3.remove("secret_access_key");
            s3.insert("anonymous".to_owned(), json!(true));
        }
        self
    }

    /// Sets one member of the `s3` object; null removes it.
    #[must_use]
    pub fn set(mut self, name: &str, value: Value) -> Self {
        if let Some(s3) = self.value["s3"].as_object_mut() {
            if value.is_null() {
                s3.remove(name);
            } else {
                s3.insert(name.to_owned(), value);
            }
        }
        self
    }

    /// Sets `timeouts`.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Value) -> Self {
        self.value["timeouts"] = timeouts;
        self
    }
}

impl AsOrigin for BucketOrigin {
    fn as_origin(&self) -> Value {
        self.value.clone()
    }
}

/// What requests are let in: signed ones (s3s has checked the signature by then), and anyone to a public bucket.
struct Access(Arc<State>);

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let book = self.0.book();
        let bucket = context.s3_path().get_bucket_name().and_then(|name| book.buckets.get(name));
        if bucket.is_some_and(|bucket| bucket.refuses) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if context.credentials().is_some() || bucket.is_some_and(|bucket| bucket.public) {
            return Ok(());
        }
        Err(s3_error!(AccessDenied, "Access Denied"))
    }
}

struct Objects(Arc<State>);

/// A read after its conditions and its range are settled.
struct Read {
    object: Object,
    range: std::ops::Range<u64>,
    partial: bool,
}

struct Asked {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
    range: Option<Range>,
}

impl Objects {
    fn read(&self, bucket: &str, key: &str, asked: &Asked) -> S3Result<Read> {
        let book = self.0.book();
        let Some(bucket) = book.buckets.get(bucket) else {
            return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"));
        };
        let Some(object) = bucket.objects.get(key).cloned() else {
            return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
        };
        drop(book);
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(tag) => tag.value() == object.etag,
        };
        let modified: time::OffsetDateTime = object.last_modified.into();
        // RFC 9110 section 13.2.2, which is also what S3 documents.
        let fails = match (&asked.if_match, &asked.if_unmodified_since) {
            (Some(condition), _) => !is(condition),
            (None, Some(at)) => modified > time::OffsetDateTime::from(at.clone()),
            (None, None) => false,
        };
        if fails {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
        }
        let unchanged = match (&asked.if_none_match, &asked.if_modified_since) {
            (Some(condition), _) => is(condition),
            (None, Some(at)) => modified <= time::OffsetDateTime::from(at.clone()),
            (None, None) => false,
        };
        if unchanged {
            let mut error = S3Error::new(S3ErrorCode::NotModified);
            error.set_status_code(StatusCode::NOT_MODIFIED);
            let mut headers = HeaderMap::new();
            insert(&mut headers, "etag", &object.quoted_etag());
            insert(&mut headers, "last-modified", &object.last_modified_text());
            if let Some(cache_control) = &object.cache_control {
                insert(&mut headers, "cache-control", cache_control);
            }
            error.set_headers(headers);
            return Err(error);
        }
        let length = object.content.len();
        let range = match &asked.range {
            None => 0..length,
            Some(range) => range.check(length).map_err(|_| {
                let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
                let mut headers = HeaderMap::new();
                insert(&mut headers, "content-range", &format!("bytes */{length}"));
                error.set_headers(headers);
                error
            })?,
        };
        Ok(Read { object, range, partial: asked.range.is_some() })
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let asked = Asked {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
            range: input.range,
        };
        let Read { object, range, partial } = self.read(&input.bucket, &input.key, &asked)?;
        let chunks = object.content.chunks(range.clone()).map(Ok::<Bytes, std::io::Error>);
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some((range.end - range.start) as i64),
            content_range: partial.then(|| content_range(&range, object.content.len())),
            body: Some(StreamingBlob::wrap(futures_util::stream::iter(chunks))),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.last_modified.into()),
            cache_control: object.cache_control,
            content_type: Some(object.content_type.unwrap_or_else(|| "binary/octet-stream".to_owned())),
            content_encoding: object.content_encoding,
            content_disposition: object.content_disposition,
            content_language: object.content_language,
            website_redirect_location: object.website_redirect,
            metadata: Some(object.metadata.into_iter().collect()),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let asked = Asked {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
            range: input.range,
        };
        let Read { object, range, partial } = self.read(&input.bucket, &input.key, &asked)?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some((range.end - range.start) as i64),
            content_range: partial.then(|| content_range(&range, object.content.len())),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.last_modified.into()),
            cache_control: object.cache_control,
            content_type: Some(object.content_type.unwrap_or_else(|| "binary/octet-stream".to_owned())),
            content_encoding: object.content_encoding,
            content_disposition: object.content_disposition,
            content_language: object.content_language,
            website_redirect_location: object.website_redirect,
            metadata: Some(object.metadata.into_iter().collect()),
            ..HeadObjectOutput::default()
        }))
    }
}

fn content_range(range: &std::ops::Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// HTTP dates know no fractions, so neither may what they are compared with.
fn whole_seconds(at: SystemTime) -> SystemTime {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;

async fn accept(listener: TcpListener, service: S3Service, state: Arc<State>) {
    // Dropping the set ends the connections: a server that is gone does not answer.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.book().connections += 1;
        let (service, state) = (service.clone(), state.clone());
        connections.spawn(async move {
            let serve = hyper::service::service_fn(move |request| {
                let (service, state) = (service.clone(), state.clone());
                async move { Ok::<_, Infallible>(answer(&service, &state, request).await) }
            });
            // An error here is a cut connection, mostly one that a fault cut.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Notes the request, lets `s3s` answer it, and then does to the answer what the fault says.
async fn answer(service: &S3Service, state: &State, request: Request<Incoming>) -> Response<AnyBody> {
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let (index, fault) = {
        let mut book = state.book();
        book.seen.push(Seen {
            method: request.method().to_string(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            headers: request.headers().clone(),
            status: 0,
        });
        let due = book.faults.iter().position(|(of, _)| of.as_deref().is_none_or(|of| of == key));
        let fault = due.and_then(|due| book.faults.remove(due)).map(|(_, fault)| fault).or_else(|| book.always.clone());
        (book.seen.len() - 1, fault)
    };
    let refused = |code: S3ErrorCode| {
        S3Error::with_message(code, "by order of the test").to_http_response().map_err(|_| StatusCode::BAD_GATEWAY)
    };
    let answered = match &fault {
        Some(Fault::SlowDown) => refused(S3ErrorCode::SlowDown),
        Some(Fault::InternalError) => refused(S3ErrorCode::InternalError),
        Some(Fault::AccessDenied) => refused(S3ErrorCode::AccessDenied),
        Some(Fault::Hang) => std::future::pending().await,
        _ => {
            if let Some(Fault::Late(by)) = fault {
                tokio::time::sleep(by).await;
            }
            service.call(request.map(s3s::Body::from)).await.map_err(|_| StatusCode::BAD_REQUEST)
        }
    };
    let response = match answered {
        Ok(response) => response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()),
        Err(status) => {
            let mut response = Response::new(AnyBody::default());
            *response.status_mut() = status;
            response
        }
    };
    if let Some(seen) = state.book().seen.get_mut(index) {
        seen.status = response.status().as_u16();
    }
    match fault {
        Some(Fault::CloseAfter(bytes)) => response.map(|body| cut(body, bytes, true)),
        Some(Fault::StallAfter(bytes)) => response.map(|body| cut(body, bytes, false)),
        Some(Fault::Slow(pause)) => response.map(|body| {
            let paced = body.into_data_stream().then(move |piece| async move {
                tokio::time::sleep(pause).await;
                piece.map(Frame::data)
            });
            StreamBody::new(paced).boxed_unsync()
        }),
        Some(Fault::ClaimMore(more)) => {
            let length = response.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
            let mut response = response.map(|body| {
                StreamBody::new(body.into_data_stream().map(|piece| piece.map(Frame::data))).boxed_unsync()
            });
            let claimed: u64 = length.unwrap_or(0u64) + more;
            response.headers_mut().insert("content-length", claimed.into());
            response
        }
        Some(Fault::ReplaceAfterwards(object)) => {
            if let Some(bucket) = state.book().buckets.get_mut(bucket) {
                bucket.objects.insert(key.to_owned(), *object);
            }
            response
        }
        _ => response,
    }
}

/// The first so many bytes of a body; then an error, which cuts the connection, or nothing ever.
fn cut(body: AnyBody, bytes: u64, close: bool) -> AnyBody {
    let mut left = bytes as usize;
    let first = body.into_data_stream().scan((), move |(), piece| {
        let kept = piece.ok().map(|piece: Bytes| piece.slice(..piece.len().min(left))).filter(|kept| !kept.is_empty());
        left -= kept.as_ref().map_or(0, Bytes::len);
        std::future::ready(kept.map(|kept| Ok(Frame::data(kept))))
    });
    let end = futures_util::stream::once(async move {
        if !close {
            std::future::pending::<()>().await;
        }
        // What was sent must have left before the connection goes, or the peer may never see it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut by order of the test"))
    });
    StreamBody::new(first.chain(end)).boxed_unsync()
}

#[cfg(test)]
mod tests;
