//! Variants (RFC 9111 section 4.1, RFC 9110 section 12.5.5).
//!
//! Accept-Encoding and Accept-Language are compared by what they mean (`semantics::preferences`). All others, and what of those
//! two is malformed, are compared as text after their lines are joined and the whitespace around commas is gone; what else may
//! mean the same is left to policies, which can put what they know into the key.

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::semantics::{list, preferences};

/// Variants of one key that are kept: more than browsers make of codings and languages together, and few enough that an origin
/// which makes one of everything (`Vary: Cookie`) crowds out no other. Beyond it those that are used least go first.
pub const MAX_VARIANTS: usize = 64;

/// The most fields a response may vary by: each is looked at for every request of the key.
pub const MAX_VARY_FIELDS: usize = 32;

/// Longer values are kept as their SHA-256, so that a variant with cookies does not swell the index.
const MAX_VALUE_BYTES: usize = 128;

/// The request fields that a response's Vary names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VaryFields(pub Vec<HeaderName>);

/// What a Vary field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// Nothing varies.
    Nothing,
    /// These fields, sorted, each once.
    Fields(VaryFields),
    /// `*`, a malformed name, or too many: never matches a later request.
    Anything,
}

impl Vary {
    /// Reads all Vary lines of a response.
    pub fn parse(response: &HeaderMap) -> Self {
        // A star is a valid token.
        let mut fields = match list::names(list::of(response, &VARY)) {
            Some(names) if names.iter().all(|name| name != "*") => names,
            _ => return Self::Anything,
        };
        fields.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        fields.dedup();
        match fields.len() {
            0 => Self::Nothing,
            1..=MAX_VARY_FIELDS => Self::Fields(VaryFields(fields)),
            _ => Self::Anything,
        }
    }
}

/// The values of the nominated fields of one request, normalised for whitespace: the variant part of a key.
///
/// ```text
/// for each field in order of names:   name length (u16) name   0                           the request has no such field
///                                                               1  value length (u16) value
///                                                               2  SHA-256 of the value
///                                                               3  value length (u16) preferences
///                                                               4  SHA-256 of the preferences
/// ```
///
/// Preferences have numbers of their own: as text, the same bytes mean what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariantKey(pub Box<[u8]>);

impl VariantKey {
    /// Of a request, for these fields. Empty for no fields.
    pub fn of(fields: &VaryFields, request: &HeaderMap) -> Self {
        if fields.0.is_empty() {
            return Self::default();
        }
        let mut names: Vec<&HeaderName> = fields.0.iter().collect();
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        let mut bytes = Vec::with_capacity(names.len() * 32);
        for name in names {
            push_with_length(&mut bytes, name.as_str().as_bytes());
            match preferred(request, name) {
                Some(value) => push_value(&mut bytes, 3, &value),
                None => match normalised(request, name) {
                    Some(value) => push_value(&mut bytes, 1, &value),
                    None => bytes.push(0),
                },
            }
        }
        Self(bytes.into_boxed_slice())
    }
}

/// A value under `kind`, or its digest under the next one.
fn push_value(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if value.len() <= MAX_VALUE_BYTES {
        bytes.push(kind);
        push_with_length(bytes, value);
    } else {
        bytes.push(kind + 1);
        bytes.extend_from_slice(&Sha256::digest(value));
    }
}

/// What a field prefers, where it is one whose meaning is known and the request has it in good form.
fn preferred(request: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let read = if *name == ACCEPT_ENCODING {
        preferences::encodings
    } else if *name == ACCEPT_LANGUAGE {
        preferences::languages
    } else {
        return None;
    };
    if request.contains_key(name) { read(request, name) } else { None }
}

impl VariantKey {
    /// Request fields that select this variant; none where a value is kept as its digest only.
    pub fn fields(&self) -> Option<HeaderMap> {
        let mut fields = HeaderMap::new();
        let mut rest = &*self.0;
        while !rest.is_empty() {
            let name = take_with_length(&mut rest)?;
            let (kind, after) = rest.split_first()?;
            rest = after;
            match kind {
                0 => {}
                // Preferences are spelt as a field that means the same.
                1 | 3 => {
                    let value = HeaderValue::from_bytes(take_with_length(&mut rest)?).ok()?;
                    fields.append(HeaderName::from_bytes(name).ok()?, value);
                }
                _ => return None,
            }
        }
        Some(fields)
    }
}

fn take_with_length<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *bytes = rest;
    Some(text)
}

/// Field names are shorter than 64 KiB (the `http` crate's own bound), and long values are digests.
fn push_with_length(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(text);
}

/// All lines of a field as one list without whitespace around its commas, those in quotes aside. None if there is no line.
fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = request.get_all(name).iter().peekable();
    lines.peek()?;
    let mut value = Vec::new();
    // A quote that one line leaves open goes on in the next: as one line they would be no different.
    let (mut quoted, mut escaped) = (false, false);
    for (place, line) in lines.enumerate() {
        if place > 0 {
            value.push(b',');
            escaped = false;
        }
        let mut skipping = true;
        for &byte in line.as_bytes().trim_ascii() {
            if quoted {
                value.push(byte);
                quoted = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                continue;
            }
            match byte {
                b' ' | b'\t' if skipping => continue,
                b',' => {
                    let kept = value.trim_ascii_end().len();
                    value.truncate(kept);
                    skipping = true;
                }
                b'"' => {
                    quoted = true;
                    skipping = false;
                }
                _ => skipping = false,
            }
            value.push(byte);
        }
    }
    Some(value)
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

    fn fields(names: &[&'static str]) -> VaryFields {
        VaryFields(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn all_lines_of_vary_count() {
        assert_eq!(Vary::parse(&map(&[])), Vary::Nothing);
        assert_eq!(Vary::parse(&map(&[("vary", " , ")])), Vary::Nothing);
        let both = map(&[("vary", "Origin, accept-encoding,"), ("vary", "ORIGIN")]);
        assert_eq!(Vary::parse(&both), Vary::Fields(fields(&["accept-encoding", "origin"])));
        for line in ["*", "origin, *", "a b", "\"a\"", "a;b"] {
            assert_eq!(Vary::parse(&map(&[("vary", "origin"), ("vary", line)])), Vary::Anything, "{line}");
        }
        let many: Vec<String> = (0..=MAX_VARY_FIELDS).map(|at| format!("x-{at}")).collect();
        let many = HeaderMap::from_iter([(VARY, HeaderValue::from_str(&many.join(",")).expect("ASCII"))]);
        assert_eq!(Vary::parse(&many), Vary::Anything);
    }

    #[track_caller]
    fn compare(one: &[(&'static str, &'static str)], two: &[(&'static str, &'static str)], same: bool) {
        let names = fields(&["a", "b"]);
        assert_eq!(VariantKey::of(&names, &map(one)) == VariantKey::of(&names, &map(two)), same, "{one:?} {two:?}");
    }

    #[test]
    fn whitespace_and_lines_do_not_matter() {
        compare(&[("a", "x, y")], &[("a", "x ,\ty ")], true);
        compare(&[("a", "x, y")], &[("a", "x"), ("a", "y")], true);
        compare(&[("a", "x"), ("other", "1")], &[("a", "x"), ("other", "2")], true);
        compare(&[("a", "\"x , y\"")], &[("a", "\"x,y\"")], false);
        compare(&[("a", "\"x\\\" , y\"")], &[("a", "\"x\\\",y\"")], false);
        compare(&[("a", "\"x\" , y")], &[("a", "\"x\",y")], true);
        compare(&[("a", "\"x"), ("a", "y , z")], &[("a", "\"x,y , z")], true);
        compare(&[("a", "\"x"), ("a", "y , z")], &[("a", "\"x,y,z")], false);
    }

    #[test]
    fn what_differs_differs() {
        compare(&[("a", "x")], &[("a", "y")], false);
        compare(&[("a", "x")], &[("a", "X")], false);
        compare(&[("a", "x y")], &[("a", "xy")], false);
        compare(&[("a", "")], &[], false);
        compare(&[("a", "x")], &[("b", "x")], false);
        compare(&[("a", "x"), ("a", "y")], &[("a", "y"), ("a", "x")], false);
        assert_ne!(VariantKey::of(&fields(&["a"]), &map(&[])), VariantKey::of(&fields(&["b"]), &map(&[])));
        assert_eq!(VariantKey::of(&fields(&[]), &map(&[("a", "x")])), VariantKey::default());
        assert_eq!(VariantKey::of(&fields(&["b", "a"]), &map(&[])), VariantKey::of(&fields(&["a", "b"]), &map(&[])));
    }

    #[test]
    fn preferences_are_compared_by_what_they_mean() {
        let names = fields(&["accept-encoding", "accept-language"]);
        let of = |name: &'static str, value: &'static str| VariantKey::of(&names, &map(&[(name, value)]));
        assert_eq!(of("accept-encoding", "gzip, br;q=1.0"), of("accept-encoding", "BR,gzip"));
        assert_eq!(of("accept-language", "de, en"), of("accept-language", "en,de"));
        assert_ne!(of("accept-language", "de, en;q=0.5"), of("accept-language", "en, de;q=0.5"));
        // What cannot be read is what it says.
        assert_ne!(of("accept-encoding", "gzip br"), of("accept-encoding", "br gzip"));
        assert_eq!(of("accept-encoding", "gzip;q=x , br"), of("accept-encoding", "gzip;q=x,br"));
        // No field and an empty one differ: the one takes anything, the other nothing.
        assert_ne!(of("accept-encoding", ""), VariantKey::of(&names, &map(&[])));
        let text = VariantKey::of(&fields(&["accept-encoding"]), &map(&[("accept-encoding", "gzip;q=500, a b")]));
        assert_eq!(text.0[2 + "accept-encoding".len()], 1);
        let read = VariantKey::of(&fields(&["accept-encoding"]), &map(&[("accept-encoding", "gzip;q=0.5")]));
        assert_eq!(read.0[2 + "accept-encoding".len()], 3, "never the key of a text, which an older index may hold");
    }

    proptest! {
        #[test]
        fn a_variant_is_bounded_and_long_values_differ(one in "[a-z]{100,2000}", two in "[a-z]{100,2000}") {
            let of = |text: &str| VariantKey::of(
                &fields(&["a"]),
                &HeaderMap::from_iter([(HeaderName::from_static("a"), HeaderValue::from_str(text).expect("ASCII"))]),
            );
            prop_assert!(of(&one).0.len() <= 2 + 1 + 1 + 2 + MAX_VALUE_BYTES);
            prop_assert_eq!(of(&one) == of(&two), one == two);
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(VARY, value.clone()), (HeaderName::from_static("a"), value)]);
                let _ = Vary::parse(&headers);
                let variant = VariantKey::of(&fields(&["a", "b"]), &headers);
                let again = variant.fields().map(|read| VariantKey::of(&fields(&["a", "b"]), &read));
                prop_assert_eq!(again, Some(variant));
            }
        }
    }
}
