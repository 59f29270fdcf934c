//! HTTP dates (RFC 9110 section 5.6.7): all three forms are read, the first is written. Names of days, months and the zone are read
//! in any case, as caches should (RFC 9111 section 4.2). The day of the week says nothing that the date does not: a wrong one is
//! overlooked, as by most servers.

use http::header::DATE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Timestamp;

/// Reads a date; none if it is malformed or before 1970.
pub fn parse(value: &HeaderValue) -> Option<Timestamp> {
    let text = value.to_str().ok()?.trim();
    let read = |text: &str| httpdate::parse_http_date(text).ok().map(Timestamp::from_system);
    read(text).or_else(|| {
        let text = in_case(text);
        read(&text).or_else(|| {
            let (day, rest) = text.split_at(text.find(|character: char| !character.is_ascii_alphabetic())?);
            let names = [DAYS, DAYS_SHORT].into_iter().find(|names| names.contains(&day))?;
            names.iter().find_map(|name| read(&format!("{name}{rest}")))
        })
    })
}

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const DAYS_SHORT: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Words with a capital in front, and the zone in capitals.
fn in_case(text: &str) -> String {
    let mut spelled = String::with_capacity(text.len());
    for character in text.chars() {
        let within = spelled.ends_with(|before: char| before.is_ascii_alphabetic());
        spelled.push(if within { character.to_ascii_lowercase() } else { character.to_ascii_uppercase() });
    }
    if spelled.ends_with("Gmt") { spelled.replace("Gmt", "GMT") } else { spelled }
}

/// The date of a field that stands there once and is valid.
pub fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let mut lines = headers.get_all(name).iter();
    let date = parse(lines.next()?)?;
    lines.next().is_none().then_some(date)
}

/// As a field value. Moments after the year 9999 have no form and become its last second.
pub fn to_value(moment: Timestamp) -> HeaderValue {
    const LAST: Timestamp = Timestamp::from_millis(253_402_300_799_000);
    let text = httpdate::fmt_http_date(moment.min(LAST).to_system());
    HeaderValue::from_str(&text).expect("a date is ASCII")
}

/// Gives a response that came without Date, or with one that can't be read, the moment it came (RFC 9110 section 6.6.1):
/// ages and Expires are reckoned from it.
pub fn ensure_date(headers: &mut HeaderMap, received_at: Timestamp) {
    if of(headers, &DATE).is_none() {
        headers.insert(DATE, to_value(received_at));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: Timestamp = Timestamp::from_millis(784_111_777_000);

    #[test]
    fn all_three_forms_are_read() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(&HeaderValue::from_static(text)), Some(EXAMPLE), "{text}");
        }
        for text in ["sun, 06 NOV 1994 08:49:37 gmt", "SUNDAY, 06-nov-94 08:49:37 GMT", "sun nov  6 08:49:37 1994"] {
            assert_eq!(parse(&HeaderValue::from_static(text)), Some(EXAMPLE), "{text}");
        }
        for text in ["Mon, 06 Nov 1994 08:49:37 GMT", "friday, 06-Nov-94 08:49:37 GMT", "Tue Nov  6 08:49:37 1994"] {
            assert_eq!(parse(&HeaderValue::from_static(text)), Some(EXAMPLE), "{text}");
        }
        for text in [
            "Day, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "0",
            "-1",
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "1994-11-06T08:49:37Z",
            "Sun, 06 Nov 1960 08:49:37 GMT",
        ] {
            assert_eq!(parse(&HeaderValue::from_static(text)), None, "{text}");
        }
    }

    #[test]
    fn the_first_form_is_written() {
        assert_eq!(to_value(EXAMPLE), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(to_value(Timestamp::from_millis(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn a_missing_or_unreadable_date_is_replaced() {
        let mut headers = HeaderMap::new();
        ensure_date(&mut headers, EXAMPLE);
        assert_eq!(of(&headers, &DATE), Some(EXAMPLE));
        headers.insert(DATE, HeaderValue::from_static("tomorrow"));
        ensure_date(&mut headers, EXAMPLE);
        assert_eq!(of(&headers, &DATE), Some(EXAMPLE));
        ensure_date(&mut headers, Timestamp::from_millis(1));
        assert_eq!(of(&headers, &DATE), Some(EXAMPLE));
    }

    proptest! {
        #[test]
        fn any_moment_is_written_and_read_to_the_second(millis in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let moment = Timestamp::from_millis(millis % 253_402_300_800_000);
            prop_assert_eq!(parse(&to_value(moment)).map(Timestamp::as_secs), Some(moment.as_secs()));
            let _ = to_value(Timestamp::from_millis(millis));
            let _ = HeaderValue::from_bytes(&bytes).map(|value| parse(&value));
        }
    }
}
