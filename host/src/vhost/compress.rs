//! What a host says of compression.
//!
//! It is off where nothing is said, as with Caddy's `encode`: a host whose origin compresses already, or whose answers mix secrets
//! with what a stranger writes (BREACH), must not have it without asking.

use http::HeaderValue;
use serde_json::{Value, json};

use crate::semantics::content_coding::Coding;

/// Bodies below this fit into a packet as they are.
const MIN_BYTES: u64 = 512;

/// Types that are worth it; what is compressed already (pictures, films, archives, WOFF) is not among them.
const TYPES: [&str; 20] = [
    "text/*",
    "application/*+json",
    "application/*+xml",
    "application/ecmascript",
    "application/javascript",
    "application/json",
    "application/rtf",
    "application/vnd.apple.mpegurl",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/svg+xml",
    "image/vnd.microsoft.icon",
    "image/x-icon",
    "model/obj",
];

/// What is compressed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// Which types.
    pub types: Vec<TypePattern>,
    /// From which length on, in bytes.
    pub min_bytes: u64,
    /// By which codings, the one that is preferred first; at least one.
    pub encodings: Vec<Coding>,
}

impl Default for Compress {
    fn default() -> Self {
        let types = TYPES.into_iter().filter_map(TypePattern::parse).collect();
        Self { types, min_bytes: MIN_BYTES, encodings: Coding::ALL.to_vec() }
    }
}

impl Compress {
    /// Whether a type is worth it.
    pub fn fits(&self, content_type: &HeaderValue) -> bool {
        let written = content_type.as_bytes();
        let end = memchr::memchr(b';', written).unwrap_or(written.len());
        let essence = written[..end].trim_ascii();
        // What is read as it comes gains nothing by what holds it back.
        !essence.eq_ignore_ascii_case(b"text/event-stream") && self.types.iter().any(|pattern| pattern.matches(essence))
    }

    /// In the words of hosts.json.
    pub fn show(&self) -> Value {
        json!({
            "types": self.types.iter().map(TypePattern::as_str).collect::<Value>(),
            "min_size": self.min_bytes,
            "encodings": self.encodings.iter().map(|coding| coding.name()).collect::<Value>(),
        })
    }
}

/// A content type without parameters; a star in it stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypePattern(String);

impl TypePattern {
    /// Reads one, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let is_type = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*/".contains(&byte);
        let one = |byte: char, most: usize| text.matches(byte).count() <= most;
        let (kind, subtype) = text.split_once('/')?;
        let fits = !kind.is_empty() && !subtype.is_empty() && text.bytes().all(is_type) && one('/', 1) && one('*', 1);
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, essence: &[u8]) -> bool {
        match self.0.split_once('*') {
            None => essence.eq_ignore_ascii_case(self.0.as_bytes()),
            Some((before, after)) => {
                let (start, end) = (before.len(), after.len());
                essence.len() >= start + end
                    && essence[..start].eq_ignore_ascii_case(before.as_bytes())
                    && essence[essence.len() - end..].eq_ignore_ascii_case(after.as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worth_it() {
        let compress = Compress::default();
        assert_eq!(compress.types.len(), TYPES.len(), "all of them are patterns");
        let fits = |text: &'static str| compress.fits(&HeaderValue::from_static(text));
        for worth in
            ["text/html; charset=utf-8", "TEXT/CSS", "application/json", "application/ld+json ;x", "image/svg+xml"]
        {
            assert!(fits(worth), "{worth}");
        }
        for not in [
            "",
            "image/png",
            "video/mp4",
            "application/zip",
            "font/woff2",
            "text/event-stream",
            "application/octet-stream",
            "text",
        ] {
            assert!(!fits(not), "{not}");
        }
    }

    #[test]
    fn a_pattern_is_one_type_or_one_star() {
        for bad in ["", "text", "text/", "/html", "text/html; charset=utf-8", "*/*", "a/b/c", "text/ html"] {
            assert_eq!(TypePattern::parse(bad), None, "{bad}");
        }
        let pattern = TypePattern::parse("application/*+JSON").expect("a pattern");
        assert!(pattern.matches(b"application/a+json") && !pattern.matches(b"application/json"));
        assert!(!TypePattern::parse("a/b*bc").expect("a pattern").matches(b"a/bc"), "no byte counts twice");
    }
}
