//! Targeted Cache-Control fields (RFC 9213): what an origin says to this cache alone, or to all CDNs.
//!
//! The first field of the target list that can be read and is not empty takes the place of Cache-Control, Expires and Pragma;
//! one that is empty or no dictionary (RFC 9651 section 3.2) is as if it were not there. Parameters mean nothing. A member
//! whose value is not of its directive's type is passed over where it would grant something (`max-age="60"`), and counts as
//! the bare directive where it forbids something (`no-store=1`); a field with nothing but members passed over is empty.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::control::{MAX_DELTA_SECONDS, ResponseDirectives, field_names};

/// Meant for this program: it goes no further.
pub const OWN: HeaderName = HeaderName::from_static("proxyhost-cache-control");

/// Meant for every CDN on the way: it is passed on (section 3).
const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The target list (section 2.2), from the most particular on.
const TARGETS: [HeaderName; 2] = [OWN, CDN];

/// The directives of the field that counts; none where Cache-Control does.
pub(super) fn directives(headers: &HeaderMap) -> Option<ResponseDirectives> {
    TARGETS.iter().find_map(|name| read(headers, name))
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
    let mut lines = headers.get_all(name).iter();
    let mut text = Cow::Borrowed(lines.next()?.as_bytes());
    for line in lines {
        let text = text.to_mut();
        text.push(b',');
        text.extend_from_slice(line.as_bytes());
    }
    let members = Parser::new(&text).parse::<Dictionary>().ok()?;
    let mut said = ResponseDirectives { targeted: true, ..ResponseDirectives::default() };
    // Each is looked at, whatever came of those before it.
    let taken = members.iter().filter(|(name, value)| take(&mut said, name.as_str(), value)).count();
    (taken > 0).then_some(said)
}

/// Takes a member; false if it is passed over. A directive that nobody knows counts as one all the same: a field with such a
/// one is not empty (section 3.1 has an example).
fn take(said: &mut ResponseDirectives, name: &str, value: &ListEntry) -> bool {
    let item = match value {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    };
    // What forbids is in force unless it says `?0`.
    let forbids = item != Some(&BareItem::Boolean(false));
    match name {
        "no-store" => said.no_store = forbids,
        "must-revalidate" => said.must_revalidate = forbids,
        "proxy-revalidate" => said.proxy_revalidate = forbids,
        "no-cache" => match names(item) {
            Some(names) => said.no_cache_fields = names,
            None => said.no_cache = forbids,
        },
        "private" => match names(item) {
            Some(names) => said.private_fields = names,
            None => said.private = forbids,
        },
        "public" => return grants(&mut said.public, item),
        "must-understand" => return grants(&mut said.must_understand, item),
        "immutable" => return grants(&mut said.immutable, item),
        "max-age" => return lasts(&mut said.max_age, item),
        "s-maxage" => return lasts(&mut said.s_maxage, item),
        "stale-while-revalidate" => return lasts(&mut said.stale_while_revalidate, item),
        "stale-if-error" => return lasts(&mut said.stale_if_error, item),
        _ => {}
    }
    true
}

fn names(item: Option<&BareItem>) -> Option<Vec<HeaderName>> {
    let Some(BareItem::String(list)) = item else { return None };
    field_names(list.as_str().as_bytes())
}

fn grants(directive: &mut bool, item: Option<&BareItem>) -> bool {
    let Some(BareItem::Boolean(granted)) = item else { return false };
    *directive = *granted;
    true
}

fn lasts(directive: &mut Option<Duration>, item: Option<&BareItem>) -> bool {
    let Some(BareItem::Integer(seconds)) = item else { return false };
    // Below zero is no number of seconds: stale, as in Cache-Control.
    let seconds = u64::try_from(i64::from(*seconds)).unwrap_or(0).min(MAX_DELTA_SECONDS);
    *directive = Some(Duration::from_secs(seconds));
    true
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read_of(fields: &[(&'static str, &'static str)]) -> ResponseDirectives {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        ResponseDirectives::parse(&headers)
    }

    fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn the_first_field_that_can_be_read_counts_alone() {
        let general = ("cache-control", "no-store, max-age=1");
        let cdn = ("cdn-cache-control", "max-age=2");
        let own = ("proxyhost-cache-control", "max-age=3");
        assert_eq!(read_of(&[general]).max_age, secs(1));
        let read = read_of(&[general, cdn]);
        assert!(read.targeted && !read.no_store);
        assert_eq!(read.max_age, secs(2));
        assert_eq!(read_of(&[general, cdn, own]).max_age, secs(3));
        for unread in ["", " ", "max-age=3,", "Max-Age=3", "max-age = 3", "max-age=3, &", "max-age=3;;"] {
            let read = read_of(&[general, cdn, ("proxyhost-cache-control", unread)]);
            assert_eq!(read.max_age, secs(2), "{unread:?}");
            let read = read_of(&[general, ("cdn-cache-control", unread)]);
            assert!(read.no_store && !read.targeted, "{unread:?}");
        }
        // What nobody knows is not nothing.
        let read = read_of(&[general, ("cdn-cache-control", "none")]);
        assert!(read.targeted && !read.no_store && read.max_age.is_none());
    }

    #[test]
    fn lines_are_one_dictionary_in_which_the_last_of_a_name_counts() {
        let read =
            read_of(&[("cdn-cache-control", "max-age=1, private"), ("cdn-cache-control", "max-age=2, private=?0")]);
        assert_eq!((read.max_age, read.private), (secs(2), false));
        let read = read_of(&[("cdn-cache-control", "max-age=1"), ("cdn-cache-control", "&")]);
        assert!(!read.targeted, "one line that cannot be read spoils all");
    }

    #[test]
    fn all_directives_are_known_and_parameters_mean_nothing() {
        let read = read_of(&[(
            "cdn-cache-control",
            "max-age=1;a=2, s-maxage=2, stale-while-revalidate=3, stale-if-error=4;x, public;y=?0, immutable, \
             must-understand, must-revalidate, proxy-revalidate, no-store, no-cache=\"a, b\", private=\"c\"",
        )]);
        assert_eq!((read.max_age, read.s_maxage), (secs(1), secs(2)));
        assert_eq!((read.stale_while_revalidate, read.stale_if_error), (secs(3), secs(4)));
        assert!(read.public && read.immutable && read.must_understand && read.must_revalidate && read.proxy_revalidate);
        assert!(read.no_store && !read.no_cache && !read.private);
        assert_eq!(read.no_cache_fields, ["a", "b"]);
        assert_eq!(read.private_fields, ["c"]);
    }

    #[test]
    fn values_of_another_type_grant_nothing_and_forbid_all_the_same() {
        let general = ("cache-control", "max-age=1");
        for alone in
            ["max-age=\"60\"", "max-age=60.5", "max-age", "max-age=(60)", "max-age=a", "public=1", "immutable=a"]
        {
            assert_eq!(read_of(&[general, ("cdn-cache-control", alone)]).max_age, secs(1), "{alone}");
        }
        let read = read_of(&[general, ("cdn-cache-control", "max-age=\"60\", must-revalidate")]);
        assert!(read.targeted && read.max_age.is_none());
        assert_eq!(read_of(&[("cdn-cache-control", "max-age=-1")]).max_age, secs(0));
        assert_eq!(read_of(&[("cdn-cache-control", "max-age=99999999999")]).max_age, secs(1 << 31));
        for forbidding in ["no-store=1", "no-store=\"x\"", "no-store=(a b)"] {
            assert!(read_of(&[("cdn-cache-control", forbidding)]).no_store, "{forbidding}");
        }
        for whole in ["private", "private=set-cookie", "private=\"\"", "private=\"a b\"", "private=(a)", "private=1"] {
            assert!(read_of(&[("cdn-cache-control", whole)]).private, "{whole}");
        }
        let lifted = read_of(&[general, ("cdn-cache-control", "no-store=?0, no-cache=?0")]);
        assert!(lifted.targeted && !lifted.no_store && !lifted.no_cache);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[a-z=\",;?()0-9 ]{0,40}") {
            for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&text)].into_iter().flatten() {
                let _ = directives(&HeaderMap::from_iter([(CDN, value)]));
            }
        }

        #[test]
        fn what_is_written_as_a_dictionary_reads_as_in_cache_control(
            seconds in 0..100_000u64,
            flags in proptest::sample::subsequence(
                vec!["no-store", "no-cache", "private", "public", "must-revalidate", "proxy-revalidate", "immutable"], 0..7),
        ) {
            let line = flags.iter().fold(format!("max-age={seconds}"), |line, flag| format!("{line}, {flag}"));
            let value = HeaderValue::from_str(&line).expect("ASCII");
            let general = ResponseDirectives::parse(&HeaderMap::from_iter([(http::header::CACHE_CONTROL, value.clone())]));
            let targeted = ResponseDirectives::parse(&HeaderMap::from_iter([(CDN, value)]));
            prop_assert_eq!(ResponseDirectives { targeted: true, ..general }, targeted);
        }
    }
}
