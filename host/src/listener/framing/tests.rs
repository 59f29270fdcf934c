//! Tests of the guard: a table of cases, what clients send, limits, and properties.

mod bodies;
mod cases;
mod corpus;
mod heads;
mod limits;
mod properties;
mod reference;

use super::*;

/// Looks at bytes cut after each of so many; gives what passed in all, and the refusal.
fn look_cut(bytes: &[u8], cuts: impl Iterator<Item = usize>) -> (usize, Option<(Refusal, Place)>, Guard) {
    let mut guard = Guard::new(Limits::default());
    let mut start = 0;
    for end in cuts.chain([bytes.len()]) {
        match guard.look(&bytes[start..end]) {
            Ok(()) => start = end,
            Err(refused) => {
                assert!(start + refused.pass <= end);
                return (start + refused.pass, Some((refused.refusal, refused.place)), guard);
            }
        }
    }
    (bytes.len(), None, guard)
}

fn look_whole(bytes: &[u8]) -> (usize, Option<(Refusal, Place)>) {
    let (passed, refused, _) = look_cut(bytes, std::iter::empty());
    (passed, refused)
}

/// What the guard takes for the messages of a stream, found byte by byte.
#[derive(Debug, Default, PartialEq, Eq)]
struct Messages {
    /// Where each head ends, and what it says of its body.
    heads: Vec<(usize, Framing)>,
    /// Where each message ends.
    ends: Vec<usize>,
    refusal: Option<(Refusal, Place)>,
}

fn messages(bytes: &[u8]) -> Messages {
    let mut found = Messages::default();
    let mut guard = Guard::new(Limits::default());
    let mut in_head = true;
    for (at, byte) in bytes.iter().enumerate() {
        if let Err(refused) = guard.look(&[*byte]) {
            found.refusal = Some((refused.refusal, refused.place));
            return found;
        }
        let framing = match &guard.state {
            State::Head(head) if head.is_new() && guard.pending.is_empty() => Framing::Nothing,
            State::Length(left) => Framing::Length(*left),
            State::Chunked(_) => Framing::Chunked,
            State::Silence => Framing::Silence,
            _ => continue,
        };
        if std::mem::replace(&mut in_head, framing == Framing::Nothing) {
            found.heads.push((at + 1, framing));
        }
        if framing == Framing::Nothing {
            found.ends.push(at + 1);
        }
    }
    found
}

#[test]
fn complete_requests_pass_before_one_that_is_refused() {
    let good = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = b"GET /3 HTTP/1.1\nHost: a\r\n\r\n";
    let mut guard = Guard::new(Limits::default());
    let refused = guard.look(&[&good[..], bad].concat()).expect_err("a bare LF");
    assert_eq!((refused.pass, refused.place), (good.len(), Place::Head));
    assert_eq!(refused.refusal, Refusal::bad("a LF without CR"));
}

#[test]
fn nothing_passes_after_a_refusal() {
    let mut guard = Guard::new(Limits::default());
    let first = guard.look(b"GET / HTTP/1.1\r\nHost : a\r\n").expect_err("whitespace before the colon");
    guard.open();
    let again = guard.look(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect_err("it is closed");
    assert_eq!(again, Refused { pass: 0, ..first });
}

#[test]
fn what_is_good_of_a_body_passes_before_what_is_not() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut guard = Guard::new(Limits::default());
    let refused = guard.look(&[&head[..], b"3\r\nabc\r\n0x3\r\nabc\r\n"].concat()).expect_err("0x");
    assert_eq!((refused.pass, refused.place), (head.len() + b"3\r\nabc\r\n".len(), Place::Body));
}

#[test]
fn everything_passes_once_the_connection_is_open() {
    let mut guard = Guard::new(Limits::default());
    guard.look(b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").expect("good");
    guard.open();
    guard.look(b"\x81\x05hello\n\r\0").expect("no HTTP any more");
    guard.look(b"GET / HTTP/9.9\n\n").expect("no HTTP any more");
}

#[test]
fn connect_is_followed_by_silence_until_it_is_answered() {
    let connect = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n";
    let mut guard = Guard::new(Limits::default());
    let refused = guard.look(&[&connect[..], b"\x16\x03"].concat()).expect_err("it is not open");
    assert_eq!((refused.pass, refused.refusal.status, refused.place), (connect.len(), 400, Place::Head));
    let mut guard = Guard::new(Limits::default());
    guard.look(connect).expect("good");
    guard.open();
    guard.look(b"\x16\x03\x01").expect("a tunnel");
}

#[test]
fn a_head_in_one_piece_takes_no_memory() {
    let mut guard = Guard::new(Limits::default());
    for _ in 0..3 {
        guard.look(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("good");
        assert_eq!(guard.pending.capacity(), 0);
    }
    guard.look(b"GET / HT").expect("so far");
    guard.look(b"TP/1.1\r").expect("so far");
    assert_eq!(guard.pending, b"GET / HTTP/1.1\r");
    guard.look(b"\nHost: a\r\n\r\n").expect("good");
    assert_eq!(guard.pending.capacity(), 0);
    assert!(size_of::<Guard>() <= 256, "{}", size_of::<Guard>());
}
