//! The imported interfaces, one module each, in the order of `wit/policy.wit`. The file is long because the interface
//! is; each function is a line or two.

use super::{in_request, only_in, with};
use crate::testing::Phase;

/// Where edits to the origin's request make sense.
const BEFORE_ORIGIN: &[Phase] = &[Phase::OnRequest, Phase::OnOriginRequest];
/// Where there is a response.
const WITH_RESPONSE: &[Phase] = &[Phase::OnOriginResponse, Phase::OnDeliver];

/// The client's request.
pub mod request {
    use std::borrow::Cow;

    use super::in_request;
    use crate::text;

    /// Everything at once.
    #[derive(Clone, Debug, PartialEq)]
    pub struct RequestHead {
        /// Method.
        pub method: String,
        /// Host.
        pub host: String,
        /// Decoded path.
        pub path: String,
        /// Query.
        pub query: Option<String>,
        /// Fields in order.
        pub headers: Vec<(String, String)>,
    }

    /// What is asked for.
    #[derive(Clone, Debug, PartialEq)]
    pub struct RequestLine {
        /// Method.
        pub method: String,
        /// Host.
        pub host: String,
        /// Decoded path.
        pub path: String,
        /// Query.
        pub query: Option<String>,
    }

    /// Method.
    #[must_use]
    pub fn method() -> String {
        in_request(|call| call.request.method.clone())
    }
    /// `http` or `https`.
    #[must_use]
    pub fn scheme() -> String {
        in_request(|call| call.request.scheme.clone())
    }
    /// Lower case, without port.
    #[must_use]
    pub fn host() -> String {
        in_request(|call| call.request.host.clone())
    }
    /// Host and port as the client sent them.
    #[must_use]
    pub fn authority() -> String {
        in_request(|call| call.request.authority.clone())
    }
    /// The decoded path, the identity of what is asked for.
    #[must_use]
    pub fn path() -> String {
        in_request(|call| call.request.path.clone())
    }
    /// The request target as it came in.
    #[must_use]
    pub fn raw_target() -> String {
        in_request(|call| call.request.raw_target.clone())
    }
    /// The query without its question mark.
    #[must_use]
    pub fn query() -> Option<String> {
        in_request(|call| call.request.query.clone())
    }
    /// Percent-decoded. A parameter given twice yields none.
    #[must_use]
    pub fn query_param(name: &str) -> Option<String> {
        let mut values = query_params(name);
        if values.len() == 1 { values.pop() } else { None }
    }
    /// All values of a parameter, percent-decoded.
    #[must_use]
    pub fn query_params(name: &str) -> Vec<String> {
        let query = query().unwrap_or_default();
        text::query_pairs(&query)
            .filter(|(key, _)| text::percent_decode(key).as_deref() == Some(name))
            .filter_map(|(_, value)| text::percent_decode(value).map(Cow::into_owned))
            .collect()
    }
    /// Field lines joined with ", ".
    #[must_use]
    pub fn header(name: &str) -> Option<String> {
        in_request(|call| {
            let lines: Vec<_> = call.request.header_lines(name).collect();
            if lines.is_empty() { None } else { Some(lines.join(", ")) }
        })
    }
    /// Field lines as bytes.
    #[must_use]
    pub fn header_bytes(name: &str) -> Vec<Vec<u8>> {
        in_request(|call| call.request.header_lines(name).map(|line| line.as_bytes().to_vec()).collect())
    }
    /// Names of the fields there are.
    #[must_use]
    pub fn header_names() -> Vec<String> {
        in_request(|call| {
            let mut names: Vec<String> = Vec::new();
            for (name, _) in &call.request.headers {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            names
        })
    }
    /// A cookie. Of one that is given twice the first: user agents send the one with the longest path first (RFC 6265
    /// section 5.4).
    #[must_use]
    pub fn cookie(name: &str) -> Option<String> {
        in_request(|call| {
            let pairs = call.request.header_lines("cookie").flat_map(|line| line.split(';'));
            let mut found = pairs.filter_map(|pair| pair.split_once('=')).filter(|(key, _)| key.trim() == name);
            found.next().map(|(_, value)| value.trim().to_owned())
        })
    }
    /// Everything at once.
    #[must_use]
    pub fn head() -> RequestHead {
        in_request(|call| RequestHead {
            method: call.request.method.clone(),
            host: call.request.host.clone(),
            path: call.request.path.clone(),
            query: call.request.query.clone(),
            headers: call.request.headers.clone(),
        })
    }
    /// What is asked for, at once.
    #[must_use]
    pub fn line() -> RequestLine {
        in_request(|call| RequestLine {
            method: call.request.method.clone(),
            host: call.request.host.clone(),
            path: call.request.path.clone(),
            query: call.request.query.clone(),
        })
    }
    /// Arrival time in milliseconds since 1970.
    #[must_use]
    pub fn received_at_ms() -> u64 {
        in_request(|call| call.request.received_at_ms)
    }
}

/// The client.
pub mod client {
    use super::in_request;

    /// The client's address, after trusted proxies are resolved.
    #[must_use]
    pub fn ip() -> String {
        in_request(|call| call.request.client_ip.to_string())
    }
    /// Whether the address is in a named address set of hosts.json. A set that does not exist traps.
    #[must_use]
    #[track_caller]
    pub fn ip_in(set: &str) -> bool {
        in_request(|call| {
            let blocks = call.setup.addresses.get(set).unwrap_or_else(|| panic!("no address set is named {set:?}"));
            blocks.iter().any(|block| block.contains(call.request.client_ip))
        })
    }
    /// `tls.version`, `geo.country` and others.
    #[must_use]
    pub fn attribute(name: &str) -> Option<String> {
        in_request(|call| call.request.attributes.get(name).cloned())
    }
}

/// Edits to the request that goes to the origin.
pub mod upstream {
    use super::{BEFORE_ORIGIN, only_in};

    /// Replaces all lines of that name.
    #[track_caller]
    pub fn set_header(name: &str, value: &str) {
        only_in(BEFORE_ORIGIN, "upstream.set-header", |call| call.edits.upstream_headers.set(name, value));
    }
    /// Adds a line.
    #[track_caller]
    pub fn append_header(name: &str, value: &str) {
        only_in(BEFORE_ORIGIN, "upstream.append-header", |call| call.edits.upstream_headers.append(name, value));
    }
    /// Removes all lines of that name.
    #[track_caller]
    pub fn remove_header(name: &str) {
        only_in(BEFORE_ORIGIN, "upstream.remove-header", |call| call.edits.upstream_headers.remove(name));
    }
    /// Another path.
    #[track_caller]
    pub fn set_path(path: &str) {
        only_in(BEFORE_ORIGIN, "upstream.set-path", |call| call.edits.path = Some(path.to_owned()));
    }
    /// Another query, or none.
    #[track_caller]
    pub fn set_query(query: Option<&str>) {
        only_in(BEFORE_ORIGIN, "upstream.set-query", |call| call.edits.query = Some(query.map(str::to_owned)));
    }
    /// Origin paths to try in order until one is not 404.
    #[track_caller]
    pub fn try_paths(paths: &[String]) {
        only_in(BEFORE_ORIGIN, "upstream.try-paths", |call| call.edits.try_paths = paths.to_vec());
    }
    /// One of the origins named in hosts.json.
    #[track_caller]
    pub fn use_origin(name: &str) -> Result<(), String> {
        only_in(BEFORE_ORIGIN, "upstream.use-origin", |call| {
            if !call.setup.origins.iter().any(|known| known == name) {
                return Err(format!("no origin is named {name:?}"));
            }
            call.edits.origin = Some(name.to_owned());
            Ok(())
        })
    }
}

/// Where to look.
pub mod cache_lookup {
    use super::only_in;
    use crate::testing::Phase;

    /// The only phase before the cache.
    const PHASES: &[Phase] = &[Phase::OnRequest];

    /// Adds a named part to the cache key.
    #[track_caller]
    pub fn add_key(name: &str, value: &str) {
        only_in(PHASES, "cache-lookup.add-key", |call| call.edits.key_parts.push((name.to_owned(), value.to_owned())));
    }
    /// Replaces the path and query in the cache key.
    #[track_caller]
    pub fn set_key(key: &str) {
        only_in(PHASES, "cache-lookup.set-key", |call| call.edits.key = Some(key.to_owned()));
    }
    /// Query parameters that count towards the key.
    #[track_caller]
    pub fn key_query_only(names: &[String]) {
        only_in(PHASES, "cache-lookup.key-query-only", |call| call.edits.key_query_only = Some(names.to_vec()));
    }
    /// Go to the origin and keep nothing.
    #[track_caller]
    pub fn bypass() {
        only_in(PHASES, "cache-lookup.bypass", |call| call.edits.bypass = true);
    }
    /// Treat an entry older than this as missing.
    #[track_caller]
    pub fn max_age_ms(ms: u64) {
        only_in(PHASES, "cache-lookup.max-age-ms", |call| call.edits.max_age_ms = Some(ms));
    }
}

/// How to keep it.
pub mod cache_store {
    use super::only_in;
    use crate::testing::Phase;

    /// The only phase before a response is kept.
    const PHASES: &[Phase] = &[Phase::OnOriginResponse];

    /// Life.
    #[track_caller]
    pub fn ttl_ms(ms: u64) {
        only_in(PHASES, "cache-store.ttl-ms", |call| call.edits.ttl_ms = Some(ms));
    }
    /// Window in which stale is served while it is fetched again.
    #[track_caller]
    pub fn stale_while_revalidate_ms(ms: u64) {
        only_in(PHASES, "cache-store.stale-while-revalidate-ms", |call| {
            call.edits.stale_while_revalidate_ms = Some(ms)
        });
    }
    /// Window in which stale is served when the origin fails.
    #[track_caller]
    pub fn stale_if_error_ms(ms: u64) {
        only_in(PHASES, "cache-store.stale-if-error-ms", |call| call.edits.stale_if_error_ms = Some(ms));
    }
    /// A tag to purge by.
    #[track_caller]
    pub fn tag(tag: &str) {
        only_in(PHASES, "cache-store.tag", |call| call.edits.tags.push(tag.to_owned()));
    }
    /// Keep nothing.
    #[track_caller]
    pub fn no_store() {
        only_in(PHASES, "cache-store.no-store", |call| call.edits.no_store = true);
    }
    /// Remember for this long that the key is not cacheable.
    #[track_caller]
    pub fn hit_for_miss_ms(ms: u64) {
        only_in(PHASES, "cache-store.hit-for-miss-ms", |call| call.edits.hit_for_miss_ms = Some(ms));
    }
}

/// The response in hand.
pub mod response {
    use super::{WITH_RESPONSE, only_in};
    use crate::testing::Response;

    /// The response, which a play must have been given.
    #[track_caller]
    fn with_response<T>(name: &str, use_response: impl FnOnce(&mut Response) -> T) -> T {
        only_in(WITH_RESPONSE, name, |call| {
            use_response(call.response.as_mut().expect("no response is in hand: give one with Play::respond"))
        })
    }

    /// Status.
    #[must_use]
    #[track_caller]
    pub fn status() -> u16 {
        with_response("response.status", |response| response.status)
    }
    /// Another status.
    #[track_caller]
    pub fn set_status(status: u16) {
        with_response("response.set-status", |response| response.status = status);
    }
    /// Field lines joined with ", ".
    #[must_use]
    #[track_caller]
    pub fn header(name: &str) -> Option<String> {
        with_response("response.header", |response| response.headers.get(name))
    }
    /// Names of the fields there are.
    #[must_use]
    #[track_caller]
    pub fn header_names() -> Vec<String> {
        with_response("response.header-names", |response| response.headers.names())
    }
    /// Replaces all lines of that name.
    #[track_caller]
    pub fn set_header(name: &str, value: &str) {
        with_response("response.set-header", |response| response.headers.set(name, value));
    }
    /// Adds a line.
    #[track_caller]
    pub fn append_header(name: &str, value: &str) {
        with_response("response.append-header", |response| response.headers.append(name, value));
    }
    /// Removes all lines of that name.
    #[track_caller]
    pub fn remove_header(name: &str) {
        with_response("response.remove-header", |response| response.headers.remove(name));
    }
    /// In the words of RFC 9211.
    #[must_use]
    #[track_caller]
    pub fn cache_status() -> String {
        with_response("response.cache-status", |response| response.cache_status.clone())
    }
    /// The origin path that answered.
    #[must_use]
    #[track_caller]
    pub fn origin_path() -> Option<String> {
        with_response("response.origin-path", |response| response.origin_path.clone())
    }
}

/// Kept by the host for the length of one request.
pub mod vars {
    use super::in_request;

    /// The value of a name.
    #[must_use]
    pub fn get(name: &str) -> Option<String> {
        in_request(|call| call.edits.var(name).map(str::to_owned))
    }
    /// Gives a name a value.
    pub fn set(name: &str, value: &str) {
        in_request(|call| {
            if let Some((_, old)) = call.edits.vars.iter_mut().find(|(key, _)| key == name) {
                value.clone_into(old);
            } else {
                call.edits.vars.push((name.to_owned(), value.to_owned()));
            }
        });
    }
}

/// The policy's configuration.
pub mod config {
    use super::with;

    /// A member at the top: a string as it stands, anything else as JSON.
    #[must_use]
    pub fn get(name: &str) -> Option<String> {
        let value: serde_json::Value = serde_json::from_str(&json()).ok()?;
        match value.get(name)? {
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
    /// All of it.
    #[must_use]
    pub fn json() -> String {
        with(|call| call.setup.config.clone())
    }
}

/// Log lines.
pub mod log {
    use super::with;

    /// How much it matters.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Level {
        /// For whoever writes the policy.
        Debug,
        /// Worth knowing.
        Info,
        /// Worth a look.
        Warn,
        /// A person should come.
        Error,
    }

    /// Whether lines of this level are written at all.
    #[must_use]
    pub fn enabled(_level: Level) -> bool {
        true
    }
    /// Writes a line.
    pub fn write(level: Level, message: &str) {
        with(|call| call.edits.log.push((level, message.to_owned())));
    }
}

/// Digests, codes and signatures with secrets and keys by name.
pub mod crypto {
    use super::super::crypto_impl;
    use super::with;

    /// A piece of what is digested: text as it stands, bytes, or the secret of that name.
    #[derive(Clone, Debug, PartialEq)]
    pub enum Part {
        /// Text.
        Text(String),
        /// Bytes.
        Bytes(Vec<u8>),
        /// A secret by name.
        Secret(String),
    }

    /// `algorithm`: md5, sha1, sha256. `encoding`: hex, base64, base64url.
    pub fn digest(algorithm: &str, parts: &[Part], encoding: &str) -> Result<String, String> {
        with(|call| crypto_impl::encode(&crypto_impl::digest(algorithm, parts, &call.setup.secrets)?, encoding))
    }
    /// Compares in constant time in the host.
    pub fn verify_digest(algorithm: &str, parts: &[Part], encoding: &str, expected: &str) -> Result<bool, String> {
        with(|call| {
            let digest = crypto_impl::digest(algorithm, parts, &call.setup.secrets)?;
            crypto_impl::matches(&digest, encoding, expected)
        })
    }
    /// `algorithm`: hmac-sha1, hmac-sha256.
    pub fn mac(algorithm: &str, secret: &str, data: &[u8], encoding: &str) -> Result<String, String> {
        with(|call| crypto_impl::encode(&crypto_impl::mac(algorithm, secret, data, &call.setup.secrets)?, encoding))
    }
    /// Compares in constant time in the host.
    pub fn verify_mac(
        algorithm: &str,
        secret: &str,
        data: &[u8],
        encoding: &str,
        expected: &str,
    ) -> Result<bool, String> {
        with(|call| {
            let mac = crypto_impl::mac(algorithm, secret, data, &call.setup.secrets)?;
            crypto_impl::matches(&mac, encoding, expected)
        })
    }
    /// Whether the signature is one that the test has declared good.
    pub fn verify_signature(_algorithm: &str, key: &str, data: &[u8], signature: &[u8]) -> Result<bool, String> {
        with(|call| Ok(call.setup.signatures.iter().any(|(k, d, s)| k == key && d == data && s == signature)))
    }
    /// The claims that the test has declared for the token.
    pub fn verify_jwt(key: &str, token: &str) -> Result<String, String> {
        with(|call| {
            let claims = call.setup.tokens.get(&(key.to_owned(), token.to_owned()));
            claims.cloned().ok_or_else(|| "the token's signature does not verify".to_owned())
        })
    }
}

/// Rate limits.
pub mod rate {
    use super::in_request;

    /// Takes from a bucket that never refills while a test runs; each key has its own.
    #[track_caller]
    pub fn take(bucket: &str, key: &str, cost: u32) -> Result<u32, u32> {
        in_request(|call| {
            let burst = *call.setup.rates.get(bucket).unwrap_or_else(|| panic!("no rate is named {bucket:?}"));
            let taken = call.edits.taken.entry((bucket.to_owned(), key.to_owned())).or_default();
            match burst.checked_sub(taken.saturating_add(cost)) {
                Some(left) => {
                    *taken += cost;
                    Ok(left)
                }
                None => Err(1000),
            }
        })
    }
}

/// Read-only tables.
pub mod tables {
    use super::with;

    /// The value of a key. A table that does not exist traps.
    #[must_use]
    #[track_caller]
    pub fn lookup(table: &str, key: &str) -> Option<String> {
        with(|call| {
            let table = call.setup.tables.get(table).unwrap_or_else(|| panic!("no table is named {table:?}"));
            table.get(key).cloned()
        })
    }
}

/// Secrets in the open: needs the grant `secrets`.
pub mod secrets {
    use super::with;

    /// A secret's text.
    #[must_use]
    #[track_caller]
    pub fn get(name: &str) -> Option<String> {
        with(|call| {
            assert!(call.setup.grants.iter().any(|grant| grant == "secrets"), "the policy lacks the grant \"secrets\"");
            call.setup.secrets.get(name).and_then(|bytes| String::from_utf8(bytes.clone()).ok())
        })
    }
}

/// Requests of the policy's own: needs the grant `fetch`.
pub mod fetch {
    use super::with;

    /// An answer.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Fetched {
        /// Status.
        pub status: u16,
        /// Fields.
        pub headers: Vec<(String, String)>,
        /// Body.
        pub body: Vec<u8>,
    }

    /// The answer that the test has laid down for the URL.
    #[track_caller]
    pub fn send(
        _method: &str,
        url: &str,
        _headers: &[(String, String)],
        _body: Option<&[u8]>,
    ) -> Result<Fetched, String> {
        with(|call| {
            assert!(call.setup.grants.iter().any(|grant| grant == "fetch"), "the policy lacks the grant \"fetch\"");
            call.setup.fetches.get(url).cloned().ok_or_else(|| format!("{url} may not be reached"))
        })
    }
}
