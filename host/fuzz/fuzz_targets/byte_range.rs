//! Range and Content-Range (RFC 9110 section 14): what is asked for against a second reading, and what is made of it against
//! the bytes one by one. The first two bytes of the input are the length of the body.

#![no_main]

use http::HeaderValue;
use http::header::RANGE;
use libfuzzer_sys::fuzz_target;
use proxyhost::semantics::byte_range::{
    ByteRange, ContentRange, MAX_RANGES, RangeSpec, Resolved, parse_range, resolve,
};

fuzz_target!(|data: &[u8]| {
    let Some((length, data)) = data.split_first_chunk::<2>() else { return };
    let length = u64::from(u16::from_be_bytes(*length));
    let headers = proxyhost_fuzz::field(&RANGE, data);
    let specs = parse_range(&headers);
    if let ([only], Some(text)) = (&headers.values().collect::<Vec<_>>()[..], headers.get(RANGE)) {
        assert_eq!(specs, only.to_str().ok().and_then(second_reading), "{text:?}");
    } else {
        assert_eq!(specs, None, "none, or one too many");
    }
    for specs in specs.iter() {
        assert!((1..=MAX_RANGES).contains(&specs.len()));
        check(specs, length);
        check(specs, u64::MAX);
    }
    for value in headers.values() {
        if let Some(read) = ContentRange::parse(value) {
            assert!(read.range.is_some() || read.complete.is_some());
            let range = read.range.unwrap_or(ByteRange { start: 0, end: 1 });
            assert!(
                range.start < range.end && read.complete.is_none_or(|all| read.range.is_none() || range.end <= all)
            );
            assert_eq!(ContentRange::parse(&read.to_value()), Some(read));
        }
    }
    let whole = ContentRange { range: None, complete: Some(length) };
    assert_eq!(whole.to_value(), HeaderValue::from_str(&format!("bytes */{length}")).expect("a field value"));
});

fn check(specs: &[RangeSpec], length: u64) {
    let asked = |place: u64| {
        specs.iter().any(|spec| match *spec {
            RangeSpec::Inclusive(first, last) => (first..=last).contains(&place),
            RangeSpec::From(first) => first <= place,
            RangeSpec::Suffix(count) => length - place <= count,
        })
    };
    let ranges = match resolve(specs, length) {
        Resolved::Whole => return,
        Resolved::Unsatisfiable => Vec::new(),
        Resolved::Single(range) => vec![range],
        Resolved::Multiple(ranges) => {
            assert!(ranges.len() > 1);
            ranges
        }
    };
    for (at, range) in ranges.iter().enumerate() {
        assert!(range.start < range.end && range.end <= length, "{range:?} of {length}");
        assert!(ranges[..at].iter().all(|other| other.end < range.start || range.end < other.start), "{ranges:?}");
        assert!(asked(range.start) && asked(range.end - 1), "it begins and ends with what was asked for");
    }
    assert!(ranges.iter().map(|range| range.len()).sum::<u64>() <= length);
    // What was asked for is there, at the edges of all that was asked for and in small bodies everywhere.
    let edges = specs.iter().flat_map(|spec| match *spec {
        RangeSpec::Inclusive(first, last) => [first, last],
        RangeSpec::From(first) => [first, length.saturating_sub(1)],
        RangeSpec::Suffix(count) => [length.saturating_sub(count), length.saturating_sub(1)],
    });
    for place in edges.chain(0..length.min(300)).filter(|place| *place < length) {
        let covered = ranges.iter().any(|range| (range.start..range.end).contains(&place));
        assert!(covered || !asked(place), "byte {place} of {length}: {ranges:?}");
    }
}

fn second_reading(text: &str) -> Option<Vec<RangeSpec>> {
    let unit_end = text.find('=')?;
    if !text[..unit_end].trim_matches([' ', '\t']).eq_ignore_ascii_case("bytes") {
        return None;
    }
    let elements: Vec<&str> = text[unit_end + 1..].split(',').map(|one| one.trim_matches([' ', '\t'])).collect();
    let elements: Vec<&str> = elements.into_iter().filter(|one| !one.is_empty()).collect();
    if elements.is_empty() || elements.len() > MAX_RANGES {
        return None;
    }
    elements.into_iter().map(spec).collect()
}

fn spec(text: &str) -> Option<RangeSpec> {
    let dash = text.find('-')?;
    let number = |digits: &str| {
        let add = |sum: u64, c: char| Some(sum.saturating_mul(10).saturating_add(u64::from(c.to_digit(10)?)));
        digits.chars().try_fold(0, add)
    };
    match (&text[..dash], &text[dash + 1..]) {
        ("", "") => None,
        ("", last) => number(last).map(RangeSpec::Suffix),
        (first, "") => number(first).map(RangeSpec::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(RangeSpec::Inclusive(first, last))
        }
    }
}
