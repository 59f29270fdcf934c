//! The first certificate of a name, by each challenge, and what is there after a restart.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proxyhost::tls::acme::NameState;

use crate::stage::{QUIET, Stage};
use harness::pebble::Ways;

#[tokio::test]
async fn a_certificate_comes_by_tls_alpn_01() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.responder.answer(true, false);
    stage.open(&["a.test"]);
    stage.until_issued("a.test", 1).await;

    let (tls, http) = stage.responder.asked();
    assert!(tls >= 1);
    assert_eq!(http, 0);
    assert!(stage.responder.challenges.is_empty(), "an answer is given no longer than it is asked for");
    let status = stage.status("a.test");
    assert_eq!(status.state, NameState::Valid);
    assert_eq!(status.last_error, None);
    let stored = stage.stored("a.test").expect("kept");
    assert_eq!(stored.names(), ["a.test"]);
    assert_eq!(stored.chain()[0].to_vec(), stage.latest("a.test"));
    assert!(stored.chain().len() >= 2, "the intermediate comes along");
    assert!(stored.authority_key_id().is_some());
    assert_eq!(status.not_after, Some(stored.not_after().to_system()));
    for (path, mode) in [("certificates", 0o700), ("accounts", 0o700), ("certificates/a.test.pem", 0o600)] {
        let found = fs::metadata(stage.path(path)).expect("there").permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
}

#[tokio::test]
async fn http_01_is_tried_at_once_when_tls_alpn_01_fails_and_comes_first_the_next_time() {
    let mut stage = Stage::lit(Ways { validity_s: 3600, ..Ways::default() }).await;
    stage.responder.answer(false, true);
    stage.open(&["a.test"]);
    // The clock stands still: no pause lies between.
    stage.until_issued("a.test", 1).await;
    let (tls, http) = stage.responder.asked();
    assert!(tls >= 1 && http >= 1, "{tls} {http}");
    assert_eq!(stage.pebble.orders(), 2, "a failed challenge spoils its order");
    assert!(stage.failed("a.test").is_empty(), "the round was a success");

    stage.open(&["a.test"]);
    stage.advance(3000);
    stage.until_issued("a.test", 2).await;
    assert_eq!(stage.responder.asked().0, tls, "the challenge that works is known");
    assert_eq!(stage.pebble.orders(), 3);
}

#[tokio::test]
async fn every_second_nonce_is_refused_and_nobody_notices() {
    let mut stage = Stage::lit(Ways { nonce_reject: 50, ..Ways::default() }).await;
    let names = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];
    stage.open(&names);
    for name in names {
        // Ten in a row are refused once in a thousand requests: then the clock must go on.
        while stage.issued(name) == 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if !stage.failed(name).is_empty() {
                stage.advance(80);
            }
        }
    }
    let log = stage.pebble.log();
    let sent = |path: &str| log.matches(&format!("POST /{path}")).count();
    let sent = sent("sign-me-up") + sent("order-plz") + sent("chalZ") + sent("finalize-order");
    assert!(sent > 1 + 3 * names.len(), "some were refused: {sent}");
    let attempts = fs::read_to_string(stage.path("attempts.json")).expect("kept");
    assert!(!attempts.contains(r#""failed":[1"#), "{attempts}");
}

#[tokio::test]
async fn after_a_restart_the_store_is_used() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.open(&["a.test"]);
    stage.until_issued("a.test", 1).await;
    let (certificate, asked) = (stage.latest("a.test"), stage.responder.asked());
    let account = || {
        let mut files = fs::read_dir(stage.path("accounts")).expect("there");
        let file = files.next().expect("one account").expect("readable").path();
        assert!(files.next().is_none(), "one account alone");
        fs::read(file).expect("readable")
    };
    let first = account();

    stage.pebble.stop();
    stage.open(&["a.test"]);
    assert_eq!(stage.issued("a.test"), 1, "at once, and without the server");
    assert_eq!(stage.latest("a.test"), certificate);
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.responder.asked(), asked);

    // The server has forgotten all accounts, as a test server does: the same key is registered again.
    stage.pebble.start();
    stage.name(&["a.test", "b.test"]);
    stage.until_issued("b.test", 1).await;
    let account = || {
        let file = fs::read_dir(stage.path("accounts")).expect("there").next().expect("one").expect("readable").path();
        fs::read(file).expect("readable")
    };
    assert_eq!(account(), first);
}

#[tokio::test]
async fn an_account_that_the_server_forgets_is_registered_again_with_its_key() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.open(&["a.test"]);
    stage.until_issued("a.test", 1).await;
    stage.pebble.stop();
    stage.pebble.start();
    stage.name(&["a.test", "b.test"]);
    // The account is still taken for known: the refusal is noticed and mended within the round.
    stage.until_issued("b.test", 1).await;
    assert!(stage.failed("b.test").is_empty(), "{:?}", stage.failed("b.test"));
    assert_eq!(stage.pebble.accounts(), 2, "once before its end and once after");
}

#[tokio::test]
async fn names_share_one_account() {
    let mut stage = Stage::lit(Ways::default()).await;
    stage.open(&["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"]);
    for name in ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"] {
        stage.until_issued(name, 1).await;
    }
    assert_eq!(stage.pebble.accounts(), 1);
    assert_eq!(stage.pebble.orders(), 6);
}
