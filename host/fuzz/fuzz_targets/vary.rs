//! Vary and the variants it makes (RFC 9111 section 4.1). A line of the input that begins with `a` is one of Vary, with `b` one
//! of Accept-Encoding, with `c` one of Accept-Language, with `d` one of `X-A`.

#![no_main]

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use proxyhost::cache::vary::{MAX_VARY_FIELDS, VariantKey, Vary, VaryFields};

const X_A: HeaderName = HeaderName::from_static("x-a");

/// The name, its length, a kind, a length, and the longest value that is no digest.
const MOST_OF_A_FIELD: usize = 2 + 15 + 1 + 2 + 128;

fuzz_target!(|data: &[u8]| {
    let headers = proxyhost_fuzz::fields(&[VARY, ACCEPT_ENCODING, ACCEPT_LANGUAGE, X_A], data);
    assert_eq!(Vary::parse(&headers), second_reading(&headers));
    let fields = VaryFields(vec![X_A, ACCEPT_LANGUAGE, ACCEPT_ENCODING, X_A]);
    let variant = VariantKey::of(&fields, &headers);
    assert!(variant.0.len() <= 3 * MOST_OF_A_FIELD);
    // What a variant says selects it.
    if let Some(selecting) = variant.fields() {
        assert_eq!(VariantKey::of(&fields, &selecting), variant);
    }
    // Other fields, lines and whitespace around commas select nothing else.
    let mut same = HeaderMap::new();
    same.insert("x-b", HeaderValue::from_static("1"));
    for name in [ACCEPT_ENCODING, ACCEPT_LANGUAGE, X_A] {
        let Some(value) = one_line(&headers, &name) else { return };
        if let Some(value) = value {
            same.insert(name, value);
        }
    }
    assert_eq!(VariantKey::of(&fields, &same), variant);
});

/// All lines as one; none where there is a quote, whose commas are no separators: that is not compared.
fn one_line(headers: &HeaderMap, name: &HeaderName) -> Option<Option<HeaderValue>> {
    let mut text: Option<Vec<u8>> = None;
    for line in headers.get_all(name) {
        if line.as_bytes().contains(&b'"') {
            return None;
        }
        let members = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let line = members.collect::<Vec<_>>().join(&b" \t, "[..]);
        text = Some(match text {
            None => line,
            Some(before) => [before, line].join(&b","[..]),
        });
    }
    Some(text.map(|text| HeaderValue::from_bytes(&text).expect("made of field values")))
}

fn second_reading(headers: &HeaderMap) -> Vary {
    let mut names = std::collections::BTreeSet::new();
    for line in headers.get_all(VARY) {
        for member in line.as_bytes().split(|byte| *byte == b',') {
            let member: String = member.iter().map(|byte| char::from(*byte)).collect();
            let member = member.trim_matches([' ', '\t']).to_ascii_lowercase();
            let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if member == "*" || !member.chars().all(is_token) {
                return Vary::Anything;
            }
            if !member.is_empty() {
                names.insert(member);
            }
        }
    }
    match names.len() {
        0 => Vary::Nothing,
        1..=MAX_VARY_FIELDS => {
            let names = names.iter().map(|name| name.parse().expect("a token"));
            Vary::Fields(VaryFields(names.collect()))
        }
        _ => Vary::Anything,
    }
}
