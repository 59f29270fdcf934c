use super::*;

fn marks<'a>(path: &'a str, tags: &'a [String]) -> Marks<'a> {
    Marks { host: "a.test", paths: [Some(path), None, None, None], tags }
}

fn host() -> String {
    "a.test".into()
}

fn soft(scope: PurgeScope, at_ms: u64) -> Purge {
    Purge { scope, mode: PurgeMode::Soft { at_ms } }
}

fn path(path: &str) -> PurgeScope {
    PurgeScope::Path { host: host(), path: path.into() }
}

#[test]
fn each_scope_hits_what_it_names_and_nothing_else() {
    let red = ["red".to_string()];
    let cases = [
        (PurgeScope::All, true, true, true),
        (PurgeScope::Host { host: host() }, true, true, true),
        (PurgeScope::Host { host: "a.test.au".into() }, false, false, false),
        (path("/a/b"), true, false, false),
        (PurgeScope::Prefix { host: host(), prefix: "/a".into() }, true, true, false),
        (PurgeScope::Prefix { host: host(), prefix: String::new() }, true, true, true),
        (PurgeScope::Tag { host: host(), tag: "red".into() }, true, false, false),
        (PurgeScope::Tag { host: "b.test".into(), tag: "red".into() }, false, false, false),
        (PurgeScope::TagEverywhere { tag: "red".into() }, true, false, false),
        (PurgeScope::Glob { host: host(), glob: "/?*".into() }, false, true, true),
        (PurgeScope::Glob { host: "b.test".into(), glob: "/**".into() }, false, false, false),
        (PurgeScope::Glob { host: host(), glob: "no pattern".into() }, true, true, true),
    ];
    for (scope, first, second, third) in cases {
        for mode in [PurgeMode::Hard, PurgeMode::Soft { at_ms: 7 }] {
            let table = PurgeTable::default();
            table.apply(5, &Purge { scope: scope.clone(), mode });
            let hit = match mode {
                PurgeMode::Hard => Verdict::Gone,
                PurgeMode::Soft { .. } => Verdict::Stale(Timestamp::from_millis(7)),
            };
            let expected = |hits: bool| if hits { hit } else { Verdict::Untouched };
            assert_eq!(table.judge(&marks("/a/b", &red), 4), expected(first), "{scope:?}");
            assert_eq!(table.judge(&marks("/ab", &[]), 4), expected(second), "{scope:?}");
            assert_eq!(table.judge(&marks("/b", &[]), 4), expected(third), "{scope:?}");
            let later = table.judge(&marks("/a/b", &red), 5);
            assert_eq!(later, Verdict::Untouched, "what was asked for afterwards stays: {scope:?}");
        }
    }
}

#[test]
fn gone_outweighs_stale_and_the_newest_moment_counts() {
    let table = PurgeTable::default();
    table.apply(1, &soft(PurgeScope::All, 10));
    table.apply(2, &soft(path("/a"), 20));
    assert_eq!(table.judge(&marks("/a", &[]), 0), Verdict::Stale(Timestamp::from_millis(20)));
    assert_eq!(table.judge(&marks("/b", &[]), 0), Verdict::Stale(Timestamp::from_millis(10)));
    assert_eq!(table.judge(&marks("/a", &[]), 1), Verdict::Stale(Timestamp::from_millis(20)));
    table.apply(3, &path("/a").into());
    table.apply(4, &soft(path("/a"), 40));
    assert_eq!(table.judge(&marks("/a", &[]), 2), Verdict::Gone);
    assert_eq!(table.judge(&marks("/a", &[]), 3), Verdict::Stale(Timestamp::from_millis(40)));
}

#[test]
fn a_forgotten_purge_keeps_out_what_was_asked_for_before_it() {
    let table = PurgeTable::default();
    table.apply(5, &path("/a").into());
    table.apply(6, &path("/b").into());
    table.forget(5);
    assert_eq!(table.judge(&marks("/a", &[]), 1), Verdict::Untouched);
    assert_eq!(table.judge(&marks("/b", &[]), 1), Verdict::Gone);
    assert!(table.is_before_floor(4));
    assert!(!table.is_before_floor(5));
    assert_eq!(table.records(), 1);
}

#[test]
fn a_million_purges_are_all_in_force_and_take_no_more_room_than_a_part_of_them() {
    const MANY: u64 = 1_000_000;
    let table = PurgeTable::default();
    for number in 1..=MANY {
        let scope = match number % 4 {
            0 => PurgeScope::Tag { host: host(), tag: format!("{number}") },
            1 => PurgeScope::Prefix { host: host(), prefix: format!("/p{number}/") },
            2 => PurgeScope::Host { host: format!("{number}.test") },
            _ => path(&format!("/{number}")),
        };
        let purge = if number % 8 < 4 { scope.into() } else { soft(scope, number) };
        table.apply(number, &purge);
    }
    assert!(table.is_full());
    assert!(table.bytes.load(Ordering::Relaxed) <= EXACT_BYTES + 1000);
    assert!(table.hosts.load().len() <= MOST_HOSTS);
    for number in (1..=MANY).step_by(997).chain(MANY - 20..=MANY) {
        let (name, tags) = (format!("{number}.test"), [format!("{number}")]);
        let (inside, path) = (format!("/p{number}/x"), format!("/{number}"));
        let marks = match number % 4 {
            0 => marks("/", &tags),
            1 => marks(&inside, &[]),
            2 => Marks { host: &name, ..marks("/", &[]) },
            _ => marks(&path, &[]),
        };
        let verdict = table.judge(&marks, number - 1);
        assert_ne!(verdict, Verdict::Untouched, "{number}");
        assert!(number % 8 >= 4 || verdict == Verdict::Gone, "{number}");
    }
    // Forgotten, there is room again, and what comes is told apart by name.
    table.forget(MANY);
    assert_eq!((table.records(), table.hosts.load().len(), table.is_full()), (0, 0, false));
    table.apply(MANY + 1, &path("/a").into());
    assert_eq!(table.judge(&marks("/a", &[]), MANY), Verdict::Gone);
    assert_eq!(table.judge(&marks("/b", &[]), MANY), Verdict::Untouched);
}

#[test]
fn applied_globs_make_room_and_raise_the_floor() {
    let table = PurgeTable::default();
    for number in 1..=MOST_GLOBS {
        table.apply(number, &PurgeScope::Glob { host: host(), glob: format!("/{number}*") }.into());
    }
    assert_eq!(table.room_for_globs(), 0);
    assert_eq!(table.drop_applied_globs(), [0; 0]);
    table.globs_applied("a.test", 3);
    assert_eq!(table.judge(&marks("/2x", &[]), 0), Verdict::Gone, "as long as there is room it stays");
    assert_eq!(table.drop_applied_globs(), [1, 2, 3]);
    assert_eq!(table.room_for_globs(), 3);
    assert!(table.is_before_floor(2) && !table.is_before_floor(3));
    assert_eq!(table.judge(&marks("/4x", &[]), 0), Verdict::Gone);
}
