//! Folders: no way out of them, and nothing of two versions.

use std::os::unix::fs::symlink;

use ::http::Method;
use futures_util::StreamExt;

use super::{Built, request};
use crate::origin::OriginError;

#[tokio::test]
async fn there_is_no_way_out() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    std::fs::create_dir(outside.path().join("folder")).unwrap();
    std::fs::write(outside.path().join("folder/secret.txt"), "secret").unwrap();
    let folder = tempfile::tempdir_in(outside.path()).unwrap();
    let at = |name: &str| folder.path().join(name);
    symlink(outside.path().join("secret.txt"), at("absolute.txt")).unwrap();
    symlink("../secret.txt", at("relative.txt")).unwrap();
    symlink(outside.path().join("folder"), at("folder")).unwrap();
    symlink("/proc/self/root/etc/passwd", at("magic.txt")).unwrap();
    symlink("loop", at("loop")).unwrap();
    let origin = Built::dir(folder.path()).await;
    for path in [
        "/absolute.txt",
        "/relative.txt",
        "/folder/secret.txt",
        "/magic.txt",
        "/loop",
        "/../secret.txt",
        "/./absolute.txt",
        "//etc/passwd",
        "/a\0b",
        "/",
    ] {
        assert_eq!(origin.get(path, &[]).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn links_that_stay_inside_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/a.txt"), "a").unwrap();
    symlink("../sub/a.txt", folder.path().join("sub/relative.txt")).unwrap();
    symlink(folder.path().join("sub/a.txt"), folder.path().join("absolute.txt")).unwrap();
    symlink(folder.path().join("sub"), folder.path().join("folder")).unwrap();
    let origin = Built::dir(folder.path()).await;
    for path in ["/sub/relative.txt", "/absolute.txt", "/folder/a.txt"] {
        let answer = origin.get(path, &[]).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"a"[..]), "{path}");
    }
}

#[tokio::test]
async fn a_link_to_the_folder_can_be_turned() {
    let parent = tempfile::tempdir().unwrap();
    for version in ["one", "two"] {
        std::fs::create_dir(parent.path().join(version)).unwrap();
        std::fs::write(parent.path().join(version).join("a.txt"), version).unwrap();
    }
    let current = parent.path().join("current");
    symlink("one", &current).unwrap();
    let origin = Built::dir(&current).await;
    assert_eq!(&origin.get("/a.txt", &[]).await.body[..], b"one");
    symlink("two", parent.path().join("next")).unwrap();
    std::fs::rename(parent.path().join("next"), &current).unwrap();
    assert_eq!(&origin.get("/a.txt", &[]).await.body[..], b"two");
    std::fs::remove_file(&current).unwrap();
    assert!(matches!(origin.fail("/a.txt").await, OriginError::Unavailable { .. }));
}

#[tokio::test]
async fn only_files_with_plain_names_are_served() {
    let folder = tempfile::tempdir().unwrap();
    for sub in [".git", ".well-known", "sub"] {
        std::fs::create_dir(folder.path().join(sub)).unwrap();
        std::fs::write(folder.path().join(sub).join("a.txt"), sub).unwrap();
    }
    std::fs::write(folder.path().join(".env"), "secret").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let origin = Built::dir(folder.path()).await;
    assert_eq!(origin.get("/.well-known/a.txt", &[]).await.status, 200);
    for path in ["/.git/a.txt", "/.env", "/pipe", "/socket", "/sub", "/sub/", "/sub//a.txt", "/sub/a.txt/"] {
        assert_eq!(origin.get(path, &[]).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.bin");
    let origin = Built::dir(folder.path()).await;
    for change in ["shorter", "longer", "rewritten"] {
        std::fs::write(&path, vec![1; 1_000_000]).unwrap();
        let mut response = origin.origin.fetch(request(Method::GET, "/big.bin", &[])).await.unwrap();
        let mut read = response.body.next().await.unwrap().unwrap().len();
        std::thread::sleep(std::time::Duration::from_millis(20));
        match change {
            "shorter" => std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(500_000).unwrap(),
            "longer" => std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2_000_000).unwrap(),
            _ => std::fs::write(&path, vec![2; 1_000_000]).unwrap(),
        }
        let failed = loop {
            match response.body.next().await {
                Some(Ok(piece)) => read += piece.len(),
                Some(Err(error)) => break error,
                None => panic!("{change}: the body ended as if it were whole"),
            }
        };
        assert!(read < 1_000_000, "{change}");
        assert!(matches!(failed, OriginError::Broken { .. }), "{change}: {failed}");
    }
}

#[tokio::test]
async fn a_replaced_file_is_read_to_its_old_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.bin");
    std::fs::write(&path, vec![1; 400_000]).unwrap();
    let origin = Built::dir(folder.path()).await;
    let before = origin.get("/big.bin", &[]).await;
    std::fs::write(folder.path().join("new"), vec![2; 400_000]).unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    let after = origin.get("/big.bin", &[]).await;
    assert_ne!(before.field("etag"), after.field("etag"));
    assert!(after.body.iter().all(|byte| *byte == 2));
}

#[tokio::test]
async fn if_range_and_several_ranges_give_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.css"), "0123456789".repeat(1000)).unwrap();
    let origin = Built::dir(folder.path()).await;
    let tag = origin.get("/a.css", &[]).await;
    assert_eq!(tag.field("content-type"), "text/css; charset=utf-8");
    let held = origin.get("/a.css", &[("range", "bytes=2-3"), ("if-range", tag.field("etag"))]).await;
    assert_eq!((held.status, &held.body[..]), (206, &b"23"[..]));
    let changed = origin.get("/a.css", &[("range", "bytes=2-3"), ("if-range", "\"other\"")]).await;
    assert_eq!((changed.status, changed.body.len()), (200, 10_000));
    let several = origin.get("/a.css", &[("range", "bytes=0-0,9000-9000")]).await;
    assert_eq!((several.status, several.body.len()), (200, 10_000));
}

#[tokio::test]
async fn a_folder_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Built::dir(folder.path()).await;
    let answer = origin.ask(request(Method::PUT, "/a.txt", &[])).await.unwrap();
    assert_eq!((answer.status, answer.field("allow")), (405, "GET, HEAD"));
}
