mod settings;

use std::sync::Arc;

use bytes::Bytes;
use http::header::ETAG;
use proptest::prelude::*;

use super::*;

const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const IN_A_MINUTE: &str = "Sun, 06 Nov 1994 08:50:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:48:37 GMT";

type Fields = &'static [(&'static str, &'static str)];

fn map(fields: Fields) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn get(status: u16, response: Fields, rules: &Rules) -> Storable {
    let status = StatusCode::from_u16(status).expect("a status");
    decide(&Method::GET, &HeaderMap::new(), status, &map(response), rules)
}

#[track_caller]
fn lifetime(status: u16, response: Fields, rules: &Rules, expected: Result<u64, NotStorable>) {
    let expected = expected.map(secs);
    let decided = match get(status, response, rules) {
        Storable::Yes(retention) => Ok(retention.lifetime),
        Storable::No(why) => Err(why),
    };
    assert_eq!(decided, expected, "{status} {response:?}");
}

fn ttl(seconds: u64) -> Rules {
    Rules { default_ttl: Some(secs(seconds)), ..Rules::default() }
}

fn policy_ttl(seconds: u64) -> Rules {
    Rules { policy_ttl: Some(secs(seconds)), ..ttl(300) }
}

#[test]
fn lifetimes_have_an_order() {
    let none = Rules::default();
    lifetime(200, &[("cache-control", "max-age=60, s-maxage=30"), ("date", NOW), ("expires", BEFORE)], &none, Ok(30));
    lifetime(200, &[("cache-control", "max-age=60"), ("date", NOW), ("expires", BEFORE)], &ttl(300), Ok(60));
    lifetime(200, &[("date", NOW), ("expires", IN_A_MINUTE)], &ttl(300), Ok(60));
    lifetime(200, &[("date", NOW)], &ttl(300), Ok(300));
    lifetime(200, &[("cache-control", "max-age=60"), ("date", NOW)], &policy_ttl(7), Ok(7));
}

#[test]
fn an_expires_that_cannot_be_read_or_counted_is_zero() {
    let rules = ttl(300);
    for response in [
        &[("etag", "\"a\""), ("date", NOW), ("expires", "0")][..],
        &[("etag", "\"a\""), ("date", NOW), ("expires", BEFORE)],
        &[("etag", "\"a\""), ("expires", IN_A_MINUTE)],
        &[("etag", "\"a\""), ("date", NOW), ("expires", IN_A_MINUTE), ("expires", "x")],
    ] {
        lifetime(200, response, &rules, Ok(0));
    }
    lifetime(200, &[("date", NOW), ("expires", "0")], &rules, Err(NotStorable::NoFreshness));
}

#[test]
fn without_a_word_on_freshness_a_validator_is_needed() {
    let none = Rules::default();
    lifetime(200, &[("etag", "\"a\"")], &none, Ok(0));
    lifetime(200, &[("last-modified", BEFORE)], &none, Ok(0));
    lifetime(200, &[], &none, Err(NotStorable::NoFreshness));
    lifetime(200, &[("etag", "unquoted")], &none, Err(NotStorable::NoFreshness));
    lifetime(200, &[("cache-control", "max-age=0")], &none, Err(NotStorable::NoFreshness));
    lifetime(200, &[("cache-control", "no-cache")], &ttl(300), Err(NotStorable::NoFreshness));
    lifetime(200, &[("cache-control", "max-age=0, stale-while-revalidate=9")], &none, Ok(0));
    let strict = "max-age=0, stale-while-revalidate=9, must-revalidate";
    assert_eq!(
        get(200, &[("cache-control", "max-age=0, stale-if-error=0")], &none),
        Storable::No(NotStorable::NoFreshness)
    );
    let headers = HeaderMap::from_iter([(http::header::CACHE_CONTROL, HeaderValue::from_static(strict))]);
    let decided = decide(&Method::GET, &HeaderMap::new(), StatusCode::OK, &headers, &none);
    assert_eq!(decided, Storable::No(NotStorable::NoFreshness));
}

#[test]
fn a_life_is_guessed_from_last_modified() {
    const TEN_MINUTES_BEFORE: &str = "Sun, 06 Nov 1994 08:39:37 GMT";
    const A_YEAR_BEFORE: &str = "Sat, 06 Nov 1993 08:49:37 GMT";
    const CHANGED: (&str, &str) = ("last-modified", TEN_MINUTES_BEFORE);
    const MADE: (&str, &str) = ("date", NOW);
    let none = Rules::default();
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        lifetime(status, &[MADE, CHANGED], &none, Ok(60));
    }
    for status in [302, 303, 307, 400, 403, 500, 502, 599] {
        lifetime(status, &[MADE, CHANGED], &none, Err(NotStorable::NoFreshness));
        lifetime(status, &[MADE, CHANGED, ("cache-control", "public")], &none, Ok(60));
    }
    lifetime(200, &[MADE, ("last-modified", A_YEAR_BEFORE)], &none, Ok(86_400));
    // Nothing to guess by: asked about at each use.
    lifetime(200, &[MADE, ("etag", "\"a\"")], &none, Ok(0));
    lifetime(200, &[MADE, ("etag", "\"a\""), ("last-modified", "long ago")], &none, Ok(0));
    lifetime(200, &[MADE, ("last-modified", IN_A_MINUTE)], &none, Ok(0));
    lifetime(200, &[MADE, CHANGED, ("pragma", "x, No-Cache")], &none, Ok(0));
    // Others speak before it.
    lifetime(200, &[MADE, CHANGED, ("cache-control", "max-age=7")], &none, Ok(7));
    lifetime(200, &[MADE, CHANGED, ("expires", "0")], &none, Ok(0));
    lifetime(200, &[MADE, CHANGED], &ttl(300), Ok(300));
    lifetime(200, &[MADE, CHANGED], &ttl(0), Ok(0));
    lifetime(501, &[MADE, CHANGED], &ttl(300), Err(NotStorable::NoFreshness));
    lifetime(200, &[MADE, CHANGED], &policy_ttl(7), Ok(7));
    lifetime(200, &[MADE, CHANGED, ("cache-control", "no-store")], &none, Err(NotStorable::NoStore));
    lifetime(200, &[MADE, CHANGED, ("set-cookie", "a=1")], &none, Err(NotStorable::SetCookie));
    let Storable::Yes(retention) = get(200, &[MADE, CHANGED, ("cache-control", "no-cache")], &none) else {
        panic!("not kept");
    };
    assert!(retention.no_cache);
}

#[test]
fn the_ttl_of_a_host_is_for_statuses_cacheable_by_default_and_never_for_403_and_5xx() {
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414] {
        lifetime(status, &[], &ttl(300), Ok(300));
    }
    for status in [302, 303, 307, 400, 401, 403, 429, 500, 501, 502, 503, 504] {
        lifetime(status, &[("etag", "\"a\"")], &ttl(300), Err(NotStorable::NoFreshness));
        lifetime(status, &[("cache-control", "max-age=60")], &ttl(300), Ok(60));
        lifetime(status, &[], &policy_ttl(7), Ok(7));
    }
}

#[test]
fn answers_to_a_range_a_condition_or_a_hop_are_not_kept() {
    for status in [100, 103, 206, 304, 407, 412, 416] {
        lifetime(
            status,
            &[("cache-control", "max-age=60"), ("etag", "\"a\"")],
            &policy_ttl(7),
            Err(NotStorable::Status),
        );
    }
}

#[test]
fn only_get_is_kept() {
    let response = map(&[("cache-control", "max-age=60")]);
    for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS, Method::DELETE] {
        let decided = decide(&method, &HeaderMap::new(), StatusCode::OK, &response, &Rules::default());
        assert_eq!(decided, Storable::No(NotStorable::Method));
    }
}

#[test]
fn secrecy_is_not_for_the_policy_to_lift() {
    let rules = policy_ttl(60);
    lifetime(200, &[("cache-control", "no-store")], &rules, Err(NotStorable::NoStore));
    lifetime(200, &[("cache-control", "max-age=60"), ("cache-control", "no-store")], &rules, Err(NotStorable::NoStore));
    lifetime(200, &[("cache-control", "private, public, max-age=60")], &rules, Err(NotStorable::Private));
    lifetime(200, &[("set-cookie", "id=1")], &rules, Err(NotStorable::SetCookie));
    lifetime(200, &[("vary", "*")], &rules, Err(NotStorable::VaryAny));
    let never = Rules { policy_no_store: true, ..policy_ttl(60) };
    lifetime(200, &[("cache-control", "max-age=60")], &never, Err(NotStorable::Policy));
}

#[test]
fn a_policy_lifts_what_is_about_freshness() {
    let Storable::Yes(retention) = get(200, &[("cache-control", "no-cache, max-age=0")], &policy_ttl(60)) else {
        panic!("not kept");
    };
    assert_eq!((retention.lifetime, retention.no_cache), (secs(60), false));
    let Storable::Yes(retention) = get(200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], &ttl(60)) else {
        panic!("not kept");
    };
    assert!(retention.no_cache);
}

#[test]
fn must_understand_lifts_no_store_for_statuses_that_are_understood() {
    let response: Fields = &[("cache-control", "must-understand, no-store, max-age=60")];
    lifetime(200, response, &Rules::default(), Ok(60));
    lifetime(299, response, &Rules::default(), Err(NotStorable::Status));
    lifetime(299, &[("cache-control", "max-age=60")], &Rules::default(), Ok(60));
}

#[test]
fn a_cookie_is_kept_only_with_a_life_in_so_many_words() {
    let cookie = ("set-cookie", "id=1");
    let check = |fields: Vec<(&'static str, &'static str)>, expected| {
        lifetime(200, Box::leak(fields.into_boxed_slice()), &ttl(300), expected);
    };
    check(vec![cookie, ("cache-control", "max-age=60")], Ok(60));
    check(vec![cookie, ("date", NOW), ("expires", IN_A_MINUTE)], Ok(60));
    for control in ["public", "max-age=0", "no-cache, max-age=60", "must-revalidate", "max-age=x"] {
        check(vec![cookie, ("etag", "\"a\""), ("cache-control", control)], Err(NotStorable::SetCookie));
    }
    check(vec![cookie, ("cache-control", "private=\"set-cookie\"")], Ok(300));
    check(vec![cookie, ("cache-control", "no-cache=\"Set-Cookie\"")], Ok(300));
}

#[test]
fn requests_have_a_say() {
    let decided = |request: Fields, control: &'static str| {
        let response = HeaderMap::from_iter([(http::header::CACHE_CONTROL, HeaderValue::from_static(control))]);
        decide(&Method::GET, &map(request), StatusCode::OK, &response, &policy_ttl(60))
    };
    let authorized: Fields = &[("authorization", "Bearer x")];
    assert_eq!(decided(authorized, "max-age=60"), Storable::No(NotStorable::Authorization));
    assert_eq!(decided(authorized, "max-age=60, proxy-revalidate"), Storable::No(NotStorable::Authorization));
    for control in ["public", "must-revalidate", "s-maxage=60"] {
        assert!(matches!(decided(authorized, control), Storable::Yes(_)), "{control}");
    }
    assert_eq!(decided(&[("cache-control", "no-store")], "max-age=60"), Storable::No(NotStorable::RequestNoStore));
    assert!(matches!(
        decided(&[("cache-control", "no-cache"), ("pragma", "no-cache")], "max-age=60"),
        Storable::Yes(_)
    ));
}

#[test]
fn stale_windows_are_the_policys_then_the_origins() {
    let retention = |control: &'static str, rules: &Rules| {
        let response = HeaderMap::from_iter([(http::header::CACHE_CONTROL, HeaderValue::from_static(control))]);
        match decide(&Method::GET, &HeaderMap::new(), StatusCode::OK, &response, rules) {
            Storable::Yes(kept) => (kept.must_revalidate, kept.stale_while_revalidate, kept.stale_if_error),
            Storable::No(why) => panic!("{why:?}"),
        }
    };
    let none = Rules::default();
    let policy =
        Rules { policy_stale_while_revalidate: Some(secs(1)), policy_stale_if_error: Some(secs(2)), ..none.clone() };
    let both = "max-age=60, stale-while-revalidate=3, stale-if-error=4";
    assert_eq!(retention("max-age=60", &none), (false, None, None));
    assert_eq!(retention(both, &none), (false, Some(secs(3)), Some(secs(4))));
    assert_eq!(retention(both, &policy), (false, Some(secs(1)), Some(secs(2))));
    assert_eq!(retention("max-age=60, must-revalidate", &policy), (true, Some(secs(1)), Some(secs(2))));
    assert_eq!(retention("max-age=60, proxy-revalidate", &none), (true, None, None));
    assert_eq!(retention("s-maxage=60", &none), (true, None, None));
    assert_eq!(retention("s-maxage=60, stale-while-revalidate=3", &none), (false, Some(secs(3)), Some(secs(0))));
    assert_eq!(retention("s-maxage=60, stale-if-error=4", &none), (false, None, Some(secs(4))));
}

#[test]
fn fields_that_are_not_for_all_are_not_kept() {
    let response = map(&[
        ("cache-control", "max-age=60, private=\"x-user\", no-cache=\"set-cookie\""),
        ("x-user", "1"),
        ("set-cookie", "id=1"),
        ("age", "5"),
        ("content-length", "5"),
        ("content-range", "bytes 0-4/5"),
        ("connection", "close"),
        ("content-type", "text/plain"),
    ]);
    let kept = map(&[
        ("cache-control", "max-age=60, private=\"x-user\", no-cache=\"set-cookie\""),
        ("content-range", "bytes 0-4/5"),
        ("content-type", "text/plain"),
    ]);
    assert_eq!(headers_to_keep(&response), kept);
}

#[test]
fn what_is_kept_holds_nothing_of_what_was_read_with_it() {
    let owner = Arc::new(b"etag: \"1\"".to_vec());
    let read = Bytes::from_owner(Lent(owner.clone()));
    let value = HeaderValue::from_maybe_shared(read.slice(6..)).unwrap();
    drop(read);
    let response = HeaderMap::from_iter([(ETAG, value)]);
    assert_eq!(Arc::strong_count(&owner), 2);
    let kept = headers_to_keep(&response);
    drop(response);
    assert_eq!((Arc::strong_count(&owner), kept[ETAG].to_str().unwrap()), (1, "\"1\""));
}

struct Lent(Arc<Vec<u8>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

proptest! {
    #[test]
    fn no_store_and_private_hold_whatever_stands_beside_them(
        before in "((public|max-age=[0-9]{1,3}|s-maxage=9|immutable|no-cache), ?){0,3}",
        secret in prop_oneof![Just("no-store"), Just("private")],
        status in 100..600u16,
        ttl in proptest::option::of(0..1000u64),
    ) {
        let control = HeaderValue::from_str(&format!("{before}{secret}")).expect("ASCII");
        let response = HeaderMap::from_iter([(http::header::CACHE_CONTROL, control)]);
        let rules = Rules { policy_ttl: ttl.map(secs), default_ttl: Some(secs(5)), ..Rules::default() };
        let status = StatusCode::from_u16(status).expect("a status");
        let decided = decide(&Method::GET, &HeaderMap::new(), status, &response, &rules);
        prop_assert!(matches!(decided, Storable::No(_)));
    }
}
