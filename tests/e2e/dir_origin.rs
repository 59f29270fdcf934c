//! Folders as origins (issue line 7).

use harness::prelude::*;

async fn folder() -> (tempfile::TempDir, Host) {
    let folder = harness::temp_dir("site");
    let write = |name: &str, text: &str| {
        let path = folder.path().join("root").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("a.txt", "hello");
    write("sub/b.html", "<p>b</p>");
    write("my dir/ü.txt", "umlaut");
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    let host = Host::with(vhost("a.test").origin(folder.path().join("root").as_path())).await;
    (folder, host)
}

#[tokio::test]
async fn files_with_their_types_conditions_and_ranges() {
    let (_folder, host) = folder().await;
    let answer = host.get("/a.txt").await;
    answer.expect(200, "hello");
    assert!(answer.field("content-type").starts_with("text/plain"), "{answer:?}");
    assert!(host.get("/sub/b.html").await.field("content-type").starts_with("text/html"));
    host.get("/my%20dir/%C3%BC.txt").await.expect(200, "umlaut");
    host.call("GET", "/a.txt").range("1-2").send().await.expect(206, "el");
    let modified = answer.field("last-modified");
    host.call("GET", "/a.txt").header("if-modified-since", &modified).send().await.expect(304, "");
    host.get("/nothing").await.status(404);
    host.get("/sub").await.status(404);
    host.get("/sub/").await.status(404);
    host.get("/a.txt/").await.status(404);
    host.get("/a.txt/x").await.status(404);
}

#[tokio::test]
async fn no_way_out_of_the_folder() {
    let (folder, host) = folder().await;
    let root = folder.path().join("root");
    std::os::unix::fs::symlink(folder.path().join("secret"), root.join("link")).unwrap();
    std::os::unix::fs::symlink(folder.path(), root.join("up")).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("relative")).unwrap();
    for target in [
        "/link",
        "/up/secret",
        "/relative",
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "//secret",
        "/./../secret",
    ] {
        let answer = host.raw(format!("GET {target} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")).await;
        assert!(matches!(answer.status(), 400 | 403 | 404), "{target}: {}", answer.text());
        assert!(!answer.text().contains("\r\n\r\nsecret"), "{target}");
    }
}

#[tokio::test]
async fn a_changed_file_is_seen() {
    let (folder, host) = folder().await;
    host.get("/a.txt").await.expect(200, "hello");
    tokio::time::sleep(millis(1100)).await;
    std::fs::write(folder.path().join("root/a.txt"), "changed").unwrap();
    host.get("/a.txt").await.expect(200, "changed");
}
