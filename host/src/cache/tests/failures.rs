//! What failing disks and a clock that jumps did once.

use tokio_util::sync::CancellationToken;

use super::super::upkeep;
use super::*;

fn path(path: &str) -> PurgeScope {
    PurgeScope::Path { host: "a.test".into(), path: path.into() }
}

#[tokio::test]
async fn a_purge_hits_what_was_asked_for_after_another_that_was_never_written_down() {
    let rig = Rig::new();
    rig.index.fail_writes(true);
    assert!(rig.cache.purge(path("/other")).await.is_err());
    rig.index.fail_writes(false);
    rig.clock.advance(Duration::from_secs(60));
    assert!(rig.keep("/a", b"body").await);
    rig.settle().await;
    // The next run gives the same number to another purge.
    let rig = rig.crashed();
    assert!(rig.get("/a").await.is_some());
    rig.cache.purge(path("/a")).await.unwrap();
    rig.cache.shared.hot.clear();
    assert_eq!(rig.get("/a").await, None);
}

#[tokio::test]
async fn no_purge_is_forgotten_while_what_it_hit_cannot_be_removed() {
    let rig = Rig::new();
    assert!(rig.keep("/a", b"body").await);
    rig.settle().await;
    rig.cache.purge(path("/a")).await.unwrap();
    rig.index.fail_writes(true);
    let shared = &rig.cache.shared;
    upkeep::forget_all(&Arc::downgrade(shared), &CancellationToken::new(), shared.purges.newest()).await;
    assert_eq!(rig.get("/a").await, None);
}

#[tokio::test]
async fn what_comes_after_the_clock_went_back_takes_the_place_of_what_was_there() {
    let rig = Rig::new();
    let keep = async |body: &'static [u8]| {
        let now = rig.cache.shared.clock.now();
        let timing = Timing { request_at: now, response_at: now, initial_age: Duration::ZERO };
        let head = EntryHead { timing, ..head(&rig.cache, "/a", Some(body.len() as u64), false) };
        let mut writer = rig.cache.keep(&key("/a"), &HeaderMap::new(), head).1.unwrap();
        writer.write(Bytes::from_static(body)).await;
        assert!(writer.finish().await);
    };
    keep(b"before").await;
    rig.clock.set(1000);
    keep(b"after").await;
    assert_eq!(rig.get("/a").await.unwrap().0, b"after");
    rig.settle().await;
    rig.cache.shared.hot.clear();
    assert_eq!(rig.get("/a").await.unwrap().0, b"after");
}

#[tokio::test]
async fn a_disk_that_failed_before_the_clock_went_back_is_used_again() {
    let rig = Rig::new();
    rig.store.fill_up(true);
    rig.keep("/a", &bytes(100_000)).await;
    assert!(rig.cache.stats().disk_error.is_some());
    rig.store.fill_up(false);
    rig.clock.set(1000);
    assert!(rig.keep("/b", &bytes(100_000)).await);
    assert_eq!(rig.cache.stats().disk_error, None);
}

#[tokio::test]
async fn what_was_removed_is_gone_before_the_disk_has_removed_it() {
    let rig = Rig::new();
    assert!(rig.keep("/a", b"body").await);
    rig.settle().await;
    let entry = rig.find("/a").await.unwrap().entry;
    rig.index.fail_writes(true);
    rig.cache.remove(&entry);
    assert_eq!(rig.get("/a").await, None, "its record is still there");
    rig.index.fail_writes(false);
    rig.settle().await;
    assert!(!rig.cache.shared.commit(&entry), "who wrote it comes late");
    rig.cache.shared.show(&entry);
    assert_eq!(rig.get("/a").await, None);
    assert!(rig.keep("/a", b"next").await);
    assert_eq!(rig.get("/a").await.unwrap().0, b"next");
}
