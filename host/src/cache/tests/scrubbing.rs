//! What rots where nobody reads it.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn hourly(rig: &Rig) {
    let scrub = Some(HOUR);
    rig.cache.configure(&Settings { disk_bytes: 1 << 30, memory_bytes: 64 << 20, scrub, ..Settings::default() });
}

async fn until(rig: &Rig, is_so: impl Fn(&scrub::ScrubStats) -> bool) {
    for _ in 0..2000 {
        if is_so(&rig.cache.stats().scrub) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", rig.cache.stats().scrub);
}

#[tokio::test]
async fn bad_slices_are_found_and_forgotten_and_good_ones_stay() {
    let (rig, body, entry, whole_id) = with_two_bodies().await;
    assert!(rig.keep("/good", &body).await);
    rig.settle().await;
    rig.store.damage(entry.id, SLICE_BYTES as usize + 3);
    rig.store.damage(whole_id, SLICE_BYTES as usize + 3);
    rig.cache.shared.hot.clear();
    hourly(&rig);
    let began = rig.cache.shared.clock.now().as_secs().cast_signed();
    until(&rig, |stats| stats.finished_s == began && !stats.under_way).await;
    let stats = rig.cache.stats().scrub;
    assert_eq!((stats.bad_pieces, stats.began_s, stats.every_s), (2, began, Some(3600)));
    assert!(stats.read_bytes > 6 * SLICE_BYTES, "{stats:?}");
    // Nothing is read of the bad ones: what is missing is known.
    let corruptions = rig.cache.shared.metrics.cache_corruptions.get();
    assert_eq!(corruptions, 2);
    let EntryBody::Sliced(sliced) = &entry.body else { panic!() };
    assert!(matches!(sliced.read(5, None).await, Piece::Bytes(_)));
    assert!(matches!(sliced.read(SLICE_BYTES, None).await, Piece::Missing(gap) if gap == (1..2)));
    assert_eq!(rig.get("/w").await, None);
    assert_eq!(rig.get("/good").await.unwrap().0, body);
    // The next pass is due in an hour, after a crash too.
    let rig = rig.crashed();
    hourly(&rig);
    rig.clock.advance(HOUR / 2);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let stats = rig.cache.stats().scrub;
    assert_eq!((stats.began_s, stats.under_way, stats.read_bytes), (began, false, 0));
    rig.clock.advance(HOUR);
    until(&rig, |stats| stats.finished_s > began).await;
    assert_eq!(rig.cache.stats().scrub.bad_pieces, 0);
}

#[tokio::test]
async fn a_pass_goes_on_where_a_crash_broke_it_off_and_nothing_is_read_unasked() {
    let rig = Rig::new();
    for number in 0..12 {
        assert!(rig.keep(&format!("/{number}"), &bytes(2 * SLICE_BYTES as usize)).await);
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(rig.cache.stats().scrub, scrub::ScrubStats::default());
    hourly(&rig);
    // One stretch is read and noted, the rest is to come.
    until(&rig, |stats| stats.read_bytes > 17 * SLICE_BYTES).await;
    let rig = rig.crashed();
    hourly(&rig);
    until(&rig, |stats| stats.finished_s > 0).await;
    let stats = rig.cache.stats().scrub;
    // From the beginning it would be 24.
    assert!(stats.read_bytes < 16 * SLICE_BYTES, "{stats:?}");
    assert_eq!(stats.bad_pieces, 0);
}
