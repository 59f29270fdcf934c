//! What is particular to buckets: how they are asked, and what is made of their refusals.

use ::http::Method;

use super::server::{Act, Scripted};
use super::{Built, request, s3_settings};
use crate::origin::{OriginError, Place, S3Credentials};

#[tokio::test]
async fn the_answer_is_as_s3_gave_it() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: Text/X\r\netag: \"e\"\r\nexpires: 0\r\ncache-control: max-age=1, x\r\nlast-modified: nonsense\r\ncontent-language: de\r\ncontent-disposition: inline\r\ncontent-encoding: odd\r\nx-amz-meta-a: 1\r\nx-amz-version-id: v\r\nx-amz-checksum-crc32: AAAAAA==\r\nx-amz-website-redirect-location: /b\r\nx-amz-id-2: i\r\nx-amz-request-id: r\r\nx-amz-server-side-encryption: AES256\r\nserver: AmazonS3\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-unknown: u\r\n\r\nok";
    let server = Scripted::start(vec![Act::Say(text)]).await;
    let origin = Built::s3(&server.url).await;
    let answer = origin.get("/a", &[("range", "bytes=0-1"), ("if-match", "\"e\""), ("cookie", "c=1")]).await;
    assert_eq!(&answer.body[..], b"ok");
    for (name, value) in [
        ("content-type", "Text/X"),
        ("expires", "0"),
        ("cache-control", "max-age=1, x"),
        ("last-modified", "nonsense"),
        ("content-encoding", "odd"),
        ("x-amz-meta-a", "1"),
        ("x-amz-version-id", "v"),
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-website-redirect-location", "/b"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("x-unknown", "u"),
        ("x-amz-id-2", ""),
        ("x-amz-request-id", ""),
        ("x-amz-server-side-encryption", ""),
        ("server", ""),
    ] {
        assert_eq!(answer.field(name), value, "{name}");
    }
    let asked = server.requests.lock()[0].to_ascii_lowercase();
    assert!(asked.starts_with("get /bucket/a"), "{asked}");
    for field in ["range: bytes=0-1\r\n", "if-match: \"e\"\r\n", "authorization: aws4-hmac-sha256 ", "host: 127.0.0.1:"]
    {
        assert!(asked.contains(field), "{field} in {asked}");
    }
    assert!(asked.contains("/eu-central-1/s3/aws4_request"), "{asked}");
    assert!(!asked.contains("cookie"), "{asked}");
}

#[tokio::test]
async fn a_public_bucket_is_asked_without_a_signature() {
    let server = Scripted::start(vec![Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let origin = Built::new(Place::S3(s3_settings(&server.url, S3Credentials::Anonymous))).await;
    assert_eq!(origin.get("/a", &[]).await.status, 200);
    assert!(!server.requests.lock()[0].to_ascii_lowercase().contains("authorization"));
}

#[tokio::test]
async fn what_can_be_no_object_is_not_asked_for() {
    let server = Scripted::start(vec![Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let origin = Built::s3(&server.url).await;
    assert_eq!(origin.get("/", &[]).await.status, 404);
    assert_eq!(origin.get(&format!("/{}", "k".repeat(1025)), &[]).await.status, 404);
    assert_eq!(origin.ask(request(Method::PUT, "/a", &[])).await.unwrap().status, 405);
    assert_eq!(server.asked(), 0);
    assert_eq!(origin.get(&format!("/{}", "k".repeat(1024)), &[]).await.status, 200);
}

/// A refusal of S3 as it comes over the wire.
fn refusal(status: &str, code: &str, more: &str) -> &'static str {
    let document = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message>{more}</Error>");
    let length = document.len();
    Box::leak(
        format!("HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\n\r\n{document}")
            .into_boxed_str(),
    )
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (status, code, expected, asked) in [
        ("404 Not Found", "NoSuchKey", "404", 1),
        ("403 Forbidden", "AccessDenied", "403", 1),
        ("403 Forbidden", "InvalidObjectState", "403", 1),
        ("412 Precondition Failed", "PreconditionFailed", "412", 1),
        ("404 Not Found", "NoSuchBucket", "configuration", 1),
        ("400 Bad Request", "InvalidRequest", "configuration", 1),
        ("403 Forbidden", "InvalidAccessKeyId", "unavailable", 2),
        ("403 Forbidden", "RequestTimeTooSkewed", "unavailable", 2),
        ("400 Bad Request", "ExpiredToken", "unavailable", 2),
        ("503 Slow Down", "SlowDown", "unavailable", 2),
        ("500 Internal Server Error", "InternalError", "failed with 500", 2),
    ] {
        let server = Scripted::start(vec![Act::Say(refusal(status, code, ""))]).await;
        let got = match Built::s3(&server.url).await.ask(request(Method::GET, "/a", &[])).await {
            Ok(answer) => {
                assert!(!answer.body.starts_with(b"<"), "the error document is not handed on");
                answer.status.to_string()
            }
            Err(OriginError::Configuration { .. }) => "configuration".to_owned(),
            Err(OriginError::Unavailable { .. }) => "unavailable".to_owned(),
            Err(OriginError::Status { status, .. }) => format!("failed with {}", status.as_u16()),
            Err(error) => panic!("{code}: {error}"),
        };
        assert_eq!((got.as_str(), server.asked()), (expected, asked), "{code}");
    }
}

#[tokio::test]
async fn a_server_error_that_passes_is_not_seen() {
    let bad = refusal("500 Internal Server Error", "InternalError", "");
    let server = Scripted::start(vec![Act::Say(bad), Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")]).await;
    assert_eq!(&Built::s3(&server.url).await.get("/a", &[]).await.body[..], b"ok");
}

#[tokio::test]
async fn the_right_region_is_named() {
    let in_document = refusal("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>us-west-2</Region>");
    let in_field = "HTTP/1.1 301 Moved Permanently\r\nx-amz-bucket-region: us-west-2\r\ncontent-length: 0\r\n\r\n";
    for text in [in_document, in_field] {
        let server = Scripted::start(vec![Act::Say(text)]).await;
        let error = Built::s3(&server.url).await.fail("/a").await.to_string();
        assert!(error.contains("us-west-2") && error.contains("eu-central-1"), "{error}");
    }
}

#[tokio::test]
async fn the_size_is_told_when_a_range_is_beyond_it() {
    let text = refusal("416 Range Not Satisfiable", "InvalidRange", "<ActualObjectSize>7</ActualObjectSize>");
    let server = Scripted::start(vec![Act::Say(text)]).await;
    let answer = Built::s3(&server.url).await.get("/a", &[("range", "bytes=9-")]).await;
    assert_eq!((answer.status, answer.field("content-range")), (416, "bytes */7"));
}

#[tokio::test]
async fn a_head_of_a_missing_bucket_is_no_404() {
    const BARE: &str = "HTTP/1.1 404 Not Found\r\n\r\n";
    let head = || request(Method::HEAD, "/a", &[]);
    let no_bucket = refusal("404 Not Found", "NoSuchBucket", "");
    let server = Scripted::start(vec![Act::Say(BARE), Act::Say(no_bucket)]).await;
    let error = Built::s3(&server.url).await.ask(head()).await.unwrap_err();
    assert!(error.to_string().contains("no bucket"), "{error}");

    let no_key = refusal("404 Not Found", "NoSuchKey", "");
    let server = Scripted::start(vec![Act::Say(BARE), Act::Say(no_key), Act::Say(BARE)]).await;
    let origin = Built::s3(&server.url).await;
    for asked in [2, 3] {
        assert_eq!(origin.ask(head()).await.unwrap().status, 404);
        assert_eq!(server.asked(), asked, "a bucket that was seen is not asked for again");
    }
}

#[tokio::test]
async fn a_bucket_that_breaks_off_or_is_silent_fails_like_any_other_origin() {
    let server = Scripted::start(vec![Act::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")]).await;
    let error = Built::s3(&server.url).await.fail("/a").await;
    assert!(matches!(error, OriginError::Broken { .. }), "{error}");
    let silent = Act::SayLater("", super::TIMEOUTS.first_byte * 10, "");
    let server = Scripted::start(vec![silent]).await;
    let error = Built::s3(&server.url).await.fail("/a").await;
    assert!(matches!(error, OriginError::Timeout { phase: "first byte", .. }), "{error}");
    let error = Built::s3("http://127.0.0.1:1").await.fail("/a").await;
    assert!(matches!(error, OriginError::Connect { .. }), "{error}");
}
