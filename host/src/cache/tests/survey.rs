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
