//! Targeted fields (RFC 9213): which of them counts, and that nothing else does. A line of the input that begins with `a` is
//! one of `Proxyhost-Cache-Control`, with `b` one of `CDN-Cache-Control`, with `c` one of `Cache-Control`.

#![no_main]

use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use proxyhost::cache::control::ResponseDirectives;

const OWN: HeaderName = HeaderName::from_static("proxyhost-cache-control");
const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

fuzz_target!(|data: &[u8]| {
    let headers = proxyhost_fuzz::fields(&[OWN, CDN, CACHE_CONTROL], data);
    let read = ResponseDirectives::parse(&headers);
    let alone = |name: &HeaderName| ResponseDirectives::parse(&only(&headers, name));
    // The first that can be read counts alone.
    let expected = [OWN, CDN].iter().map(alone).find(|read| read.targeted);
    assert_eq!(read, expected.unwrap_or_else(|| alone(&CACHE_CONTROL)));
    for name in [OWN, CDN] {
        let read = alone(&name);
        if let Some(members) = simple(&joined(&headers, &name)) {
            compare(&read, &members);
        }
        // Lines are one list.
        let mut one_line = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&joined(&headers, &name)) {
            one_line.insert(&name, value);
            assert_eq!(ResponseDirectives::parse(&one_line), read);
        }
    }
});

fn only(headers: &HeaderMap, name: &HeaderName) -> HeaderMap {
    headers.get_all(name).iter().map(|value| (name.clone(), value.clone())).collect()
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("\0")).collect();
    lines.join(",")
}

/// A value of the simpler kinds.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Flag(bool),
    Number(i64),
    /// A token.
    Word,
}

/// A second reading of dictionaries that have only flags, integers and tokens, without parameters (RFC 9651 section 4.2.2);
/// none where there is more to it, or where it is malformed.
fn simple(text: &str) -> Option<Vec<(String, Value)>> {
    let mut members: Vec<(String, Value)> = Vec::new();
    let text = text.trim_matches(' ');
    if text.is_empty() {
        return Some(members);
    }
    // Tabs stand around commas only.
    if text.starts_with('\t') {
        return None;
    }
    for member in text.split(',') {
        let member = member.trim_matches([' ', '\t']);
        let (name, value) = match member.split_once('=') {
            None => (member, Value::Flag(true)),
            Some((name, "?0")) => (name, Value::Flag(false)),
            Some((name, "?1")) => (name, Value::Flag(true)),
            Some((name, value)) => (name, number_or_word(value)?),
        };
        let first = |c: char| c.is_ascii_lowercase() || c == '*';
        let other = |c: char| first(c) || c.is_ascii_digit() || "_-.".contains(c);
        if !name.starts_with(first) || !name.chars().all(other) {
            return None;
        }
        members.retain(|(known, _)| known != name);
        members.push((name.to_owned(), value));
    }
    Some(members)
}

fn number_or_word(text: &str) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.len() <= 15 && digits.chars().all(|c| c.is_ascii_digit()) {
        return text.parse().ok().map(Value::Number);
    }
    let is_word =
        text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric());
    is_word.then_some(Value::Word)
}

fn compare(read: &ResponseDirectives, members: &[(String, Value)]) {
    let value = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let passed_over = |name: &str, value: &Value| match name {
        "public" | "must-understand" | "immutable" => !matches!(value, Value::Flag(_)),
        "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error" => !matches!(value, Value::Number(_)),
        _ => false,
    };
    let counts = members.iter().any(|(name, value)| !passed_over(name, value));
    assert_eq!(read.targeted, counts, "{members:?}");
    if !counts {
        return;
    }
    let forbids = |name: &str| value(name).is_some_and(|value| *value != Value::Flag(false));
    let grants = |name: &str| value(name) == Some(&Value::Flag(true));
    let lasts = |name: &str| match value(name) {
        Some(Value::Number(seconds)) => Some(Duration::from_secs((*seconds).clamp(0, 1 << 31).unsigned_abs())),
        _ => None,
    };
    let expected = ResponseDirectives {
        targeted: true,
        no_store: forbids("no-store"),
        no_cache: forbids("no-cache"),
        private: forbids("private"),
        must_revalidate: forbids("must-revalidate"),
        proxy_revalidate: forbids("proxy-revalidate"),
        public: grants("public"),
        must_understand: grants("must-understand"),
        immutable: grants("immutable"),
        max_age: lasts("max-age"),
        s_maxage: lasts("s-maxage"),
        stale_while_revalidate: lasts("stale-while-revalidate"),
        stale_if_error: lasts("stale-if-error"),
        ..ResponseDirectives::default()
    };
    assert_eq!(*read, expected, "{members:?}");
}
