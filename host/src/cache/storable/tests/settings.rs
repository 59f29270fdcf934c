//! What a host says beside the origin.

use super::*;

const COOKIE: (&str, &str) = ("set-cookie", "a=b");

fn min(seconds: u64) -> Rules {
    Rules { ttl_min: Some(secs(seconds)), ..Rules::default() }
}

fn max(seconds: u64) -> Rules {
    Rules { ttl_max: Some(secs(seconds)), ..Rules::default() }
}

fn over(seconds: u64) -> Rules {
    Rules { ttl_override: Some(secs(seconds)), ..Rules::default() }
}

#[test]
fn a_status_that_is_named_has_a_life_whichever_it_is() {
    let named = |seconds| Rules { status_ttl: Some(secs(seconds)), ..ttl(300) };
    for status in [200, 404, 403, 500, 302] {
        lifetime(status, &[("date", NOW)], &named(10), Ok(10));
        lifetime(status, &[("cache-control", "max-age=60")], &named(10), Ok(60));
    }
    // An error that lives for no time is not there to be asked about, but what is there may be.
    lifetime(404, &[("etag", "\"a\"")], &named(0), Err(NotStorable::NoFreshness));
    lifetime(200, &[("etag", "\"a\"")], &named(0), Ok(0));
}

#[test]
fn bounds_are_of_what_the_origin_gives_and_of_what_is_guessed() {
    const GUESSED: Fields = &[("date", NOW), ("last-modified", "Sun, 06 Nov 1994 08:39:37 GMT")];
    lifetime(200, &[("cache-control", "max-age=1")], &min(60), Ok(60));
    lifetime(200, &[("cache-control", "max-age=0, must-revalidate")], &min(60), Ok(60));
    lifetime(200, &[("cache-control", "max-age=600")], &min(60), Ok(600));
    lifetime(200, GUESSED, &min(100), Ok(100));
    lifetime(200, &[("date", NOW), ("etag", "\"a\"")], &min(100), Ok(0));
    lifetime(200, &[("date", NOW)], &min(100), Err(NotStorable::NoFreshness));
    lifetime(200, &[("cache-control", "max-age=600")], &max(60), Ok(60));
    lifetime(200, GUESSED, &max(10), Ok(10));
    // `ttl` and policy are the operator's own word.
    lifetime(200, &[("date", NOW)], &Rules { ttl_max: Some(secs(60)), ..ttl(300) }, Ok(300));
    lifetime(200, &[("cache-control", "max-age=5")], &Rules { ttl_min: Some(secs(60)), ..policy_ttl(7) }, Ok(7));
}

#[test]
fn a_minimum_is_not_for_errors_nor_against_what_forbids_keeping() {
    lifetime(404, &[("cache-control", "max-age=1")], &min(60), Ok(1));
    lifetime(500, &[("cache-control", "max-age=1")], &min(60), Ok(1));
    lifetime(200, &[("cache-control", "no-store, max-age=1")], &min(60), Err(NotStorable::NoStore));
    lifetime(200, &[("cache-control", "private, max-age=1")], &min(60), Err(NotStorable::Private));
    lifetime(200, &[COOKIE], &min(60), Err(NotStorable::SetCookie));
    lifetime(200, &[COOKIE, ("cache-control", "max-age=1")], &min(60), Ok(1));
    let asked = get(200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], &min(60));
    assert!(matches!(asked, Storable::Yes(Retention { no_cache: true, .. })), "{asked:?}");
}

#[test]
fn an_override_lifts_what_the_origin_forbids() {
    for control in ["no-store", "private", "no-cache", "max-age=0", "max-age=600", "no-store, private, no-cache"] {
        let fields = [("cache-control", control)];
        let decided = decide(&Method::GET, &HeaderMap::new(), StatusCode::OK, &owned(&fields), &over(60));
        let Storable::Yes(retention) = decided else { panic!("{control}: {decided:?}") };
        assert_eq!((retention.lifetime, retention.no_cache), (secs(60), false), "{control}");
    }
    lifetime(200, &[("vary", "*")], &over(60), Err(NotStorable::VaryAny));
    lifetime(404, &[("etag", "\"a\"")], &over(0), Err(NotStorable::NoFreshness));
    let Storable::Yes(kept) = get(200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], &over(0)) else {
        panic!("it is asked about at each use")
    };
    assert!(kept.no_cache);
}

#[test]
fn an_override_shares_nothing_that_may_be_somebodys_own() {
    for control in ["no-store", "private", "private, max-age=600", "no-cache", "max-age=0", ""] {
        let cookie = owned(&[COOKIE, ("cache-control", control), ("etag", "\"a\"")]);
        let decided = decide(&Method::GET, &HeaderMap::new(), StatusCode::OK, &cookie, &over(60));
        assert!(matches!(decided, Storable::No(_)), "{control}: {decided:?}");
        let asked = owned(&[("authorization", "Basic x")]);
        let answer = owned(&[("cache-control", control), ("etag", "\"a\"")]);
        let decided = decide(&Method::GET, &asked, StatusCode::OK, &answer, &over(60));
        assert!(matches!(decided, Storable::No(_)), "{control}: {decided:?}");
    }
    // RFC 9111 sections 3.5 and 7.3: what the origin says to be for all is.
    lifetime(200, &[COOKIE, ("cache-control", "max-age=600")], &over(60), Ok(600));
    let asked = owned(&[("authorization", "Basic x")]);
    let answer = owned(&[("cache-control", "public, max-age=600")]);
    let Storable::Yes(kept) = decide(&Method::GET, &asked, StatusCode::OK, &answer, &over(60)) else {
        panic!("the origin says public")
    };
    assert_eq!(kept.lifetime, secs(600));
    // One that is not kept is no reason.
    lifetime(200, &[COOKIE, ("cache-control", "private=\"set-cookie\", no-store")], &over(60), Ok(60));
}

#[test]
fn windows_of_the_host_are_for_what_may_be_stale() {
    let rules = Rules { stale_while_revalidate: Some(secs(5)), stale_if_error: Some(secs(7)), ..Rules::default() };
    let windows = |control: &'static str| match get(200, &[("etag", "\"a\"")], &rules) {
        Storable::Yes(_) => {
            let decided = decide(
                &Method::GET,
                &HeaderMap::new(),
                StatusCode::OK,
                &owned(&[("cache-control", control), ("etag", "\"a\"")]),
                &rules,
            );
            let Storable::Yes(kept) = decided else { panic!("{control}: {decided:?}") };
            (kept.stale_while_revalidate, kept.stale_if_error, kept.must_revalidate)
        }
        no => panic!("{no:?}"),
    };
    assert_eq!(windows("max-age=1"), (Some(secs(5)), Some(secs(7)), false));
    let own = "max-age=1, stale-while-revalidate=1, stale-if-error=0";
    assert_eq!(windows(own), (Some(secs(1)), Some(secs(0)), false));
    assert_eq!(windows("s-maxage=1"), (None, None, true));
    assert_eq!(windows("s-maxage=1, stale-while-revalidate=1"), (Some(secs(1)), Some(secs(0)), false));
    assert!(windows("max-age=1, must-revalidate").2);
    // What had no life is given none by a window.
    assert_eq!(windows("max-age=0").0, None);
    lifetime(200, &[("cache-control", "max-age=0")], &rules, Err(NotStorable::NoFreshness));
}

fn owned(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| ((*name).parse().expect("a name"), HeaderValue::from_static(value))).collect()
}

proptest! {
    #[test]
    fn no_setting_shares_what_the_origin_alone_would_not(
        control in proptest::sample::subsequence(
            vec!["no-store", "private", "no-cache", "public", "max-age=0", "max-age=9", "s-maxage=5", "must-revalidate"], 0..5),
        cookie in any::<bool>(),
        authorization in any::<bool>(),
        seconds in proptest::collection::vec(proptest::option::of(0..100u64), 5),
    ) {
        let life = |number: usize| seconds[number].map(secs);
        let rules = Rules {
            ttl_min: life(0),
            ttl_override: life(1),
            stale_while_revalidate: life(2),
            stale_if_error: life(3),
            ttl_max: life(4),
            ..Rules::default()
        };
        let line = HeaderValue::from_str(&control.join(", ")).expect("ASCII");
        let mut answer = owned(&[("etag", "\"a\""), ("date", NOW)]);
        answer.insert("cache-control", line);
        let mut asked = HeaderMap::new();
        if cookie {
            answer.insert("set-cookie", HeaderValue::from_static("a=b"));
        }
        if authorization {
            asked.insert("authorization", HeaderValue::from_static("Basic x"));
        }
        let with = decide(&Method::GET, &asked, StatusCode::OK, &answer, &rules);
        let without = decide(&Method::GET, &asked, StatusCode::OK, &answer, &Rules::default());
        let forbidden = control.contains(&"no-store") || control.contains(&"private");
        if cookie || authorization {
            if let Storable::Yes(kept) = &with {
                let Storable::Yes(alone) = &without else {
                    return Err(TestCaseError::fail(format!("kept by a setting: {kept:?}")));
                };
                prop_assert!(kept.lifetime <= alone.lifetime);
                prop_assert!(kept.no_cache >= alone.no_cache);
            }
        } else if forbidden && rules.ttl_override.is_none() {
            prop_assert!(matches!(with, Storable::No(_)));
        }
    }
}
