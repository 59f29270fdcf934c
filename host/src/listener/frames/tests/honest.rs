//! What honest clients do goes through: as fast as the wire has it, so without any time that would give something back,
//! unless the case says otherwise.

use super::*;

const GO: Result<(), Flood> = Ok(());

fn request() -> Vec<u8> {
    frame(kind::HEADERS, END_STREAM | END_HEADERS, 60)
}

#[test]
fn a_load_tester_with_a_hundred_thousand_requests_in_a_moment() {
    let mut client = Client::new();
    for _ in 0..100_000 {
        assert_eq!(client.gets(1_000), GO);
    }
}

#[test]
fn a_download_with_windows_opened_at_each_read() {
    let mut client = Client::new();
    assert_eq!(client.gets(0), GO);
    let open = frame(kind::WINDOW_UPDATE, 0, 4);
    for _ in 0..10_000 {
        assert_eq!(client.is_sent(&frame(kind::DATA, 0, 16_384)), GO);
        // Each KiB read opens the stream's window and the connection's.
        for _ in 0..16 {
            assert_eq!(client.sends(&[open.clone(), open.clone()].concat()), GO);
        }
    }
}

#[test]
fn a_stream_of_messages_each_of_which_opens_both_windows() {
    let mut client = Client::new();
    let open = frame(kind::WINDOW_UPDATE, 0, 4);
    for _ in 0..100_000 {
        assert_eq!(client.is_sent(&frame(kind::DATA, 0, 100)), GO);
        assert_eq!(client.sends(&[open.clone(), open.clone()].concat()), GO);
    }
}

#[test]
fn a_browser_that_builds_a_tree_and_moves_every_image_in_it() {
    let mut client = Client::new();
    for _ in 0..6 {
        assert_eq!(client.sends(&frame(kind::PRIORITY, 0, 5)), GO);
    }
    assert_eq!(client.sends(&frame(kind::SETTINGS, 0, 30)), GO);
    assert_eq!(client.sends(&frame(kind::WINDOW_UPDATE, 0, 4)), GO);
    for _ in 0..1_000 {
        assert_eq!(client.sends(&request()), GO);
        assert_eq!(client.sends(&frame(0x6a, 0, 20)), GO, "one to keep servers used to them");
        for _ in 0..10 {
            assert_eq!(client.sends(&frame(kind::PRIORITY_UPDATE, 0, 10)), GO);
        }
    }
}

#[test]
fn a_browser_that_scrolls_through_images_and_cancels_them_all() {
    let mut client = Client::new();
    // A screen of images every second and a half, none of them wanted to the end.
    for _ in 0..100 {
        for _ in 0..60 {
            assert_eq!(client.sends(&request()), GO);
        }
        client.passes_ms(1_200);
        for _ in 0..60 {
            assert_eq!(client.sends(&reset(8)), GO);
        }
        client.passes_ms(300);
    }
    // And three times all that may be under way, at once.
    for _ in 0..3 * 128 {
        assert_eq!(client.sends(&[request(), reset(8)].concat()), GO);
    }
}

#[test]
fn a_proxy_whose_clients_cancel_every_third_request() {
    let mut client = Client::new();
    for _ in 0..100_000 {
        assert_eq!(client.gets(500), GO);
        assert_eq!(client.gets(500), GO);
        assert_eq!(client.sends(&[request(), reset(8)].concat()), GO);
    }
}

#[test]
fn a_client_that_measures_the_way_with_each_frame_it_reads() {
    let mut client = Client::new();
    for _ in 0..10_000 {
        assert_eq!(client.is_sent(&frame(kind::DATA, 0, 200)), GO);
        assert_eq!(client.sends(&frame(kind::PING, 0, 8)), GO);
    }
}

#[test]
fn a_silent_client_that_keeps_the_connection_alive_every_second_for_a_day() {
    let mut client = Client::new();
    for _ in 0..86_400 {
        client.passes_ms(1_000);
        assert_eq!(client.sends(&frame(kind::PING, 0, 8)), GO);
        assert_eq!(client.sends(&frame(kind::PING, 1, 8)), GO, "and answers ours");
    }
}

#[test]
fn streams_of_small_messages_both_ways() {
    let mut client = Client::new();
    for _ in 0..200_000 {
        assert_eq!(client.sends(&frame(kind::DATA, 0, 20)), GO);
        assert_eq!(client.is_sent(&frame(kind::DATA, 0, 20)), GO);
    }
}

#[test]
fn small_messages_one_way_twenty_a_millisecond() {
    let mut client = Client::new();
    for _ in 0..10_000 {
        client.passes_ms(1);
        for _ in 0..20 {
            assert_eq!(client.sends(&frame(kind::DATA, 0, 20)), GO);
        }
    }
}

#[test]
fn uploads_that_end_with_an_empty_frame() {
    let mut client = Client::new();
    for _ in 0..10_000 {
        assert_eq!(client.sends(&frame(kind::HEADERS, END_HEADERS, 60)), GO);
        assert_eq!(client.sends(&frame(kind::DATA, 0, 5)), GO);
        assert_eq!(client.sends(&frame(kind::DATA, END_STREAM, 0)), GO);
    }
}

#[test]
fn uploads_that_are_answered_before_they_were_read() {
    let mut client = Client::new();
    for _ in 0..10_000 {
        assert_eq!(client.gets(100), GO);
        assert_eq!(client.is_sent(&reset(0)), GO);
    }
}

#[test]
fn a_page_asked_for_with_forty_kilobytes_of_cookies() {
    let mut client = Client::new();
    let request = [
        frame(kind::HEADERS, END_STREAM, 16_384),
        frame(kind::CONTINUATION, 0, 16_384),
        frame(kind::CONTINUATION, END_HEADERS, 7_000),
    ]
    .concat();
    for _ in 0..200 {
        assert_eq!(client.sends(&request), GO);
    }
}

#[test]
fn header_blocks_in_frames_of_a_kilobyte_now_and_then() {
    let mut client = Client::new();
    for _ in 0..1_000 {
        client.passes_ms(200);
        assert_eq!(client.sends(&frame(kind::HEADERS, END_STREAM, 1_024)), GO);
        for _ in 0..4 {
            assert_eq!(client.sends(&frame(kind::CONTINUATION, 0, 1_024)), GO);
        }
    }
}

#[test]
fn requests_that_crossed_our_settings() {
    let mut client = Client::new();
    for _ in 0..378 {
        assert_eq!(client.sends(&request()), GO);
    }
    for _ in 0..378 - 128 {
        assert_eq!(client.is_sent(&reset(7)), GO);
    }
}

#[test]
fn a_client_that_adapts_its_window_five_times_a_second() {
    let mut client = Client::new();
    for _ in 0..10_000 {
        client.passes_ms(200);
        assert_eq!(client.sends(&frame(kind::SETTINGS, 0, 6)), GO);
    }
}
