//! Tests of the guard: floods, what honest clients do, and properties.

mod floods;
mod honest;
mod properties;

use super::*;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// A frame of so many zeros.
fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
    let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, 1]);
    bytes.resize(9 + length, 0);
    bytes
}

fn reset(code: u32) -> Vec<u8> {
    let mut bytes = frame(kind::RST_STREAM, 0, 4);
    bytes[9..].copy_from_slice(&code.to_be_bytes());
    bytes
}

/// A connection after its preface, and its clock.
struct Client {
    frames: Frames,
    now_ms: u64,
}

impl Client {
    fn new() -> Self {
        let mut frames = Frames::new(&Limits::default());
        frames.look(&[b'P'; PREFACE_BYTES as usize], 1).expect("the preface is not ours to judge");
        Self { frames, now_ms: 1 }
    }

    fn sends(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        self.frames.look(bytes, self.now_ms)
    }

    fn is_sent(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        self.frames.sent(bytes, self.now_ms)
    }

    /// A request without a body, and an answer with one.
    fn gets(&mut self, body: usize) -> Result<(), Flood> {
        self.sends(&frame(kind::HEADERS, END_STREAM | END_HEADERS, 60))?;
        self.is_sent(&frame(kind::HEADERS, END_HEADERS, 90))?;
        let mut left = body;
        while left > 16_384 {
            self.is_sent(&frame(kind::DATA, 0, 16_384))?;
            left -= 16_384;
        }
        self.is_sent(&frame(kind::DATA, END_STREAM, left))
    }

    fn passes_ms(&mut self, ms: u64) {
        self.now_ms += ms;
    }
}
