//! What is too long is refused at the byte that is too many, however it comes.

use super::*;

/// The status, which is the same for the whole and for single bytes.
fn status(bytes: &[u8]) -> Option<u16> {
    let whole = look_whole(bytes).1;
    assert_eq!(messages(bytes).refusal, whole);
    whole.map(|(refusal, _)| refusal.status)
}

fn with_target(length: usize) -> Vec<u8> {
    format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1)).into_bytes()
}

#[test]
fn a_target_may_have_16_kib() {
    assert_eq!(status(&with_target(16 << 10)), None);
    assert_eq!(status(&with_target((16 << 10) + 1)), Some(414));
    assert_eq!(status(&with_target(1 << 20)), Some(414));
}

#[test]
fn a_target_without_end_is_refused_before_it_ends() {
    let mut guard = Guard::new(Limits::default());
    let refused = (0..100).find_map(|_| guard.look(&[b'x'; 1024]).err()).expect("there is a limit");
    assert_eq!(refused.refusal.status, 414);
    assert!(guard.pending.is_empty());
}

fn with_head(length: usize) -> Vec<u8> {
    let front = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    format!("{front}{}\r\n\r\n", "x".repeat(length - front.len() - 4)).into_bytes()
}

#[test]
fn a_head_may_have_64_kib() {
    assert_eq!(status(&with_head(64 << 10)), None);
    assert_eq!(status(&with_head((64 << 10) + 1)), Some(431));
    assert_eq!(status(&with_head((64 << 10) + 2)), Some(431));
    assert_eq!(status(&with_head((64 << 10) + 3)), Some(431));
    assert_eq!(status(&with_head(1 << 18)), Some(431));
}

#[test]
fn a_head_may_have_100_fields() {
    let with_fields =
        |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(fields - 1)).into_bytes();
    assert_eq!(status(&with_fields(100)), None);
    assert_eq!(status(&with_fields(101)), Some(431));
}

#[test]
fn a_limit_of_the_head_that_is_below_the_targets_is_the_limit() {
    let mut guard = Guard::new(Limits { head_bytes: 30, ..Limits::default() });
    assert!(guard.look(b"GET / HTTP/1.1\r\nHost: abcd\r\n\r\n").is_ok(), "exactly 30 bytes");
    assert_eq!(guard.look(b"GET /23456789012345 HTTP/1.1\r\n").err().map(|refused| refused.refusal.status), Some(431));
}

fn chunked(body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
}

#[test]
fn extensions_may_have_8_kib_in_all_chunks_together() {
    let half = format!("1;{}\r\na\r\n", "x".repeat((4 << 10) - 1));
    assert_eq!(status(&chunked(&format!("{half}{half}0\r\n\r\n"))), None);
    assert_eq!(status(&chunked(&format!("{half}{half}0;a\r\n\r\n"))), Some(400));
    assert_eq!(status(&chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(8 << 10)))), Some(400));
    assert_eq!(status(&chunked(&format!("1;{}", "x".repeat(64 << 10)))), Some(400));
}

#[test]
fn trailers_may_have_16_kib_and_100_fields() {
    let long = |length: usize| chunked(&format!("0\r\nX: {}\r\n\r\n", "x".repeat(length - 7)));
    assert_eq!(status(&long(16 << 10)), None);
    assert_eq!(status(&long((16 << 10) + 1)), Some(431));
    let many = |fields: usize| chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(fields)));
    assert_eq!(status(&many(100)), None);
    assert_eq!(status(&many(101)), Some(431));
}

#[test]
fn a_flaw_beyond_a_limit_is_not_seen() {
    for flaw in ["\r", "\n", "\0", "\r\n"] {
        for before in (65_536 - 40)..(65_536 + 3) {
            let front = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
            let head = format!("{front}{}{flaw}y\r\n\r\n", "x".repeat(before - front.len()));
            assert_ne!(status(head.as_bytes()), None, "{flaw:?} behind {before} bytes");
        }
    }
}
