//! A cache folder that is full, read-only, foreign or rotten ("Bad input"): still served, never wrong, nothing of others
//! deleted.

use std::path::{Path, PathBuf};

use harness::mount::Mount;
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
    origin.set("/no-etag", ok(generated(3, 300_000)).cache_control("max-age=600"));
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000));
    host.get("/no-etag").await.expect(200, pattern(3, 0..300_000));
    origin.set("/gone", reply(404, generated(4, 300_000)).cache_control("max-age=600"));
    host.get("/gone").await.expect(404, pattern(4, 0..300_000));
    origin.set("/stale", ok(generated(5, 300_000)).cache_control("max-age=0").etag("W/\"1\"").conditional());
    host.get("/stale").await.expect(200, pattern(5, 0..300_000));
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
            bytes[99] ^= 0x10;
            std::fs::write(&file, bytes).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 0, "no bodies found among {:?}", files(&host.path("cache")));
    host.start_again().await;
    // What is broken is found before the head goes out: to the client it is a miss.
    for (path, status, length, seed) in
        [("/a", 200, 3_000_000, 1), ("/no-etag", 200, 300_000, 3), ("/gone", 404, 300_000, 4)]
    {
        host.get(path).await.expect(status, pattern(seed, 0..length)).cache("miss");
        host.get(path).await.expect(status, pattern(seed, 0..length)).cache("hit");
    }
    // It is not asked for with conditions that only a good body is worth.
    host.get("/stale").await.expect(200, pattern(5, 0..300_000));
    assert_eq!(origin.last().header("if-none-match"), "");
    host.get("/stale").await.expect(200, pattern(5, 0..300_000)).cache("revalidated");
    assert!(host.metric("proxyhost_cache_corrupt_pieces_total").await >= 1.0);
}

#[tokio::test]
async fn scrubbing_finds_what_rots_before_it_is_asked_for() {
    let origin = big_origin().await;
    let scrubbed = json!({ "cache": { "scrub": "1s", "free": "1MB", "memory": "1KB" } });
    let host = setup().vhost(vhost("a.test").origin(&origin)).config(scrubbed).start().await;
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000));
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000)).cache("hit");
    let bodies = files(&host.path("cache")).into_iter().filter(|file| {
        std::fs::metadata(file).is_ok_and(|data| data.len() >= 3_000_000) && !file.to_string_lossy().contains("index")
    });
    let bodies: Vec<_> = bodies.collect();
    assert_eq!(bodies.len(), 1, "{:?}", files(&host.path("cache")));
    let mut bytes = std::fs::read(&bodies[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&bodies[0], bytes).unwrap();
    let start = std::time::Instant::now();
    while host.stats().await["cache"]["scrub"]["bad_pieces"] != 1 {
        assert!(start.elapsed() < secs(20), "{}", host.stats().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(host.metric("proxyhost_cache_corrupt_pieces_total").await, 1.0);
    // The slice is mended by its next use, and found good from then on.
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000));
    let read = host.metric("proxyhost_cache_scrubbed_bytes_total").await;
    while host.metric("proxyhost_cache_scrubbed_bytes_total").await < read + 6_000_000.0 {
        assert!(start.elapsed() < secs(40), "{}", host.stats().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(host.stats().await["cache"]["scrub"]["bad_pieces"], 1);
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

/// A setup whose cache lies on that file system, with a token that does not.
fn on(mount: &Mount, origin: &Origin) -> Setup {
    keeping(mount, origin, json!({}))
}

/// With more settings of `cache`.
fn keeping(mount: &Mount, origin: &Origin, more: Value) -> Setup {
    let mut cache = json!({ "dir": mount.path("cache"), "disk": "1GB", "memory": "1MB" });
    more.as_object().into_iter().flatten().for_each(|(name, value)| cache[name] = value.clone());
    let admin = json!({ "token": "a-token-of-the-play" });
    setup().vhost(vhost("a.test").origin(origin)).config(json!({ "cache": cache, "admin": admin }))
}

async fn many_origin() -> Origin {
    Origin::answering(|request| {
        let seed: u64 = request.target.trim_start_matches("/").parse().unwrap_or(0);
        ok(generated(seed, 700_000)).cache_control("max-age=600").etag(&format!("\"{seed}\""))
    })
    .await
}

async fn all_are_right(host: &Host, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        host.get(&format!("/{seed}")).await.expect(200, pattern(seed, 0..700_000));
    }
}

#[tokio::test]
async fn a_disk_that_others_fill_is_said_and_served_past_and_used_again_when_there_is_room() {
    // RocksDB sets tens of megabytes aside for each of its logs, which a tmpfs really takes.
    let Some(mount) = Mount::of_size("256m") else { return };
    let origin = many_origin().await;
    let host = on(&mount, &origin).start().await;
    all_are_right(&host, 0..3).await;
    mount.fill_but("ballast", 100_000);
    for _ in 0..2 {
        all_are_right(&host, 10..30).await;
    }
    host.stderr_line("less room than cache.disk").await;
    std::fs::remove_file(mount.path("ballast")).unwrap();
    let start = std::time::Instant::now();
    // Twenty bodies do not fit into a megabyte of memory: hits come from the disk.
    loop {
        all_are_right(&host, 30..50).await;
        if host.get("/30").await.cache_status().iter().any(|word| word == "hit") {
            return;
        }
        assert!(start.elapsed() < secs(60), "the disk is never used again: {}", host.stats().await);
        tokio::time::sleep(secs(1)).await;
    }
}

#[tokio::test]
async fn a_disk_smaller_than_its_budget_keeps_what_is_newest() {
    let Some(mount) = Mount::of_size("192m") else { return };
    let origin = many_origin().await;
    let host = on(&mount, &origin).start().await;
    // Twice what fits.
    all_are_right(&host, 0..550).await;
    let start = std::time::Instant::now();
    // What is newest is kept, at the latest when eviction has caught up with so fast an origin.
    loop {
        let mut hits = 0;
        for seed in 540..550 {
            let answer = host.get(&format!("/{seed}")).await;
            answer.expect(200, pattern(seed, 0..700_000));
            hits += usize::from(answer.cache_status().iter().any(|word| word == "hit"));
        }
        if hits >= 8 {
            break;
        }
        assert!(start.elapsed() < secs(30), "{hits} hits: {}", host.stats().await);
        tokio::time::sleep(secs(1)).await;
    }
    let stats = host.stats().await;
    assert!(stats["cache"]["disk_bytes"].as_u64().unwrap() > 20_000_000, "{stats}");
    assert!(host.metric("proxyhost_cache_evictions_total").await >= 1.0, "{stats}");
    assert!(stats["cache"]["disk_error"].is_null(), "{stats}");
}

#[tokio::test]
async fn a_full_disk_at_start_is_said_and_served_past() {
    let Some(mount) = Mount::of_size("1m") else { return };
    let origin = many_origin().await;
    mount.fill_but("ballast", 0);
    let host = on(&mount, &origin).start().await;
    all_are_right(&host, 0..3).await;
    all_are_right(&host, 0..3).await;
    host.admin_without_token("GET", "/readyz").send().await.status(200);
    assert!(!host.stats().await["cache"]["disk_error"].is_null(), "{}", host.stats().await);
}

#[tokio::test]
async fn a_read_only_folder_is_said_and_served_past() {
    let Some(mount) = Mount::of_size("64m") else { return };
    let origin = many_origin().await;
    let mut host = on(&mount, &origin).start().await;
    all_are_right(&host, 0..3).await;
    host.signal(libc::SIGTERM);
    assert_eq!(host.ended().await, 0);
    mount.make_read_only();
    host.start_again().await;
    all_are_right(&host, 0..6).await;
    all_are_right(&host, 0..6).await;
    assert!(!host.stats().await["cache"]["disk_error"].is_null(), "{}", host.stats().await);
    host.stderr_line("ead-only file system").await;
    // A small one is kept in memory all the same.
    origin.set("/small", ok("small").cache_control("max-age=600"));
    host.get("/small").await.expect(200, "small");
    host.get("/small").await.expect(200, "small").cache("hit");
}

#[tokio::test]
async fn a_folder_of_another_version_is_emptied() {
    let origin = big_origin().await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.status(200);
    host.signal(libc::SIGTERM);
    host.ended().await;
    std::fs::write(host.path("cache/proxyhost-cache"), "proxyhost cache, format 999\n").unwrap();
    host.start_again().await;
    host.stderr_line("another format version").await;
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000)).cache("miss");
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000)).cache("hit");
    tokio::time::sleep(secs(1)).await;
    host.restart().await;
    host.get("/a").await.expect(200, pattern(1, 0..3_000_000)).cache("hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_bit_flipped_anywhere_in_the_folder_gives_no_wrong_byte() {
    let origin = Origin::answering(|request| {
        let seed: u64 = request.target.trim_start_matches("/").parse().unwrap_or(0);
        ok(generated(seed, 3_000 * (seed + 1))).cache_control("max-age=600").header("x-seed", &seed.to_string())
    })
    .await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    let all_right = async |host: &Host| {
        for seed in 0..20u64 {
            // A body may break off where a slice is found broken; what comes must be right, and the next one whole.
            if let Ok(answer) = host.call("GET", &format!("/{seed}")).attempt().await {
                answer.expect(200, pattern(seed, 0..3_000 * (seed + 1))).header("x-seed", &seed.to_string());
            }
            host.get(&format!("/{seed}")).await.expect(200, pattern(seed, 0..3_000 * (seed + 1)));
        }
    };
    all_right(&host).await;
    for round in 0..6usize {
        tokio::time::sleep(millis(500)).await;
        host.signal(libc::SIGTERM);
        assert_eq!(host.ended().await, 0);
        for file in files(&host.path("cache")) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ["proxyhost-cache", "admin-token", "LOCK"].contains(&name.as_str()) {
                continue;
            }
            let mut bytes = std::fs::read(&file).unwrap();
            if !bytes.is_empty() {
                let at = (round * 2_654_435_761 + name.len() * 40_503) % bytes.len();
                bytes[at] ^= 1 << (round % 8);
                std::fs::write(&file, bytes).unwrap();
            }
        }
        host.start_again().await;
        all_right(&host).await;
    }
}

/// The same with room for little more than the bodies that it keeps.
fn tight_on(mount: &Mount, origin: &Origin) -> Setup {
    keeping(mount, origin, json!({ "free": "1MiB" }))
}

async fn is_healthy(host: &Host) -> bool {
    host.stats().await["cache"]["disk_error"].is_null()
}

async fn healthy(host: &Host) {
    let start = std::time::Instant::now();
    while !is_healthy(host).await {
        assert!(start.elapsed() < secs(90), "the disk is never used again: {}", host.stats().await);
        tokio::time::sleep(secs(1)).await;
    }
}

#[tokio::test]
async fn an_index_that_a_full_disk_has_stopped_goes_on_by_itself() {
    let Some(mount) = Mount::of_size("192m") else { return };
    let origin = many_origin().await;
    let host = tight_on(&mount, &origin).start().await;
    all_are_right(&host, 0..100).await;
    mount.fill_but("ballast", 0);
    // What a log has set aside is used up some time.
    let start = std::time::Instant::now();
    while is_healthy(&host).await {
        let path = format!("/{}", "x".repeat(8000));
        let purges: Vec<_> = (0..100).map(|number| format!("{path}{number}")).collect();
        host.admin("POST", "/purge").body(json!({ "host": "a.test", "paths": purges }).to_string()).send().await;
        assert!(start.elapsed() < secs(60), "the index is never stopped");
    }
    // The other one's file stays.
    healthy(&host).await;
    host.stderr_line("the cache folder is in use again").await;
    host.purge(json!({ "host": "a.test", "paths": ["/1"] })).await;
    host.get("/1").await.expect(200, pattern(1, 0..700_000)).cache("fwd=uri-miss");
    all_are_right(&host, 0..100).await;
}

#[tokio::test]
async fn a_disk_that_is_full_at_start_is_used_when_some_of_its_own_has_gone() {
    let Some(mount) = Mount::of_size("192m") else { return };
    let origin = many_origin().await;
    let mut host = tight_on(&mount, &origin).start().await;
    all_are_right(&host, 0..100).await;
    host.signal(libc::SIGKILL);
    host.ended().await;
    mount.fill_but("ballast", 0);
    host.start_again().await;
    all_are_right(&host, 0..3).await;
    healthy(&host).await;
    host.stderr_line("bodies were removed so that the index has room").await;
    all_are_right(&host, 0..100).await;
    host.purge(json!({ "all": true })).await;
}

#[tokio::test]
async fn a_cache_folder_that_is_removed_is_made_anew() {
    let origin = many_origin().await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    all_are_right(&host, 0..5).await;
    let token = host.token();
    std::fs::remove_dir_all(host.path("cache")).unwrap();
    all_are_right(&host, 0..10).await;
    host.stderr_line("the cache folder is in use again").await;
    let start = std::time::Instant::now();
    while !host.path("cache/admin-token").exists() {
        assert!(start.elapsed() < secs(30), "the command line has no token");
        tokio::time::sleep(secs(1)).await;
    }
    assert_eq!(host.token(), token);
    let told = host.asking(&["purge", "--host", "nowhere.test", "--path", "/*"]).await;
    told.code(0).says(&["nowhere.test: there is no such host here", "--glob takes patterns"]);
    all_are_right(&host, 0..10).await;
    host.crash_and_restart().await;
    all_are_right(&host, 0..10).await;
    assert!(host.get("/9").await.cache_status().iter().any(|word| word == "hit"));
}

#[tokio::test]
async fn a_folder_that_is_removed_right_before_the_end_is_taken_again() {
    let origin = many_origin().await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    all_are_right(&host, 0..5).await;
    std::fs::remove_dir_all(host.path("cache")).unwrap();
    all_are_right(&host, 10..15).await;
    host.signal(libc::SIGKILL);
    host.ended().await;
    host.start_again().await;
    all_are_right(&host, 0..15).await;
    let folder = host.path("cache");
    std::fs::write(folder.join("proxyhost-cache"), "something else\n").unwrap();
    host.cli(&["check", "--config", "hosts.json"]).await.code(2).says(&["bears no mark of proxyhost"]);
}
