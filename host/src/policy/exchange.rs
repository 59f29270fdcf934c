//! The request in hand, as policies see and edit it. The proxy fills it, the phases edit it, the proxy reads the edits.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::semantics::authority::{AuthorityText, Hostname};
use crate::semantics::interest::Interest;
use crate::semantics::target::Target;

/// Everything that a policy may read or edit about one request.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The client's request; policies only read it.
    pub request: RequestView,
    /// The client.
    pub client: ClientView,
    /// Edits to what goes to the origin.
    pub upstream: UpstreamEdits,
    /// Where to look in the cache.
    pub lookup: LookupEdits,
    /// How to keep the response.
    pub store: StoreEdits,
    /// The response in hand, from on-origin-response on.
    pub response: Option<ResponseView>,
    /// Kept for the length of the request, in order of first setting.
    pub vars: Vec<(String, String)>,
    /// A policy failed on this request and was let through by `on_failure` "open".
    pub failed_open: bool,
    /// A policy read a header that is not UTF-8: after `Next` the request is refused with 400 (WASM.md section 4).
    pub unreadable_header: bool,
}

/// The client's request.
#[derive(Clone, Debug)]
pub struct RequestView {
    /// Method.
    pub method: Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Lower case, without port.
    pub host: Hostname,
    /// As sent.
    pub authority: AuthorityText,
    /// The port in it, where it is not the scheme's own.
    pub port: Option<u16>,
    /// Path and query.
    pub target: Target,
    /// Fields as sent.
    pub headers: HeaderMap,
    /// What there was among them when they came in.
    pub interest: Interest,
    /// Arrival.
    pub received_at: Timestamp,
}

/// The client.
#[derive(Clone, Debug)]
pub struct ClientView {
    /// After trusted proxies are resolved.
    pub ip: IpAddr,
    /// `conn.protocol` and others.
    pub attributes: SmallVec<[(&'static str, Cow<'static, str>); 1]>,
    /// Those of its connection: `tls.version` and others.
    pub connection: Option<Arc<dyn Attributes>>,
}

/// What is known of a connection, by name.
pub trait Attributes: std::fmt::Debug + Send + Sync {
    /// An attribute; none if it is not known.
    fn attribute(&self, name: &str) -> Option<&str>;
}

/// One edit of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Replace all lines of that name.
    Set(HeaderName, HeaderValue),
    /// Add a line.
    Append(HeaderName, HeaderValue),
    /// Remove all lines.
    Remove(HeaderName),
}

/// Edits to the request that goes to the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamEdits {
    /// Header edits in order.
    pub headers: Vec<HeaderEdit>,
    /// Another path (decoded form, begins with a slash, checked like a client's).
    pub path: Option<String>,
    /// Another query, or none.
    pub query: Option<Option<String>>,
    /// Paths to try until one is not 404.
    pub try_paths: Vec<String>,
    /// Another origin by name; it exists.
    pub origin: Option<String>,
}

/// Where to look in the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupEdits {
    /// Named parts added to the key, in order.
    pub parts: Vec<(String, String)>,
    /// Stands in place of path and query.
    pub key: Option<String>,
    /// Parameters that count.
    pub query_only: Option<Vec<String>>,
    /// Keep nothing, look nothing up.
    pub bypass: bool,
    /// An entry older than this is missing.
    pub max_age: Option<Duration>,
}

/// How to keep the response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreEdits {
    /// Life.
    pub ttl: Option<Duration>,
    /// Window in which stale is served while it is fetched again.
    pub stale_while_revalidate: Option<Duration>,
    /// Window in which stale is served when the origin fails.
    pub stale_if_error: Option<Duration>,
    /// Tags to purge by.
    pub tags: Vec<String>,
    /// Keep nothing.
    pub no_store: bool,
    /// Remember for this long that the key is not cacheable.
    pub hit_for_miss: Option<Duration>,
}

/// The response in hand.
#[derive(Clone, Debug)]
pub struct ResponseView {
    /// Status.
    pub status: StatusCode,
    /// End-to-end fields.
    pub headers: HeaderMap,
    /// In the words of RFC 9211.
    pub cache_status: &'static str,
    /// The origin path that answered.
    pub origin_path: Option<Arc<str>>,
}

impl Exchange {
    /// A request that no policy has seen yet.
    pub fn new(request: RequestView, client: ClientView) -> Box<Self> {
        Box::new(Self {
            request,
            client,
            upstream: UpstreamEdits::default(),
            lookup: LookupEdits::default(),
            store: StoreEdits::default(),
            response: None,
            vars: Vec::new(),
            failed_open: false,
            unreadable_header: false,
        })
    }
}

impl RequestView {
    /// The decoded path.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The query as it came, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }
}

impl UpstreamEdits {
    /// Carries out the header edits.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for edit in &self.headers {
            match edit {
                HeaderEdit::Set(name, value) => {
                    headers.insert(name.clone(), value.clone());
                }
                HeaderEdit::Append(name, value) => {
                    headers.append(name.clone(), value.clone());
                }
                HeaderEdit::Remove(name) => {
                    headers.remove(name);
                }
            }
        }
    }
}
