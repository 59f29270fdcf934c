//! Request targets: one identity of a path, its decoded form (DESIGN.md, principle 2; RFC 9110 section 7.1, RFC 3986).
//!
//! A path is decoded once, before any policy sees it. What would make decoding lose something is refused: an encoded slash
//! (it would become a separator), an encoded NUL, dot segments (whoever resolves them first wins), and bytes that are no
//! UTF-8. All else stays what it is: `//` is an empty segment, `%252F` is the three characters `%2F`, a backslash is a
//! backslash and no separator, other control characters are themselves and leave encoded again. A number sign, which a
//! request target should not have, is an ordinary character here; of a client's target hyper cuts it off with all behind it.
//!
//! The query is never decoded as a whole: it stays the text that came in.

use std::borrow::Cow;
use std::sync::Arc;

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The target of a request, decoded once. A copy shares the text.
#[derive(Clone, Debug)]
pub struct Target {
    raw: Raw,
    /// Where the path ends in `raw`.
    path_end: usize,
    /// The path, where it is not as it stands in `raw`.
    decoded: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Raw {
    /// As the connection's buffer has it.
    Shared(PathAndQuery),
    Own(Arc<str>),
}

/// Why a target is refused with 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `%2f` in any case.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `%00`, or a NUL as it is.
    #[error("the path has an encoded NUL")]
    EncodedNul,
    /// `.` or `..`, encoded or not.
    #[error("the path has a dot segment")]
    DotSegment,
    /// Bytes that are no UTF-8 once decoded, overlong forms among them.
    #[error("the path is not UTF-8 once decoded")]
    NotUtf8,
    /// A percent sign without two hexadecimal digits behind it.
    #[error("the path has a percent sign without two hexadecimal digits")]
    BadPercent,
    /// Not in origin form, nor absolute form, nor `*` of OPTIONS.
    #[error("the request target has no path")]
    NoPath,
}

impl Target {
    /// Reads path and query (of origin or absolute form), or the `*` of OPTIONS.
    pub fn parse(path_and_query: &str) -> Result<Self, TargetError> {
        let raw = origin_form(path_and_query)?;
        let (path_end, decoded) = Self::read(&raw)?;
        Ok(Self { raw: Raw::Own(Arc::from(raw.as_ref())), path_end, decoded })
    }

    /// The same of what hyper has cut out of the request; nothing is copied that need not be decoded.
    pub fn of(path_and_query: &PathAndQuery) -> Result<Self, TargetError> {
        if path_and_query.as_str().starts_with('?') {
            // Of an absolute form without a path: that is the root (RFC 9110 section 4.2.3).
            return Self::parse(&format!("/{}", path_and_query.as_str()));
        }
        match origin_form(path_and_query.as_str())? {
            Cow::Borrowed(raw) if raw.len() == path_and_query.as_str().len() => {
                let (path_end, decoded) = Self::read(raw)?;
                Ok(Self { raw: Raw::Shared(path_and_query.clone()), path_end, decoded })
            }
            raw => Self::parse(&raw),
        }
    }

    fn read(raw: &str) -> Result<(usize, Option<Arc<str>>), TargetError> {
        if raw == "*" {
            return Ok((1, None));
        }
        let path_end = memchr::memchr(b'?', raw.as_bytes()).unwrap_or(raw.len());
        let path = decode_path(&raw[..path_end])?;
        Ok((path_end, if let Cow::Owned(path) = path { Some(path.into()) } else { None }))
    }

    /// The decoded path; begins with a slash, or is `*`.
    pub fn path(&self) -> &str {
        self.decoded.as_deref().unwrap_or_else(|| &self.raw()[..self.path_end])
    }

    /// The query as it came, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.raw().get(self.path_end + 1..)
    }

    /// Path and query as they came in, without scheme and authority.
    pub fn raw(&self) -> &str {
        match &self.raw {
            Raw::Shared(text) => text.as_str(),
            Raw::Own(text) => text,
        }
    }
}

/// Cuts scheme and authority off an absolute form (RFC 9112 section 3.2.2). Whether the authority is sound and ours is
/// for `Authority::parse` and routing.
fn origin_form(target: &str) -> Result<Cow<'_, str>, TargetError> {
    if target.starts_with('/') || target == "*" {
        return Ok(Cow::Borrowed(target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(TargetError::NoPath)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(TargetError::NoPath);
    }
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if at == 0 {
        return Err(TargetError::NoPath);
    }
    let tail = &rest[at..];
    Ok(if tail.starts_with('/') { Cow::Borrowed(tail) } else { Cow::Owned(format!("/{tail}")) })
}

fn decode_path(raw: &str) -> Result<Cow<'_, str>, TargetError> {
    let plain = memchr::memchr(b'%', raw.as_bytes()).is_none();
    let path = if plain { Cow::Borrowed(raw) } else { Cow::Owned(percent_decode(raw)?) };
    check_path(&path)?;
    Ok(path)
}

fn percent_decode(raw: &str) -> Result<String, TargetError> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        decoded.extend_from_slice(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).ok_or(TargetError::BadPercent)?;
        let byte = hex_digit(digits[0]).zip(hex_digit(digits[1])).map(|(high, low)| high << 4 | low);
        match byte.ok_or(TargetError::BadPercent)? {
            b'/' => return Err(TargetError::EncodedSlash),
            0 => return Err(TargetError::EncodedNul),
            byte => decoded.push(byte),
        }
        rest = &rest[at + 3..];
    }
    decoded.extend_from_slice(rest);
    String::from_utf8(decoded).map_err(|_| TargetError::NotUtf8)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Holds a path that is already decoded (a policy's `set-path` or `try-paths`) against the rules that a client's is held to.
pub fn check_path(path: &str) -> Result<(), TargetError> {
    if !path.starts_with('/') {
        return Err(TargetError::NoPath);
    }
    if memchr::memchr(0, path.as_bytes()).is_some() {
        return Err(TargetError::EncodedNul);
    }
    // Most paths have no segment that begins with a dot, and are asked for that only.
    if path.contains("/.") && path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(TargetError::DotSegment);
    }
    Ok(())
}

/// What is not `pchar` of RFC 3986 section 3.3, nor a slash.
const NOT_IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// Encodes a decoded path for an origin, exactly once: what RFC 3986 `pchar` and `/` allow stays as it is, all else is
/// percent-encoded. `parse(encode_path(p)).path == p` for every decoded path.
pub fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, NOT_IN_PATH).to_string()
}

/// The parameters of a query in order, percent-decoded (a plus sign stays one; a stray percent sign too); what is not
/// UTF-8 is left out.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    parameters(query)
        .filter_map(|(_, name, value)| {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Some((decoded_name(name)?.into_owned(), value.into_owned()))
        })
        .collect()
}

/// The named parameters of a query as they were written, sorted by name; those of one name stay in their order.
pub fn filter_query(query: &str, keep: &[&str]) -> String {
    let mut kept: Vec<(Cow<'_, str>, &str)> = parameters(query)
        .filter_map(|(text, name, _)| Some((decoded_name(name)?, text)))
        .filter(|(name, _)| keep.contains(&name.as_ref()))
        .collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    kept.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("&")
}

/// Text, raw name and raw value of each parameter.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    query.split('&').filter(|text| !text.is_empty()).map(|text| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (text, name, value)
    })
}

fn decoded_name(name: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(name).decode_utf8().ok()
}

/// Joins an origin prefix and a decoded path by exactly one slash: `("my", "/a")` gives `/my/a`. Slashes at the ends of the
/// prefix do not count; those of the path stay, since `//` is a path of its own. The `*` of OPTIONS stays alone.
pub fn join_prefix(prefix: &str, path: &str) -> String {
    if path == "*" {
        return path.to_owned();
    }
    let prefix = prefix.trim_matches('/');
    let path = path.strip_prefix('/').unwrap_or(path);
    if prefix.is_empty() { format!("/{path}") } else { format!("/{prefix}/{path}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(target: &str) -> Result<String, TargetError> {
        Target::parse(target).map(|target| target.path().to_owned())
    }

    #[test]
    fn a_path_is_decoded_once() {
        for (raw, decoded) in [
            ("/", "/"),
            ("/a%20b", "/a b"),
            ("/a+b", "/a+b"),
            ("/%C3%BC", "/ü"),
            ("/ü", "/ü"),
            ("/%252F", "/%2F"),
            ("/%2525", "/%25"),
            ("//a//b/", "//a//b/"),
            ("/a\\..\\b", "/a\\..\\b"),
            ("/%5c", "/\\"),
            ("/%0d%0a", "/\r\n"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/..a", "/..a"),
            ("/a;..", "/a;.."),
            ("/a#b", "/a#b"),
        ] {
            assert_eq!(path(raw).as_deref(), Ok(decoded), "{raw}");
        }
    }

    #[test]
    fn what_decoding_would_lose_is_refused() {
        use TargetError::*;
        for (raw, error) in [
            ("/a%2Fb", EncodedSlash),
            ("/a%2fb", EncodedSlash),
            ("/%2e%2e%2fetc", EncodedSlash),
            ("/a%00", EncodedNul),
            ("/a\0", EncodedNul),
            ("/.", DotSegment),
            ("/..", DotSegment),
            ("/a/../b", DotSegment),
            ("/a/./b", DotSegment),
            ("/%2e", DotSegment),
            ("/a/%2E%2e/b", DotSegment),
            ("/a/.%2e", DotSegment),
            ("/%c0%ae%c0%ae/", NotUtf8),
            ("/%c0%af", NotUtf8),
            ("/%e0%80%af", NotUtf8),
            ("/%ed%a0%80", NotUtf8),
            ("/%ff", NotUtf8),
            ("/%", BadPercent),
            ("/%4", BadPercent),
            ("/%zz", BadPercent),
            ("/%+1", BadPercent),
            ("/%u0041", BadPercent),
            ("", NoPath),
            ("a", NoPath),
            ("?a", NoPath),
            ("*?a", NoPath),
            ("a.test:443", NoPath),
            ("ftp://a.test/", NoPath),
            ("http:///a", NoPath),
            ("http://", NoPath),
        ] {
            assert_eq!(path(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn absolute_form_and_asterisk_are_read() {
        let read = |text: &str| Target::parse(text).expect("a target");
        let target = read("HTTP://a.test:80/x%20y?q=%2f");
        assert_eq!((target.path(), target.query()), ("/x y", Some("q=%2f")));
        assert_eq!(target.raw(), "/x%20y?q=%2f");
        assert_eq!(read("http://a.test").path(), "/");
        let target = read("https://a.test?q");
        assert_eq!((target.path(), target.query(), target.raw()), ("/", Some("q"), "/?q"));
        assert_eq!((read("*").path(), read("*").query()), ("*", None));
        assert_eq!(read("/?").query(), Some(""));
        assert_eq!(read("/a?b?c=/../%00").query(), Some("b?c=/../%00"));
    }

    #[test]
    fn what_hyper_cut_out_reads_as_the_same_text() {
        let absolute: http::Uri = "http://a.test?x=1".parse().expect("hyper takes it");
        let target = Target::of(absolute.path_and_query().expect("a query")).expect("a target");
        assert_eq!((target.path(), target.query(), target.raw()), ("/", Some("x=1"), "/?x=1"));
        for text in ["/", "/a?b", "/a%20b?c%20d", "/?", "*", "/a%2fb", "/a/../b", "//x?y?z"] {
            let cut: PathAndQuery = text.parse().expect("hyper takes it");
            let all = |read: Result<Target, TargetError>| {
                read.map(|read| (read.path().to_owned(), read.query().map(str::to_owned), read.raw().to_owned()))
            };
            assert_eq!(all(Target::of(&cut)), all(Target::parse(text)), "{text}");
        }
    }

    #[test]
    fn what_pchar_allows_stays_as_it_is() {
        assert_eq!(encode_path("/aZ09-._~!$&'()*+,;=:@/"), "/aZ09-._~!$&'()*+,;=:@/");
        assert_eq!(
            encode_path("/a b?c#d%e\\\"<>[]^`{|}\r\n\u{7f}ü"),
            "/a%20b%3Fc%23d%25e%5C%22%3C%3E%5B%5D%5E%60%7B%7C%7D%0D%0A%7F%C3%BC"
        );
    }

    #[test]
    fn prefixes_are_joined_by_one_slash() {
        for (prefix, path, joined) in [
            ("my", "/a", "/my/a"),
            ("/my/", "/a", "/my/a"),
            ("my/site", "/", "/my/site/"),
            ("", "/a", "/a"),
            ("/", "//a", "//a"),
            ("my", "//a", "/my//a"),
            ("my", "*", "*"),
        ] {
            assert_eq!(join_prefix(prefix, path), joined);
        }
    }

    #[test]
    fn query_parameters_are_read_in_order() {
        let pairs = query_pairs("b=1&a=%20x&&c&b=2=3&d=%&e+=+&%66=g&h=%ff");
        let expected = [("b", "1"), ("a", " x"), ("c", ""), ("b", "2=3"), ("d", "%"), ("e+", "+"), ("f", "g")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(query_pairs("").is_empty());
    }

    #[test]
    fn a_filtered_query_is_sorted_and_keeps_its_text() {
        assert_eq!(filter_query("z=1&b=%20&a=2&b=1&utm=x&c", &["a", "b", "c"]), "a=2&b=%20&b=1&c");
        assert_eq!(filter_query("%61=1", &["a"]), "%61=1");
        assert_eq!(filter_query("x=1", &[]), "");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*", query in "\\PC*") {
            let _ = Target::parse(&text);
            let _ = query_pairs(&query);
            let _ = filter_query(&query, &["a"]);
        }

        #[test]
        fn what_is_read_has_no_way_up(text in "/[./%2eEfF0-1a?\\\\]{0,24}") {
            if let Ok(target) = Target::parse(&text) {
                let path = target.path();
                prop_assert!(path.starts_with('/'));
                prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(!path.contains('\0'));
            }
        }

        #[test]
        fn decode_after_encode_is_the_same(path in "/(\\PC|[\u{1}-\u{1f}%/.]){0,40}") {
            prop_assume!(check_path(&path).is_ok());
            let encoded = encode_path(&path);
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(Target::parse(&encoded).map(|target| target.path().to_owned()), Ok(path));
        }

        #[test]
        fn one_identity_whatever_the_spelling(segments in proptest::collection::vec("[a-z .ü%]{1,6}", 1..4)) {
            let path = format!("/{}", segments.join("/"));
            prop_assume!(check_path(&path).is_ok());
            let shouting: String = path.bytes()
                .map(|byte| if byte == b'/' { "/".to_owned() } else { format!("%{byte:02x}") }).collect();
            prop_assert_eq!(Target::parse(&shouting).map(|target| target.path().to_owned()), Ok(path));
        }
    }
}
