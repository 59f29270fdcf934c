//! Revalidation (RFC 9111 section 4.3): the conditional request, and what a 304 changes.

use http::HeaderMap;
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, SET_COOKIE,
};

use super::control::ResponseDirectives;
use super::storable;
use crate::semantics::digest::{CONTENT_DIGEST, REPR_DIGEST};
use crate::semantics::etag::EntityTag;
use crate::semantics::{date, hop_by_hop};

/// What a 304 does not change: the stored body depends on it, or it is told anew at each use.
/// A digest of its content is of none.
const UNCHANGED: [HeaderName; 5] = [AGE, CONTENT_DIGEST, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE];

/// The fields to add to a request so that the origin can answer 304: If-None-Match, If-Modified-Since. None without a
/// validator. They are the stored values byte for byte, since there are origins that compare text.
pub fn conditions(stored: &HeaderMap) -> Option<HeaderMap> {
    let mut conditions = HeaderMap::with_capacity(2);
    if EntityTag::of(stored).is_some()
        && let Some(tag) = stored.get(ETAG)
    {
        conditions.insert(IF_NONE_MATCH, tag.clone());
    }
    if date::of(stored, &LAST_MODIFIED).is_some()
        && let Some(modified) = stored.get(LAST_MODIFIED)
    {
        conditions.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// The stored fields updated by those of a 304 or of a HEAD (section 3.2): all but Content-Length, Content-Encoding,
/// Content-Range, Age, hop-by-hop fields, those that `no-cache` or `private` names, and an ETag that is the stored one in weak
/// form. A Set-Cookie counts where the update gives a life in so many words, as it would in a whole response; without that it is
/// for the client on whose behalf we asked, and kept it would be handed to all others.
pub fn freshened(stored: &HeaderMap, not_modified: &HeaderMap) -> HeaderMap {
    let mut update = not_modified.clone();
    hop_by_hop::strip(&mut update);
    for name in &UNCHANGED {
        update.remove(name);
    }
    // The one that is kept was held against the body when that came.
    if stored.contains_key(REPR_DIGEST) {
        update.remove(REPR_DIGEST);
    }
    if !storable::gives_life(&update) {
        update.remove(SET_COOKIE);
    }
    let same_tag = EntityTag::of(stored).zip(EntityTag::of(&update)).is_some_and(|(old, new)| old.weak_eq(&new));
    if same_tag || EntityTag::of(&update).is_none() {
        update.remove(ETAG);
    }
    let mut merged = stored.clone();
    for name in update.keys() {
        merged.remove(name);
    }
    for (name, value) in &update {
        merged.append(name, value.clone());
    }
    // What is named as private or not to be reused now is neither taken from the 304 nor kept from before.
    let said = ResponseDirectives::parse(&merged);
    for name in said.private_fields.iter().chain(&said.no_cache_fields) {
        merged.remove(name);
    }
    merged
}

/// Whether a 304 selects this stored response (section 4.3.4): strong validators equal, weak ones match, or none given. One
/// with a date alone selects what was stored with the same date; where none was stored we had asked by tag, and so the
/// answer was about that tag.
pub fn selects(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    let kept = EntityTag::of(stored);
    if let Some(given) = EntityTag::of(not_modified) {
        let same = if given.weak { EntityTag::weak_eq } else { EntityTag::strong_eq };
        return kept.is_some_and(|kept| same(&given, &kept));
    }
    match (date::of(not_modified, &LAST_MODIFIED), date::of(stored, &LAST_MODIFIED)) {
        (None, _) => true,
        (Some(given), Some(modified)) => given == modified,
        (Some(_), None) => kept.is_some(),
    }
}

/// Whether the 200 to a HEAD is about what is stored (section 4.3.5): the validators and the length that it gives are those of the
/// stored response. None where it gives no validator to tell by: a length alone would let a HEAD prolong what has changed.
pub fn agrees(stored: &HeaderMap, size: Option<u64>, head: &HeaderMap) -> Option<bool> {
    let tags = EntityTag::of(head).map(|given| EntityTag::of(stored).is_some_and(|kept| kept.weak_eq(&given)));
    let dates =
        date::of(head, &LAST_MODIFIED).map(|given| date::of(stored, &LAST_MODIFIED).is_some_and(|kept| kept == given));
    let length = head.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let another_length = length.zip(size).is_some_and(|(given, kept)| given != kept);
    if tags == Some(false) || dates == Some(false) || another_length {
        return Some(false);
    }
    tags.or(dates)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn conditions_repeat_what_was_stored() {
        let stored = map(&[("etag", "W/\"a\""), ("last-modified", MODIFIED), ("x", "y")]);
        let asked = map(&[("if-none-match", "W/\"a\""), ("if-modified-since", MODIFIED)]);
        assert_eq!(conditions(&stored), Some(asked));
        assert_eq!(conditions(&map(&[("last-modified", MODIFIED)])), Some(map(&[("if-modified-since", MODIFIED)])));
        assert_eq!(conditions(&map(&[("etag", "unquoted"), ("last-modified", "yesterday")])), None);
        assert_eq!(conditions(&map(&[])), None);
    }

    #[test]
    fn a_304_replaces_fields_but_not_what_the_body_depends_on() {
        let stored = map(&[
            ("etag", "\"a\""),
            ("content-type", "text/html"),
            ("content-encoding", "gzip"),
            ("cache-control", "max-age=1"),
            ("x-old", "1"),
            ("x-many", "1"),
            ("x-many", "2"),
        ]);
        let not_modified = map(&[
            ("etag", "W/\"a\""),
            ("content-type", "text/plain"),
            ("content-encoding", "br"),
            ("content-length", "0"),
            ("age", "5"),
            ("set-cookie", "id=1"),
            ("cache-control", "max-age=60"),
            ("x-many", "3"),
            ("x-many", "4"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("date", LATER),
        ]);
        let expected = map(&[
            ("etag", "\"a\""),
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("set-cookie", "id=1"),
            ("cache-control", "max-age=60"),
            ("x-old", "1"),
            ("x-many", "3"),
            ("x-many", "4"),
            ("date", LATER),
        ]);
        assert_eq!(freshened(&stored, &not_modified), expected);
    }

    #[test]
    fn the_cookie_of_a_304_that_gives_no_life_is_not_for_others() {
        for control in ["public", "max-age=0", "no-cache, max-age=60"] {
            let not_modified = map(&[("set-cookie", "id=2"), ("cache-control", control)]);
            let merged = freshened(&map(&[("set-cookie", "id=1")]), &not_modified);
            assert_eq!(merged["set-cookie"], "id=1", "{control}");
        }
    }

    #[test]
    fn a_head_agrees_by_validators_and_length() {
        for (stored, given, expected) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"a\"")][..], Some(true)),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], Some(false)),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\""), ("content-length", "5")], Some(true)),
            (&[("etag", "\"a\"")], &[("etag", "\"a\""), ("content-length", "6")], Some(false)),
            (
                &[("etag", "\"a\""), ("last-modified", MODIFIED)],
                &[("etag", "\"a\""), ("last-modified", LATER)],
                Some(false),
            ),
            (&[("last-modified", MODIFIED)], &[("last-modified", MODIFIED)], Some(true)),
            (&[("last-modified", MODIFIED)], &[("etag", "\"a\"")], Some(false)),
            (&[("etag", "\"a\"")], &[("content-length", "5")], None),
            (&[("etag", "\"a\"")], &[("content-length", "6")], Some(false)),
            (&[], &[("x", "y")], None),
        ] {
            assert_eq!(agrees(&map(stored), Some(5), &map(given)), expected, "{stored:?} {given:?}");
        }
    }

    #[test]
    fn a_304_can_take_fields_back() {
        let stored = map(&[("x-user", "1"), ("x-other", "1")]);
        let not_modified = map(&[("cache-control", "private=\"x-user\""), ("x-user", "2")]);
        let expected = map(&[("x-other", "1"), ("cache-control", "private=\"x-user\"")]);
        assert_eq!(freshened(&stored, &not_modified), expected);
    }

    #[test]
    fn a_304_selects_by_its_validators() {
        for (stored, given, expected) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"a\"")][..], true),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], false),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "W/\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], false),
            (&[("last-modified", MODIFIED)], &[("etag", "\"a\"")], false),
            (&[("etag", "\"a\""), ("last-modified", MODIFIED)], &[("etag", "\"a\""), ("last-modified", LATER)], true),
            (&[("last-modified", MODIFIED)], &[("last-modified", MODIFIED)], true),
            (&[("last-modified", MODIFIED)], &[("last-modified", LATER)], false),
            (&[("etag", "\"a\"")], &[("last-modified", LATER)], true),
            (&[], &[("last-modified", LATER)], false),
            (&[("etag", "\"a\"")], &[], true),
            (&[("last-modified", MODIFIED)], &[], true),
        ] {
            assert_eq!(selects(&map(stored), &map(given)), expected, "{stored:?} {given:?}");
        }
    }

    proptest! {
        #[test]
        fn any_two_heads_are_merged(names in proptest::collection::vec((0..6usize, "[ -~]{0,12}"), 0..8)) {
            let known = ["etag", "last-modified", "cache-control", "connection", "set-cookie", "x"];
            let mut headers = HeaderMap::new();
            for (name, value) in &names {
                headers.append(known[*name], HeaderValue::from_str(value).expect("ASCII"));
            }
            let stored = map(&[("etag", "\"a\""), ("x", "1")]);
            let merged = freshened(&stored, &headers);
            prop_assert!(!merged.contains_key("set-cookie") || storable::gives_life(&merged));
            let _ = (agrees(&stored, Some(5), &headers), selects(&stored, &headers), selects(&headers, &stored), conditions(&headers));
        }
    }
}
