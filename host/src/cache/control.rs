//! Cache-Control (RFC 9111 section 5.2) and Pragma as values.
//!
//! Where a field is at odds with itself the stricter reading wins: of two lifetimes the shorter, an argument that can't be
//! read is zero, `private` or `no-cache` with field names that can't be read is without names. Directives that we do not
//! know are passed over.

use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};

use super::targeted;
use crate::semantics::list;

/// What counts for numbers that are too large (RFC 9111 section 1.2.2).
pub(super) const MAX_DELTA_SECONDS: u64 = 1 << 31;

/// Directives of a response that matter to a shared cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// They are those of a targeted field (RFC 9213), beside which Expires and Pragma count for nothing.
    pub targeted: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without field names.
    pub no_cache: bool,
    /// Field names of `no-cache="..."`.
    pub no_cache_fields: Vec<HeaderName>,
    /// `private` without field names.
    pub private: bool,
    /// Field names of `private="..."`.
    pub private_fields: Vec<HeaderName>,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `max-age`; invalid values count as zero (stale), overflow as 2^31 seconds.
    pub max_age: Option<Duration>,
    /// `s-maxage`, likewise.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861).
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// Reads the targeted field that counts, else all Cache-Control lines.
    pub fn parse(headers: &HeaderMap) -> Self {
        targeted::directives(headers).unwrap_or_else(|| Self::of_cache_control(headers))
    }

    fn of_cache_control(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        for Directive { name, argument } in directives(headers, &CACHE_CONTROL) {
            match name.as_slice() {
                b"no-store" => read.no_store = true,
                b"no-cache" => match argument.field_names() {
                    Some(names) => read.no_cache_fields.extend(names),
                    None => read.no_cache = true,
                },
                b"private" => match argument.field_names() {
                    Some(names) => read.private_fields.extend(names),
                    None => read.private = true,
                },
                b"public" => read.public = true,
                b"must-revalidate" => read.must_revalidate = true,
                b"proxy-revalidate" => read.proxy_revalidate = true,
                b"must-understand" => read.must_understand = true,
                b"immutable" => read.immutable = true,
                b"max-age" => shorter(&mut read.max_age, argument.seconds_or_zero()),
                b"s-maxage" => shorter(&mut read.s_maxage, argument.seconds_or_zero()),
                b"stale-while-revalidate" => shorter(&mut read.stale_while_revalidate, argument.seconds_or_zero()),
                b"stale-if-error" => shorter(&mut read.stale_if_error, argument.seconds_or_zero()),
                _ => {}
            }
        }
        read
    }
}

/// Directives of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, or `Pragma: no-cache` without Cache-Control.
    pub no_cache: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `min-fresh`.
    pub min_fresh: Option<Duration>,
    /// `max-stale`: any, or up to a duration.
    pub max_stale: Option<Option<Duration>>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Reads Cache-Control and Pragma.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            read.no_cache = headers.contains_key(PRAGMA)
                && directives(headers, &PRAGMA).iter().any(|directive| directive.name == b"no-cache");
            return read;
        }
        for Directive { name, argument } in directives(headers, &CACHE_CONTROL) {
            match name.as_slice() {
                b"no-store" => read.no_store = true,
                b"no-cache" => read.no_cache = true,
                b"only-if-cached" => read.only_if_cached = true,
                b"max-age" => shorter(&mut read.max_age, argument.seconds_or_zero()),
                b"min-fresh" => {
                    if let Some(seconds) = argument.seconds() {
                        read.min_fresh = Some(read.min_fresh.map_or(seconds, |known| known.max(seconds)));
                    }
                }
                b"stale-if-error" => shorter(&mut read.stale_if_error, argument.seconds_or_zero()),
                b"max-stale" => {
                    let allowed = match argument {
                        Argument::None => None,
                        other => Some(other.seconds_or_zero()),
                    };
                    read.max_stale = Some(match (read.max_stale.flatten(), allowed) {
                        (Some(known), Some(new)) => Some(known.min(new)),
                        (known, new) => known.or(new),
                    });
                }
                _ => {}
            }
        }
        read
    }

    /// What counts on a host that does not let its clients steer: `no-store`, which keeps less, and `only-if-cached`, which asks
    /// for less.
    pub fn without_wishes(self) -> Self {
        Self { no_store: self.no_store, only_if_cached: self.only_if_cached, ..Self::default() }
    }

    /// Whether a fresh response of this age, fresh for so long more, is not what was asked for (sections 5.2.1.1, 5.2.1.3 and
    /// 5.2.1.4). With `max-age=0` that is so at any age, as every reload expects.
    pub fn refuse_fresh(&self, age: Duration, left: Duration) -> bool {
        self.no_cache || self.is_too_old(age) || self.min_fresh.is_some_and(|wanted| left < wanted)
    }

    /// Whether a response that has been stale for so long is not what was asked for. Only `max-stale` (section 5.2.1.2) undoes
    /// that a client who says `max-age` takes nothing stale.
    pub fn refuse_stale(&self, age: Duration, since: Duration) -> bool {
        let too_stale = match self.max_stale {
            None => self.max_age.is_some(),
            Some(limit) => limit.is_some_and(|limit| since > limit),
        };
        self.no_cache || self.is_too_old(age) || self.min_fresh.is_some() || too_stale
    }

    fn is_too_old(&self, age: Duration) -> bool {
        self.max_age.is_some_and(|limit| limit.is_zero() || age > limit)
    }
}

fn shorter(known: &mut Option<Duration>, new: Duration) {
    *known = Some(known.map_or(new, |known| known.min(new)));
}

/// One directive; the name is in lower case.
struct Directive {
    name: Vec<u8>,
    argument: Argument,
}

/// What stands behind a directive's equals sign.
enum Argument {
    /// No equals sign.
    None,
    /// As it stands.
    Token(Vec<u8>),
    /// Without its quotes and backslashes; none if the closing quote is missing.
    Quoted(Option<Vec<u8>>),
}

impl Argument {
    /// Delta seconds, in quotes or not (RFC 9111 section 5.2 wants both taken).
    fn seconds(&self) -> Option<Duration> {
        let (Self::Token(digits) | Self::Quoted(Some(digits))) = self else {
            return None;
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let seconds = std::str::from_utf8(digits).ok()?.parse().unwrap_or(MAX_DELTA_SECONDS);
        Some(Duration::from_secs(seconds.min(MAX_DELTA_SECONDS)))
    }

    fn seconds_or_zero(&self) -> Duration {
        self.seconds().unwrap_or_default()
    }

    /// The names of a quoted list; none if the directive is to be taken as one without names.
    fn field_names(&self) -> Option<Vec<HeaderName>> {
        match self {
            Self::Quoted(Some(list)) => field_names(list),
            _ => None,
        }
    }
}

/// The names of a list; none where there are none, or one that is no name.
pub(super) fn field_names(list: &[u8]) -> Option<Vec<HeaderName>> {
    list::names(list::members(list)).filter(|names| !names.is_empty())
}

/// All directives of all lines.
fn directives(headers: &HeaderMap, name: &HeaderName) -> Vec<Directive> {
    let mut found = Vec::new();
    for line in headers.get_all(name) {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| matches!(byte, b',' | b'=')).unwrap_or(rest.len());
            let name = rest[..end].trim_ascii().to_ascii_lowercase();
            let argument = if rest.get(end) == Some(&b'=') {
                let (argument, behind) = take_argument(rest[end + 1..].trim_ascii_start());
                rest = behind;
                argument
            } else {
                rest = &rest[end..];
                Argument::None
            };
            // On behind the next comma; what stands before it and was not understood is passed over.
            rest = memchr::memchr(b',', rest).map_or(&b""[..], |comma| &rest[comma + 1..]);
            if !name.is_empty() {
                found.push(Directive { name, argument });
            }
        }
    }
    found
}

/// An argument at the beginning of the text, and what stands behind it.
fn take_argument(text: &[u8]) -> (Argument, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr(b',', text).unwrap_or(text.len());
        return (Argument::Token(text[..end].trim_ascii().to_vec()), &text[end..]);
    };
    let mut value = Vec::new();
    let mut at = 0;
    while let Some(&byte) = quoted.get(at) {
        match byte {
            b'"' => return (Argument::Quoted(Some(value)), &quoted[at + 1..]),
            b'\\' => {
                at += 1;
                value.extend(quoted.get(at));
            }
            byte => value.push(byte),
        }
        at += 1;
    }
    // No closing quote: read on behind the next comma, so that a stray quote hides no `no-store`.
    (Argument::Quoted(None), quoted)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn response(lines: &[&'static str]) -> ResponseDirectives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        ResponseDirectives::parse(&headers)
    }

    fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn all_directives_of_all_lines_are_read() {
        let read =
            response(&["Public , MAX-AGE=60,s-maxage=30", "must-revalidate, immutable,, unknown=\"x, no-store\""]);
        assert_eq!(
            read,
            ResponseDirectives {
                public: true,
                max_age: secs(60),
                s_maxage: secs(30),
                must_revalidate: true,
                immutable: true,
                ..ResponseDirectives::default()
            }
        );
        let read = response(&["stale-while-revalidate=5, stale-if-error=\"7\", proxy-revalidate, must-understand"]);
        assert_eq!((read.stale_while_revalidate, read.stale_if_error), (secs(5), secs(7)));
        assert!(read.proxy_revalidate && read.must_understand && !read.must_revalidate);
        assert_eq!(response(&[]), ResponseDirectives::default());
    }

    #[test]
    fn lifetimes_that_cannot_be_read_are_zero_and_large_ones_are_large() {
        for (line, seconds) in [
            ("max-age=0", 0),
            ("max-age=60", 60),
            ("max-age = 60", 60),
            ("max-age=\"60\"", 60),
            ("max-age=060", 60),
            ("max-age=-1", 0),
            ("max-age=+60", 0),
            ("max-age=1.5", 0),
            ("max-age=1e3", 0),
            ("max-age=60s", 0),
            ("max-age=60 public", 0),
            ("max-age=", 0),
            ("max-age", 0),
            ("max-age=\"60", 0),
            ("max-age=2147483648", 1 << 31),
            ("max-age=2147483649", 1 << 31),
            ("max-age=99999999999999999999999999", 1 << 31),
            ("max-age=60, max-age=30", 30),
            ("max-age=30, max-age=60", 30),
            ("max-age=30, max-age=x", 0),
        ] {
            assert_eq!(response(&[line]).max_age, secs(seconds), "{line}");
        }
        assert_eq!(response(&["max-age=60", "max-age=30"]).max_age, secs(30));
    }

    #[test]
    fn field_names_are_read_or_the_whole_is_meant() {
        let read = response(&["private=\"Set-Cookie, x-a\", no-cache=\"x-b\""]);
        assert!(!read.private && !read.no_cache);
        assert_eq!(read.private_fields, ["set-cookie", "x-a"]);
        assert_eq!(read.no_cache_fields, ["x-b"]);
        for line in
            ["private", "private=\"\"", "private=\"a b\"", "private=x-a", "private=\"x-a", "private=\"x-a\", private"]
        {
            assert!(response(&[line]).private, "{line}");
        }
        assert!(response(&["no-cache=\"\""]).no_cache);
    }

    #[test]
    fn stray_quotes_hide_nothing() {
        assert!(response(&["x=\"unfinished, no-store"]).no_store);
        assert!(response(&["\"a, no-store"]).no_store);
        assert!(response(&["x=\"a\"b, no-store"]).no_store);
        assert!(!response(&["x=\"a\\\", no-store\""]).no_store);
    }

    #[test]
    fn requests_are_read_too() {
        let read = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            RequestDirectives::parse(&headers)
        };
        let all = read(&[("cache-control", "no-store, no-cache, only-if-cached, max-age=1, min-fresh=2, max-stale=3")]);
        assert!(all.no_store && all.no_cache && all.only_if_cached);
        assert_eq!((all.max_age, all.min_fresh, all.max_stale), (secs(1), secs(2), Some(secs(3))));
        assert_eq!(read(&[("cache-control", "max-stale")]).max_stale, Some(None));
        assert_eq!(read(&[("cache-control", "max-stale, max-stale=3")]).max_stale, Some(secs(3)));
        assert_eq!(read(&[("cache-control", "max-stale=x")]).max_stale, Some(secs(0)));
        assert_eq!(read(&[("cache-control", "min-fresh=x")]).min_fresh, None);
        assert!(read(&[("pragma", "no-cache")]).no_cache);
        assert!(!read(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]).no_cache);
        let windows = read(&[("cache-control", "stale-if-error=60, stale-if-error=\"30\"")]);
        assert_eq!(windows.stale_if_error, secs(30));
        assert_eq!(read(&[("cache-control", "stale-if-error=x")]).stale_if_error, secs(0));
        assert_eq!(windows.without_wishes(), RequestDirectives::default());
        assert_eq!(read(&[]), RequestDirectives::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[a-z=\",\\\\ ]{0,40}") {
            for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&text)].into_iter().flatten() {
                let headers = HeaderMap::from_iter([(CACHE_CONTROL, value)]);
                let _ = ResponseDirectives::parse(&headers);
                let _ = RequestDirectives::parse(&headers);
            }
        }

        #[test]
        fn a_directive_counts_wherever_it_stands(before in "([a-z-]{1,8}(=[a-z0-9]{0,4}|=\"[a-z, ]{0,6}\")?, ?){0,3}", seconds in 0..100_000u64) {
            let line = format!("{before}s-maxage={seconds}, no-store");
            prop_assume!(!before.contains("s-maxage"));
            let headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_str(&line).expect("ASCII"))]);
            let read = ResponseDirectives::parse(&headers);
            prop_assert_eq!(read.s_maxage, secs(seconds));
            prop_assert!(read.no_store);
        }
    }
}
