//! Bodies that need no memory of their own: bytes at hand, or a pattern whose every byte follows from its offset, so that an
//! object of gigabytes can be served, and any part of it checked, without being kept anywhere.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// The most bytes that are made at once.
pub const CHUNK: u64 = 64 * 1024;

/// What a body consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Bytes),
    /// The pattern of `seed`, this many bytes of it.
    Pattern {
        /// Two seeds give two different objects.
        seed: u64,
        /// How long the object is.
        length: u64,
    },
}

impl Content {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Pattern { length, .. } => *length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a range, which must lie inside.
    pub fn slice(&self, range: Range<u64>) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.slice(range.start as usize..range.end as usize),
            Self::Pattern { seed, .. } => pattern(*seed, range),
        }
    }

    /// The range in pieces of at most [`CHUNK`].
    pub fn chunks(&self, range: Range<u64>) -> impl Iterator<Item = Bytes> + Send + Sync + use<> {
        let content = self.clone();
        let mut at = range.start;
        std::iter::from_fn(move || {
            (at < range.end).then(|| {
                let end = (at + CHUNK).min(range.end);
                let piece = content.slice(at..end);
                at = end;
                piece
            })
        })
    }

    /// A strong entity tag that differs when the bytes do (the MD5 of small bodies, as S3 has it).
    pub fn etag(&self) -> String {
        use md5::{Digest, Md5};
        match self {
            Self::Bytes(bytes) => crate::hex(&Md5::digest(bytes)),
            // As of an upload in parts: not an MD5 of anything one could check.
            Self::Pattern { seed, length } => {
                format!("{}-2", crate::hex(&Md5::digest(format!("{seed} {length}").as_bytes())))
            }
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(Bytes::copy_from_slice(bytes))
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// A body of so many bytes that follow from the seed.
pub fn generated(seed: u64, length: u64) -> Content {
    Content::Pattern { seed, length }
}

/// The bytes of the pattern in a range of offsets: eight at a time, mixed from seed and offset (splitmix64), so that no two
/// places look alike and a byte that came from the wrong offset shows.
pub fn pattern(seed: u64, range: Range<u64>) -> Bytes {
    let mut out = BytesMut::with_capacity((range.end.saturating_sub(range.start) + 16) as usize);
    let mut word = range.start / 8;
    let skip = (range.start % 8) as usize;
    let length = range.end.saturating_sub(range.start) as usize;
    while out.len() < length + skip {
        let mut mixed = (seed ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        word += 1;
    }
    out.freeze().slice(skip..skip + length)
}

/// An uncompressed picture of the given size (BMP, 24 bits), for sites that need images of several megabytes.
pub fn picture(width: u32, height: u32, seed: u8) -> Bytes {
    let row = (width * 3).next_multiple_of(4);
    let size = 54 + row * height;
    let mut out = BytesMut::with_capacity(size as usize);
    out.extend_from_slice(b"BM");
    for field in [size, 0, 54, 40, width, height, 1 | (24 << 16), 0, row * height, 2835, 2835, 0, 0] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for y in 0..height {
        for x in 0..width {
            out.extend_from_slice(&[(x ^ y) as u8, (x / 4) as u8 ^ seed, (y / 4) as u8]);
        }
        out.resize(54 + ((y + 1) * row) as usize, 0);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_pattern_is_a_part_of_the_whole() {
        let whole = pattern(7, 0..1000);
        for (start, end) in [(0, 1), (1, 2), (7, 9), (8, 16), (13, 999), (500, 500)] {
            assert_eq!(pattern(7, start..end), whole.slice(start as usize..end as usize), "{start}..{end}");
        }
        assert_ne!(pattern(8, 0..1000), whole);
    }

    #[test]
    fn chunks_make_the_whole() {
        let content = generated(3, 200_000);
        let joined: Vec<u8> = content.chunks(5..200_000).flatten().collect();
        assert_eq!(joined, pattern(3, 5..200_000));
    }

    #[test]
    fn a_picture_has_the_length_that_its_head_says() {
        let picture = picture(101, 10, 1);
        assert_eq!(u32::from_le_bytes(picture[2..6].try_into().unwrap()) as usize, picture.len());
    }
}
