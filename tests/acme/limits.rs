//! A CA that wants no more for a while.

use crate::scripted::Script;
use crate::stage::{QUIET, Stage};
use harness::pebble::Ways;

async fn scripted() -> (Stage, std::sync::Arc<Script>) {
    let mut stage = Stage::lit(Ways::default()).await;
    let script = Script::start(&stage.pebble).await;
    stage.directory = Some(script.directory());
    (stage, script)
}

#[tokio::test]
async fn a_limit_of_the_account_means_an_hours_rest_for_all_also_after_a_restart() {
    let (mut stage, script) = scripted().await;
    script.refuse(|_| ("rateLimited", "too many new orders (300) from this account in the last 3h0m0s".to_owned()));
    stage.open(&["a.test"]);
    stage.until_failed("a.test", 1).await;
    assert!(stage.failed("a.test")[0].contains("too many new orders"), "{:?}", stage.failed("a.test"));
    stage.name(&["a.test", "b.test"]);
    stage.advance(1800);
    tokio::time::sleep(QUIET).await;
    stage.open(&["a.test", "b.test"]);
    stage.advance(1700);
    tokio::time::sleep(QUIET).await;
    assert_eq!(*script.refused.lock(), ["a.test"], "nothing within the hour");
    stage.advance(200);
    stage.until("another order", |_| script.refused.lock().len() >= 2).await;
}

#[tokio::test]
async fn a_limit_of_a_name_lets_the_others_go_on() {
    let (mut stage, script) = scripted().await;
    script.refuse(|name| match name {
        "www.a.test" => ("rateLimited", "too many certificates (50) already issued for \"a.test\"".to_owned()),
        _ => ("rejectedIdentifier", "not this one".to_owned()),
    });
    stage.open(&["www.a.test"]);
    stage.until_failed("www.a.test", 1).await;
    stage.name(&["b.test", "www.a.test"]);
    stage.until_failed("b.test", 1).await;
    assert!(stage.failed("b.test")[0].contains("not this one"));
    stage.advance(3000);
    stage.until_failed("b.test", 2).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(script.refused.lock().iter().filter(|name| *name == "www.a.test").count(), 1);
    stage.advance(700);
    stage.until_failed("www.a.test", 2).await;
}
