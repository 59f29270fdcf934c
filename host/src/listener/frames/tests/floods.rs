//! Each flood is cut off at its budget, at once and at any speed above what comes back.

use super::*;

/// What a flood sends again and again, how it is called, and how often it goes through at once.
fn floods() -> Vec<(&'static str, Vec<u8>, Flood, u32)> {
    let limits = Limits::default();
    let open = frame(kind::HEADERS, END_STREAM | END_HEADERS, 30);
    let row = |name, bytes: Vec<u8>, flood| (name, bytes, flood, limits.of(flood).burst);
    vec![
        row("rapid reset", [open.clone(), reset(8)].concat(), Flood::Reset),
        row("resets of streams long gone", reset(8), Flood::Reset),
        row("RST_STREAM of a wrong length", frame(kind::RST_STREAM, 0, 5), Flood::Reset),
        row("SETTINGS", frame(kind::SETTINGS, 0, 6), Flood::Settings),
        row("empty SETTINGS", frame(kind::SETTINGS, 0, 0), Flood::Settings),
        row("acknowledged SETTINGS", frame(kind::SETTINGS, 1, 0), Flood::Settings),
        ("SETTINGS of thousands", frame(kind::SETTINGS, 0, 16_380), Flood::Settings, 1),
        row("PING", frame(kind::PING, 0, 8), Flood::Ping),
        row("PING nobody sent", frame(kind::PING, 1, 8), Flood::Ping),
        row("PRIORITY", frame(kind::PRIORITY, 0, 5), Flood::Priority),
        row("PRIORITY_UPDATE", frame(kind::PRIORITY_UPDATE, 0, 12), Flood::Priority),
        row("WINDOW_UPDATE", frame(kind::WINDOW_UPDATE, 0, 4), Flood::WindowUpdate),
        row("empty DATA", frame(kind::DATA, 0, 0), Flood::Empty),
        row("empty last DATA of streams long gone", frame(kind::DATA, END_STREAM, 0), Flood::Empty),
        row("empty HEADERS", frame(kind::HEADERS, END_STREAM | END_HEADERS, 0), Flood::Empty),
        row("empty CONTINUATION", frame(kind::CONTINUATION, 0, 0), Flood::Empty),
        row("DATA by the byte", frame(kind::DATA, 0, 1), Flood::SmallData),
        row("CONTINUATION by the byte", frame(kind::CONTINUATION, 0, 1), Flood::Continuation),
        row("GOAWAY", frame(kind::GO_AWAY, 0, 8), Flood::GoAway),
        row("unknown frames", frame(0xb, 0, 0), Flood::Unknown),
        row("PUSH_PROMISE", frame(0x5, 0, 4), Flood::Unknown),
        ("long unknown frames", frame(0xfa, 0, 16_384), Flood::Unknown, limits.unknown.burst / 17),
    ]
}

#[test]
fn a_flood_goes_through_as_often_as_its_budget_has_it() {
    for (name, bytes, flood, times) in floods() {
        let mut client = Client::new();
        for sent in 0..times {
            assert_eq!(client.sends(&bytes), Ok(()), "{name}, after {sent}");
        }
        assert_eq!(client.sends(&bytes), Err(flood), "{name}");
        client.passes_ms(1_000_000);
        assert_eq!(client.sends(&frame(kind::PING, 0, 8)), Err(flood), "{name}: it is over for good");
        assert_eq!(client.is_sent(&[0]), Err(flood), "{name}: both ways");
    }
}

#[test]
fn a_flood_that_is_twice_as_fast_as_the_budget_comes_back_is_cut_off() {
    for (name, bytes, flood, times) in floods() {
        let mut client = Client::new();
        let budget = Limits::default().of(flood);
        // What a row of the table spends, roughly: `burst` buys `times`.
        let per_second = f64::from(budget.per_second) * f64::from(times) / f64::from(budget.burst);
        let pause_ms = 500.0 / per_second;
        let fate = (0..10 * times + 100).find_map(|sent| {
            client.now_ms = 1 + (f64::from(sent) * pause_ms) as u64;
            client.sends(&bytes).err()
        });
        assert_eq!(fate, Some(flood), "{name}");
    }
}

#[test]
fn a_flood_slower_than_the_budget_comes_back_goes_on() {
    for (name, bytes, flood, times) in floods() {
        let mut client = Client::new();
        let budget = Limits::default().of(flood);
        let spends = f64::from(budget.burst) / f64::from(times);
        let pause_ms = 1000.0 * spends / f64::from(budget.per_second);
        for sent in 0..2 * times + 100 {
            client.now_ms = 1 + (f64::from(sent) * pause_ms).ceil() as u64;
            assert_eq!(client.sends(&bytes), Ok(()), "{name}, after {sent}");
        }
    }
}

#[test]
fn resets_for_what_the_client_did_are_counted_where_they_go_out() {
    let budget = Limits::default().provoked_reset.burst;
    for code in [0x1, 0x3, 0x5, 0x6, 0x7, 0x9, 0xb, 0xffff_ffff] {
        let mut client = Client::new();
        for _ in 0..budget {
            assert_eq!(client.is_sent(&reset(code)), Ok(()));
        }
        assert_eq!(client.is_sent(&reset(code)), Err(Flood::ProvokedReset), "code {code}");
        assert_eq!(client.sends(&frame(kind::PING, 0, 8)), Err(Flood::ProvokedReset));
    }
    for code in [0x0, 0x2, 0x8] {
        let mut client = Client::new();
        for _ in 0..10_000 {
            assert_eq!(client.is_sent(&reset(code)), Ok(()), "code {code} is of our making");
        }
    }
}

#[test]
fn header_bombs_that_are_answered_with_431_and_reset_are_cut_off() {
    let mut client = Client::new();
    let fate = (0..1_000).find_map(|_| {
        client.sends(&frame(kind::HEADERS, END_HEADERS, 100)).expect("small as it is");
        client.is_sent(&frame(kind::HEADERS, END_STREAM | END_HEADERS, 20)).expect("the 431");
        client.is_sent(&reset(1)).err()
    });
    assert_eq!(fate, Some(Flood::ProvokedReset));
}

#[test]
fn large_header_blocks_are_cut_off_in_one_block_and_in_many() {
    let mut client = Client::new();
    client.sends(&frame(kind::HEADERS, 0, 16_384)).expect("as others");
    let fate = (0..10_000).find_map(|_| client.sends(&frame(kind::CONTINUATION, 0, 16_384)).err());
    assert_eq!(fate, Some(Flood::Headers), "one block without an end");

    let mut client = Client::new();
    let bomb = [frame(kind::HEADERS, 1, 16_384), frame(kind::CONTINUATION, END_HEADERS, 16_384)].concat();
    let fate = (0..10_000).find_map(|_| client.sends(&bomb).err());
    assert_eq!(fate, Some(Flood::Headers), "many of 32 KiB");
}

#[test]
fn a_window_that_is_opened_byte_by_byte_does_not_pay_for_itself() {
    let mut client = Client::new();
    client.gets(0).expect("a request");
    let fate = (0..100_000).find_map(|_| {
        client.is_sent(&frame(kind::DATA, 0, 1)).expect("out");
        client.sends(&frame(kind::WINDOW_UPDATE, 0, 4)).err()
    });
    assert_eq!(fate, Some(Flood::WindowUpdate));
}

#[test]
fn half_of_the_answers_wanted_is_the_least_that_pays_for_resets() {
    let mut client = Client::new();
    let fate = (0..10_000).find_map(|_| {
        client.gets(100).expect("one that is wanted");
        (0..2).find_map(|_| client.sends(&reset(8)).err())
    });
    assert_eq!(fate, Some(Flood::Reset), "two cancelled for each that is wanted");
}

#[test]
fn the_last_frame_is_a_goaway_unless_it_would_fall_into_another() {
    let mut client = Client::new();
    let goodbye = client.frames.goodbye().expect("nothing went out yet");
    assert_eq!(goodbye[..4], [0, 0, 8, kind::GO_AWAY]);
    assert_eq!(u32::from_be_bytes(goodbye[13..].try_into().expect("four bytes")), 0xb, "ENHANCE_YOUR_CALM");
    let out = [frame(kind::DATA, 0, 10), reset(8)].concat();
    for (at, byte) in out.iter().enumerate() {
        client.is_sent(&[*byte]).expect("one of each");
        let between = at + 1 == 19 || at + 1 == out.len();
        assert_eq!(client.frames.goodbye().is_some(), between, "after {at}");
    }
}

#[test]
fn a_guard_is_small() {
    assert!(size_of::<Frames>() <= 256, "{}", size_of::<Frames>());
}

#[test]
fn each_flood_has_its_number_and_word() {
    for (number, flood) in Flood::ALL.into_iter().enumerate() {
        assert_eq!(flood as usize, number);
        assert!(flood.to_string().ends_with(flood.as_str()));
    }
}
