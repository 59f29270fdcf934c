//! Content codings, and which of them a client takes (RFC 9110 sections 8.4.1 and 12.5.3).
//!
//! A request without Accept-Encoding leaves any coding open by the letter; it is read as one that takes none, since what sends no
//! such field seldom decodes. A field that is malformed is read so too. That `identity` is not acceptable is not held against an
//! answer of which nothing else is there: the section leaves that to the server.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::{list, preferences};

/// A coding that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878, with windows as RFC 9659 bounds them.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them; where a client likes several alike, the one that makes less of most texts is first.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// By its name, in any case, or its alias (section 8.4.1.3).
    pub fn of(name: &[u8]) -> Option<Self> {
        let named = Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()));
        named.or_else(|| name.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip))
    }
}

/// How a representation is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coded {
    /// Not at all.
    No,
    /// Once, by a coding that is spoken here.
    Once(Coding),
    /// Otherwise: several times, or by what is not known here.
    Otherwise,
}

impl Coded {
    /// By the Content-Encoding of a response.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut codings =
            list::of(headers, &CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        match (codings.next(), codings.next()) {
            (None, _) => Self::No,
            (Some(one), None) => Coding::of(one).map_or(Self::Otherwise, Self::Once),
            _ => Self::Otherwise,
        }
    }
}

/// What a client takes, by quality in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    qualities: [u16; Coding::ALL.len()],
    /// Of what is not coded, where that is said.
    identity: Option<u16>,
}

impl Accepted {
    /// Of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(members) = preferences::codings(headers, &ACCEPT_ENCODING) else { return Self::default() };
        let quality = |wanted: fn(&[u8]) -> bool| {
            members.iter().filter(|(_, name)| wanted(name)).map(|(quality, _)| *quality).max()
        };
        let star = quality(|name| name == b"*");
        let named = [
            quality(|name| Coding::of(name) == Some(Coding::Brotli)),
            quality(|name| Coding::of(name) == Some(Coding::Zstd)),
            quality(|name| Coding::of(name) == Some(Coding::Gzip)),
        ];
        let identity = quality(|name| name.eq_ignore_ascii_case(b"identity")).or(star.filter(|star| *star == 0));
        Self { qualities: named.map(|named| named.or(star).unwrap_or(0)), identity }
    }

    fn quality(&self, coding: Coding) -> u16 {
        self.qualities[coding as usize]
    }

    /// Whether a coding is acceptable.
    pub fn takes(&self, coding: Coding) -> bool {
        self.quality(coding) > 0
    }

    /// Those of the codings on offer that are acceptable and liked no less than none at all, the best first; where the client
    /// does not say, in the order of the offer.
    pub fn best(&self, offer: &[Coding]) -> SmallVec<[Coding; 3]> {
        let least = self.identity.unwrap_or(0).max(1);
        let mut best: SmallVec<[Coding; 3]> =
            offer.iter().copied().filter(|coding| self.quality(*coding) >= least).collect();
        best.sort_by_key(|coding| std::cmp::Reverse(self.quality(*coding)));
        best
    }

    /// What the same client would say in one of eight ways: so many variants, and no more, can it make a cache keep.
    pub fn in_short(&self) -> HeaderValue {
        let takes = Coding::ALL.map(|coding| self.takes(coding));
        HeaderValue::from_static(match takes {
            [true, true, true] => "br, zstd, gzip",
            [true, true, false] => "br, zstd",
            [true, false, true] => "br, gzip",
            [false, true, true] => "zstd, gzip",
            [true, false, false] => "br",
            [false, true, false] => "zstd",
            [false, false, true] => "gzip",
            [false, false, false] => "identity",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Coding::{Brotli, Gzip, Zstd};
    use super::*;

    fn accepted(value: &str) -> Accepted {
        let value = HeaderValue::from_str(value).expect("a field value");
        Accepted::of(&HeaderMap::from_iter([(ACCEPT_ENCODING, value)]))
    }

    #[track_caller]
    fn best(value: &str, expected: &[Coding]) {
        assert_eq!(accepted(value).best(&Coding::ALL).as_slice(), expected, "{value}");
    }

    #[test]
    fn the_best_is_first() {
        best("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip]);
        best("gzip, br;q=0.9", &[Gzip, Brotli]);
        best("gzip;q=0.5, zstd;q=0.8, br;q=0.3", &[Zstd, Gzip, Brotli]);
        best("X-GZIP", &[Gzip]);
        best("x-gzip;q=0.2, gzip;q=0.1, br;q=0.15", &[Gzip, Brotli]);
        best("*", &[Brotli, Zstd, Gzip]);
        best("*;q=0.1, gzip", &[Gzip, Brotli, Zstd]);
        best("*, br;q=0", &[Zstd, Gzip]);
        assert_eq!(accepted("*").best(&[Gzip, Brotli]).as_slice(), [Gzip, Brotli]);
    }

    #[test]
    fn what_is_not_wanted_is_not_offered() {
        for none in
            ["", "identity", "deflate", "gzip;q=0", "*;q=0", "gzip;q=0.000, br;q=0", "gzip;q=2", "gzip;q=0.5;x=y"]
        {
            best(none, &[]);
        }
        assert_eq!(Accepted::of(&HeaderMap::new()), Accepted::default());
        // No coding at all is liked better.
        best("identity, gzip;q=0.5", &[]);
        best("identity;q=0.5, gzip;q=0.5, br;q=0.4", &[Gzip]);
        best("identity;q=0, gzip;q=0.001", &[Gzip]);
        best("*;q=0, gzip", &[Gzip]);
        assert!(accepted("identity, gzip;q=0.5").takes(Gzip) && !accepted("gzip;q=0").takes(Gzip));
    }

    #[test]
    fn a_chain_is_left_alone() {
        let coded = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| _ = headers.append(CONTENT_ENCODING, HeaderValue::from_static(line)));
            Coded::of(&headers)
        };
        for none in [&[][..], &[""], &["identity"]] {
            assert_eq!(coded(none), Coded::No);
        }
        assert_eq!(coded(&["GZip"]), Coded::Once(Gzip));
        assert_eq!(coded(&["x-gzip"]), Coded::Once(Gzip));
        assert_eq!(coded(&["identity, br"]), Coded::Once(Brotli));
        for other in [&["gzip, br"][..], &["gzip", "gzip"], &["deflate"], &["dcb"]] {
            assert_eq!(coded(other), Coded::Otherwise, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_said_in_short_is_taken_alike(text in "(br|zstd|gzip|x-gzip|identity|\\*|x)(;q=(0|1|0\\.[0-9]{1,3}))?(, ?(br|zstd|gzip|\\*|identity)(;q=(0|0\\.5))?){0,4}") {
            let one = accepted(&text);
            let short = Accepted::of(&HeaderMap::from_iter([(ACCEPT_ENCODING, one.in_short())]));
            for coding in Coding::ALL {
                prop_assert_eq!(one.takes(coding), short.takes(coding));
            }
            prop_assert!(one.best(&Coding::ALL).iter().all(|coding| one.takes(*coding)));
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value.clone()), (CONTENT_ENCODING, value)]);
                let _ = (Accepted::of(&headers).best(&Coding::ALL), Coded::of(&headers));
            }
        }
    }
}
