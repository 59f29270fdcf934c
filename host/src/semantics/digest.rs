//! Digests of bodies (RFC 9530): what origins say of theirs, and what clients wish to be told.
//!
//! `Repr-Digest` is of the representation, whole, with its content coding; `Content-Digest` is of what one message brings: of a 206
//! that is the part. Of the algorithms in the registry SHA-256 and SHA-512 are known here; the others are deprecated there, since they
//! protect from nobody who means harm (section 5). A field that is no dictionary of byte sequences says nothing.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// Of the representation (section 3).
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// Of the content of the message (section 2).
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// A client wishes for the first (section 4).
pub const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
/// A client wishes for the second.
pub const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");

/// The longest value that is read: there are digests of 64 bytes, and few of them.
const MAX_VALUE_BYTES: usize = 4096;

/// A hash algorithm of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `sha-256`
    Sha256,
    /// `sha-512`
    Sha512,
}

impl Algorithm {
    /// All, the one that costs less first: it is what is checked and made where there is a choice.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
        }
    }

    fn known(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// Begins to make a digest.
    pub fn hasher(self) -> Hasher {
        Hasher { algorithm: self, context: digest::Context::new(self.known()) }
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: digest::Context,
}

impl Hasher {
    /// Takes more of the body.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all it took.
    pub fn finish(self) -> Digest {
        Digest { algorithm: self.algorithm, bytes: self.context.finish().as_ref().into() }
    }
}

/// A digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

impl Digest {
    /// Of these bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = algorithm.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// From Base64, as S3 writes it. None if it is not as long as such a digest is: a checksum of checksums has more behind it.
    pub fn from_base64(algorithm: Algorithm, text: &[u8]) -> Option<Self> {
        STANDARD.decode(text).ok().and_then(|bytes| Self::from_bytes(algorithm, bytes))
    }

    fn from_bytes(algorithm: Algorithm, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == algorithm.known().output_len()).then(|| Self { algorithm, bytes: bytes.into() })
    }

    /// How it was made.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The value of a field that has this one.
    pub fn to_value(&self) -> HeaderValue {
        let text = format!("{}=:{}:", self.algorithm.name(), STANDARD.encode(&self.bytes));
        HeaderValue::from_str(&text).expect("Base64 and a name are ASCII")
    }
}

/// All that is told of a representation that is the whole content of its message, each once. One of them may be wrong alone.
pub fn told(headers: &HeaderMap) -> Vec<Digest> {
    let mut told: Vec<Digest> = Vec::new();
    for digest in [REPR_DIGEST, CONTENT_DIGEST].iter().flat_map(|name| all(headers, name)) {
        if !told.contains(&digest) {
            told.push(digest);
        }
    }
    told
}

/// The digest of a field that costs least to check.
pub fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Digest> {
    all(headers, name).into_iter().next()
}

fn all(headers: &HeaderMap, name: &HeaderName) -> Vec<Digest> {
    let Some(members) = dictionary(headers, name) else { return Vec::new() };
    let of = |algorithm| match item(&members, algorithm)? {
        BareItem::ByteSequence(bytes) => Digest::from_bytes(algorithm, bytes.clone()),
        _ => None,
    };
    Algorithm::ALL.into_iter().filter_map(of).collect()
}

/// What a client wishes for by a `Want-` field: what it likes best. 10 is most, 1 least, 0 not at all (section 4).
pub fn wanted(headers: &HeaderMap, name: &HeaderName) -> Option<Algorithm> {
    let members = dictionary(headers, name)?;
    let liking = |algorithm: Algorithm| match item(&members, algorithm)? {
        BareItem::Integer(liking) => Some(i64::from(*liking)).filter(|liking| (1..=10).contains(liking)),
        _ => None,
    };
    let liked = Algorithm::ALL.into_iter().filter_map(|algorithm| Some((liking(algorithm)?, algorithm)));
    // Of two that are liked the same, the first.
    liked.rev().max_by_key(|(liking, _)| *liking).map(|(_, algorithm)| algorithm)
}

fn item(members: &Dictionary, algorithm: Algorithm) -> Option<&BareItem> {
    match members.get(algorithm.name())? {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

/// All lines of a field as one dictionary (RFC 9651 section 4.2).
fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<Dictionary> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() || lines.iter().map(|line| line.len() + 1).sum::<usize>() > MAX_VALUE_BYTES {
        return None;
    }
    Parser::new(&lines.join(&b","[..])).parse::<Dictionary>().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9530 appendix A: `{"hello": "world"}` and a line feed.
    const HELLO: &[u8] = b"{\"hello\": \"world\"}\n";
    const HELLO_256: &str = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";

    fn field(name: HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::from_str(line).expect("ASCII"))).collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(Digest::of(Algorithm::Sha256, HELLO).to_value(), HELLO_256);
        let empty = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_value(), empty);
    }

    #[test]
    fn what_is_no_digest_of_its_algorithm_says_nothing() {
        let hello = Digest::of(Algorithm::Sha256, HELLO);
        let large = Digest::of(Algorithm::Sha512, HELLO);
        let written = large.to_value();
        let both = format!("{}, unknown=:AAAA:, {HELLO_256}", written.to_str().expect("ASCII"));
        assert_eq!(read(&field(REPR_DIGEST, &[&both]), &REPR_DIGEST), Some(hello.clone()), "the cheaper one");
        assert_eq!(read(&HeaderMap::from_iter([(REPR_DIGEST, written)]), &REPR_DIGEST), Some(large));
        let lines = ["md5=:AAAA:", HELLO_256];
        assert_eq!(read(&field(CONTENT_DIGEST, &lines), &CONTENT_DIGEST), Some(hello.clone()));
        assert_eq!(told(&field(CONTENT_DIGEST, &lines)), std::slice::from_ref(&hello));
        let mut fields = field(REPR_DIGEST, &[&both]);
        fields.extend(field(CONTENT_DIGEST, &lines));
        assert_eq!(told(&fields), [hello, Digest::of(Algorithm::Sha512, HELLO)]);
        for wrong in [
            "",
            "sha-256",
            "sha-256=:AAAA:",
            "sha-256=1",
            "sha-256=\"RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=\"",
            "sha-256=(:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:)",
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:, &",
            "SHA-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
        ] {
            assert_eq!(read(&field(REPR_DIGEST, &[wrong]), &REPR_DIGEST), None, "{wrong}");
        }
    }

    #[test]
    fn a_checksum_of_checksums_is_no_digest() {
        let whole = b"RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=";
        assert!(Digest::from_base64(Algorithm::Sha256, whole).is_some());
        for other in [&[whole.as_slice(), b"-3"].concat(), &b"AAAAAA=="[..], b"", b"?"] {
            assert_eq!(Digest::from_base64(Algorithm::Sha256, other), None);
        }
    }

    #[test]
    fn what_a_client_likes_best_is_made() {
        for (wish, made) in [
            ("sha-256=1", Some(Algorithm::Sha256)),
            ("sha-512=3, sha-256=10, unixsum=0", Some(Algorithm::Sha256)),
            ("sha-256=3, sha-512=10", Some(Algorithm::Sha512)),
            ("sha-512=5, sha-256=5", Some(Algorithm::Sha256)),
            ("sha-256=0, sha-512=1", Some(Algorithm::Sha512)),
            ("sha-256=0", None),
            ("sha-256=11", None),
            ("sha-256=-1", None),
            ("sha-256=1.5", None),
            ("sha-256", None),
            ("md5=10", None),
            ("sha-256=1,", None),
        ] {
            assert_eq!(wanted(&field(WANT_REPR_DIGEST, &[wish]), &WANT_REPR_DIGEST), made, "{wish}");
        }
        assert_eq!(wanted(&HeaderMap::new(), &WANT_REPR_DIGEST), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[sha0-9=:,;?() -]{0,60}") {
            for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&text)].into_iter().flatten() {
                let headers = HeaderMap::from_iter([(REPR_DIGEST, value)]);
                let _ = (read(&headers, &REPR_DIGEST), wanted(&headers, &REPR_DIGEST));
            }
        }

        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200), wide: bool) {
            let digest = Digest::of(if wide { Algorithm::Sha512 } else { Algorithm::Sha256 }, &bytes);
            let headers = HeaderMap::from_iter([(REPR_DIGEST, digest.to_value())]);
            prop_assert_eq!(read(&headers, &REPR_DIGEST), Some(digest));
        }
    }
}
