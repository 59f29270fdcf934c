//! Plays the tables of `heads.rs` and `bodies.rs`, whole and in single bytes.

use super::bodies::{CHUNKS, LENGTHS};
use super::heads::{FIELDS, REQUEST_LINES, TARGETS};
use super::*;

/// A name, the bytes, and the status that they are refused with.
pub(super) type Case = (&'static str, &'static [u8], Option<u16>);

fn play(cases: &[Case], place: Place) {
    for (name, bytes, expected) in cases {
        let (passed, refused) = look_whole(bytes);
        assert_eq!(refused.map(|(refusal, _)| refusal.status), *expected, "{name}: {refused:?}");
        assert_eq!(messages(bytes).refusal, refused, "{name}, byte by byte");
        match refused {
            None => assert_eq!(passed, bytes.len(), "{name}"),
            Some((_, found)) => assert_eq!(found, place, "{name}"),
        }
    }
}

#[test]
fn a_request_line_has_one_reading() {
    play(REQUEST_LINES, Place::Head);
}

#[test]
fn a_target_and_host_have_one_reading() {
    play(TARGETS, Place::Head);
}

#[test]
fn a_field_line_has_one_reading() {
    play(FIELDS, Place::Head);
}

#[test]
fn a_body_has_one_length() {
    play(LENGTHS, Place::Head);
}

#[test]
fn a_chunk_has_one_size() {
    play(CHUNKS, Place::Body);
}
