//! Entity tags (RFC 9110 section 8.8.3).
//!
//! A tag that breaks the grammar (no quotes, as some servers send) counts as none: it is no validator, it matches nothing,
//! and it is never sent back in a condition. The field itself is handed on as it came.

use http::header::ETAG;
use http::{HeaderMap, HeaderName, HeaderValue};

/// An entity tag, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntityTag {
    /// `W/` in front.
    pub weak: bool,
    /// The opaque tag without quotes.
    pub opaque: Vec<u8>,
}

impl EntityTag {
    /// Reads one tag; none if it is malformed.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (tag, rest) = Self::take(value.trim_ascii())?;
        rest.is_empty().then_some(tag)
    }

    /// A tag at the beginning, and what stands behind it.
    fn take(text: &[u8]) -> Option<(Self, &[u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', inner)?;
        let opaque = &inner[..end];
        // etagc: visible characters but the quote, and obs-text. No escapes: a backslash is itself.
        if !opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff)) {
            return None;
        }
        Some((Self { weak, opaque: opaque.to_vec() }, &inner[end + 1..]))
    }

    /// The ETag field of a response, if it is well formed and single.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(ETAG).iter();
        let tag = Self::parse(lines.next()?.as_bytes())?;
        lines.next().is_none().then_some(tag)
    }

    /// Strong comparison (section 8.8.3.2).
    pub fn strong_eq(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Weak comparison.
    pub fn weak_eq(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }

    /// As a field value.
    pub fn to_value(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(self.opaque.len() + 4);
        text.extend_from_slice(if self.weak { b"W/\"" } else { b"\"" });
        text.extend_from_slice(&self.opaque);
        text.push(b'"');
        // The fields are public; one that was not read by `parse` may hold what cannot be sent, and then nothing matches.
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }
}

/// What If-Match and If-None-Match hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagList {
    /// `*`: any representation.
    Any,
    /// These; malformed ones are left out.
    Tags(Vec<EntityTag>),
}

impl TagList {
    /// Reads all lines of a field; none if there is no such field.
    pub fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut lines = headers.get_all(name).iter().peekable();
        lines.peek()?;
        let mut tags = Vec::new();
        for line in lines {
            let mut rest = line.as_bytes().trim_ascii();
            if rest == b"*" {
                return Some(Self::Any);
            }
            while !rest.is_empty() {
                // A comma may stand inside a tag, so tags are taken before the list is cut.
                if let Some((tag, behind)) = EntityTag::take(rest)
                    && matches!(behind.trim_ascii_start().first(), None | Some(b','))
                {
                    tags.push(tag);
                    rest = behind;
                }
                rest = match memchr::memchr(b',', rest) {
                    Some(comma) => rest[comma + 1..].trim_ascii_start(),
                    None => b"",
                };
            }
        }
        Some(Self::Tags(tags))
    }

    /// Whether a representation with this tag (or none) is meant, by the comparison given.
    pub fn means(&self, current: Option<&EntityTag>, same: fn(&EntityTag, &EntityTag) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => current.is_some_and(|current| tags.iter().any(|tag| same(tag, current))),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::IF_NONE_MATCH;
    use proptest::prelude::*;

    use super::*;

    fn tag(text: &str) -> EntityTag {
        EntityTag::parse(text.as_bytes()).expect("a tag")
    }

    #[test]
    fn tags_are_quoted_or_none() {
        assert_eq!(tag("\"a\""), EntityTag { weak: false, opaque: b"a".to_vec() });
        assert_eq!(tag(" W/\"a,b\" "), EntityTag { weak: true, opaque: b"a,b".to_vec() });
        assert_eq!(tag("\"\"").opaque, b"");
        for text in
            ["", "a", "\"a", "a\"", "w/\"a\"", "W/a", "\"a b\"", "\"a\"b", "\"a\" \"b\"", "\"", "W/", "*", "\"\x7f\""]
        {
            assert_eq!(EntityTag::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_table_of_the_rfc_holds() {
        for (one, two, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            assert_eq!(tag(one).strong_eq(&tag(two)), strong);
            assert_eq!(tag(one).weak_eq(&tag(two)), weak);
        }
    }

    #[test]
    fn two_etag_fields_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(EntityTag::of(&headers), None);
        headers.append(ETAG, HeaderValue::from_static("\"a\""));
        assert_eq!(EntityTag::of(&headers), Some(tag("\"a\"")));
        headers.append(ETAG, HeaderValue::from_static("\"a\""));
        assert_eq!(EntityTag::of(&headers), None);
    }

    #[test]
    fn lists_are_read_over_lines_and_around_what_is_malformed() {
        let list = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(line));
            }
            TagList::of(&headers, &IF_NONE_MATCH)
        };
        assert_eq!(list(&[]), None);
        assert_eq!(list(&[" * "]), Some(TagList::Any));
        let tags = |texts: &[&str]| Some(TagList::Tags(texts.iter().map(|text| tag(text)).collect()));
        assert_eq!(list(&["\"a,b\" ,, W/\"c\"", "\"d\""]), tags(&["\"a,b\"", "W/\"c\"", "\"d\""]));
        assert_eq!(list(&["a, \"b\", \"c\"x, \"d\""]), tags(&["\"b\"", "\"d\""]));
        assert_eq!(list(&["\"unfinished"]), tags(&[]));
        assert_eq!(list(&[""]), tags(&[]));
        assert_eq!(list(&["\"a\", *"]), tags(&["\"a\""]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(tag) = EntityTag::parse(&bytes) {
                prop_assert_eq!(EntityTag::parse(tag.to_value().as_bytes()), Some(tag));
            }
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(IF_NONE_MATCH, value);
                let _ = TagList::of(&headers, &IF_NONE_MATCH);
            }
        }
    }
}
