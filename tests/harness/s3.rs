//! An S3 server on loopback: `s3s` speaks the protocol and checks every SigV4 signature, the objects and the faults are ours.
//!
//! It does what a cache needs of the real one and what `s3s-fs` leaves out: conditional and ranged reads, entity tags of both
//! kinds, and everything that a bucket does on a bad day. Writing goes by [`S3Server::put`], not over the wire.

mod answer;
mod listing;
mod protocol;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use self::answer::accept;
use self::protocol::{Access, Objects};
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
    checksum_sha256: Option<String>,
    checksum_type: Option<String>,
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
        checksum_sha256: None,
        checksum_type: None,
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
    checksum_sha256, "Sets the checksum that who asks for it is told, as S3 has it: Base64, of parts with `-N`.";
    checksum_type, "Sets what it is of: FULL_OBJECT or COMPOSITE.";
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

/// HTTP dates know no fractions, so neither may what they are compared with.
fn whole_seconds(at: SystemTime) -> SystemTime {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests;
