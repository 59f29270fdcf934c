//! What clients are told of how long they may keep an answer, where the host says that (`browser_ttl`): a life of their own,
//! apart from the one here.
//!
//! A client takes Age off max-age, or counts from Date if that makes it older (RFC 9111 section 4.2.3), so the age of what is
//! sent goes on top: it has all of that life from now on, and Age and Date stay true. Validators stay, so that it can ask
//! whether what it has is still good.

use std::time::Duration;

use http::header::{AUTHORIZATION, CACHE_CONTROL, EXPIRES, PRAGMA, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::deliver::{Deliverable, Source};
use crate::cache::freshness::Timing;

/// Tells the client of an origin's answer, if the host has a life for it.
pub fn tell(answer: &mut Deliverable) {
    let Some(life) = answer.carried.caching().browser_ttl else { return };
    let request = &answer.carried.exchange.request;
    let read = matches!(request.method, Method::GET | Method::HEAD);
    // What is somebody's own is left to what the origin says of it.
    let own = answer.headers.contains_key(SET_COOKIE) || request.headers.contains_key(AUTHORIZATION);
    if !read || own || !has_life(answer.status) || answer.origin_path.is_none() {
        return;
    }
    let now = answer.carried.proxy.clock.now();
    let age = match &answer.source {
        Source::Entry(entry) => entry.head.timing.age(now),
        Source::Stream { .. } | Source::Nothing => Timing::of(&answer.headers, now, now).initial_age,
        Source::Bytes(_) => return,
    };
    let in_any_case = answer.carried.caching().life_in_any_case(answer.status.as_u16()).is_some();
    let max_age = if life.is_zero() { Duration::ZERO } else { life.saturating_add(age) };
    if let Some(value) = told(&answer.headers, max_age.as_secs(), in_any_case) {
        answer.headers.insert(CACHE_CONTROL, value);
        answer.headers.remove(EXPIRES);
        answer.headers.remove(PRAGMA);
    }
}

/// Statuses of what is there. An error is not kept by anyone because of this.
fn has_life(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 304 | 308)
}

/// The Cache-Control for clients: the origin's with this max-age. None where the origin forbids clients to keep it, or it is
/// for one of them, unless `in_any_case`; and none where it cannot be taken apart.
fn told(headers: &HeaderMap, max_age: u64, in_any_case: bool) -> Option<HeaderValue> {
    let mut text = String::new();
    for line in headers.get_all(CACHE_CONTROL) {
        for directive in directives(line.to_str().ok()?)? {
            let name = directive.split('=').next().unwrap_or_default().trim_end().to_ascii_lowercase();
            match name.as_str() {
                "no-store" | "private" | "no-cache" if in_any_case => {}
                "no-store" | "private" | "no-cache" => return None,
                "max-age" | "s-maxage" => {}
                // It would be about a life of nothing.
                "immutable" if max_age == 0 => {}
                _ => {
                    text.push_str(directive);
                    text.push_str(", ");
                }
            }
        }
    }
    text.push_str("max-age=");
    text.push_str(itoa::Buffer::new().format(max_age));
    HeaderValue::from_str(&text).ok()
}

/// The directives of a line, as they stand; none if its quotes do not match.
fn directives(line: &str) -> Option<impl Iterator<Item = &str>> {
    let (mut quoted, mut escaped) = (false, false);
    let commas: Vec<usize> = line
        .bytes()
        .enumerate()
        .filter_map(|(at, byte)| {
            let was_escaped = std::mem::take(&mut escaped);
            match byte {
                b'\\' if quoted && !was_escaped => escaped = true,
                b'"' if !was_escaped => quoted = !quoted,
                b',' if !quoted => return Some(at),
                _ => {}
            }
            None
        })
        .collect();
    let mut begin = 0;
    let pieces = commas.into_iter().chain([line.len()]).map(move |end| {
        let piece = line[begin..end].trim();
        begin = end + 1;
        piece
    });
    (!quoted).then(|| pieces.filter(|piece| !piece.is_empty()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::control::ResponseDirectives;

    fn of(lines: &[&'static str], max_age: u64, in_any_case: bool) -> Option<String> {
        let headers = lines.iter().map(|line| (CACHE_CONTROL, HeaderValue::from_static(line)));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| _ = map.append(name, value));
        told(&map, max_age, in_any_case).map(|value| value.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn a_life_takes_the_place_of_the_origins() {
        for (lines, told) in [
            (&[][..], "max-age=60"),
            (&["max-age=5"], "max-age=60"),
            (&["public, MAX-AGE = 5, s-maxage=\"7\", immutable"], "public, immutable, max-age=60"),
            (
                &["public", "must-revalidate, x=\"a, max-age=1\""],
                "public, must-revalidate, x=\"a, max-age=1\", max-age=60",
            ),
            (&[",, stale-while-revalidate=5 ,"], "stale-while-revalidate=5, max-age=60"),
        ] {
            assert_eq!(of(lines, 60, false).as_deref(), Some(told), "{lines:?}");
        }
        assert_eq!(of(&["public, immutable"], 0, false).as_deref(), Some("public, max-age=0"));
    }

    #[test]
    fn what_is_forbidden_stays_so() {
        for line in ["no-store", "private", "no-cache", "public, No-Store", "private=\"x\"", "no-cache=\"set-cookie\""]
        {
            assert_eq!(of(&[line], 60, false), None, "{line}");
            assert!(of(&[line], 60, true).is_some_and(|told| told.ends_with("max-age=60")), "{line}");
        }
        for stray in ["x=\"a, no-store", "\"", "a=\"\\\", private"] {
            assert_eq!(of(&[stray], 60, true), None, "{stray}");
        }
    }

    proptest! {
        #[test]
        fn no_life_is_longer_than_it_is_said_and_nothing_forbidden_is_lost(
            line in "(no-store|private|no-cache|max-age=[0-9]{1,3}|s-maxage=9|x=[a\\\\\"]{0,4}|[ ,=\"a]{0,3}){0,4}(, ?(no-store|private|public|[\"\\\\]))?",
            max_age in 0..1000u64,
        ) {
            let came = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_str(&line).expect("ASCII"))]);
            let before = ResponseDirectives::parse(&came);
            if let Some(told) = told(&came, max_age, false) {
                let after = ResponseDirectives::parse(&HeaderMap::from_iter([(CACHE_CONTROL, told)]));
                prop_assert!(after.max_age.is_some_and(|life| life <= Duration::from_secs(max_age)));
                prop_assert!(after.no_store >= before.no_store && after.private >= before.private);
                prop_assert!(after.no_cache >= before.no_cache);
            }
        }
    }
}
