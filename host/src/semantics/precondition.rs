//! Conditional requests (RFC 9110 section 13).
//!
//! A cache in front of its own origins answers for them, so all conditions are evaluated here, those too that RFC 9111
//! section 4.3.2 leaves to origin servers (If-Match, If-Unmodified-Since). Conditions count only where the answer without
//! them would have been a 2xx (section 13.2.1): the caller sees to that. A date that is malformed or given twice is no
//! condition.

use std::time::Duration;

use http::header::{DATE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED};
use http::{HeaderMap, Method};

use super::date;
use super::etag::{EntityTag, TagList};

/// What the preconditions of a request say of a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates If-Match, If-Unmodified-Since, If-None-Match and If-Modified-Since in the order of section 13.2.2 against the
/// stored response's headers (ETag, Last-Modified).
pub fn evaluate(method: &Method, request: &HeaderMap, stored: &HeaderMap) -> Precondition {
    if !is_conditional(request) {
        return Precondition::Proceed;
    }
    let reading = *method == Method::GET || *method == Method::HEAD;
    let tag = EntityTag::of(stored);

    if let Some(list) = TagList::of(request, &IF_MATCH) {
        if !list.means(tag.as_ref(), EntityTag::strong_eq) {
            return Precondition::Failed;
        }
    } else if let Some(since) = date::of(request, &IF_UNMODIFIED_SINCE)
        && date::of(stored, &LAST_MODIFIED).is_some_and(|modified| modified > since)
    {
        return Precondition::Failed;
    }

    if let Some(list) = TagList::of(request, &IF_NONE_MATCH) {
        if list.means(tag.as_ref(), EntityTag::weak_eq) {
            return if reading { Precondition::NotModified } else { Precondition::Failed };
        }
    } else if reading
        && let Some(since) = date::of(request, &IF_MODIFIED_SINCE)
        // Without Last-Modified the moment of the response stands in for it (RFC 9111 section 4.3.2).
        && date::of(stored, &LAST_MODIFIED).or_else(|| date::of(stored, &DATE)).is_some_and(|modified| modified <= since)
    {
        return Precondition::NotModified;
    }
    Precondition::Proceed
}

/// Whether a Range field counts (section 13.1.5): no If-Range, or one that matches strongly. A date matches only if it is
/// the stored Last-Modified to the second and that is a strong validator: Date is at least a second later (section 8.8.2.2).
pub fn if_range_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let mut lines = request.get_all(IF_RANGE).iter();
    let Some(value) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    if let Some(asked) = EntityTag::parse(value.as_bytes()) {
        return EntityTag::of(stored).is_some_and(|current| asked.strong_eq(&current));
    }
    let Some((asked, modified)) = date::parse(value).zip(date::of(stored, &LAST_MODIFIED)) else {
        return false;
    };
    asked == modified && date::of(stored, &DATE).is_some_and(|made| made >= modified.plus(Duration::from_secs(1)))
}

/// Whether the request carries any precondition. If-Range is none: it only qualifies Range.
pub fn is_conditional(request: &HeaderMap) -> bool {
    [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE].iter().any(|name| request.contains_key(name))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
            })
            .collect()
    }

    fn with_both() -> HeaderMap {
        map(&[("etag", "\"a\""), ("last-modified", MODIFIED), ("date", LATER)])
    }

    #[track_caller]
    fn check(method: Method, request: &[(&str, &str)], stored: &HeaderMap, expected: Precondition) {
        assert_eq!(evaluate(&method, &map(request), stored), expected, "{method} {request:?}");
    }

    #[test]
    fn each_condition_alone() {
        use Precondition::*;
        let stored = with_both();
        for (field, value, expected) in [
            ("if-match", "\"a\"", Proceed),
            ("if-match", "\"b\", \"a\"", Proceed),
            ("if-match", "*", Proceed),
            ("if-match", "\"b\"", Failed),
            ("if-match", "W/\"a\"", Failed),
            ("if-match", "garbage", Failed),
            ("if-unmodified-since", MODIFIED, Proceed),
            ("if-unmodified-since", LATER, Proceed),
            ("if-unmodified-since", EARLIER, Failed),
            ("if-unmodified-since", "garbage", Proceed),
            ("if-none-match", "\"a\"", NotModified),
            ("if-none-match", "W/\"a\"", NotModified),
            ("if-none-match", "\"b\", W/\"a\"", NotModified),
            ("if-none-match", "*", NotModified),
            ("if-none-match", "\"b\"", Proceed),
            ("if-none-match", "a", Proceed),
            ("if-modified-since", MODIFIED, NotModified),
            ("if-modified-since", LATER, NotModified),
            ("if-modified-since", EARLIER, Proceed),
            ("if-modified-since", "garbage", Proceed),
        ] {
            check(Method::GET, &[(field, value)], &stored, expected);
            check(Method::HEAD, &[(field, value)], &stored, expected);
        }
    }

    #[test]
    fn methods_that_change_something_fail_instead_of_304() {
        let stored = with_both();
        check(Method::PUT, &[("if-none-match", "*")], &stored, Precondition::Failed);
        check(Method::PUT, &[("if-none-match", "\"a\"")], &stored, Precondition::Failed);
        check(Method::PUT, &[("if-modified-since", LATER)], &stored, Precondition::Proceed);
    }

    #[test]
    fn tags_come_before_dates_and_match_before_none_match() {
        use Precondition::*;
        let stored = with_both();
        check(Method::GET, &[("if-match", "\"a\""), ("if-unmodified-since", EARLIER)], &stored, Proceed);
        check(Method::GET, &[("if-none-match", "\"b\""), ("if-modified-since", LATER)], &stored, Proceed);
        check(Method::GET, &[("if-match", "\"b\""), ("if-none-match", "\"a\"")], &stored, Failed);
        check(Method::GET, &[("if-match", "\"a\""), ("if-none-match", "\"a\"")], &stored, NotModified);
        check(Method::GET, &[("if-unmodified-since", EARLIER), ("if-none-match", "\"a\"")], &stored, Failed);
    }

    #[test]
    fn what_is_not_known_of_the_stored_response_is_no_condition() {
        use Precondition::*;
        let bare = HeaderMap::new();
        check(Method::GET, &[("if-match", "\"a\"")], &bare, Failed);
        check(Method::GET, &[("if-match", "*")], &bare, Proceed);
        check(Method::GET, &[("if-none-match", "\"a\"")], &bare, Proceed);
        check(Method::GET, &[("if-unmodified-since", EARLIER)], &bare, Proceed);
        check(Method::GET, &[("if-modified-since", LATER)], &bare, Proceed);
        check(Method::GET, &[("if-modified-since", LATER)], &map(&[("date", MODIFIED)]), NotModified);
        check(Method::GET, &[("if-modified-since", LATER), ("if-modified-since", LATER)], &with_both(), Proceed);
    }

    #[test]
    fn if_range_is_strong() {
        let holds = |value: &str, stored: &HeaderMap| if_range_holds(&map(&[("if-range", value)]), stored);
        let stored = with_both();
        assert!(if_range_holds(&HeaderMap::new(), &stored));
        assert!(holds("\"a\"", &stored));
        assert!(!holds("W/\"a\"", &stored));
        assert!(!holds("\"b\"", &stored));
        assert!(!holds("a", &stored));
        assert!(!holds("\"a\", \"a\"", &stored));
        assert!(holds(MODIFIED, &stored));
        assert!(holds("Sunday, 06-Nov-94 08:49:37 GMT", &stored));
        assert!(!holds(EARLIER, &stored));
        assert!(!holds(LATER, &stored));
        assert!(!holds("\"a\"", &map(&[("etag", "W/\"a\"")])));
        assert!(!holds(MODIFIED, &map(&[("last-modified", MODIFIED)])), "no Date: weak");
        assert!(!holds(MODIFIED, &map(&[("last-modified", MODIFIED), ("date", MODIFIED)])), "the same second: weak");
        assert!(!if_range_holds(&map(&[("if-range", "\"a\""), ("if-range", "\"a\"")]), &stored));
    }

    proptest! {
        #[test]
        fn any_bytes_are_evaluated(field in 0..5usize, bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let name = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE][field].clone();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let request = HeaderMap::from_iter([(name, value)]);
                let _ = evaluate(&Method::GET, &request, &with_both());
                let _ = if_range_holds(&request, &with_both());
            }
        }
    }
}
