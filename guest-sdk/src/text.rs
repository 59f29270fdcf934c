//! Small tools for paths, queries and names that many policies need, with one meaning everywhere.

use std::borrow::Cow;

/// Whether a path fits a pattern in which `*` stands for any run of characters, slashes included.
///
/// ```
/// # use proxyhost_policy::text::glob;
/// assert!(glob("/assets/*", "/assets/css/a.css"));
/// assert!(glob("*.html", "/a/b.html"));
/// assert!(!glob("/assets/*", "/assets"));
/// ```
#[must_use]
pub fn glob(pattern: &str, path: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(mut path) = path.strip_prefix(first) else { return false };
    // Taking the earliest place for each middle piece leaves the most for those behind it, so no way back is needed
    // and the work stays within pattern times path.
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return path.ends_with(piece);
        }
        match path.find(piece) {
            Some(at) => path = &path[at + piece.len()..],
            None => return false,
        }
    }
    true
}

/// The parameters of a query as they stand: name and value not decoded, in order. An empty piece (`a=1&&b=2`) is left out.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|piece| !piece.is_empty()).map(|piece| piece.split_once('=').unwrap_or((piece, "")))
}

/// Decodes `%XX` and `+` as forms do. None if what comes out is not UTF-8 or a `%` is not followed by two hex digits.
#[must_use]
pub fn query_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// Decodes `%XX` alone, as the host does for a path and for `query-param`: a `%` without two hex digits behind it stays as
/// it is, and so does a `+`. None if what comes out is not UTF-8.
#[must_use]
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [byte, rest @ ..] = bytes {
        bytes = rest;
        let decoded = match (byte, rest) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        if decoded.is_some() {
            bytes = &rest[2..];
        }
        out.push(decoded.unwrap_or(*byte));
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// The value of a hex digit.
fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Encodes a decoded path for a Location: everything but what RFC 3986 lets stand in a path is percent-encoded, the
/// backslash included, which browsers take for a slash.
#[must_use]
pub fn path_encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            | b':' | b'@' | b'/' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                for half in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
                }
            }
        }
    }
    out
}

/// The host and port of a URL such as a Referer, lower case, without user information: `("example.com", Some("8080"))`.
/// None for what has no host (`about:blank`, `null`).
#[must_use]
pub fn url_host(url: &str) -> Option<(String, Option<String>)> {
    let (scheme, rest) = url.trim().split_once("://")?;
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) {
        return None;
    }
    // A browser ends the authority at a backslash as well; whoever reads further would see another host than it does.
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = if authority.starts_with('[') {
        let (host, after) = authority.split_at(authority.find(']')? + 1);
        (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = port.filter(|port| !port.is_empty());
    if host.is_empty() || port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    Some((host, port.map(str::to_owned)))
}

/// Whether a host is the domain or lies below it: `a.example.com` in `example.com`, but not `badexample.com`.
#[must_use]
pub fn host_within(host: &str, domain: &str) -> bool {
    !domain.is_empty() && host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding_leaves_alone_what_is_none() {
        assert_eq!(percent_decode("a+b").as_deref(), Some("a+b"));
        assert_eq!(percent_decode("a%20b%2B%zz%2").as_deref(), Some("a b+%zz%2"));
        assert_eq!(percent_decode("%c3%a4").as_deref(), Some("ä"));
        assert_eq!(percent_decode("%ff"), None);
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, path) in [
            ("*", ""),
            ("*", "/a"),
            ("/a", "/a"),
            ("/a*", "/a"),
            ("/a/*", "/a/b/c"),
            ("*.css", "/x/y.css"),
            ("/*/b/*.css", "/a/b/c.css"),
            ("/a*b*c", "/abbc"),
            ("**", "/a"),
        ] {
            assert!(glob(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in
            [("", "/a"), ("/a", "/ab"), ("/a/*", "/a"), ("*.css", "/a.css2"), ("/ab*bc", "/abc"), ("*a*b", "/ba")]
        {
            assert!(!glob(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn queries_are_decoded_as_forms_are() {
        assert_eq!(query_decode("a+b%2Fc").as_deref(), Some("a b/c"));
        assert_eq!(query_decode("%C3%A9").as_deref(), Some("é"));
        for bad in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(query_decode(bad), None, "{bad}");
        }
        let pairs: Vec<_> = query_pairs("a=1&&b&c=d=e").collect();
        assert_eq!(pairs, [("a", "1"), ("b", ""), ("c", "d=e")]);
    }

    #[test]
    fn a_location_can_not_be_read_as_another_host() {
        assert_eq!(path_encode("/\\evil.test/a b?c#d%é"), "/%5Cevil.test/a%20b%3Fc%23d%25%C3%A9");
    }

    #[test]
    fn the_host_of_a_referer_is_the_one_that_a_browser_means() {
        let host = |url: &str| url_host(url).map(|(host, port)| format!("{host}|{}", port.unwrap_or_default()));
        assert_eq!(host("https://Example.com/a?b").as_deref(), Some("example.com|"));
        assert_eq!(host("https://example.com:8443").as_deref(), Some("example.com|8443"));
        assert_eq!(host("https://user:pw@example.com/").as_deref(), Some("example.com|"));
        assert_eq!(host("https://good.test@evil.test/").as_deref(), Some("evil.test|"));
        assert_eq!(host("https://evil.test\\@good.test/").as_deref(), Some("evil.test|"));
        assert_eq!(host("https://evil.test?good.test").as_deref(), Some("evil.test|"));
        assert_eq!(host("http://[2001:DB8::1]:80/").as_deref(), Some("[2001:db8::1]|80"));
        assert_eq!(host("https://example.com./").as_deref(), Some("example.com|"));
        for none in
            ["", "null", "about:blank", "://a.test", "https://", "https://a.test:80x/", "//a.test/", "http://[::1]x"]
        {
            assert_eq!(host(none), None, "{none}");
        }
    }

    #[test]
    fn a_domain_ends_at_a_dot() {
        assert!(host_within("example.com", "example.com"));
        assert!(host_within("a.b.example.com", "example.com"));
        assert!(!host_within("badexample.com", "example.com"));
        assert!(!host_within("example.com.evil.test", "example.com"));
        assert!(!host_within("example.com", ""));
    }
}
