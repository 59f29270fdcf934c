//! Requests and responses for tests.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Headers;

/// A request as a client sends it. The clock stands at 2027-01-15 08:00:00 UTC unless [`Request::at_ms`] says otherwise.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) raw_target: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) client_ip: IpAddr,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) received_at_ms: u64,
}

impl Request {
    /// A GET. The URL is absolute; its path is percent-decoded as the host does it.
    #[must_use]
    #[track_caller]
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// Any method.
    ///
    /// # Panics
    ///
    /// If the URL is none that the host would let through to a policy.
    #[must_use]
    #[track_caller]
    pub fn new(method: &str, url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").expect("a test gives an absolute URL");
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => (&rest[..at], rest[at..].to_owned()),
            Some(at) => (&rest[..at], format!("/{}", &rest[at..])),
            None => (rest, "/".to_owned()),
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target.as_str(), None),
        };
        // The plus sign is itself in a path, other than in a query.
        let path = path.replace('+', "%2B");
        let path = crate::text::percent_decode(&path).expect("a test gives a path that can be decoded").into_owned();
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        Self {
            method: method.to_owned(),
            scheme: scheme.to_owned(),
            host: host.to_ascii_lowercase(),
            authority: authority.to_owned(),
            path,
            query,
            raw_target: target,
            headers: Vec::new(),
            client_ip: IpAddr::from([127, 0, 0, 1]),
            attributes: HashMap::new(),
            received_at_ms: 1_800_000_000_000,
        }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The client's address.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn from(mut self, ip: &str) -> Self {
        self.client_ip = ip.parse().expect("a test gives an address");
        self
    }

    /// An attribute of the client, such as `geo.country`.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The time of arrival.
    #[must_use]
    pub fn at_ms(mut self, ms: u64) -> Self {
        self.received_at_ms = ms;
        self
    }

    /// The lines of one field.
    pub(crate) fn header_lines(&self, name: &str) -> impl Iterator<Item = &str> {
        let name = name.to_ascii_lowercase();
        self.headers.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value.as_str())
    }
}

/// A response, from the origin or about to be delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Fields.
    pub headers: Headers,
    pub(crate) cache_status: String,
    pub(crate) origin_path: Option<String>,
}

impl Response {
    /// A response without fields that missed the cache.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Headers::default(), cache_status: "miss".to_owned(), origin_path: None }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(name, value);
        self
    }

    /// `hit`, `stale` and so on.
    #[must_use]
    pub fn cache_status(mut self, word: &str) -> Self {
        word.clone_into(&mut self.cache_status);
        self
    }

    /// The origin path that answered.
    #[must_use]
    pub fn origin_path(mut self, path: &str) -> Self {
        self.origin_path = Some(path.to_owned());
        self
    }
}
