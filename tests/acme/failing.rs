//! Challenges that fail, and a server that is down.

use std::fs;

use proxyhost::tls::acme::NameState;

use crate::stage::{Broken, QUIET, Stage};
use harness::pebble::Ways;

#[tokio::test]
async fn both_challenges_fail_and_it_is_tried_again_later() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.responder.answer(false, false);
    stage.open(&["a.test"]);
    stage.until_failed("a.test", 1).await;
    let reason = stage.failed("a.test").remove(0);
    assert!(reason.contains("tls-alpn-01: ") && reason.contains("http-01: "), "{reason}");
    assert!(reason.contains("unauthorized") || reason.contains("connection"), "the CA's words: {reason}");
    let status = stage.status("a.test");
    assert_eq!(status.state, NameState::Waiting);
    assert_eq!(status.last_error.as_deref(), Some(reason.as_str()));
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.pebble.orders(), 2);

    stage.responder.answer(true, true);
    stage.advance(400);
    stage.until_issued("a.test", 1).await;
    assert_eq!(stage.status("a.test").last_error, None);
}

#[tokio::test]
async fn no_more_than_five_validations_fail_within_an_hour_however_often_it_is_restarted() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.responder.answer(false, false);
    // A restart a minute for an hour.
    for _ in 0..60 {
        stage.open(&["a.test"]);
        stage.until_idle().await;
        stage.advance(60);
    }
    assert_eq!(stage.pebble.log().matches("set INVALID by invalid authz").count(), 5, "{}", stage.pebble.log());
    assert_eq!(stage.pebble.orders(), 5);
    // In the next hour there is room again.
    stage.responder.answer(true, true);
    stage.advance(360);
    stage.open(&["a.test"]);
    stage.until_issued("a.test", 1).await;
}

#[tokio::test]
async fn a_server_that_is_down_is_asked_again_and_old_certificates_serve_on() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.open(&["old.test"]);
    stage.until_issued("old.test", 1).await;
    stage.pebble.stop();

    stage.open(&["a.test", "b.test", "old.test"]);
    assert_eq!(stage.issued("old.test"), 1, "from the store, at once");
    stage.until("a failure", |stage| stage.status("a.test").last_error.is_some()).await;
    assert!(stage.failed("a.test")[0].starts_with("the ACME server: directory: "), "{:?}", stage.failed("a.test"));
    // The pauses grow: 1 minute and then 2, each up to a quarter longer.
    let failures = |stage: &Stage| stage.failed("a.test").len() + stage.failed("b.test").len();
    stage.until_idle().await;
    let before = failures(&stage);
    stage.advance(59);
    tokio::time::sleep(QUIET).await;
    assert_eq!(failures(&stage), before, "not before a minute has passed");
    stage.advance(20);
    stage.until("another try", |stage| failures(stage) == before + 1).await;
    stage.advance(119);
    tokio::time::sleep(QUIET).await;
    assert_eq!(failures(&stage), before + 1, "one order asks for all, and not before two minutes have passed");
    let attempts = fs::read_to_string(stage.path("attempts.json")).expect("kept");
    assert!(!attempts.contains(r#""failed":[1"#), "nothing counts as failed: {attempts}");

    stage.pebble.start();
    stage.advance(3600);
    stage.until_issued("a.test", 1).await;
    stage.until_issued("b.test", 1).await;
    assert_eq!(stage.issued("old.test"), 1);
}

#[tokio::test]
async fn no_order_is_placed_that_cannot_be_written_down() {
    for broken in [Broken { attempts: true, ..Broken::default() }, Broken { account: true, ..Broken::default() }] {
        let mut stage = Stage::lit(Ways::default()).await;
        stage.broken = broken;
        stage.open(&["a.test"]);
        stage.until_failed("a.test", 1).await;
        assert!(stage.failed("a.test")[0].contains("the disk is broken"), "{:?}", stage.failed("a.test"));
        tokio::time::sleep(QUIET).await;
        assert_eq!((stage.pebble.accounts(), stage.pebble.orders()), (0, 0));
        assert_eq!(stage.failed("a.test").len(), 1, "a pause lies before the next try");
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_kept_is_served_all_the_same() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.broken.certificates = true;
    stage.open(&["a.test"]);
    stage.until_issued("a.test", 1).await;
    assert!(stage.stored("a.test").is_none());
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.pebble.orders(), 1, "it is not ordered again for that");
}

#[tokio::test]
async fn a_directory_that_is_signed_by_another_ca_is_not_trusted() {
    let mut stage = Stage::lit(Ways::default()).await;
    let other = Stage::dark(Ways::default()).await;
    fs::copy(other.pebble.ca(), stage.pebble.ca()).expect("copied");
    stage.open(&["a.test"]);
    stage.until_failed("a.test", 1).await;
    assert!(stage.failed("a.test")[0].contains("certificate"), "{:?}", stage.failed("a.test"));
    assert_eq!(stage.pebble.accounts(), 0);
}
