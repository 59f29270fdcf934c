//! What comes in on a stream, before h3 sees it: only frames that it handles well (RFC 9114 section 7), within limits.
//!
//! h3 0.0.8 keeps a frame until it is whole, whatever length it claims: HEADERS, SETTINGS or of a type that nobody
//! knows, so that one stream could fill the memory. It takes an empty DATA frame for the end of the body, and a stream
//! that ends within a DATA frame for one that ends well (and panics when it is asked for trailers then). So frames of
//! other types and empty ones are taken out here, long ones are refused, those that come out of turn or are cut short
//! end the connection, and field sections are looked at (`fields.rs`).

use bytes::{BufMut, BytesMut};
use h3::error::Code;

use super::fields;

/// The longest frame on a control stream. SETTINGS, the longest there is, has a few dozen bytes.
const CONTROL_FRAME_BYTES: usize = 16 << 10;

/// The longest type and length of a frame, two integers of up to 8 bytes.
const PREFIX_BYTES: usize = 16;

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
const CANCEL_PUSH: u64 = 0x3;
const SETTINGS: u64 = 0x4;
const PUSH_PROMISE: u64 = 0x5;
const GOAWAY: u64 = 0x7;
const MAX_PUSH_ID: u64 = 0xd;

/// Types of HTTP/2's frames, which must not come (RFC 9114 section 7.2.8).
const OF_HTTP2: [u64; 4] = [0x2, 0x6, 0x8, 0x9];

/// The type of a control stream (RFC 9114 section 6.2.1).
const CONTROL: u64 = 0x0;

/// What is wrong with what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A head or trailers of more bytes than are taken.
    TooLong,
    /// A message that must not be handled (RFC 9114 section 4.1.2): an error of the stream.
    Malformed(&'static str),
    /// An error of the connection.
    Connection(Code, &'static str),
}

/// Looks at the bytes of one stream.
#[derive(Debug)]
pub(super) struct Guard {
    kind: Kind,
    part: Part,
    head_bytes: usize,
    /// Field sections that came: the head, and the trailers.
    sections: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    /// One-way, of a type that is not known yet.
    Unknown,
    Control,
    /// One-way, of another type: h3 reads nothing of it but the type.
    Other,
}

#[derive(Debug)]
enum Part {
    /// Type and length.
    Prefix([u8; PREFIX_BYTES], usize),
    /// A frame that is kept until it is whole.
    Whole(u64, u64, BytesMut),
    /// A body's bytes still to come.
    Through(u64),
    /// Bytes of a frame that nobody wants.
    Skip(u64),
}

impl Guard {
    /// For a stream that brings a request.
    pub(super) fn of_request(head_bytes: usize) -> Self {
        Self { kind: Kind::Request, part: START, head_bytes, sections: 0 }
    }

    /// For a one-way stream.
    pub(super) fn one_way() -> Self {
        Self { kind: Kind::Unknown, part: START, head_bytes: 0, sections: 0 }
    }

    /// Takes in bytes and puts into `out` what of them h3 is to see.
    pub(super) fn clean(&mut self, mut input: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        while !input.is_empty() {
            if self.kind == Kind::Other {
                out.extend_from_slice(input);
                return Ok(());
            }
            match &mut self.part {
                Part::Prefix(bytes, length) => {
                    bytes[*length] = input[0];
                    *length += 1;
                    input = &input[1..];
                    let (bytes, length) = (*bytes, *length);
                    self.prefix(&bytes[..length], out)?;
                }
                Part::Whole(kind, left, held) => {
                    let taken = take(&mut input, *left);
                    *left -= taken.len() as u64;
                    held.extend_from_slice(taken);
                    if *left == 0 {
                        let (kind, held) = (*kind, std::mem::take(held));
                        self.part = START;
                        self.whole(kind, &held, out)?;
                    }
                }
                Part::Through(left) => {
                    let taken = take(&mut input, *left);
                    *left -= taken.len() as u64;
                    out.extend_from_slice(taken);
                    if *left == 0 {
                        self.part = START;
                    }
                }
                Part::Skip(left) => {
                    *left -= take(&mut input, *left).len() as u64;
                    if *left == 0 {
                        self.part = START;
                    }
                }
            }
        }
        Ok(())
    }

    /// The stream is over.
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self.part {
            Part::Prefix(_, 0) => Ok(()),
            _ if matches!(self.kind, Kind::Unknown | Kind::Other) => Ok(()),
            _ => Err(Fault::Connection(Code::H3_FRAME_ERROR, "a frame that is cut short")),
        }
    }

    /// Goes on when type and length of a frame are there.
    fn prefix(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        let Some((kind, used)) = varint(bytes) else { return Ok(()) };
        if self.kind == Kind::Unknown {
            out.extend_from_slice(bytes);
            self.kind = if kind == CONTROL { Kind::Control } else { Kind::Other };
            self.part = START;
            return Ok(());
        }
        let Some((length, _)) = varint(&bytes[used..]) else { return Ok(()) };
        let unexpected = |why| Err(Fault::Connection(Code::H3_FRAME_UNEXPECTED, why));
        let keep = |limit: usize, fault: Fault| {
            if length > limit as u64 { Err(fault) } else { Ok(Part::Whole(kind, length, BytesMut::new())) }
        };
        self.part = match (self.kind, kind) {
            (Kind::Request, DATA) if self.sections != 1 => return unexpected("DATA out of turn"),
            (Kind::Request, DATA) if length == 0 => START,
            (Kind::Request, DATA) => {
                out.extend_from_slice(bytes);
                Part::Through(length)
            }
            (Kind::Request, HEADERS) if self.sections > 1 => return unexpected("HEADERS after trailers"),
            (Kind::Request, HEADERS) => keep(self.head_bytes, Fault::TooLong)?,
            (Kind::Control, SETTINGS | CANCEL_PUSH | GOAWAY | MAX_PUSH_ID) => keep(
                CONTROL_FRAME_BYTES,
                Fault::Connection(Code::H3_EXCESSIVE_LOAD, "a long frame on the control stream"),
            )?,
            (_, DATA | HEADERS | SETTINGS | CANCEL_PUSH | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID) => {
                return unexpected("a frame that does not belong on this stream");
            }
            (_, kind) if OF_HTTP2.contains(&kind) => return unexpected("a frame of HTTP/2"),
            // Also PRIORITY_UPDATE (RFC 9218): what is served first is not for clients to say here.
            _ if length == 0 => START,
            _ => Part::Skip(length),
        };
        if matches!(self.part, Part::Whole(_, 0, _)) {
            self.part = START;
            self.whole(kind, &[], out)?;
        }
        Ok(())
    }

    /// Passes on a frame that was kept.
    fn whole(&mut self, kind: u64, payload: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        if kind == HEADERS {
            let section = if self.sections == 0 { fields::Section::Head } else { fields::Section::Trailers };
            fields::check(payload, section)?;
            self.sections += 1;
        }
        out.reserve(PREFIX_BYTES + payload.len());
        // All types that are kept have one byte; no length has more than four.
        out.put_u8(kind as u8);
        out.put_u32(0x8000_0000 | payload.len() as u32);
        out.extend_from_slice(payload);
        Ok(())
    }
}

const START: Part = Part::Prefix([0; PREFIX_BYTES], 0);

/// Splits off what there is of so many bytes.
fn take<'a>(input: &mut &'a [u8], left: u64) -> &'a [u8] {
    let (taken, rest) = input.split_at(input.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
    *input = rest;
    taken
}

/// An integer (RFC 9000 section 16) and how many bytes it takes, if it is all there.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `:method GET`, `:scheme https`, `:path /`, all of the static table, and `:authority a`.
    const HEAD: [u8; 8] = [0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, b'a'];

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, payload.len() as u8], payload].concat()
    }

    fn cleaned(pieces: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        let whole = pieces.concat();
        let mut outs = [1, 2, 7, whole.len().max(1)].map(|size| {
            let mut guard = Guard::of_request(64);
            let mut out = BytesMut::new();
            for chunk in whole.chunks(size) {
                guard.clean(chunk, &mut out)?;
            }
            guard.end().map(|()| out.to_vec())
        });
        let last = outs[3].clone();
        assert!(outs.iter_mut().all(|out| *out == last), "however it is cut");
        last
    }

    #[test]
    fn only_what_h3_handles_well_gets_through() {
        let head = frame(1, &HEAD);
        let seen = [&[1, 0x80, 0, 0, 8], &HEAD[..], &[0, 2, b'h', b'i']].concat();
        let grease = frame(0x21, b"whatever");
        let body = frame(0, b"hi");
        assert_eq!(cleaned(&[&grease, &head, &[0, 0], &grease, &body, &[0, 0]]), Ok(seen));
        assert_eq!(cleaned(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_is_out_of_turn_or_cut_short_ends_the_connection() {
        let head = frame(1, &HEAD);
        let trailers = frame(1, &[0, 0]);
        for (pieces, code) in [
            (vec![frame(0, b"hi")], Code::H3_FRAME_UNEXPECTED),
            (vec![frame(4, b"")], Code::H3_FRAME_UNEXPECTED),
            (vec![head.clone(), frame(8, b"1234")], Code::H3_FRAME_UNEXPECTED),
            (vec![head.clone(), trailers.clone(), frame(0, b"hi")], Code::H3_FRAME_UNEXPECTED),
            (vec![head.clone(), trailers.clone(), trailers.clone()], Code::H3_FRAME_UNEXPECTED),
            (vec![head.clone(), vec![0, 9, b'h', b'i']], Code::H3_FRAME_ERROR),
            (vec![head.clone(), vec![0x21, 9, b'h', b'i']], Code::H3_FRAME_ERROR),
            (vec![vec![1, 9, 0, 0]], Code::H3_FRAME_ERROR),
            (vec![vec![1]], Code::H3_FRAME_ERROR),
            (vec![frame(1, &[])], Code::QPACK_DECOMPRESSION_FAILED),
        ] {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            match cleaned(&pieces) {
                Err(Fault::Connection(found, _)) => assert_eq!(found, code, "{pieces:?}"),
                other => panic!("{pieces:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn long_frames_are_refused_by_their_length_alone() {
        let mut out = BytesMut::new();
        let long = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Guard::of_request(64).clean(&long, &mut out), Err(Fault::TooLong));
        let mut control = Guard::one_way();
        let settings = [0, 4, 0x80, 1, 0, 0];
        assert!(matches!(control.clean(&settings, &mut out), Err(Fault::Connection(Code::H3_EXCESSIVE_LOAD, _))));
        let mut control = Guard::one_way();
        out.clear();
        control.clean(&[0, 4, 2, 6, 9, 0x21, 3, 1, 2, 3, 7, 1, 0], &mut out).expect("SETTINGS, something, GOAWAY");
        assert_eq!(out[..], [0, 4, 0x80, 0, 0, 2, 6, 9, 7, 0x80, 0, 0, 1, 0]);
    }
}
