//! Ranges of bytes (RFC 9110 section 14).
//!
//! A Range field asks; it never obliges. What breaks the grammar, has an unknown unit or asks for absurdly much is ignored
//! and the whole is sent (section 14.2), so that a few hundred bytes of request never become many times the body. Sets that
//! are honoured are coalesced first (section 15.3.7.2): parts never overlap, and none is nearer to the next than what a
//! part costs.

use http::header::RANGE;
use http::{HeaderMap, HeaderValue};

/// The most ranges that one field may have: players and download managers ask for a handful, more is an attack.
pub const MAX_RANGES: usize = 32;

/// Parts with a smaller gap are sent as one: a boundary and two fields cost about as much.
const PART_OVERHEAD_BYTES: u64 = 128;

/// One range as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-last`, both inclusive.
    Inclusive(u64, u64),
    /// `first-`.
    From(u64),
    /// `-length`: the last bytes.
    Suffix(u64),
}

/// A range within a representation of known length; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// Number of bytes.
    pub fn len(self) -> u64 {
        self.end - self.start
    }
    /// Never.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }
}

/// What a Range field asks of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// No Range, an unknown unit, or one that is not worth honouring: the whole with 200.
    Whole,
    /// One range: 206 with Content-Range.
    Single(ByteRange),
    /// Several: 206 with multipart/byteranges. They do not overlap, and stand in the order asked for.
    Multiple(Vec<ByteRange>),
    /// 416 with `Content-Range: bytes */length`.
    Unsatisfiable,
}

/// The ranges of a valid `bytes` Range field, at most `MAX_RANGES` after which the field is ignored. Two Range fields are
/// no valid one.
pub fn parse_range(headers: &HeaderMap) -> Option<Vec<RangeSpec>> {
    let mut lines = headers.get_all(RANGE).iter();
    let value = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    let (unit, set) = value.to_str().ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for element in set.split(',').map(|element| element.trim_matches([' ', '\t'])) {
        // Empty elements are allowed in lists (section 5.6.1.2).
        if element.is_empty() {
            continue;
        }
        if specs.len() == MAX_RANGES {
            return None;
        }
        specs.push(parse_spec(element)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn parse_spec(element: &str) -> Option<RangeSpec> {
    let (first, last) = element.split_once('-')?;
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some(RangeSpec::Suffix(parse_position(last)?)),
        (false, true) => Some(RangeSpec::From(parse_position(first)?)),
        (false, false) => {
            let (first, last) = (parse_position(first)?, parse_position(last)?);
            (first <= last).then_some(RangeSpec::Inclusive(first, last))
        }
    }
}

/// Digits alone. What is larger than any body becomes the largest number: the grammar knows no bound.
fn parse_position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Resolves what was asked against a length: drops what is unsatisfiable, coalesces what overlaps or nearly touches, ignores
/// absurd sets (too many, or more bytes than the whole).
pub fn resolve(specs: &[RangeSpec], length: u64) -> Resolved {
    if specs.is_empty() || specs.len() > MAX_RANGES {
        return Resolved::Whole;
    }
    // The last bytes of an empty body are satisfiable (section 14.1.2), but no Content-Range can say so.
    if length == 0 && specs.iter().any(|spec| matches!(spec, RangeSpec::Suffix(1..))) {
        return Resolved::Whole;
    }
    let mut ranges: Vec<(usize, ByteRange)> =
        specs.iter().enumerate().filter_map(|(place, spec)| Some((place, within(*spec, length)?))).collect();
    match ranges.as_slice() {
        [] => return Resolved::Unsatisfiable,
        [(_, only)] => return Resolved::Single(*only),
        _ => {}
    }
    let asked = ranges.iter().fold(0u64, |sum, (_, range)| sum.saturating_add(range.len()));
    if asked > length {
        return Resolved::Whole;
    }

    ranges.sort_unstable_by_key(|(_, range)| range.start);
    let mut merged: Vec<(usize, ByteRange)> = Vec::with_capacity(ranges.len());
    for (place, range) in ranges {
        match merged.last_mut() {
            Some((first_place, last)) if range.start <= last.end.saturating_add(PART_OVERHEAD_BYTES) => {
                last.end = last.end.max(range.end);
                *first_place = place.min(*first_place);
            }
            _ => merged.push((place, range)),
        }
    }
    if let [(_, only)] = merged.as_slice() {
        return Resolved::Single(*only);
    }
    merged.sort_unstable_by_key(|(place, _)| *place);
    Resolved::Multiple(merged.into_iter().map(|(_, range)| range).collect())
}

/// One range of a representation of that length, if it can be satisfied.
fn within(spec: RangeSpec, length: u64) -> Option<ByteRange> {
    let (start, end) = match spec {
        RangeSpec::Inclusive(first, last) => (first, last.saturating_add(1).min(length)),
        RangeSpec::From(first) => (first, length),
        RangeSpec::Suffix(count) => (length.saturating_sub(count), length),
    };
    (start < end).then_some(ByteRange { start, end })
}

/// A Content-Range field of a 206 or 416.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The part, none in a 416.
    pub range: Option<ByteRange>,
    /// Length of the whole, when known.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes a-b/c`, `bytes a-b/*` or `bytes */c`. What contradicts itself is none.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let (unit, rest) = value.to_str().ok()?.trim().split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (part, complete) = rest.trim_start().split_once('/')?;
        let complete = if complete == "*" { None } else { Some(parse_exact(complete)?) };
        if part == "*" {
            return complete.is_some().then_some(Self { range: None, complete });
        }
        let (first, last) = part.split_once('-')?;
        let (start, end) = (parse_exact(first)?, parse_exact(last)?.checked_add(1)?);
        if start >= end || complete.is_some_and(|complete| end > complete) {
            return None;
        }
        Some(Self { range: Some(ByteRange { start, end }), complete })
    }

    /// As a field value.
    pub fn to_value(self) -> HeaderValue {
        let complete = self.complete.map_or_else(|| "*".to_owned(), |complete| complete.to_string());
        let text = match self.range {
            Some(range) => format!("bytes {}-{}/{complete}", range.start, range.end.saturating_sub(1)),
            None => format!("bytes */{complete}"),
        };
        HeaderValue::from_str(&text).expect("digits and a few signs are a field value")
    }
}

/// Digits alone, and no more than fit: of an origin's own word nothing is guessed.
fn parse_exact(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<Vec<RangeSpec>> {
        parse_range(&HeaderMap::from_iter([(RANGE, HeaderValue::from_str(text).expect("a value"))]))
    }

    fn resolved(text: &str, length: u64) -> Resolved {
        parse(text).map_or(Resolved::Whole, |specs| resolve(&specs, length))
    }

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn the_three_forms_are_read() {
        use RangeSpec::*;
        assert_eq!(parse("bytes=0-499"), Some(vec![Inclusive(0, 499)]));
        assert_eq!(parse("Bytes=9500-"), Some(vec![From(9500)]));
        assert_eq!(parse("bytes=-500"), Some(vec![Suffix(500)]));
        assert_eq!(parse("bytes= 0-0 ,, \t-1 , 5- ,"), Some(vec![Inclusive(0, 0), Suffix(1), From(5)]));
        assert_eq!(parse("bytes=0-99999999999999999999999"), Some(vec![Inclusive(0, u64::MAX)]));
    }

    #[test]
    fn what_breaks_the_grammar_is_ignored() {
        let many = format!("bytes={}", "0-0,".repeat(MAX_RANGES + 1));
        for text in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=0-1-2",
            "bytes=+0-1",
            "bytes=--1",
            "bytes=0 - 1",
            "bytes=0-1;2-3",
            "items=0-1",
            "bytes:0-1",
            "bytes=0x0-1",
            "bytes=0-1, x",
            many.as_str(),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let most = format!("bytes={}", "0-0,".repeat(MAX_RANGES));
        assert_eq!(parse(&most).map(|specs| specs.len()), Some(MAX_RANGES));
        assert_eq!(parse_range(&HeaderMap::new()), None);
        let mut twice = HeaderMap::new();
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(parse_range(&twice), None);
    }

    #[test]
    fn single_ranges_are_cut_to_the_length() {
        use Resolved::*;
        for (text, length, expected) in [
            ("bytes=0-499", 10_000, Single(range(0, 500))),
            ("bytes=0-", 10_000, Single(range(0, 10_000))),
            ("bytes=9999-", 10_000, Single(range(9999, 10_000))),
            ("bytes=-500", 10_000, Single(range(9500, 10_000))),
            ("bytes=-20000", 10_000, Single(range(0, 10_000))),
            ("bytes=0-20000", 10_000, Single(range(0, 10_000))),
            ("bytes=10000-", 10_000, Unsatisfiable),
            ("bytes=10000-10001", 10_000, Unsatisfiable),
            ("bytes=-0", 10_000, Unsatisfiable),
            ("bytes=99999999999999999999999-", u64::MAX, Unsatisfiable),
            ("bytes=0-99999999999999999999999", u64::MAX, Single(range(0, u64::MAX))),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=0-0", 0, Unsatisfiable),
            ("bytes=-0", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
        ] {
            assert_eq!(resolved(text, length), expected, "{text} of {length}");
        }
    }

    #[test]
    fn several_ranges_keep_their_order_and_are_coalesced() {
        use Resolved::*;
        for (text, length, expected) in [
            ("bytes=0-0,-1", 10_000, Multiple(vec![range(0, 1), range(9999, 10_000)])),
            ("bytes=5000-5009,0-9", 10_000, Multiple(vec![range(5000, 5010), range(0, 10)])),
            ("bytes=0-9,10-19", 10_000, Single(range(0, 20))),
            ("bytes=0-9,5-30", 10_000, Single(range(0, 31))),
            ("bytes=0-9,50-59", 10_000, Single(range(0, 60))),
            ("bytes=0-9,20000-", 10_000, Single(range(0, 10))),
            ("bytes=20000-,30000-", 10_000, Unsatisfiable),
            ("bytes=0-,0-", 10_000, Whole),
            ("bytes=0-9999,1-2", 10_000, Whole),
        ] {
            assert_eq!(resolved(text, length), expected, "{text} of {length}");
        }
    }

    #[test]
    fn content_ranges_are_read_and_written() {
        let parse = |text: &'static str| ContentRange::parse(&HeaderValue::from_static(text));
        for (text, part, complete) in [
            ("bytes 42-1233/1234", Some(range(42, 1234)), Some(1234)),
            ("bytes 42-1233/*", Some(range(42, 1234)), None),
            ("bytes */1234", None, Some(1234)),
        ] {
            let expected = ContentRange { range: part, complete };
            assert_eq!(parse(text), Some(expected));
            assert_eq!(expected.to_value(), text);
        }
        for text in [
            "",
            "bytes",
            "bytes */*",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes 0-/10",
            "bytes -5/10",
            "bytes 0-1",
            "items 0-1/2",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "bytes=0-1/2",
            "bytes 0-1/",
            "bytes +0-1/2",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    fn any_spec() -> impl Strategy<Value = RangeSpec> {
        let position = || prop_oneof![0..2000u64, any::<u64>()];
        prop_oneof![
            (position(), position()).prop_map(|(a, b)| RangeSpec::Inclusive(a.min(b), a.max(b))),
            position().prop_map(RangeSpec::From),
            position().prop_map(RangeSpec::Suffix),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60), digits in "bytes=[0-9,-]{0,30}") {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = ContentRange::parse(&value);
                let _ = parse_range(&HeaderMap::from_iter([(RANGE, value)]));
            }
            let _ = parse(&digits);
        }

        #[test]
        fn ranges_stay_within_the_length_apart_and_cover_what_was_asked(
            specs in proptest::collection::vec(any_spec(), 0..40),
            length in prop_oneof![0..3000u64, any::<u64>()],
        ) {
            let parts = match resolve(&specs, length) {
                Resolved::Whole => return Ok(()),
                Resolved::Unsatisfiable => {
                    prop_assert!(specs.iter().all(|spec| within(*spec, length).is_none()));
                    return Ok(());
                }
                Resolved::Single(part) => vec![part],
                Resolved::Multiple(parts) => {
                    prop_assert!(parts.len() > 1);
                    parts
                }
            };
            let mut sum = 0u64;
            for (at, part) in parts.iter().enumerate() {
                prop_assert!(!part.is_empty() && part.end <= length);
                sum += part.len();
                for other in &parts[at + 1..] {
                    prop_assert!(part.end < other.start || other.end < part.start);
                }
            }
            prop_assert!(sum <= length);
            for asked in specs.iter().filter_map(|spec| within(*spec, length)) {
                prop_assert!(parts.iter().any(|part| part.start <= asked.start && asked.end <= part.end));
            }
        }

        #[test]
        fn written_content_ranges_are_read_back(start in any::<u64>(), len in 1..u64::MAX, more in any::<u64>(), known: bool) {
            let end = start.saturating_add(len).max(1);
            let start = start.min(end - 1);
            let complete = known.then_some(end.saturating_add(more));
            let content_range = ContentRange { range: Some(range(start, end)), complete };
            prop_assert_eq!(ContentRange::parse(&content_range.to_value()), Some(content_range));
        }
    }
}
