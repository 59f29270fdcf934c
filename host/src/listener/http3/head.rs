//! The head of a request as h3 has read it: what RFC 9114 forbids and h3 lets through (sections 4.2 and 4.3), and what
//! is different in HTTP/1.x.
//!
//! h3 has compared `:authority` with Host, found `:method`, and read names and values; `fields.rs` knows that no
//! pseudo-header field came twice. What a request means (CONNECT, the target `*`, whose host it is) is the service's.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Request, Uri};

/// Fields that say something of a connection of HTTP/1.x (RFC 9114 section 4.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What else the head says of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// How long the body is going to be.
    pub(super) length: Option<u64>,
    /// The client waits for 100 before it sends the body (RFC 9110 section 10.1.1).
    pub(super) expects: bool,
}

/// Checks a head. The error says why the message is malformed.
pub(super) fn check<B>(request: &mut Request<B>) -> Result<Head, &'static str> {
    target(request.method(), request.uri())?;
    let headers = request.headers_mut();
    if OF_CONNECTIONS.iter().any(|name| headers.contains_key(name)) {
        return Err("a field of connections of HTTP/1.1");
    }
    if headers.get_all(TE).iter().any(|value| value != "trailers") {
        return Err("a TE field with more than trailers");
    }
    if headers.get_all(HOST).iter().nth(1).is_some() {
        return Err("several Host fields");
    }
    let length = length(headers)?;
    let expects = headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(Head { length, expects })
}

/// Takes out what HTTP/3 has no use for (RFC 9114 section 4.2): of an answer's head or trailers.
pub(super) fn strip(headers: &mut HeaderMap) {
    for name in &OF_CONNECTIONS {
        headers.remove(name);
    }
}

/// RFC 9114 section 4.3.1. h3 makes a URI of any fields that it can be made of: one without scheme and path, say, for
/// any method.
fn target(method: &Method, uri: &Uri) -> Result<(), &'static str> {
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("an authority that says who the user is");
    }
    match (method, uri.scheme(), uri.path_and_query()) {
        (&Method::CONNECT, None, None) => Ok(()),
        (&Method::CONNECT, _, _) => Err("a CONNECT request with a scheme or a path"),
        (_, None, _) => Err("no :scheme"),
        (_, _, None) => Err("no :path"),
        (_, _, Some(path)) if path.as_str().starts_with('/') || path.as_str() == "*" => Ok(()),
        _ => Err("a :path that begins without a slash"),
    }
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    match text.and_then(|text| text.parse().ok()) {
        Some(length) if values.next().is_none() => Ok(Some(length)),
        _ => Err("Content-Length is not one number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<Head, &'static str> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&mut request.body(()).expect("a request"))
    }

    #[test]
    fn what_belongs_to_connections_is_malformed() {
        for field in [
            ("connection", "close"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
        ] {
            assert!(checked("GET", "https://a.test/", &[field]).is_err(), "{field:?}");
        }
        assert_eq!(checked("GET", "https://a.test/", &[("te", "trailers")]), Ok(Head { length: None, expects: false }));
    }

    #[test]
    fn a_target_has_all_its_parts_and_that_of_connect_none() {
        assert!(checked("GET", "a.test", &[]).is_err());
        assert!(checked("CONNECT", "a.test:443", &[]).is_ok());
        assert!(checked("CONNECT", "https://a.test/", &[]).is_err());
        assert!(checked("GET", "https://user@a.test/", &[]).is_err());
    }

    #[test]
    fn the_length_is_one_number() {
        let of = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
            checked("POST", "https://a.test/", &fields).map(|head| head.length)
        };
        assert_eq!(of(&["12"]), Ok(Some(12)));
        assert_eq!(of(&[]), Ok(None));
        for values in [&["+1"][..], &[""], &["1", "1"], &["99999999999999999999"], &["1, 1"]] {
            assert!(of(values).is_err(), "{values:?}");
        }
    }
}
