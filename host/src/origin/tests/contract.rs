//! What every kind of origin does alike.

use std::collections::BTreeMap;

use ::http::Method;
use bytes::Bytes;

use super::server::{Good, Tongue};
use super::{Answer, Built, request};

/// Names that were trouble for other proxies: each must arrive as it is, encoded once.
const ODD_NAMES: &[&str] =
    &["/with space+(and)'more'!*.txt", "/é/日本.txt", "/a%2Fb%.txt", "/a;b=c,d@e:f&g$.txt", "/q?x#y.txt"];

const BIG: usize = 1_000_003;

fn files() -> BTreeMap<String, Bytes> {
    let big: Vec<u8> = (0..BIG).map(|at| (at % 251) as u8).collect();
    let mut files = BTreeMap::from([
        ("/a.txt".to_owned(), Bytes::from_static(b"hello, origin")),
        ("/empty.txt".to_owned(), Bytes::new()),
        ("/big.bin".to_owned(), Bytes::from(big)),
    ]);
    files.extend(ODD_NAMES.iter().map(|name| ((*name).to_owned(), Bytes::from_static(name.as_bytes()))));
    files
}

/// One of each kind, with the same files; and what keeps them alive.
async fn all() -> (Vec<(&'static str, Built)>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files() {
        let path = folder.path().join(&name[1..]);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let (http, s3) = (Good::start(Tongue::Http, files()).await, Good::start(Tongue::S3, files()).await);
    let origins = vec![
        ("dir", Built::dir(folder.path()).await),
        ("http", Built::http(&http.url).await),
        ("s3", Built::s3(&s3.url).await),
    ];
    (origins, folder)
}

#[tokio::test]
async fn a_whole_object_comes_with_its_length_and_validator() {
    let (origins, _folder) = all().await;
    for (kind, origin) in &origins {
        for (name, content) in files() {
            let answer = origin.get(&name, &[]).await;
            assert_eq!(answer.status, 200, "{kind} {name}");
            assert_eq!(answer.body, content, "{kind} {name}");
            assert_eq!(answer.length, Some(content.len() as u64), "{kind} {name}");
            assert_eq!(answer.field("content-length"), content.len().to_string(), "{kind} {name}");
            assert!(answer.field("etag").starts_with('"'), "{kind} {name}");
            assert!(!answer.field("last-modified").is_empty(), "{kind} {name}");
        }
        assert_eq!(origin.counted("ok"), files().len() as u64, "{kind}");
        let bytes: usize = files().values().map(Bytes::len).sum();
        assert_eq!(origin.metrics.origin_bytes.get(), bytes as u64, "{kind}");
    }
}

#[tokio::test]
async fn a_head_has_the_fields_and_no_body() {
    let (origins, _folder) = all().await;
    for (kind, origin) in &origins {
        let answer = origin.ask(request(Method::HEAD, "/big.bin", &[])).await.unwrap();
        assert_eq!((answer.status, answer.length, answer.body.len()), (200, Some(0), 0), "{kind}");
        assert_eq!(answer.field("content-length"), BIG.to_string(), "{kind}");
        assert!(!answer.field("etag").is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn a_range_is_a_part() {
    let (origins, _folder) = all().await;
    let big = &files()["/big.bin"];
    for (kind, origin) in &origins {
        for (range, start, end) in
            [("bytes=0-0", 0, 1), ("bytes=200000-699999", 200_000, 700_000), ("bytes=-3", BIG - 3, BIG)]
        {
            let answer = origin.get("/big.bin", &[("range", range)]).await;
            assert_eq!(answer.status, 206, "{kind} {range}");
            assert_eq!(answer.body, big.slice(start..end), "{kind} {range}");
            assert_eq!(answer.length, Some((end - start) as u64), "{kind} {range}");
            assert_eq!(answer.field("content-range"), format!("bytes {start}-{}/{BIG}", end - 1), "{kind} {range}");
        }
        let answer = origin.get("/big.bin", &[("range", "bytes=2000000-")]).await;
        assert_eq!((answer.status, answer.field("content-range")), (416, "bytes */1000003"), "{kind}");
    }
}

#[tokio::test]
async fn conditions_are_judged() {
    let (origins, _folder) = all().await;
    for (kind, origin) in &origins {
        let tag = origin.get("/a.txt", &[]).await.field("etag").to_owned();
        let status = async |field, value: &str| origin.get("/a.txt", &[(field, value)]).await.status;
        assert_eq!(status("if-none-match", &tag).await, 304, "{kind}");
        assert_eq!(status("if-none-match", "\"other\"").await, 200, "{kind}");
        assert_eq!(status("if-match", &tag).await, 200, "{kind}");
        assert_eq!(status("if-match", "\"other\"").await, 412, "{kind}");
        assert_eq!(status("if-modified-since", "Tue, 19 Jan 2038 03:14:07 GMT").await, 304, "{kind}");
        assert_eq!(status("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT").await, 412, "{kind}");
        let not_modified: Answer = origin.get("/a.txt", &[("if-none-match", &tag)]).await;
        assert_eq!((not_modified.length, not_modified.field("etag")), (Some(0), tag.as_str()), "{kind}");
        let part = origin.get("/big.bin", &[("range", "bytes=0-9"), ("if-match", "\"other\"")]).await;
        assert_eq!(part.status, 412, "{kind}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (origins, _folder) = all().await;
    for (kind, origin) in &origins {
        let answer = origin.get("/missing.txt", &[]).await;
        assert_eq!((answer.status, answer.length), (404, Some(answer.body.len() as u64)), "{kind}");
        let answer = origin.ask(request(Method::HEAD, "/missing.txt", &[])).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{kind}");
    }
}

#[tokio::test]
async fn a_body_may_be_left_unread() {
    let (origins, _folder) = all().await;
    for (kind, origin) in &origins {
        for _ in 0..3 {
            drop(origin.origin.fetch(request(Method::GET, "/big.bin", &[])).await.unwrap());
        }
        assert_eq!(origin.get("/a.txt", &[]).await.status, 200, "{kind}");
    }
}
