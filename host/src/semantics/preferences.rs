//! What a request prefers, in one spelling for all that mean the same: Accept-Encoding and Accept-Language (RFC 9110 sections
//! 12.4.2, 12.5.3 and 12.5.4).
//!
//! Only what an origin may not tell apart is made alike. Names have no case, and members of one quality no order. A coding that
//! is not acceptable by `q=0` is left out where it would not be acceptable unnamed either; a language is not, since what is not
//! named may still be served in want of something better. Qualities stay what they are: they are relative weights, by which an
//! origin may weigh what it has.

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::list;

/// A quality of 1, in thousandths.
const BEST: u16 = 1000;

/// One member: its quality in thousandths, and its name as it came.
pub type Member<'a> = (u16, &'a [u8]);
/// Members of a field, the best first.
pub type Members<'a> = SmallVec<[Member<'a>; 8]>;

/// Accept-Encoding. None if it is malformed, or gives a coding two qualities.
pub fn encodings(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut members = read(headers, name, is_token)?;
    let quality_of =
        |wanted: &[u8]| members.iter().find(|(_, name)| name.eq_ignore_ascii_case(wanted)).map(|(q, _)| *q);
    // What no member names is acceptable by a star alone, but for identity, which only `q=0` of its own or of a star forbids.
    let others = quality_of(b"*").unwrap_or(0);
    let star_forbids = quality_of(b"*") == Some(0);
    members.retain(|(quality, name)| {
        let identity = name.eq_ignore_ascii_case(b"identity");
        let said_already = if identity { star_forbids } else { others == 0 && *name != b"*" };
        *quality > 0 || !said_already
    });
    Some(write(members))
}

/// Codings with their qualities in thousandths, those of Accept-Encoding. None if it is malformed, or gives a coding two qualities.
pub fn codings<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Members<'a>> {
    read(headers, name, is_token)
}

/// Accept-Language. None if it is malformed, or gives a range two qualities.
pub fn languages(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    read(headers, name, is_language_range).map(write)
}

/// The members, the best first and those of one quality by name, each once.
fn read<'a>(headers: &'a HeaderMap, name: &HeaderName, is_name: fn(&[u8]) -> bool) -> Option<Members<'a>> {
    let members: Option<Members<'a>> = list::of(headers, name).map(|member| parse(member, is_name)).collect();
    let mut members = members?;
    members.sort_unstable_by(|(_, a), (_, b)| lower(a).cmp(lower(b)));
    members.dedup_by(|(a_quality, a), (b_quality, b)| a_quality == b_quality && a.eq_ignore_ascii_case(b));
    if members.windows(2).any(|pair| pair[0].1.eq_ignore_ascii_case(pair[1].1)) {
        return None;
    }
    members.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    Some(members)
}

fn lower(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().map(u8::to_ascii_lowercase)
}

/// `name`, or `name;q=0.5`.
fn parse(member: &[u8], is_name: fn(&[u8]) -> bool) -> Option<Member<'_>> {
    let Some(semicolon) = memchr::memchr(b';', member) else { return is_name(member).then_some((BEST, member)) };
    let name = member[..semicolon].trim_ascii_end();
    let weight = member[semicolon + 1..].trim_ascii_start();
    let ([b'q' | b'Q', b'=', digits @ ..], true) = (weight, is_name(name)) else { return None };
    Some((quality(digits)?, name))
}

/// A qvalue in thousandths (RFC 9110 section 12.4.2).
fn quality(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] => (whole, &b""[..]),
        [whole, b'.', fraction @ ..] => (whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let thousandths = fraction.iter().zip([100, 10, 1]).map(|(digit, worth)| u16::from(digit - b'0') * worth).sum();
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(BEST),
        _ => None,
    }
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// RFC 4647 section 2.1.
fn is_language_range(name: &[u8]) -> bool {
    let mut subtags = name.split(|byte| *byte == b'-');
    let first = subtags.next().unwrap_or_default();
    let fits = |subtag: &[u8]| (1..=8).contains(&subtag.len());
    name == b"*"
        || (fits(first)
            && first.iter().all(u8::is_ascii_alphabetic)
            && subtags.all(|subtag| fits(subtag) && subtag.iter().all(u8::is_ascii_alphanumeric)))
}

fn write(members: Members<'_>) -> Vec<u8> {
    let mut text = Vec::with_capacity(members.iter().map(|(_, name)| name.len() + 8).sum());
    for (quality, name) in members {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend(lower(name));
        if quality != BEST {
            let digits = format!("{quality:03}");
            text.extend_from_slice(b";q=0.");
            text.extend_from_slice(digits.as_bytes());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::ACCEPT;
    use proptest::prelude::*;

    use super::*;

    type Reader = fn(&HeaderMap, &HeaderName) -> Option<Vec<u8>>;

    fn of(reader: Reader, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_str(line).expect("a field value"));
        }
        reader(&headers, &ACCEPT).map(|text| String::from_utf8(text).expect("ASCII"))
    }

    #[track_caller]
    fn alike(reader: Reader, values: &[&str]) {
        for value in values {
            assert!(of(reader, &[value]).is_some(), "{value}");
            assert_eq!(of(reader, &[value]), of(reader, &[values[0]]), "{value}");
        }
    }

    #[track_caller]
    fn all_differ(reader: Reader, values: &[&str]) {
        for (number, one) in values.iter().enumerate() {
            assert!(of(reader, &[one]).is_some(), "{one}");
            for other in &values[number + 1..] {
                assert_ne!(of(reader, &[one]), of(reader, &[other]), "{one} and {other}");
            }
        }
    }

    #[test]
    fn codings_that_mean_the_same() {
        alike(
            encodings,
            &["gzip, br", "br,gzip", "gzip;q=1.0, br;q=1", "GZIP ; Q=1.000 ,\tBr", ",gzip,,br,", "br, gzip, br"],
        );
        alike(encodings, &["gzip", "gzip, br;q=0", "br;q=0.000, gzip"]);
        alike(encodings, &["gzip, *;q=0", "*;q=0, gzip, identity;q=0", "br;q=0, *;q=0, gzip"]);
        alike(encodings, &["br;q=0.5, gzip", "gzip, br;q=0.500"]);
        alike(encodings, &["", ",", "gzip;q=0"]);
        assert_eq!(of(encodings, &["gzip", "br"]), of(encodings, &["br, gzip"]), "lines are one list");
    }

    #[test]
    fn codings_that_do_not() {
        let values = [
            "gzip",
            "br",
            "gzip, br",
            "gzip, br;q=0.5",
            "gzip;q=0.5, br",
            "gzip;q=0.5, br;q=0.4",
            "*",
            "*, gzip",
            "*;q=0",
            "gzip, *;q=0",
            "gzip, identity;q=0",
            "gzip, identity",
            "gzip, *, br;q=0",
            "*, identity;q=0",
            "x-gzip",
            "",
            "gzip;q=0.5",
            "*;q=0, identity",
            "identity",
        ];
        all_differ(encodings, &values);
    }

    #[test]
    fn languages_are_a_set_where_their_qualities_are_one() {
        alike(languages, &["de, en", "en,de", "EN;q=1, de", "de;q=1.0 , en;q=1.000"]);
        alike(languages, &["de-CH, de;q=0.9, *;q=0.1", "*;q=0.1, de;q=0.90, de-ch"]);
        let values = [
            "de",
            "en",
            "de, en;q=0.9",
            "en, de;q=0.9",
            "de, en;q=0.8",
            "de, en;q=0",
            "de, *",
            "de-CH",
            "",
            "en, en-GB;q=0",
        ];
        all_differ(languages, &values);
    }

    #[test]
    fn what_is_malformed_is_none() {
        for value in [
            "gzip;q=",
            "gzip;q=2",
            "gzip;q=1.001",
            "gzip;q=0.1234",
            "gzip;q=.5",
            "gzip;q=-1",
            "gzip;level=1",
            "gzip;q=1;a=b",
            "gzip br",
            "\"gzip\"",
            ";q=1",
            "gzip, gzip;q=0.5",
            "gzip q=1",
            "gzip;;q=1",
            "gzip;q =1",
        ] {
            assert_eq!(of(encodings, &[value]), None, "{value}");
        }
        for value in ["en_GB", "123", "en-", "toolonglanguage", "de;q=x", "*-CH", "de, DE;q=0.3"] {
            assert_eq!(of(languages, &[value]), None, "{value}");
        }
    }

    fn spelled() -> impl Strategy<Value = Vec<(&'static str, u16)>> {
        let names = prop::sample::subsequence(vec!["gzip", "br", "zstd", "identity", "*", "x-a"], 0..6);
        names.prop_flat_map(|names| {
            let count = names.len();
            let qualities = prop::collection::vec(prop::sample::select(vec![0u16, 1, 500, 999, 1000]), count);
            (Just(names), qualities).prop_map(|(names, qualities)| names.into_iter().zip(qualities).collect())
        })
    }

    fn spell(members: &[(&str, u16)], upper: bool, space: &str) -> String {
        let member = |(name, quality): &(&str, u16)| {
            let name = if upper { name.to_uppercase() } else { (*name).to_owned() };
            let quality = if *quality == BEST { "1".to_owned() } else { format!("0.{quality:03}") };
            format!("{name}{space};{space}q={quality}")
        };
        members.iter().map(member).collect::<Vec<_>>().join(&format!("{space},{space}"))
    }

    /// How acceptable each coding is, named or not, as RFC 9110 section 12.5.3 has it.
    fn meaning(members: &[(&str, u16)]) -> Vec<Option<u16>> {
        let named = |wanted: &str| members.iter().find(|(name, _)| *name == wanted).map(|(_, quality)| *quality);
        let coding = |name: &str| named(name).or(named("*")).or(Some(0));
        let identity = named("identity").or(named("*").filter(|quality| *quality == 0));
        vec![coding("gzip"), coding("br"), coding("zstd"), coding("x-a"), coding("other"), identity]
    }

    proptest! {
        #[test]
        fn spelling_and_order_do_not_matter((members, shuffled) in spelled().prop_flat_map(|members| {
            (Just(members.clone()), Just(members).prop_shuffle())
        }), upper: bool) {
            let one = of(encodings, &[&spell(&members, false, "")]);
            prop_assert!(one.is_some());
            prop_assert_eq!(one, of(encodings, &[&spell(&shuffled, upper, " ")]));
        }

        #[test]
        fn what_means_another_thing_never_reads_the_same(one in spelled(), two in spelled()) {
            if of(encodings, &[&spell(&one, false, "")]) == of(encodings, &[&spell(&two, false, "")]) {
                prop_assert_eq!(meaning(&one), meaning(&two));
            }
        }

        #[test]
        fn what_was_written_reads_as_itself(members in spelled()) {
            let once = of(encodings, &[&spell(&members, false, "")]).expect("well formed");
            prop_assert_eq!(of(encodings, &[&once]), Some(once));
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[a-z*;=q0-9., -]{0,40}") {
            for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&text)].into_iter().flatten() {
                let headers = HeaderMap::from_iter([(ACCEPT, value)]);
                let _ = (encodings(&headers, &ACCEPT), languages(&headers, &ACCEPT));
            }
        }
    }
}
