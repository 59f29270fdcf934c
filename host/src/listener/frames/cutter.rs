//! Cuts the bytes of one direction into frames (RFC 9113 section 4.1) and skips what they carry.
//!
//! ```text
//! | bytes | field |
//! |-------|------------------------------------------|
//! | 0..3  | length of the payload                    |
//! | 3     | type                                     |
//! | 4     | flags                                    |
//! | 5..9  | stream, not looked at                    |
//! | 9..13 | RST_STREAM only: the code (section 6.4)  |
//! ```
//!
//! A frame is handed out when its header (and code) is complete, in whatever pieces that came.

/// Types of frames (RFC 9113 section 6, RFC 9218 section 7.1).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0x0;
    pub(in super::super) const HEADERS: u8 = 0x1;
    pub(in super::super) const PRIORITY: u8 = 0x2;
    pub(in super::super) const RST_STREAM: u8 = 0x3;
    pub(in super::super) const SETTINGS: u8 = 0x4;
    pub(in super::super) const PING: u8 = 0x6;
    pub(in super::super) const GO_AWAY: u8 = 0x7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 0x8;
    pub(in super::super) const CONTINUATION: u8 = 0x9;
    pub(in super::super) const PRIORITY_UPDATE: u8 = 0x10;
}

const HEADER_BYTES: usize = 9;
const CODE_BYTES: usize = 4;

/// END_STREAM of DATA and HEADERS.
const END_STREAM: u8 = 0x1;

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Of its payload.
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Of RST_STREAM; 0 of others.
    pub(super) code: u32,
}

impl Frame {
    /// Of DATA and HEADERS: the stream's last one.
    pub(super) fn ends_stream(self) -> bool {
        self.flags & END_STREAM != 0
    }
}

/// Where one direction is.
#[derive(Debug)]
pub(super) struct Cutter {
    head: [u8; HEADER_BYTES + CODE_BYTES],
    have: u8,
    skip: u32,
}

impl Cutter {
    /// Frames begin after so many bytes.
    pub(super) fn after(skip: u32) -> Self {
        Self { head: [0; HEADER_BYTES + CODE_BYTES], have: 0, skip }
    }

    /// The next frame, whose header ends in `bytes`; takes off what it has read. None if no more bytes are left.
    #[inline]
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        if self.skip > 0 {
            let skipped = bytes.len().min(self.skip as usize);
            *bytes = &bytes[skipped..];
            // No more than `skip`, which has 32 bits.
            self.skip -= skipped as u32;
        }
        if self.have == 0
            && let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
            && head[3] != kind::RST_STREAM
        {
            *bytes = rest;
            let frame = read(head, 0);
            self.skip = frame.length;
            return Some(frame);
        }
        self.gather(bytes)
    }

    /// A header that comes in pieces, or with a code.
    fn gather(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            self.head[usize::from(self.have)] = *byte;
            self.have += 1;
            let [header @ .., c0, c1, c2, c3] = &self.head;
            match usize::from(self.have) {
                HEADER_BYTES => {
                    let frame = read(header, 0);
                    if frame.kind != kind::RST_STREAM || frame.length as usize != CODE_BYTES {
                        (self.have, self.skip) = (0, frame.length);
                        return Some(frame);
                    }
                }
                have if have == self.head.len() => {
                    let frame = read(header, u32::from_be_bytes([*c0, *c1, *c2, *c3]));
                    self.have = 0;
                    return Some(frame);
                }
                _ => {}
            }
        }
        None
    }

    /// Whether all of the last frame was seen, and nothing of the next.
    pub(super) fn is_between_frames(&self) -> bool {
        self.have == 0 && self.skip == 0
    }
}

fn read(head: &[u8; HEADER_BYTES], code: u32) -> Frame {
    let [l0, l1, l2, kind, flags, ..] = *head;
    Frame { length: u32::from_be_bytes([0, l0, l1, l2]), kind, flags, code }
}
