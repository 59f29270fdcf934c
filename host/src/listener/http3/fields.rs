//! A field section as it is encoded (RFC 9204 section 4.5), looked at for what h3 does not tell any more once it has
//! decoded it: pseudo-header fields that come twice, or after others, or in trailers, or that only responses have (RFC
//! 9114 section 4.3).
//!
//! Of two `:path` fields h3 takes the last; somebody who stood before us may have taken the first. No text is decoded
//! here: names that matter are in the static table, or are compared as they are encoded. References to the dynamic
//! table, which has no room here, are errors.

use h3::error::Code;

use super::framing::Fault;

/// What a field section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// A request's head.
    Head,
    /// Its trailers.
    Trailers,
}

/// The pseudo-header fields of requests: as text, and in the Huffman code (RFC 7541 appendix B).
const OF_REQUESTS: [(&[u8], &[u8]); 4] = [
    (b":authority", &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f]),
    (b":path", &[0xb9, 0x58, 0xd3, 0x3f]),
    (b":method", &[0xb9, 0x49, 0x53, 0x39, 0xe4]),
    (b":scheme", &[0xb8, 0x82, 0x4e, 0x5a, 0x4b]),
];

/// The code of a colon is 1011100: what it begins with.
const COLON: u8 = 0b1011_1000;
const COLON_MASK: u8 = 0b1111_1110;

/// A field's name, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// A pseudo-header field of requests: its place in the table.
    OfRequests(usize),
    /// Another one.
    Pseudo,
    Regular,
}

/// Checks a field section.
pub(super) fn check(block: &[u8], section: Section) -> Result<(), Fault> {
    let mut reader = Reader(block);
    // Required Insert Count and Base: h3 refuses what is not 0.
    reader.integer(8)?;
    reader.integer(7)?;
    let mut seen = [false; OF_REQUESTS.len()];
    let mut regular = false;
    while let Some(first) = reader.0.first().copied() {
        match reader.field(first)? {
            Name::Regular => regular = true,
            Name::OfRequests(_) | Name::Pseudo if section == Section::Trailers => {
                return Err(Fault::Malformed("a pseudo-header field in trailers"));
            }
            Name::Pseudo => return Err(Fault::Malformed("a pseudo-header field that requests don't have")),
            Name::OfRequests(_) if regular => return Err(Fault::Malformed("a pseudo-header field after others")),
            Name::OfRequests(at) if seen[at] => return Err(Fault::Malformed("a pseudo-header field that comes twice")),
            Name::OfRequests(at) => seen[at] = true,
        }
    }
    Ok(())
}

const UNREADABLE: Fault = Fault::Connection(Code::QPACK_DECOMPRESSION_FAILED, "a field section that can't be decoded");

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// One field line (RFC 9204 sections 4.5.2, 4.5.4 and 4.5.6).
    fn field(&mut self, first: u8) -> Result<Name, Fault> {
        const STATIC_INDEXED: u8 = 0b1100_0000;
        const STATIC_NAME: u8 = 0b0101_0000;
        const LITERAL: u8 = 0b0010_0000;
        if first & STATIC_INDEXED == STATIC_INDEXED {
            return Ok(Name::of_static(self.integer(6)?));
        }
        if first & 0b1101_0000 == STATIC_NAME {
            let name = Name::of_static(self.integer(4)?);
            self.string(7)?;
            return Ok(name);
        }
        if first & 0b1110_0000 == LITERAL {
            let (huffman, name) = self.string(3)?;
            self.string(7)?;
            return Ok(Name::of_literal(huffman, name));
        }
        Err(UNREADABLE)
    }

    /// An integer in the last bits of a byte and what follows (RFC 7541 section 5.1).
    fn integer(&mut self, bits: u32) -> Result<u64, Fault> {
        let (first, mut rest) = self.0.split_first().ok_or(UNREADABLE)?;
        let mask = ((1_u16 << bits) - 1) as u8;
        let mut value = u64::from(first & mask);
        if first & mask == mask {
            let mut shift = 0;
            loop {
                let (byte, after) = rest.split_first().ok_or(UNREADABLE)?;
                rest = after;
                if shift > 56 {
                    return Err(UNREADABLE);
                }
                value += u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        self.0 = rest;
        Ok(value)
    }

    /// A string whose length is in the last bits of a byte, and whether it is in the Huffman code, which the bit before
    /// says.
    fn string(&mut self, bits: u32) -> Result<(bool, &'a [u8]), Fault> {
        let huffman = self.0.first().is_some_and(|first| first >> bits & 1 == 1);
        let length = usize::try_from(self.integer(bits)?).map_err(|_| UNREADABLE)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(UNREADABLE)?;
        self.0 = rest;
        Ok((huffman, text))
    }
}

impl Name {
    /// By the place in the static table (RFC 9204 appendix A).
    fn of_static(index: u64) -> Self {
        match index {
            0 => Self::OfRequests(0),
            1 => Self::OfRequests(1),
            15..=21 => Self::OfRequests(2),
            22 | 23 => Self::OfRequests(3),
            24..=28 | 63..=71 => Self::Pseudo,
            _ => Self::Regular,
        }
    }

    fn of_literal(huffman: bool, name: &[u8]) -> Self {
        let pseudo =
            name.first().is_some_and(|first| if huffman { first & COLON_MASK == COLON } else { *first == b':' });
        let known = |(text, code): &(&[u8], &[u8])| name == if huffman { *code } else { *text };
        match OF_REQUESTS.iter().position(known) {
            Some(at) => Self::OfRequests(at),
            None if pseudo => Self::Pseudo,
            None => Self::Regular,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: &[u8] = &[0xd1];
    const SCHEME: &[u8] = &[0xd7];
    const PATH: &[u8] = &[0xc1];
    /// `:path /` with the name said, as text and in the Huffman code.
    const PATH_AS_TEXT: &[u8] = b"\x25:path\x01/";
    const PATH_IN_CODE: &[u8] = &[0x2c, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/'];
    const FIELD: &[u8] = b"\x23abc\x03def";

    fn checked(section: Section, lines: &[&[u8]]) -> Result<(), Fault> {
        check(&[&[0, 0], &lines.concat()[..]].concat(), section)
    }

    #[test]
    fn pseudo_header_fields_come_once_and_first() {
        for path in [PATH, PATH_AS_TEXT, PATH_IN_CODE] {
            assert_eq!(checked(Section::Head, &[METHOD, SCHEME, path, FIELD]), Ok(()));
            for twice in [PATH, PATH_AS_TEXT, PATH_IN_CODE] {
                assert!(matches!(checked(Section::Head, &[path, METHOD, twice]), Err(Fault::Malformed(_))));
            }
            assert!(matches!(checked(Section::Head, &[METHOD, FIELD, path]), Err(Fault::Malformed(_))));
            assert!(matches!(checked(Section::Trailers, &[path]), Err(Fault::Malformed(_))));
        }
        assert_eq!(checked(Section::Trailers, &[FIELD]), Ok(()));
    }

    #[test]
    fn others_are_refused() {
        for line in [&[0xd9][..], b"\x27\x02:protocol\x01a", b"\x22:x\x01a", &[0x29, 0xb9, 0]] {
            assert!(matches!(checked(Section::Head, &[METHOD, line]), Err(Fault::Malformed(_))), "{line:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_no_panic() {
        for line in [
            &[0x80][..],
            &[0x10],
            &[0x40, 0],
            &[0x23, b'a'],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(checked(Section::Head, &[line]), Err(UNREADABLE), "{line:?}");
        }
        assert_eq!(check(&[], Section::Head), Err(UNREADABLE));
        let mut state = 1_u32;
        let mut noise = std::iter::from_fn(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((state >> 24) as u8)
        });
        for length in 0..2_000 {
            let block: Vec<u8> = noise.by_ref().take(length % 40).collect();
            let _ = check(&block, Section::Head);
        }
    }
}
