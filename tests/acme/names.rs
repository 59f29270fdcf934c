//! Names come and go at run time.

use std::time::Duration;

use proxyhost::tls::acme::NameState;

use crate::stage::{QUIET, Stage};
use harness::pebble::Ways;

#[tokio::test]
async fn at_most_four_orders_are_under_way_and_removed_names_get_none() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.responder.take(Duration::from_millis(400));
    let names: Vec<String> = (0..12).map(|n| format!("n{n:02}.test")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    stage.open(&all);
    stage.until("four orders", |stage| stage.pebble.orders() >= 4).await;
    let ordering = |stage: &Stage| -> Vec<String> {
        let status = stage.acme.as_ref().expect("open").status();
        status.into_iter().filter(|name| name.state == NameState::Ordering).map(|name| name.name).collect()
    };
    assert_eq!(ordering(&stage), names[..4]);

    // Two under way and all that wait, but for one, are removed.
    let kept = ["n00.test", "n01.test", "n11.test"];
    stage.name(&kept);
    for name in kept {
        stage.until_issued(name, 1).await;
    }
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.pebble.orders(), 5, "the four, and one more for the name that was kept");
    for name in &names[2..11] {
        assert_eq!(stage.issued(name), 0, "{name}");
        assert!(stage.failed(name).is_empty(), "{name}: {:?}", stage.failed(name));
    }
    assert!(stage.responder.challenges.is_empty());

    // One comes back.
    stage.name(&["n00.test", "n05.test"]);
    stage.until_issued("n05.test", 1).await;
    assert_eq!(stage.issued("n00.test"), 1, "the others are not touched");
}

#[tokio::test]
async fn a_name_that_comes_back_has_its_old_certificate() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.open(&["a.test", "b.test"]);
    stage.until_issued("a.test", 1).await;
    stage.until_issued("b.test", 1).await;
    stage.name(&["a.test"]);
    assert!(stage.stored("b.test").is_some(), "what the store has stays");
    stage.name(&["a.test", "B.test"]);
    assert_eq!(stage.issued("b.test"), 2);
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.pebble.orders(), 2);
}

#[tokio::test]
async fn no_order_is_placed_for_what_is_no_host_name() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.open(&["*.a.test", "127.0.0.1", "[::1]", "../a.test", "a..test"]);
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.pebble.orders(), 0);
    assert_eq!(stage.failed("*.a.test").len(), 1);
    assert_eq!(stage.status("127.0.0.1").state, NameState::Impossible);
    assert_eq!(stage.status("127.0.0.1").next_attempt, None);
}

#[tokio::test]
async fn everything_ends_when_it_is_dropped() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.responder.take(Duration::from_millis(300));
    stage.open(&["a.test"]);
    stage.until("a challenge", |stage| !stage.responder.challenges.is_empty()).await;
    stage.close();
    stage.until("no challenge", |stage| stage.responder.challenges.is_empty()).await;
    tokio::time::sleep(QUIET).await;
    assert!(stage.stored("a.test").is_none());
    assert_eq!(stage.issued("a.test"), 0);
}
