//! Looks at many bytes at once: everything of a head comes by here.
//!
//! With SSE2, which every x86-64 processor has, 16 bytes are compared together; elsewhere one after the other.

/// Bytes that control bytes are searched in: a bit each.
pub(super) const BLOCK: usize = u64::BITS as usize;

/// Bytes at the front of which a name is searched: most names of fields are shorter.
pub(super) const NAME_BLOCK: usize = 16;

/// A bit for each control byte but HTAB.
#[inline]
pub(super) fn controls(block: &[u8; BLOCK]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the compiler asks for it even where the feature is always there")]
    // SAFETY: SSE2 is part of this architecture; nothing else is asked for.
    let marks = unsafe { sse2::controls(block) };
    #[cfg(not(target_arch = "x86_64"))]
    let marks = plain::controls(block);
    marks
}

/// How many letters, digits and hyphens stand at the front.
#[inline]
pub(super) fn name_bytes(block: &[u8; NAME_BLOCK]) -> usize {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the compiler asks for it even where the feature is always there")]
    // SAFETY: SSE2 is part of this architecture; nothing else is asked for.
    let bytes = unsafe { sse2::name_bytes(block) };
    #[cfg(not(target_arch = "x86_64"))]
    let bytes = plain::name_bytes(block);
    bytes
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_andnot_si128, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
        _mm_set1_epi8, _mm_sub_epi8,
    };

    use super::{BLOCK, NAME_BLOCK};

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn controls(block: &[u8; BLOCK]) -> u64 {
        let (quarters, _) = block.as_chunks();
        let mut marks = 0;
        for (place, quarter) in quarters.iter().enumerate() {
            let bytes = load(quarter);
            let delete = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
            let tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x09));
            let found = _mm_andnot_si128(tab, _mm_or_si128(at_most(bytes, 0x1f), delete));
            marks |= u64::from(_mm_movemask_epi8(found).cast_unsigned()) << (16 * place);
        }
        marks
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn name_bytes(block: &[u8; NAME_BLOCK]) -> usize {
        let bytes = load(block);
        let letters = at_most(_mm_sub_epi8(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), _mm_set1_epi8(0x61)), 25);
        let digits = at_most(_mm_sub_epi8(bytes, _mm_set1_epi8(0x30)), 9);
        let hyphens = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x2d));
        let found = _mm_or_si128(_mm_or_si128(letters, digits), hyphens);
        _mm_movemask_epi8(found).trailing_ones() as usize
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn load(bytes: &[u8; 16]) -> __m128i {
        let (words, _) = bytes.as_chunks();
        _mm_set_epi64x(i64::from_le_bytes(words[1]), i64::from_le_bytes(words[0]))
    }

    /// All bits of the bytes that are at most so large.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn at_most(bytes: __m128i, largest: i8) -> __m128i {
        _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(largest)), bytes)
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod plain {
    use super::{BLOCK, NAME_BLOCK};

    pub(super) fn controls(block: &[u8; BLOCK]) -> u64 {
        block.iter().rev().fold(0, |marks, byte| marks << 1 | u64::from(byte.is_ascii_control() && *byte != b'\t'))
    }

    pub(super) fn name_bytes(block: &[u8; NAME_BLOCK]) -> usize {
        block.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_byte_is_marked_and_no_other() {
        for byte in 0..=u8::MAX {
            for place in 0..BLOCK {
                let mut block = [b'a'; BLOCK];
                block[place] = byte;
                let control = (byte < 0x20 && byte != b'\t') || byte == 0x7f;
                assert_eq!(controls(&block), u64::from(control) << place, "{byte:#x} at {place}");
                assert_eq!(controls(&block), plain::controls(&block), "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn a_name_ends_before_the_first_byte_that_is_no_letter_digit_or_hyphen() {
        for byte in 0..=u8::MAX {
            for place in 0..NAME_BLOCK {
                let mut block = [b'a'; NAME_BLOCK];
                block[place] = byte;
                let goes_on = matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-');
                let expected = if goes_on { NAME_BLOCK } else { place };
                assert_eq!(name_bytes(&block), expected, "{byte:#x} at {place}");
                assert_eq!(name_bytes(&block), plain::name_bytes(&block), "{byte:#x} at {place}");
            }
        }
    }
}
