//! The guard on the bytes of HTTP/1.x connections against the slow reader of its tests: what passes has one reading, however
//! it is cut. The first byte of the input tells where it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyhost::listener::fuzzing::{Guard, Limits};

#[allow(dead_code, reason = "the units compare more of it")]
#[path = "../../src/listener/framing/tests/reference.rs"]
mod reference;

fuzz_target!(|data: &[u8]| {
    let Some((&step, bytes)) = data.split_first() else { return };
    let mut guard = Guard::new(Limits::default());
    let whole = guard.look(bytes);
    let mut in_pieces = Guard::new(Limits::default());
    let verdict = bytes.chunks(usize::from(step).max(1)).try_for_each(|piece| in_pieces.look(piece));
    let reason = |verdict: Result<(), proxyhost::listener::fuzzing::Refused>| {
        verdict.err().map(|wrong| (wrong.refusal, wrong.place))
    };
    assert_eq!(reason(whole), reason(verdict), "cuts matter");
    assert_eq!(guard.is_between_messages(), in_pieces.is_between_messages());
    let (requests, bad) = reference::read(bytes);
    match whole {
        Ok(()) => {
            assert!(!bad, "what the reference refuses passes");
            let complete = requests.last().is_none_or(|last| last.end.is_some());
            let end = requests.last().map_or(0, |last| last.end.unwrap_or(bytes.len()));
            if requests.last().is_none_or(|last| last.method != "CONNECT") {
                assert_eq!(guard.is_between_messages(), complete && end == bytes.len());
            }
        }
        Err(wrong) => {
            assert!(wrong.pass < bytes.len() && (400..506).contains(&wrong.refusal.status));
            assert!(guard.look(b"GET / HTTP/1.1\r\n").is_err(), "after an error nothing passes");
        }
    }
});
