//! What is kept, told page by page.

use super::*;

#[tokio::test]
async fn a_stretch_of_paths_is_the_same_with_a_disk_and_without() {
    let rig = Rig::new();
    for path in ["/a", "/b", "/b/1", "/c", "/d"] {
        assert!(rig.keep(path, &bytes(2000)).await);
    }
    rig.settle().await;
    for has_disk in [true, false] {
        if !has_disk {
            rig.cache.shared.disk.store(None);
        }
        let seen = async |after: Option<&str>, to: Option<&str>| {
            let mut survey = rig.cache.survey_paths("a.test", after, to);
            let mut paths = Vec::new();
            while let Some(page) = survey.next().await {
                paths.extend(page.into_iter().map(|kept| kept.request_path));
            }
            paths.sort();
            paths
        };
        assert_eq!(seen(Some("/a"), Some("/c")).await, ["/b", "/b/1", "/c"], "disk: {has_disk}");
        assert_eq!(seen(None, Some("/a")).await, ["/a"], "disk: {has_disk}");
        assert_eq!(seen(Some("/b/1"), None).await, ["/c", "/d"], "disk: {has_disk}");
        assert_eq!(rig.cache.hosts(10).await.unwrap(), ["a.test"], "disk: {has_disk}");
        assert!(rig.cache.hosts(0).await.is_none(), "disk: {has_disk}");
    }
}

#[tokio::test]
async fn what_only_memory_has_is_told_and_is_written_down_on_request() {
    let rig = Rig::new();
    for path in ["/both", "/lost"] {
        assert!(rig.keep(path, &bytes(2000)).await);
    }
    rig.settle().await;
    let full_key = schema::full_key(key("/lost").as_bytes(), &[]);
    let (path, headers) = (key("/lost"), HeaderMap::new());
    let asked = Asked { key: &path, headers: &headers, request_path: "/lost" };
    let entry = rig.cache.lookup_memory(&asked).unwrap().entry;
    rig.cache.shared.disk.load_full().unwrap().remove(&full_key, entry.id).unwrap();
    rig.clock.advance(Duration::from_secs(1));
    let alone = async || rig.cache.paths_in_memory_alone("a.test", rig.cache.shared.clock.now()).await;
    assert_eq!(alone().await, ["/lost"]);
    assert!(rig.cache.paths_in_memory_alone("b.test", rig.cache.shared.clock.now()).await.is_empty());
    assert!(rig.cache.keep_on_disk(&entry).await);
    assert!(alone().await.is_empty());
    // Nothing is said of a disk that is not there.
    rig.cache.shared.disk.store(None);
    assert!(alone().await.is_empty());
}
