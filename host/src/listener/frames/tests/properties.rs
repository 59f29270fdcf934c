//! What holds for any bytes and any frames.

use proptest::prelude::*;

use super::*;

/// Limits that are soon at their end.
fn tight() -> Limits {
    let few = Budget::new(3, 100);
    Limits {
        reset: few,
        provoked_reset: few,
        settings: few,
        ping: few,
        priority: few,
        window_update: few,
        continuation: few,
        headers: few,
        empty: few,
        small_data: few,
        go_away: few,
        unknown: few,
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0u8..=0x11, any::<u8>(), prop_oneof![0usize..6, 0usize..300])
            .prop_map(|(kind, flags, length)| frame(kind, flags, length)),
        (0u32..16).prop_map(reset),
    ]
}

/// Pieces of so many bytes, over and over, to the end.
fn cut<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..40, 1..8)
}

proptest! {
    #[test]
    fn any_bytes_are_taken_in_any_pieces_with_the_same_verdict(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        out in prop::collection::vec(any::<u8>(), 0..600),
        lengths in lengths(),
    ) {
        let mut whole = Frames::new(&tight());
        let expected = (whole.look(&bytes, 5), whole.sent(&out, 5));
        let mut pieces = Frames::new(&tight());
        let inbound = cut(&bytes, &lengths).into_iter().try_for_each(|piece| pieces.look(piece, 5));
        let outbound = cut(&out, &lengths).into_iter().try_for_each(|piece| pieces.sent(piece, 5));
        prop_assert_eq!((inbound, outbound.and_then(|()| pieces.sent(&[], 5))), expected);
    }

    #[test]
    fn frames_have_one_verdict_however_they_are_cut(
        frames in prop::collection::vec((any_frame(), any::<bool>(), 0u64..40), 0..40),
        lengths in lengths(),
    ) {
        let (mut whole, mut pieces) = (Frames::new(&tight()), Frames::new(&tight()));
        let preface = [0; PREFACE_BYTES as usize];
        prop_assert_eq!(whole.look(&preface, 0), Ok(()));
        cut(&preface, &lengths).into_iter().for_each(|piece| pieces.look(piece, 0).expect("the preface"));
        let mut now_ms = 0;
        for (frame, outbound, pause_ms) in frames {
            now_ms += pause_ms;
            let look = if outbound { Frames::sent } else { Frames::look };
            let expected = look(&mut whole, &frame, now_ms);
            let verdict = cut(&frame, &lengths).into_iter().try_for_each(|piece| look(&mut pieces, piece, now_ms));
            prop_assert_eq!(verdict, expected);
            prop_assert_eq!(pieces.goodbye().is_some(), whole.goodbye().is_some());
        }
    }

    #[test]
    fn exactly_the_resets_that_went_out_for_the_clients_errors_are_counted(
        frames in prop::collection::vec(any_frame(), 0..60),
        lengths in lengths(),
    ) {
        let limits = Limits { provoked_reset: Budget::new(1_000, 0), ..Limits::default() };
        let mut guard = Frames::new(&limits);
        let (mut expected, mut ended) = (0, 0);
        for frame in &frames {
            match (frame[3], frame.len(), frame[4] & END_STREAM) {
                (kind::RST_STREAM, 13, _) if !matches!(frame[12], 0 | 2 | 8) => expected += 1000,
                (kind::DATA | kind::HEADERS, _, END_STREAM) => ended += 1,
                _ => {}
            }
        }
        let bytes = frames.concat();
        // Nothing is earned beyond what is full.
        prop_assert_eq!(guard.buckets.spend(Flood::ProvokedReset, ended * ANSWER_PAYS_PROVOKED), Ok(()));
        for piece in cut(&bytes, &lengths) {
            prop_assert_eq!(guard.sent(piece, 0), Ok(()));
        }
        prop_assert_eq!(guard.buckets.spend(Flood::ProvokedReset, 1_000_000 - expected), Ok(()));
        prop_assert_eq!(guard.buckets.spend(Flood::ProvokedReset, 1), Err(Flood::ProvokedReset));
    }

    #[test]
    fn the_cutter_finds_the_frames_that_were_put_together(
        frames in prop::collection::vec(any_frame(), 0..60),
        lengths in lengths(),
    ) {
        let bytes = frames.concat();
        let mut cutter = Cutter::after(0);
        let mut found = Vec::new();
        for mut piece in cut(&bytes, &lengths) {
            while let Some(frame) = cutter.next(&mut piece) {
                found.push((frame.kind, frame.flags, frame.length as usize, frame.code));
            }
            prop_assert!(piece.is_empty());
        }
        let expected: Vec<_> = frames
            .iter()
            .map(|frame| {
                let code = match (frame[3], &frame[9..]) {
                    (kind::RST_STREAM, [a, b, c, d]) => u32::from_be_bytes([*a, *b, *c, *d]),
                    _ => 0,
                };
                (frame[3], frame[4], frame.len() - 9, code)
            })
            .collect();
        prop_assert_eq!(found, expected);
        prop_assert!(cutter.is_between_frames());
    }

    #[test]
    fn budgets_stay_between_nothing_and_full_whatever_the_clock_says(
        steps in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u32>()), 0..50),
    ) {
        let mut buckets = Buckets::new(&tight());
        for (now_ms, earned, spent) in steps {
            buckets.refill(now_ms);
            buckets.earn(Flood::Ping, earned);
            let _ = buckets.spend(Flood::Ping, spent);
            buckets.earn(Flood::Ping, u32::MAX);
            prop_assert!(buckets.spend(Flood::Ping, 3_001).is_err());
        }
    }
}
