//! Fields that end at the next hop (RFC 9110 section 7.6.1).
//!
//! Connection may not name what is meant for everyone (Cache-Control is the RFC's own example). A peer that does so anyway
//! would make a shared cache forget `private`, or an origin forget who asked; such names are passed over.

use http::HeaderMap;
use http::header::{self, CONNECTION, HeaderName};

use super::cdn_loop::CDN_LOOP;
use super::list;

/// Hop-by-hop whether Connection names them or not.
const ALWAYS: [HeaderName; 11] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// End-to-end whatever Connection says: what decides about keeping, about who asks and whether they did before, and what the body
/// is.
const NEVER: [HeaderName; 23] = [
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    HeaderName::from_static("cdn-cache-control"),
    CDN_LOOP,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::FORWARDED,
    header::HOST,
    header::LAST_MODIFIED,
    header::PRAGMA,
    HeaderName::from_static("proxyhost-cache-control"),
    header::SET_COOKIE,
    header::VARY,
    header::VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Removes Connection, the fields that it names, and those that are hop-by-hop by custom (Keep-Alive, Proxy-Connection,
/// TE, Trailer, Transfer-Encoding, Upgrade, Proxy-Authenticate, Proxy-Authorization).
pub fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = list::of(headers, &CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| !NEVER.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &ALWAYS {
        headers.remove(name);
    }
}

/// Whether a field of that name ends at the next hop by custom, without being named in Connection.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    ALWAYS.contains(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_connection_names_goes_with_it() {
        let mut headers = map(&[
            ("connection", "close, X-One,, bad name"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "3"),
            ("x-three", "3"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic eDp5"),
        ]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("x-three", "3")]));
    }

    #[test]
    fn connection_cannot_make_a_cache_forget() {
        let kept = [("cache-control", "private"), ("vary", "cookie"), ("set-cookie", "a=b"), ("authorization", "x")];
        let mut headers = map(&kept);
        headers.append(CONNECTION, HeaderValue::from_static("cache-control, Vary, SET-COOKIE, authorization"));
        strip(&mut headers);
        assert_eq!(headers, map(&kept));
    }

    proptest! {
        #[test]
        fn any_connection_field_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::from_iter([(CONNECTION, value)]);
                strip(&mut headers);
                prop_assert!(headers.is_empty());
            }
        }
    }
}
