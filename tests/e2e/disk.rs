//! A cache folder that is full, read-only, foreign or rotten ("Bad input"): still served, never wrong, nothing of others
//! deleted.

use std::path::{Path, PathBuf};

use harness::prelude::*;

async fn big_origin() -> Origin {
    Origin::serving("/a", ok(generated(1, 3_000_000)).cache_control("max-age=600").etag("\"1\"")).await
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { all.push(path) }
        }
    }
    all
}

#[tokio::test]
async fn a_folder_of_someone_else_is_refused_and_left_alone() {
    let origin = big_origin().await;
    let setup = setup().vhost(vhost("a.test").origin(&origin)).file("cache/thesis.txt", "years of work");
    let folder = setup.clone();
    folder.refused().await.code(2).says(&["cache"]);
    // In the same folder as a person would see it.
    let refused = setup.run(&["--config", "hosts.json"]).await;
    refused.code(2);
}

#[tokio::test]
async fn flipped_bits_are_a_miss_and_never_wrong_bytes() {
    let origin = big_origin().await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000));
    tokio::time::sleep(secs(1)).await;
    host.signal(libc::SIGTERM);
    host.ended().await;
    let mut flipped = 0;
    for file in files(&host.path("cache")) {
        let mut bytes = std::fs::read(&file).unwrap();
        // Bodies are the only files this long with this content.
        if bytes.len() > 100_000 && !file.to_string_lossy().contains(".sst") && !file.to_string_lossy().contains(".log")
        {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            std::fs::write(&file, bytes).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 0, "no bodies found among {:?}", files(&host.path("cache")));
    host.start_again().await;
    // Whether the first client gets it whole or is cut, nobody gets a wrong byte, and the next one gets all.
    if let Ok(answer) = host.call("GET", "/a").attempt().await {
        answer.expect(200, pattern(1, 0..3_000_000));
    }
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000));
    assert!(origin.requests() >= 2);
    assert!(host.metric("proxyhost_cache_corrupt_pieces_total").await >= 1.0);
}

#[tokio::test]
async fn bodies_that_vanished_are_a_miss() {
    let origin = big_origin().await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.status(200);
    tokio::time::sleep(secs(1)).await;
    host.signal(libc::SIGTERM);
    host.ended().await;
    for file in files(&host.path("cache")) {
        let name = file.to_string_lossy().into_owned();
        if std::fs::metadata(&file).unwrap().len() > 100_000 && !name.contains(".sst") && !name.contains(".log") {
            std::fs::remove_file(&file).unwrap();
        }
    }
    host.start_again().await;
    if let Ok(answer) = host.call("GET", "/a").attempt().await {
        answer.expect(200, pattern(1, 0..3_000_000));
    }
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000));
}

#[tokio::test]
async fn a_rotten_index_is_an_empty_cache() {
    let origin = big_origin().await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.status(200);
    host.signal(libc::SIGTERM);
    host.ended().await;
    for file in files(&host.path("cache")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "CURRENT" || name.starts_with("MANIFEST") || name.ends_with(".sst") {
            std::fs::write(&file, b"rotten").unwrap();
        }
    }
    host.start_again().await;
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000));
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000)).cache("hit");
}

#[tokio::test]
async fn two_processes_do_not_share_a_folder() {
    let origin = big_origin().await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let second = host.start_again_refused().await;
    assert_ne!(second.code, 0, "{}", second.stderr);
    host.get("/a").await.status(200);
}
