//! Renewal: by lifetime, by the CA's window, of what has expired, and of what autocert left.

use std::fs;

use proxyhost::clock::Clock;
use proxyhost::tls::acme::NameState;
use proxyhost::tls::store::CertificateStore;
use rcgen::{CertificateParams, KeyPair};

use crate::scripted::Script;
use crate::stage::{QUIET, Stage};
use harness::pebble::Ways;

const DAY: u64 = 24 * 3600;

#[tokio::test]
async fn a_certificate_is_renewed_when_a_third_of_its_lifetime_is_left() {
    let mut stage = Stage::lit(Ways { validity_s: 90 * DAY, ..Ways::default() }).await;
    stage.open(&["a.test"]);
    stage.until_issued("a.test", 1).await;
    let first = stage.latest("a.test");
    stage.advance(59 * DAY);
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.issued("a.test"), 1);
    stage.advance(5 * DAY);
    stage.until_issued("a.test", 2).await;
    assert_ne!(stage.latest("a.test"), first);
    assert_eq!(stage.stored("a.test").expect("kept").chain()[0].to_vec(), stage.latest("a.test"));
    assert_eq!(stage.failed("a.test").len(), 0);
}

#[tokio::test]
async fn an_expired_certificate_is_not_served_and_renewed_at_once() {
    let mut stage = Stage::lit(Ways::default()).await;
    let mut old = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
    old.not_before = rcgen::date_time_ymd(2020, 1, 1);
    old.not_after = rcgen::date_time_ymd(2020, 4, 1);
    let key = KeyPair::generate().expect("a key");
    let text = key.serialize_pem() + &old.self_signed(&key).expect("signed").pem();
    drop(stage.folder());
    fs::write(stage.path("certificates/a.test.pem"), text).expect("written");
    stage.open(&["a.test"]);
    assert_eq!(stage.issued("a.test"), 0);
    stage.until_issued("a.test", 1).await;
    assert!(stage.stored("a.test").expect("kept").not_after() > Clock::System.now());
}

#[tokio::test]
async fn the_window_of_the_ca_is_followed() {
    let mut stage = Stage::lit(Ways::default()).await;
    let script = Script::start(&stage.pebble).await;
    stage.directory = Some(script.directory());
    script.suggest(jiff::Timestamp::now(), 10 * 3600, 11 * 3600);
    stage.open(&["a.test"]);
    stage.until_issued("a.test", 1).await;
    stage.until("a question", |_| script.asked.lock().len() == 1).await;
    let identifier = script.asked.lock()[0].clone();
    assert_eq!(identifier.split('.').count(), 2, "{identifier}");
    stage.advance(5 * 3600);
    tokio::time::sleep(QUIET).await;
    assert_eq!(script.asked.lock().len(), 1, "Retry-After speaks of six hours");
    stage.advance(4 * 3600);
    stage.until("another question", |_| script.asked.lock().len() == 2).await;
    assert_eq!(stage.issued("a.test"), 1, "the window has not begun");
    stage.advance(2 * 3600 + 60);
    stage.until_issued("a.test", 2).await;
}

#[tokio::test]
async fn a_revoked_certificate_is_renewed_at_once_but_not_over_and_over() {
    let mut stage = Stage::lit(Ways::default()).await;
    let script = Script::start(&stage.pebble).await;
    stage.directory = Some(script.directory());
    stage.open(&["a.test"]);
    stage.until_issued("a.test", 1).await;
    stage.until("a question", |_| script.asked.lock().len() == 1).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.issued("a.test"), 1, "no window, no renewal");

    script.suggest(jiff::Timestamp::now(), -7200, -3600);
    stage.advance(7 * 3600);
    stage.until_issued("a.test", 2).await;
    // The window of the new one lies in the past as well: the CA is not well.
    stage
        .until("asked for the new one", |_| {
            let asked = script.asked.lock();
            asked.last() != asked.first()
        })
        .await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(stage.issued("a.test"), 2);
    stage.advance(25 * 3600);
    stage.until_issued("a.test", 3).await;
}

#[tokio::test]
async fn what_autocert_left_is_served_and_renewed_beside_it() {
    let mut stage = Stage::lit(Ways::default()).await;
    let now = Clock::System.now().as_secs();
    let time = |s: u64| std::time::UNIX_EPOCH + std::time::Duration::from_secs(s);
    let mut left = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
    left.not_before = time(now - 10 * DAY).into();
    left.not_after = time(now + 80 * DAY).into();
    let key = KeyPair::generate().expect("a key");
    let text = key.serialize_pem() + &left.self_signed(&key).expect("signed").pem();
    let account = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(stage.path("a.test"), &text).expect("written");
    fs::write(stage.path("acme_account+key"), &account).expect("written");
    fs::write(stage.path("broken.test"), "nothing").expect("written");

    stage.open(&["a.test"]);
    assert_eq!(stage.issued("a.test"), 1, "as found, at once");
    assert_eq!(stage.status("a.test").state, NameState::Valid);
    assert_eq!(stage.pebble.orders(), 0);
    stage.advance(55 * DAY);
    stage.until_issued("a.test", 2).await;
    assert_eq!(fs::read_to_string(stage.path("a.test")).expect("there"), text);
    assert!(stage.path("certificates/a.test.pem").exists());
    let key = stage.folder().account_key(&stage.pebble.directory()).expect("readable").expect("kept");
    fs::remove_file(stage.path("acme_account+key")).expect("removed");
    assert_eq!(stage.folder().account_key(&stage.pebble.directory()).expect("readable").as_deref(), Some(&*key));
    assert_eq!(stage.stored("a.test").expect("kept").chain()[0].to_vec(), stage.latest("a.test"), "the newest counts");

    stage.name(&["a.test", "broken.test"]);
    stage.until_issued("broken.test", 1).await;
}
