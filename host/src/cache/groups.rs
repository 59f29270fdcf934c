//! Groups of responses, and what a change makes untrue of them (RFC 9875).
//!
//! Groups are kept as tags of an entry, with the scheme and the port of its origin; the host is that of any tag. They begin with
//! a byte that no field and no person writes, so that a group is no other tag of the same name; by the name alone an operator
//! purges a group like a tag.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

/// The groups that a response is in (section 2).
const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// The groups that a change makes untrue (section 3).
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Members that count, and their longest name; the RFC asks for 32 of 32. More is passed over: to invalidate them is a "may".
const MAX_GROUPS: usize = 64;
const MAX_GROUP_BYTES: usize = 128;

/// Begins the tag of a group.
const MARK: char = '\u{1}';

/// Where a response comes from, beside its host.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The port, where it is not the scheme's own.
    pub port: Option<u16>,
}

impl Scope {
    fn tag(self, group: &str) -> String {
        format!("{MARK}{}:{}:{group}", self.scheme, self.port.unwrap_or_default())
    }
}

/// The tags by which a response is kept: its groups, and their names for a purge by hand.
pub fn tags(response: &HeaderMap, scope: Scope) -> Vec<String> {
    let groups = read(response, &CACHE_GROUPS);
    groups.into_iter().flat_map(|group| [scope.tag(&group), group]).collect()
}

/// The tags of the groups that a response to an unsafe request invalidates.
pub fn invalidated(response: &HeaderMap, scope: Scope) -> Vec<String> {
    let mut tags: Vec<String> =
        read(response, &CACHE_GROUP_INVALIDATION).into_iter().map(|group| scope.tag(&group)).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// A list of strings whose parameters mean nothing; one that is not such a list is not there (RFC 9651 section 1.1).
fn read(response: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines: Vec<&[u8]> = response.get_all(name).iter().map(|line| line.as_bytes()).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let Ok(members) = Parser::new(&lines.join(&b","[..])).parse::<List>() else { return Vec::new() };
    let strings = members.into_iter().map(|member| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(text) => Some(String::from(text)),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    });
    let Some(groups) = strings.collect::<Option<Vec<String>>>() else { return Vec::new() };
    groups.into_iter().take(MAX_GROUPS).filter(|group| group.len() <= MAX_GROUP_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const HTTPS: Scope = Scope { scheme: "https", port: None };

    fn groups(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_GROUPS, HeaderValue::from_str(line).expect("a field value"));
        }
        read(&headers, &CACHE_GROUPS)
    }

    #[test]
    fn groups_are_strings_that_are_compared_exactly() {
        assert_eq!(groups(&["\"a\", \"B b\";x=1", "\"c,d\""]), ["a", "B b", "c,d"]);
        assert_eq!(groups(&["\"\\\"\""]), ["\""]);
        for none in ["", "a", "\"a\", b", "\"a\",", "(\"a\")", "\"a", "\"a\" \"b\"", "1", "?1"] {
            assert!(groups(&[none]).is_empty(), "{none}");
        }
        assert!(groups(&["\"a\"", "b"]).is_empty(), "one line that cannot be read spoils all");
    }

    #[test]
    fn as_many_count_as_the_rfc_asks_for_and_not_many_more() {
        let line = |count: usize| (0..count).map(|at| format!("\"{at:032}\"")).collect::<Vec<_>>().join(", ");
        assert_eq!(groups(&[&line(32)]).len(), 32);
        assert_eq!(groups(&[&line(10_000)]).len(), MAX_GROUPS);
        let long = "x".repeat(MAX_GROUP_BYTES + 1);
        assert_eq!(groups(&[&format!("\"{long}\", \"a\"")]), ["a"], "a name is never cut: it would be another");
    }

    #[test]
    fn a_group_is_of_its_origin_and_no_other_tag() {
        let response = HeaderMap::from_iter([
            (CACHE_GROUPS, HeaderValue::from_static("\"a\"")),
            (CACHE_GROUP_INVALIDATION, HeaderValue::from_static("\"a\", \"a\"")),
        ]);
        let kept = tags(&response, HTTPS);
        let gone = |scope| invalidated(&response, scope);
        assert_eq!(gone(HTTPS).len(), 1);
        assert!(kept.contains(&gone(HTTPS)[0]) && kept.contains(&"a".to_owned()));
        assert!(!gone(HTTPS).contains(&"a".to_owned()), "what is a tag by another field stays");
        for other in [Scope { scheme: "http", port: None }, Scope { scheme: "https", port: Some(8443) }] {
            assert!(!kept.contains(&gone(other)[0]), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[a-z\",\\\\;=() ]{0,40}") {
            for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&text)].into_iter().flatten() {
                let _ = tags(&HeaderMap::from_iter([(CACHE_GROUPS, value)]), HTTPS);
            }
        }

        #[test]
        fn tags_are_one_only_for_one_group_of_one_origin(
            one in ("[ -~]{0,6}", any::<bool>(), prop::option::of(1..3u16)),
            two in ("[ -~]{0,6}", any::<bool>(), prop::option::of(1..3u16)),
        ) {
            let tag = |(group, secure, port): &(String, bool, Option<u16>)| {
                Scope { scheme: if *secure { "https" } else { "http" }, port: *port }.tag(group)
            };
            prop_assert_eq!(tag(&one) == tag(&two), one == two);
        }
    }
}
