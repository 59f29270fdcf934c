use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const BEGIN: u64 = 784_111_777_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(BEGIN + millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn timing(fields: &[(&'static str, &'static str)], request: u64, response: u64) -> Timing {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    Timing::of(&headers, at(request), at(response))
}

#[test]
fn initial_age_is_the_larger_of_two_guesses() {
    const DATE_AT_BEGIN: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    let initial =
        |fields: &[(&'static str, &'static str)], request, response| timing(fields, request, response).initial_age;
    assert_eq!(initial(&[], 0, 0), secs(0));
    assert_eq!(initial(&[], 0, 1500), Duration::from_millis(1500));
    assert_eq!(initial(&[DATE_AT_BEGIN], 900, 990), Duration::from_millis(90));
    assert_eq!(initial(&[DATE_AT_BEGIN], 5000, 5000), secs(5));
    assert_eq!(initial(&[DATE_AT_BEGIN, ("age", "10")], 5000, 6000), secs(11));
    assert_eq!(initial(&[("age", "10, 20")], 0, 0), secs(10));
    assert_eq!(initial(&[("age", "10"), ("age", "20")], 0, 0), secs(10));
    assert_eq!(initial(&[("age", ", 10"), ("age", "20")], 0, 0), secs(10));
    assert_eq!(initial(&[("age", ""), ("age", "\t20 ")], 0, 0), secs(20));
    assert_eq!(initial(&[("age", "x, 20")], 0, 0), secs(0));
    for bad in ["-1", "x", "", "1.5", "+3", "\"3\"", "3;a=1", "3 4", "0x3"] {
        assert_eq!(initial(&[("age", bad)], 0, 0), secs(0), "{bad}");
    }
    assert_eq!(initial(&[("age", "99999999999999999999999")], 0, 0), secs(1 << 31));
    assert_eq!(initial(&[("date", "Sun, 06 Nov 2094 08:49:37 GMT")], 0, 0), secs(0), "from the future");
    assert_eq!(initial(&[("date", "garbage")], 0, 0), secs(0));
}

#[test]
fn what_was_kept_before_the_clock_went_back_is_stale() {
    let retention = Retention { lifetime: secs(60), stale_while_revalidate: Some(secs(30)), ..Retention::default() };
    let decided =
        |response| decide(&retention, &timing(&[], response, response), &RequestDirectives::default(), None, at(0));
    assert_eq!(decided(10_000), Freshness::Fresh(secs(60)));
    assert_eq!(decided(10_001), stale(0, true, true));
    assert_eq!(decided(1_000_000_000_000), stale(0, true, true));
}

fn decide_at(retention: &Retention, seconds_times_1000: u64, cap: Option<Duration>) -> Freshness {
    decide(retention, &timing(&[], 0, 0), &RequestDirectives::default(), cap, at(seconds_times_1000))
}

fn stale(since_ms: u64, while_revalidate: bool, if_error: bool) -> Freshness {
    Freshness::Stale { since: Duration::from_millis(since_ms), while_revalidate, if_error }
}

#[test]
fn windows_end_when_they_say() {
    let retention = Retention {
        lifetime: secs(60),
        stale_while_revalidate: Some(secs(30)),
        stale_if_error: Some(secs(90)),
        ..Retention::default()
    };
    assert_eq!(decide_at(&retention, 0, None), Freshness::Fresh(secs(60)));
    assert_eq!(decide_at(&retention, 59_999, None), Freshness::Fresh(Duration::from_millis(1)));
    assert_eq!(decide_at(&retention, 60_000, None), stale(0, true, true));
    assert_eq!(decide_at(&retention, 89_999, None), stale(29_999, true, true));
    assert_eq!(decide_at(&retention, 90_000, None), stale(30_000, false, true));
    assert_eq!(decide_at(&retention, 150_000, None), stale(90_000, false, false));
}

#[test]
fn a_failing_origin_is_covered_for_a_day_unless_something_forbids_it() {
    let day_ms = 86_400_000;
    let plain = Retention { lifetime: secs(60), ..Retention::default() };
    assert_eq!(decide_at(&plain, 60_000, None), stale(0, false, true));
    assert_eq!(decide_at(&plain, 60_000 + day_ms - 1, None), stale(day_ms - 1, false, true));
    assert_eq!(decide_at(&plain, 60_000 + day_ms, None), stale(day_ms, false, false));
    let windows = Retention { stale_while_revalidate: Some(secs(9)), stale_if_error: Some(secs(9)), ..plain.clone() };
    assert_eq!(
        decide_at(&Retention { must_revalidate: true, ..windows.clone() }, 60_000, None),
        stale(0, false, false)
    );
    assert_eq!(decide_at(&Retention { no_cache: true, ..windows }, 1_000, None), stale(0, false, false));
    assert_eq!(decide_at(&Retention { stale_if_error: Some(secs(0)), ..plain }, 60_000, None), stale(0, false, false));
    assert_eq!(decide_at(&Retention::default(), 0, None), stale(0, false, true), "zero life: ask at each use");
}

#[test]
fn the_cap_of_a_policy_makes_old_entries_missing() {
    let plain = Retention { lifetime: secs(60), ..Retention::default() };
    assert_eq!(decide_at(&plain, 10_000, Some(secs(10))), Freshness::Fresh(secs(0)));
    assert_eq!(decide_at(&plain, 10_001, Some(secs(10))), stale(0, false, false));
    assert_eq!(decide_at(&plain, 5_000, Some(secs(10))), Freshness::Fresh(secs(5)));
    assert_eq!(decide_at(&plain, 70_000, Some(secs(100))), stale(10_000, false, true));
    let from_a_cache = timing(&[("age", "30")], 0, 0);
    assert_eq!(
        decide(&plain, &from_a_cache, &RequestDirectives::default(), Some(secs(10)), at(1_000)),
        Freshness::Fresh(secs(9)),
    );
}

fn asked(line: &'static str) -> RequestDirectives {
    RequestDirectives::parse(&HeaderMap::from_iter([(http::header::CACHE_CONTROL, HeaderValue::from_static(line))]))
}

#[test]
fn a_client_may_ask_for_better_than_fresh() {
    let plain = Retention { lifetime: secs(60), ..Retention::default() };
    let at_ten = |line| decide(&plain, &timing(&[], 0, 0), &asked(line), None, at(10_000));
    let fresh = Freshness::Fresh(secs(50));
    let unwanted = Freshness::Unwanted { if_error: true };
    for (line, expected) in [
        ("max-age=10", fresh),
        ("max-age=9", unwanted),
        ("max-age=0", unwanted),
        ("max-age=x", unwanted),
        ("max-age=9, max-stale", unwanted),
        ("min-fresh=50", fresh),
        ("min-fresh=51", unwanted),
        ("min-fresh=x", fresh),
        ("max-stale", fresh),
        ("no-cache", Freshness::Unwanted { if_error: false }),
        ("no-cache, max-stale", Freshness::Unwanted { if_error: false }),
    ] {
        assert_eq!(at_ten(line), expected, "{line}");
    }
    assert_eq!(
        decide(&plain, &timing(&[], 0, 0), &asked("max-age=0"), None, at(0)),
        unwanted,
        "a reload is a reload, however young"
    );
}

#[test]
fn a_client_may_take_what_is_stale_where_nothing_forbids_it() {
    let plain = Retention { lifetime: secs(60), ..Retention::default() };
    let at_seventy =
        |retention: &Retention, line| decide(retention, &timing(&[], 0, 0), &asked(line), None, at(70_000));
    let accepted = Freshness::Accepted { since: secs(10) };
    for (line, expected) in [
        ("max-stale", accepted),
        ("max-stale=10", accepted),
        ("max-stale=9", stale(10_000, false, true)),
        ("max-stale=x", stale(10_000, false, true)),
        ("max-age=70, max-stale", accepted),
        ("max-age=69, max-stale", stale(10_000, false, true)),
        ("max-stale, min-fresh=0", stale(10_000, false, true)),
        ("max-stale, no-cache", stale(10_000, false, false)),
        ("max-age=100", stale(10_000, false, true)),
    ] {
        assert_eq!(at_seventy(&plain, line), expected, "{line}");
    }
    for strict in [
        Retention { must_revalidate: true, ..plain.clone() },
        Retention { no_cache: true, ..plain.clone() },
        Retention { s_maxage: true, ..plain.clone() },
    ] {
        assert!(matches!(at_seventy(&strict, "max-stale"), Freshness::Stale { while_revalidate: false, .. }));
    }
    let window = Retention { stale_while_revalidate: Some(secs(30)), ..plain };
    assert_eq!(at_seventy(&window, "max-stale"), stale(10_000, true, true), "and fetched again");
    for refused in ["max-age=100", "min-fresh=1", "no-cache", "max-stale=9"] {
        assert!(matches!(at_seventy(&window, refused), Freshness::Stale { while_revalidate: false, .. }), "{refused}");
    }
}

proptest! {
    #[test]
    fn an_honoured_wish_never_gets_more_than_an_ignored_one_but_by_max_stale(
        lifetime in 0..100u64,
        windows in proptest::option::of((0..100u64, 0..100u64)),
        flags in any::<(bool, bool, bool)>(),
        cap in proptest::option::of(0..100u64),
        wishes in (
            any::<bool>(),
            proptest::option::of(0..100u64),
            proptest::option::of(0..100u64),
            proptest::option::of(proptest::option::of(0..100u64)),
        ),
        moment in 0..300_000u64,
    ) {
        let retention = Retention {
            lifetime: secs(lifetime),
            no_cache: flags.0,
            must_revalidate: flags.1,
            s_maxage: flags.2,
            stale_while_revalidate: windows.map(|(window, _)| secs(window)),
            stale_if_error: windows.map(|(_, window)| secs(window)),
        };
        let honoured = RequestDirectives {
            no_cache: wishes.0,
            max_age: wishes.1.map(secs),
            min_fresh: wishes.2.map(secs),
            max_stale: wishes.3.map(|limit| limit.map(secs)),
            ..RequestDirectives::default()
        };
        let decided =
            |request: &RequestDirectives| decide(&retention, &timing(&[], 0, 0), request, cap.map(secs), at(moment));
        // What is served without asking, and what is served if the origin fails.
        let served = |freshness| match freshness {
            Freshness::Fresh(_) | Freshness::Accepted { .. } => (true, true),
            Freshness::Unwanted { if_error } => (false, if_error),
            Freshness::Stale { while_revalidate, if_error, .. } => (while_revalidate, if_error || while_revalidate),
        };
        let (with, without) = (decided(&honoured), decided(&honoured.clone().without_wishes()));
        let both = (served(with), served(without));
        if let Freshness::Accepted { since } = with {
            prop_assert!(honoured.max_stale.is_some_and(|limit| limit.is_none_or(|limit| since <= limit)));
            prop_assert!(!retention.no_cache && !retention.must_revalidate && !retention.s_maxage);
        } else {
            prop_assert!(both.1.0 || !both.0.0, "{:?} {:?}", with, without);
            prop_assert!(both.1.1 || !both.0.1, "{:?} {:?}", with, without);
        }
    }

    #[test]
    fn what_is_stale_stays_stale_as_time_passes(
        lifetime in 0..100_000u64,
        windows in proptest::option::of((0..100_000u64, 0..100_000u64)),
        flags in any::<(bool, bool)>(),
        cap in proptest::option::of(0..100_000u64),
        initial_ms in 0..50_000u64,
        first in 0..200_000u64,
        later in 0..200_000_000u64,
    ) {
        let retention = Retention {
            lifetime: Duration::from_millis(lifetime),
            no_cache: flags.0,
            must_revalidate: flags.1,
            s_maxage: false,
            stale_while_revalidate: windows.map(|(window, _)| Duration::from_millis(window)),
            stale_if_error: windows.map(|(_, window)| Duration::from_millis(window)),
        };
        let timing = Timing { request_at: at(0), response_at: at(0), initial_age: Duration::from_millis(initial_ms) };
        let cap = cap.map(Duration::from_millis);
        let now = |moment| decide(&retention, &timing, &RequestDirectives::default(), cap, at(moment));
        let (before, after) = (now(first), now(first + later));
        match (before, after) {
            (Freshness::Fresh(before), Freshness::Fresh(after)) => {
                prop_assert_eq!(before - after, Duration::from_millis(later));
            }
            (Freshness::Fresh(left), Freshness::Stale { .. }) => prop_assert!(left <= Duration::from_millis(later)),
            (Freshness::Stale { .. }, Freshness::Fresh(_)) => prop_assert!(false, "fresh again"),
            (
                Freshness::Stale { since, while_revalidate, if_error },
                Freshness::Stale { since: since_after, while_revalidate: while_after, if_error: error_after },
            ) => {
                prop_assert!(since <= since_after);
                prop_assert!(while_revalidate || !while_after);
                prop_assert!(if_error || !error_after);
            }
            _ => prop_assert!(false, "nobody asked for anything"),
        }
    }

    #[test]
    fn no_moment_overflows(fields in any::<[u64; 5]>()) {
        let [request_at, response_at, now, lifetime, cap] = fields;
        let timing = Timing::of(&HeaderMap::new(), Timestamp::from_millis(request_at), Timestamp::from_millis(response_at));
        let retention = Retention { lifetime: Duration::from_millis(lifetime), ..Retention::default() };
        let cap = Some(Duration::from_millis(cap));
        let _ = decide(&retention, &timing, &RequestDirectives::default(), cap, Timestamp::from_millis(now));
    }
}
