use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::*;

fn filled(byte: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| byte ^ (at / 251) as u8).collect()
}

fn offset(region: &Region, piece: &[u8]) -> Option<u64> {
    region.found(piece).map(|(located, _)| located.offset())
}

/// What the file has where the piece is said to lie.
fn in_file(region: &Region, piece: &[u8]) -> Vec<u8> {
    let mut read = vec![0; piece.len()];
    let (located, _) = region.found(piece).unwrap();
    let count = rustix::io::pread(region.file(), &mut read, located.offset()).unwrap();
    assert_eq!(count, piece.len());
    read
}

/// Waits until the thread has come to something. It is woken again and again, as by the cache's upkeep: what the system refuses once
/// is tried again when it is.
fn until(region: &Region, what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        region.watch();
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_huge(region: &Region, piece: &[u8]) -> bool {
    region.found(piece).unwrap().1
}

/// Whether this kernel backs a file with huge pages when asked.
fn has_huge_pages() -> bool {
    let mapping = Mapping::new(1).unwrap();
    mapping.collapse(0, 0).is_ok()
}

#[test]
fn a_piece_reads_as_it_was_placed_and_is_found_by_its_address() {
    let region = Region::new(4 << 20).unwrap();
    let body = filled(7, 100 << 10);
    let piece = region.place(&body).unwrap();
    assert_eq!(piece, body);
    let part = piece.slice(5000..9096);
    assert_eq!(in_file(&region, &part), body[5000..9096]);
    assert!(region.locate(&body).is_none());
}

#[test]
fn only_sizes_that_gain_by_it_are_placed() {
    let region = Region::new(4 << 20).unwrap();
    for (length, placed) in
        [(PIECE_BYTES_MIN - 1, false), (PIECE_BYTES_MIN, true), (PIECE_BYTES_MAX, true), (PIECE_BYTES_MAX + 1, false)]
    {
        assert_eq!(region.place(&filled(1, length)).is_some(), placed, "{length}");
    }
}

#[test]
fn places_are_used_again_and_pieces_in_use_never_overlap() {
    let region = Region::new(2 << 20).unwrap();
    let mut kept = Vec::new();
    for round in 0..200_u8 {
        let length = (32 << 10) + usize::from(round) * 2048;
        let body = filled(round, length);
        if let Some(piece) = region.place(&body) {
            kept.push((piece, body));
        } else {
            kept.drain(..kept.len() / 2);
        }
        for (piece, body) in &kept {
            assert!(piece == body);
            assert!(in_file(&region, piece) == *body);
        }
    }
    assert!(kept.len() > 1);
}

#[test]
fn a_full_region_places_nothing_more() {
    let region = Region::new(1 << 20).unwrap();
    let body = filled(1, 512 << 10);
    let pieces: Vec<Bytes> = std::iter::from_fn(|| region.place(&body)).take(1000).collect();
    assert!(pieces.len() < 1000);
    assert!(pieces.len() * body.len() >= 1 << 20);
}

#[test]
fn pages_in_flight_keep_their_bytes_when_the_place_is_used_again() {
    // Without the thread: pages are small here.
    let region = Region::new(0).unwrap();
    let body = filled(9, 64 << 10);
    let piece = region.place(&body).unwrap();
    let (sender, mut receiver) = UnixStream::pair().unwrap();
    let begin = offset(&region, &piece).unwrap();
    let sent = rustix::fs::sendfile(&sender, region.file(), Some(&mut begin.clone()), piece.len()).unwrap();
    drop(piece);
    let other = region.place(&filled(0x55, 64 << 10)).unwrap();
    if region.is_punchable() {
        assert_eq!(offset(&region, &other), Some(begin), "the same place");
    }
    let mut got = vec![0; sent];
    receiver.read_exact(&mut got).unwrap();
    assert!(got == body[..sent]);
}

#[test]
fn pieces_come_to_lie_in_huge_pages_and_stay_where_they_are_read() {
    if !has_huge_pages() {
        eprintln!("not tested: this kernel has no huge pages for files on request");
        return;
    }
    let region = Region::new(16 << 20).unwrap();
    let bodies: Vec<Vec<u8>> = (0..30_u8).map(|round| filled(round, (40 << 10) + usize::from(round) * 1000)).collect();
    let pieces: Vec<Bytes> = bodies.iter().map(|body| region.place(body).unwrap()).collect();
    until(&region, "all lies in huge pages", || pieces.iter().all(|piece| is_huge(&region, piece)));
    for (piece, body) in pieces.iter().zip(&bodies) {
        assert!(piece == body);
        assert!(in_file(&region, piece) == *body);
    }
}

#[test]
fn a_worn_huge_page_is_renewed_while_a_socket_holds_what_was_there() {
    if !has_huge_pages() {
        eprintln!("not tested: this kernel has no huge pages for files on request");
        return;
    }
    let region = Region::new(8 << 20).unwrap();
    let body = |round: usize| filled(round as u8, 256 << 10);
    let chunk = |piece: &Bytes| region.mapping.locate(piece.as_ptr().addr()).unwrap().0;
    let filled = || {
        let pieces: Vec<Bytes> = (0..8).map_while(|round| region.place(&body(round))).collect();
        until(&region, "all lies in huge pages", || pieces.iter().all(|piece| is_huge(&region, piece)));
        // A chunk that becomes ready meanwhile takes what comes next.
        let first = pieces.first().map(chunk);
        (pieces.len() == 8 && pieces.iter().all(|piece| Some(chunk(piece)) == first)).then_some(pieces)
    };
    let mut pieces = (0..100).find_map(|_| filled()).unwrap();
    let (sender, mut receiver) = UnixStream::pair().unwrap();
    let mut at = offset(&region, &pieces[0]).unwrap();
    let first = chunk(&pieces[0]);
    let slot = region.slot(first);
    let sent = rustix::fs::sendfile(&sender, region.file(), Some(&mut at), 128 << 10).unwrap();
    // A quarter, which is worn with the last of it: it is renewed once. Twice might bring the old slot back.
    pieces.drain(..2);
    until(&region, "the rest has moved", || region.slot(first) != slot);
    // What is placed now fills what became free, a moment after the slot was exchanged.
    let mut more: Vec<Bytes> = Vec::new();
    until(&region, "what became free is filled", || {
        more.clear();
        more.extend((8..24).map_while(|round| region.place(&body(round))));
        more.iter().any(|piece| chunk(piece) == first)
    });
    for (round, piece) in (2..8).zip(&pieces).chain((8..24).zip(&more)) {
        assert!(piece[..] == body(round));
        assert!(in_file(&region, piece) == body(round));
    }
    let mut got = vec![0; sent];
    receiver.read_exact(&mut got).unwrap();
    assert!(got == body(0)[..sent]);
}

#[test]
fn nobody_reads_or_sends_anything_else_while_pieces_come_and_go_and_move() {
    let region = Region::new(12 << 20).unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for worker in 0..3_u8 {
            let region = &region;
            scope.spawn(move || {
                let mut kept: Vec<(u8, Bytes)> = Vec::new();
                let mut round = worker;
                while Instant::now() < until {
                    round = round.wrapping_add(7);
                    let length = (33 << 10) + usize::from(round) * 2000;
                    if let Some(piece) = region.place(&filled(round, length)) {
                        kept.push((round, piece));
                    }
                    for (round, piece) in &kept {
                        let body = filled(*round, piece.len());
                        assert!(*piece == body, "reads as it was written");
                        assert!(in_file(region, piece) == body, "is sent as it was written");
                    }
                    if kept.len() > 6 {
                        kept.swap_remove(usize::from(round) % kept.len());
                    }
                }
            });
        }
    });
}
