//! What requests of HTTP/2 and HTTP/3 need before they are like those of HTTP/1.1.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// Puts the cookies of a request into one field: clients may send each in one of its own, for the sake of compression, and who
/// passes them on to HTTP/1.1 has to join them (RFC 9113 section 8.2.3, RFC 9114 section 4.2.1).
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = cookies.join(&b"; "[..]);
    // What was valid in parts is valid as a whole.
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

/// Whether a name, in lower case, differs from Content-Length or Transfer-Encoding only in what stands for the hyphen: CGI and its
/// heirs turn `-`, `_` and `.` into one (RFC 3875 section 4.1.18), and an origin would see a second length.
pub fn is_framing_in_disguise(name: &str) -> bool {
    let is = |first: &str, second: &str| {
        name.strip_prefix(first).and_then(|rest| rest.strip_suffix(second)).is_some_and(|between| {
            between.len() == 1 && between != "-" && !between.as_bytes()[0].is_ascii_alphanumeric()
        })
    };
    is("content", "length") || is("transfer", "encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_become_one_field() {
        let mut headers = HeaderMap::new();
        for cookie in ["a=1", "b=2; c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn only_names_that_fold_to_the_framing_are_disguises() {
        for name in ["content_length", "content.length", "transfer_encoding", "transfer.encoding"] {
            assert!(is_framing_in_disguise(name), "{name}");
        }
        for name in ["content-length", "transfer-encoding", "contentxlength", "contentlength", "content__length", "x"] {
            assert!(!is_framing_in_disguise(name), "{name}");
        }
    }
}
