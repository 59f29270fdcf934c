//! The decisions: when to renew, when to try again, whether a name may be tried; and whole lives of names, with the CA and
//! restarts thrown by dice.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::AcmeError;
use super::agenda::{Agenda, Entry, Held, MAX_ORDERS, Outcome};
use super::attempts::{Book, COUNTED, Ledger, REST};
use super::challenges::Kind;
use super::client::{Ca, Renewal};
use super::failure::Failure;
use super::schedule::{NAME_FAILED, SERVER_DOWN, Term, Window};
use crate::clock::{Clock, Timestamp};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const URL: &str = "https://ca.test/directory";

fn at(s: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + s * 1000)
}

fn term(days: u64) -> Term {
    Term {
        not_before: at(0),
        not_after: at(days * 24 * 3600),
        window: None,
        not_again_before: Timestamp::default(),
        dice: 0.0,
    }
}

fn held(days: u64) -> Held {
    Held { term: term(days), identifier: Some("id".into()) }
}

fn restarted(ledger: &Ledger, now: Timestamp) -> Ledger {
    let mut ledger = Book::parse(&Book::empty().with(URL, ledger)).expect("our own").take(URL);
    ledger.tidy(now);
    ledger
}

fn agenda(names: &[&str]) -> Agenda {
    let mut agenda = Agenda::default();
    for name in names {
        agenda.insert((*name).to_owned(), Entry::new(None));
    }
    agenda
}

#[test]
fn pauses_double_and_stay_within_an_hour() {
    let minutes = |failures| SERVER_DOWN.after(failures, 0.0).as_secs() / 60;
    assert_eq!([1, 2, 3, 4, 5, 6, 7, 8, 100].map(minutes), [1, 2, 4, 8, 16, 32, 48, 48, 48]);
    assert_eq!(SERVER_DOWN.after(1, 1.0), Duration::from_secs(75));
    assert_eq!(SERVER_DOWN.after(u32::MAX, 1.0), HOUR);
    assert_eq!(NAME_FAILED.after(1, 0.0), Duration::from_secs(300));
}

#[test]
fn a_third_of_the_lifetime_is_left_at_renewal() {
    assert_eq!(term(90).renew_at(), at(60 * 24 * 3600));
    assert_eq!(Term { dice: 1.0, ..term(90) }.renew_at(), at(63 * 24 * 3600));
    assert_eq!(term(6).renew_at(), at(4 * 24 * 3600));
}

#[test]
fn the_window_decides_within_bounds() {
    let window = |from: u64, to: u64| Some(Window { start: at(from), end: at(to) });
    let day = 24 * 3600;
    assert_eq!(Term { window: window(day, 3 * day), dice: 0.5, ..term(90) }.renew_at(), at(2 * day));
    assert_eq!(Term { window: window(200 * day, 300 * day), ..term(90) }.renew_at(), at(81 * day), "never too late");
    let past = Term { window: window(0, 1), ..term(90) };
    assert!(past.renew_at() <= at(1), "at once");
    assert!(past.due_by_window(at(day)));
    assert_eq!(Term { not_again_before: at(5 * day), ..past }.renew_at(), at(5 * day));
}

#[test]
fn five_failures_an_hour_are_allowed_and_a_success_counts_nothing() {
    let mut ledger = Ledger::default();
    let good = ledger.begin("a.test", at(0)).expect("allowed");
    ledger.forgive("a.test", &good);
    for n in 0..5 {
        let attempt = ledger.begin("a.test", at(n * 60)).expect("allowed");
        ledger.failed("a.test", &attempt, at(n * 60 + 30));
    }
    assert_eq!(ledger.begin("a.test", at(600)), None);
    assert!(ledger.begin("b.test", at(600)).is_some(), "another name");
    assert_eq!(ledger.free_at("a.test", at(600)), at(30).plus(COUNTED), "from when the outcome was known");
    assert_eq!(restarted(&ledger, at(600)).begin("a.test", at(600)), None);
    assert!(ledger.begin("a.test", at(30).plus(COUNTED)).is_some());
}

#[test]
fn an_attempt_that_a_crash_interrupts_counts() {
    let mut ledger = Ledger::default();
    for _ in 0..5 {
        let _lost = ledger.begin("a.test", at(0)).expect("allowed");
        ledger = restarted(&ledger, at(0));
    }
    assert_eq!(ledger.begin("a.test", at(0)), None);
}

#[test]
fn rests_last_an_hour_and_survive() {
    let mut ledger = Ledger::default();
    ledger.rest("a.test", at(0));
    let mut ledger = restarted(&ledger, at(1));
    assert_eq!(ledger.free_at("a.test", at(1)), at(0).plus(REST));
    assert!(ledger.free_at("b.test", at(1)) <= at(1));
    ledger.rest_all(at(10));
    let mut ledger = restarted(&ledger, at(11));
    assert_eq!(ledger.begin("b.test", at(11)), None);
    assert!(ledger.begin("b.test", at(10).plus(REST)).is_some());
}

#[test]
fn a_clock_that_was_wrong_blocks_no_longer_than_an_hour() {
    let mut ledger = Ledger::default();
    for _ in 0..5 {
        let _lost = ledger.begin("a.test", at(10_000_000));
    }
    ledger.rest_all(at(10_000_000));
    let mut ledger = restarted(&ledger, at(0));
    assert!(ledger.begin("a.test", at(0)).is_none());
    assert!(ledger.begin("a.test", at(0).plus(COUNTED)).is_some());
}

#[test]
fn the_challenge_that_works_is_remembered_and_other_directories_are_left_alone() {
    let mut ledger = Ledger::default();
    ledger.worked("a.test", Kind::Http01);
    let document = Book::empty().with(URL, &ledger);
    let mut book = Book::parse(&document).expect("our own");
    assert_eq!(book.take(URL).works("a.test"), Some(Kind::Http01));
    let mut book = Book::parse(&document).expect("our own");
    assert_eq!(book.take("https://other.test/"), Ledger::default());
    let document = book.with("https://other.test/", &Ledger::default());
    assert_eq!(Book::parse(&document).expect("our own").take(URL).works("a.test"), Some(Kind::Http01));
    for nonsense in ["", "{", "[]", r#"{"version": 2, "directories": {}}"#] {
        assert!(Book::parse(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
}

#[test]
fn names_without_a_certificate_come_first_and_four_at_most() {
    let mut agenda = agenda(&["b", "c", "d", "e", "f"]);
    agenda.insert("a".to_owned(), Entry::new(Some(held(90))));
    let now = at(70 * 24 * 3600);
    let started: Vec<_> = std::iter::from_fn(|| agenda.next_order(now)).collect();
    assert_eq!(started, ["b", "c", "d", "e"]);
    assert_eq!(agenda.next_moment(now), Some(Timestamp::default()), "a question for renewal information is due");
    assert!(agenda.next_question(now).is_some());
    assert_eq!(agenda.next_moment(now), None, "all places are taken");
    agenda.ended("c", &Outcome::Issued(held(90)), now, 0.0);
    assert_eq!(agenda.next_order(now).as_deref(), Some("f"));
}

#[test]
fn a_renewal_is_not_kept_waiting_by_names_that_fail_again_and_again() {
    let mut agenda = agenda(&["bad"]);
    let renewal = at(0).plus(DAY * 60);
    assert!(agenda.next_order(renewal).is_some());
    agenda.ended("bad", &Outcome::Failed(Failure::Refused("no".into())), renewal, 0.0);
    agenda.insert("good".to_owned(), Entry::new(Some(held(90))));
    assert_eq!(agenda.next_order(renewal.plus(HOUR)).as_deref(), Some("good"));
    assert_eq!(agenda.next_order(renewal.plus(HOUR)).as_deref(), Some("bad"));
}

#[test]
fn a_server_that_is_down_holds_back_all_and_is_asked_by_one() {
    let mut agenda = agenda(&["a", "b", "c"]);
    while agenda.next_order(at(0)).is_some() {}
    let down = Outcome::Failed(Failure::Server("down".into()));
    for name in ["a", "b", "c"] {
        agenda.ended(name, &down, at(1), 0.0);
    }
    assert_eq!(agenda.next_order(at(60)), None);
    assert_eq!(agenda.next_moment(at(60)), Some(at(62)), "a minute after, and those that failed a second behind");
    assert_eq!(agenda.next_order(at(62)).as_deref(), Some("a"));
    assert_eq!(agenda.next_order(at(62)), None, "one alone");
    agenda.ended("a", &down, at(63), 0.0);
    assert_eq!(agenda.next_order(at(182)), None, "twice as long");
    let other = agenda.next_order(at(184)).expect("due");
    assert_ne!(other, "a", "another one's turn");
    agenda.ended(&other, &Outcome::Issued(held(90)), at(185), 0.0);
    assert!(agenda.next_order(at(185)).is_some() && agenda.next_order(at(185)).is_some(), "all at once again");
}

#[test]
fn a_removed_name_gets_no_order_and_its_outcome_changes_nothing() {
    let mut agenda = agenda(&["a", "b"]);
    assert_eq!(agenda.next_order(at(0)).as_deref(), Some("a"));
    assert!(agenda.keep_only(&BTreeSet::new()).is_empty());
    assert!(!agenda.wants("a"));
    assert_eq!(agenda.next_order(at(0)), None);
    let back = agenda.keep_only(&BTreeSet::from(["a".to_owned()]));
    assert_eq!(back, ["a"]);
    agenda.insert("a".to_owned(), Entry::new(None));
    assert_eq!(agenda.next_order(at(0)), None, "the old order is still under way");
    agenda.ended("a", &Outcome::Failed(Failure::Removed), at(1), 0.0);
    assert_eq!(agenda.next_order(at(1)).as_deref(), Some("a"));
}

#[test]
fn an_answer_for_a_certificate_that_was_replaced_is_dropped() {
    let mut agenda = agenda(&[]);
    agenda.insert("a".to_owned(), Entry::new(Some(held(90))));
    let (name, identifier) = agenda.next_question(at(0)).expect("due");
    assert_eq!(agenda.next_question(at(0)), None);
    let window = Window { start: at(0), end: at(1) };
    let answer = Ok(Renewal::Suggested(window, DAY));
    assert_eq!(agenda.answered(&name, "another", &answer, at(0), 0.0), None);
    assert_eq!(agenda.next_order(at(10)), None);
    assert!(agenda.next_question(at(10)).is_some());
    assert_eq!(agenda.answered(&name, &identifier, &answer, at(10), 0.0), Some(window));
    assert_eq!(agenda.next_question(at(10)), None);
    assert_eq!(agenda.next_order(at(10)).as_deref(), Some("a"), "revoked: at once");
}

#[test]
fn settings_of_no_use_are_refused_with_their_names() {
    let ca =
        |url: &str, file: Option<&Path>| Ca::new(url, &[], file, Clock::default()).map(|_| ()).expect_err("refused");
    for url in ["", "letsencrypt", "ftp://ca.test/", "https://", "/dir"] {
        assert!(matches!(ca(url, None), AcmeError::Directory(of) if of == url), "{url}");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    for path in [file.path(), Path::new("/nowhere/ca.pem")] {
        let error = ca(URL, Some(path)).to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

/// What the CA does with an order, or what befalls us.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Issued,
    OneFails,
    BothFail,
    Refused,
    Down,
    NameLimited,
    AccountLimited,
    Crash,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        1 => Just(Fate::Issued),
        3 => Just(Fate::OneFails),
        8 => Just(Fate::BothFail),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Down),
        1 => Just(Fate::NameLimited),
        1 => Just(Fate::AccountLimited),
        3 => Just(Fate::Crash),
    ]
}

/// The CA's own count of failed validations.
#[derive(Default)]
struct Counted(VecDeque<Timestamp>);

impl Counted {
    /// Counts one and tells how many there are within the hour that ends now.
    fn failed(&mut self, now: Timestamp) -> usize {
        self.0.push_back(now);
        while self.0.front().is_some_and(|at| now.since(*at) >= HOUR) {
            self.0.pop_front();
        }
        self.0.len()
    }
}

proptest! {
    #[test]
    fn never_more_than_five_failed_validations_in_any_hour(
        steps in prop::collection::vec((fate(), 0u64..900, 0u64..300, 0.0f64..1.0), 1..200),
    ) {
        let mut now = at(0);
        let mut counted = Counted::default();
        let mut agenda = agenda(&["a"]);
        for (fate, pause, taken, dice) in steps {
            now = now.plus(Duration::from_secs(pause));
            let Some(name) = agenda.next_order(now) else { continue };
            let mut failures = match fate {
                Fate::OneFails => 1,
                Fate::BothFail | Fate::Crash => 2,
                _ => 0,
            };
            let mut outcome = Outcome::Spent;
            while failures > 0 {
                let Some(attempt) = agenda.ledger.begin(&name, now) else { break };
                // The CA looks at some moment before the outcome is known.
                prop_assert!(counted.failed(now.plus(Duration::from_secs(taken / 2))) <= 5);
                now = now.plus(Duration::from_secs(taken));
                failures -= 1;
                // In a crash the second outcome is never learnt, and counts from its beginning alone.
                if !(matches!(fate, Fate::Crash) && failures == 0) {
                    agenda.ledger.failed(&name, &attempt, now);
                    outcome = Outcome::Failed(Failure::Validation("no".into()));
                }
            }
            match fate {
                Fate::Issued | Fate::OneFails => outcome = Outcome::Issued(held(0)),
                Fate::Refused => outcome = Outcome::Failed(Failure::Refused("no".into())),
                Fate::Down => outcome = Outcome::Failed(Failure::Server("down".into())),
                Fate::NameLimited => outcome = Outcome::Failed(Failure::RateLimited("exact set of".into())),
                Fate::AccountLimited => outcome = Outcome::Failed(Failure::RateLimited("account".into())),
                Fate::BothFail | Fate::Crash => {}
            }
            if matches!(fate, Fate::Crash) {
                agenda = Agenda::new(restarted(&agenda.ledger, now));
                agenda.insert(name, Entry::new(None));
            } else {
                agenda.ended(&name, &outcome, now, dice);
            }
        }
    }

    #[test]
    fn a_name_is_always_tried_again_and_never_too_many_at_once(
        steps in prop::collection::vec((0usize..6, fate(), 0.0f64..1.0), 1..100),
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let mut agenda = agenda(&names);
        let mut now = at(0);
        let mut under_way: Vec<String> = Vec::new();
        for (index, fate, dice) in steps {
            under_way.extend(std::iter::from_fn(|| agenda.next_order(now)));
            prop_assert!(under_way.len() <= MAX_ORDERS);
            if under_way.is_empty() {
                let next = agenda.next_moment(now).expect("something to do");
                prop_assert!(next > now, "what is due is under way");
                // All that hold a name back are over within the hour of a rest, a pause at its longest or the attempts.
                prop_assert!(next.since(now) <= COUNTED.max(HOUR + Duration::from_secs(1)), "{:?}", next.since(now));
                now = next;
                continue;
            }
            let name = under_way.remove(index % under_way.len());
            let outcome = match fate {
                Fate::Issued | Fate::Crash => Outcome::Issued(Held { identifier: None, ..held(0) }),
                Fate::OneFails | Fate::BothFail => Outcome::Failed(Failure::Validation("no".into())),
                Fate::Refused => Outcome::Failed(Failure::Refused("no".into())),
                Fate::Down => Outcome::Failed(Failure::Server("down".into())),
                Fate::NameLimited => Outcome::Failed(Failure::RateLimited("exact set of".into())),
                Fate::AccountLimited => Outcome::Failed(Failure::RateLimited("account".into())),
            };
            agenda.ended(&name, &outcome, now, dice);
        }
    }

    #[test]
    fn renewal_is_due_before_the_end_and_stays_due(
        lifetime_s in 1u64..40_000_000,
        dice in 0.0f64..1.0,
        window in prop::option::of((0u64..80_000_000, 1u64..10_000_000)),
    ) {
        let window = window.map(|(from, long)| Window { start: at(from), end: at(from + long) });
        let term = Term { not_after: at(lifetime_s), window, dice, ..term(0) };
        prop_assert!(term.renew_at() < term.not_after);
        prop_assert!(term.renew_at() >= term.not_before || window.is_some());
        let moment = term.renew_at().plus(Duration::from_secs(1));
        prop_assert!(term.renew_at() <= moment, "what is due stays due");
    }

    #[test]
    fn any_document_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Book::parse(&bytes);
        let _ = super::renewal_info::parse(&bytes);
    }
}
