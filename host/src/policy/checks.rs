//! What a policy gives is checked like a client's input: a name, value, path or status that cannot be sent is a failure of the
//! policy, not a broken message on the wire.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::error::Fence;
use super::limits::{HEADER_BYTES_MAX, HEADERS_MAX, PATH_BYTES_MAX};

/// Fields that belong to the connection or to framing (RFC 9110 section 7.6.1, RFC 9112 section 6), and Host, which routes.
/// A policy that sets one of them would contradict what the host sends.
const NOT_FOR_POLICIES: [&str; 12] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A field name that a policy may touch.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, Fence> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Fence::Invalid(format!("{} is not a header name", shown(name))))?;
    if NOT_FOR_POLICIES.contains(&name.as_str()) {
        return Err(Fence::Invalid(format!("the header {name} is the host's own and can't be set by a policy")));
    }
    Ok(name)
}

/// A field value that can be sent: no CR, LF, NUL or other control.
pub(crate) fn header_value(name: &str, value: &str) -> Result<HeaderValue, Fence> {
    HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| Fence::Invalid(format!("the value of the header {} can't be sent: {}", shown(name), shown(value))))
}

/// A Location: what is not visible ASCII must be percent-encoded by the policy.
pub(crate) fn location(text: &str) -> Result<HeaderValue, Fence> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fence::Invalid(format!("the location {} can't be sent: percent-encode it", shown(text))));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(Fence::Invalid(format!(
            "the location has {} bytes, at most {PATH_BYTES_MAX} can be sent",
            text.len()
        )));
    }
    HeaderValue::from_str(text).map_err(|_| Fence::Invalid(format!("the location {} can't be sent", shown(text))))
}

/// Status of a refusal.
pub(crate) fn deny_status(status: u16) -> Result<StatusCode, Fence> {
    match status {
        400..=599 => StatusCode::from_u16(status).map_err(|_| bad_status("deny", status)),
        _ => Err(bad_status("deny", status)),
    }
}

/// Status of a redirect.
pub(crate) fn redirect_status(status: u16) -> Result<StatusCode, Fence> {
    match status {
        301 | 302 | 303 | 307 | 308 => StatusCode::from_u16(status).map_err(|_| bad_status("redirect", status)),
        _ => Err(bad_status("redirect", status)),
    }
}

/// Status of an answer: a final one.
pub(crate) fn reply_status(status: u16) -> Result<StatusCode, Fence> {
    match status {
        200..=599 => StatusCode::from_u16(status).map_err(|_| bad_status("an answer", status)),
        _ => Err(bad_status("an answer", status)),
    }
}

fn bad_status(of: &str, status: u16) -> Fence {
    Fence::Invalid(format!("{status} is not a status for {of}"))
}

/// Header fields of a reply.
pub(crate) fn headers(fields: &[(String, String)]) -> Result<HeaderMap, Fence> {
    if fields.len() > HEADERS_MAX {
        return Err(Fence::Calls(format!("a reply may have {HEADERS_MAX} header lines, not {}", fields.len())));
    }
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(Fence::Calls(format!("the headers of a reply may have {HEADER_BYTES_MAX} bytes, not {bytes}")));
    }
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        map.append(header_name(name)?, header_value(name, value)?);
    }
    Ok(map)
}

/// A path in decoded form, by the rules of a client's: begins with a slash, no dot segment, no NUL.
pub(crate) fn path(text: String) -> Result<String, Fence> {
    if !text.starts_with('/') {
        return Err(Fence::Invalid(format!("the path {} does not begin with a slash", shown(&text))));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(Fence::Invalid(format!("a path may have {PATH_BYTES_MAX} bytes, not {}", text.len())));
    }
    if text.contains('\0') {
        return Err(Fence::Invalid("the path has a NUL".to_owned()));
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(Fence::Invalid(format!("the path {} has a dot segment", shown(&text))));
    }
    Ok(text)
}

/// A query as it goes on the wire (RFC 3986 section 3.4, and what browsers send beyond it).
pub(crate) fn query(text: String) -> Result<String, Fence> {
    if text.len() > PATH_BYTES_MAX {
        return Err(Fence::Invalid(format!("a query may have {PATH_BYTES_MAX} bytes, not {}", text.len())));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Fence::Invalid(format!("the query {} can't be sent: percent-encode it", shown(&text))));
    }
    Ok(text)
}

/// Text for a message: short, on one line.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let cut: String = text.chars().take(MOST).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{more}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for bad in ["a b", "", "a\r\n", "é", "Content-Length", "Transfer-Encoding", "HOST", "Connection"] {
            assert!(header_name(bad).is_err(), "{bad}");
        }
        for bad in ["a\r\nb", "a\nb", "a\0b", "\u{7f}"] {
            assert!(header_value("x", bad).is_err(), "{bad:?}");
        }
        assert!(header_value("x", "attachment; filename=\"ü\"").is_ok());
        for bad in ["", "/a b", "/ü", "/a\r\nSet-Cookie: x"] {
            assert!(location(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a", "/../a", "/a/..", "/./", "/a/.", "/\0"] {
            assert!(path(bad.to_owned()).is_err(), "{bad:?}");
        }
        for good in ["/", "//", "/a//b", "/...", "/a b", "/ü", "/%2f"] {
            assert!(path(good.to_owned()).is_ok(), "{good:?}");
        }
        for bad in ["a b", "a#b", "ü", "a\n"] {
            assert!(query(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn statuses_have_their_places() {
        assert!(deny_status(399).is_err() && deny_status(400).is_ok() && deny_status(599).is_ok());
        assert!(deny_status(600).is_err() && deny_status(200).is_err());
        assert!(redirect_status(304).is_err() && redirect_status(308).is_ok());
        assert!(reply_status(101).is_err() && reply_status(200).is_ok());
    }

    proptest! {
        #[test]
        fn a_path_that_passes_has_no_way_up(text in "[./a\\x00]{0,12}") {
            if let Ok(path) = path(text) {
                prop_assert!(path.starts_with('/'));
                prop_assert!(!path.contains('\0'));
                prop_assert!(path.split('/').all(|segment| segment != ".."));
            }
        }

        #[test]
        fn a_value_that_passes_stays_on_its_line(text in ".{0,20}") {
            if let Ok(value) = header_value("x", &text) {
                prop_assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            }
        }
    }
}
