//! Digests and message authentication codes for policies. Secrets are named; their bytes stay here, and a keyed hash is kept
//! ready for each of them, so that a signed link costs one clone and two blocks. What is expected is decoded and compared in
//! constant time.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, general_purpose};
use constant_time_eq::constant_time_eq;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::policy::settings::Secret;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
/// Base64 with or without padding; URLs often lose it.
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
/// The same in the alphabet for URLs.
const URL_SAFE_LENIENT: general_purpose::GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Lower case; read in any case.
    Hex,
    /// With padding; read with or without.
    Base64,
    /// Without padding; read with or without.
    Base64Url,
}

impl Encoding {
    /// By its name in wit/policy.wit.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "hex" => Ok(Self::Hex),
            "base64" => Ok(Self::Base64),
            "base64url" => Ok(Self::Base64Url),
            _ => Err(format!("there is no encoding {name:?}: hex, base64 and base64url are known")),
        }
    }

    /// Bytes as text.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                bytes
                    .iter()
                    .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
                    .map(char::from)
                    .collect()
            }
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    /// Whether the text stands for these bytes. The comparison takes the same time wherever they differ.
    pub(crate) fn matches(self, bytes: &[u8], text: &str) -> bool {
        // No digest is longer than 32 bytes, so anything longer is wrong and needs no buffer.
        let mut buffer = [0u8; 48];
        if text.len() > 64 {
            return false;
        }
        let length = match self {
            Self::Hex => decode_hex(text, &mut buffer),
            Self::Base64 => STANDARD_LENIENT.decode_slice(text, &mut buffer).ok(),
            Self::Base64Url => URL_SAFE_LENIENT.decode_slice(text, &mut buffer).ok(),
        };
        length.and_then(|length| buffer.get(..length)).is_some_and(|given| constant_time_eq(given, bytes))
    }
}

fn decode_hex(text: &str, buffer: &mut [u8]) -> Option<usize> {
    if !text.len().is_multiple_of(2) || text.len() / 2 > buffer.len() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (place, pair) in buffer.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *place = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(text.len() / 2)
}

/// A digest of 16 to 32 bytes.
pub(crate) struct Output {
    bytes: [u8; 32],
    length: usize,
}

impl Output {
    fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; 32];
        let length = digest.len().min(32);
        bytes[..length].copy_from_slice(&digest[..length]);
        Self { bytes, length }
    }

    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The digest of pieces one after the other.
pub(crate) fn digest<'a>(algorithm: &str, pieces: impl Iterator<Item = &'a [u8]>) -> Result<Output, String> {
    fn run<'a, D: Digest>(pieces: impl Iterator<Item = &'a [u8]>) -> Output {
        let mut digest = D::new();
        for piece in pieces {
            digest.update(piece);
        }
        Output::new(&digest.finalize())
    }
    match algorithm {
        "md5" => Ok(run::<md5::Md5>(pieces)),
        "sha1" => Ok(run::<Sha1>(pieces)),
        "sha256" => Ok(run::<Sha256>(pieces)),
        _ => Err(format!("there is no digest {algorithm:?}: md5, sha1 and sha256 are known")),
    }
}

/// Secrets of one policy by name.
pub(crate) struct Secrets {
    secrets: Vec<Named>,
}

struct Named {
    name: String,
    secret: Secret,
    sha1: Hmac<Sha1>,
    sha256: Hmac<Sha256>,
}

impl Secrets {
    /// Makes keyed hashes of them.
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = (&'a String, &'a Secret)>) -> Self {
        let secrets = secrets
            .filter_map(|(name, secret)| {
                // HMAC takes keys of any length (RFC 2104 section 2), so nothing is left out here.
                let sha1 = Hmac::<Sha1>::new_from_slice(&secret.0).ok()?;
                let sha256 = Hmac::<Sha256>::new_from_slice(&secret.0).ok()?;
                Some(Named { name: name.clone(), secret: secret.clone(), sha1, sha256 })
            })
            .collect();
        Self { secrets }
    }

    fn find(&self, name: &str) -> Result<&Named, String> {
        // A policy has a handful: a search in order beats hashing the name.
        self.secrets
            .iter()
            .find(|secret| secret.name == name)
            .ok_or_else(|| format!("there is no secret {name:?} for this policy in hosts.json"))
    }

    /// The bytes of a secret.
    pub(crate) fn bytes(&self, name: &str) -> Result<&[u8], String> {
        self.find(name).map(|named| &*named.secret.0)
    }

    /// The code of `data` under a secret.
    pub(crate) fn mac(&self, algorithm: &str, secret: &str, data: &[u8]) -> Result<Output, String> {
        match algorithm {
            "hmac-sha256" => {
                let mut mac = self.find(secret)?.sha256.clone();
                mac.update(data);
                Ok(Output::new(&mac.finalize().into_bytes()))
            }
            "hmac-sha1" => {
                let mut mac = self.find(secret)?.sha1.clone();
                mac.update(data);
                Ok(Output::new(&mac.finalize().into_bytes()))
            }
            _ => Err(format!("there is no code {algorithm:?}: hmac-sha1 and hmac-sha256 are known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn hex_of(algorithm: &str, pieces: &[&str]) -> String {
        Encoding::Hex.encode(digest(algorithm, pieces.iter().map(|piece| piece.as_bytes())).unwrap().as_slice())
    }

    fn base64url_of(algorithm: &str, text: &str) -> String {
        Encoding::Base64Url.encode(digest(algorithm, std::iter::once(text.as_bytes())).unwrap().as_slice())
    }

    fn secrets(pairs: &[(&str, &[u8])]) -> Secrets {
        let map: BTreeMap<String, Secret> =
            pairs.iter().map(|(name, bytes)| ((*name).to_owned(), Secret(Arc::from(*bytes)))).collect();
        Secrets::new(map.iter())
    }

    #[test]
    fn poormanscdn_signatures_come_out() {
        for (secret, signed, expected) in [
            ("dummy", "somepath&1424&3424&someuser&somedomain", "5b15629295e3764e652d21ec40279c2c2127ca31"),
            ("dummy", "GET&somepath&1424&3424&someuser&somedomain", "c2fc8335eac0d7d602d92780a930340cadc52c50"),
            (
                "mysecretkey",
                "mycdnhost.com&GET&some/file.ext&1500000000&1893456000&&mysite.com",
                "f0614213606d80e9574284b902317fa90c5f7ba8",
            ),
            ("mysecretkey", "GET&cacheStats&0&&&", "34f04168ac2bda37d1290ec187723baa539b35eb"),
        ] {
            let inner = hex_of("sha1", &[signed]);
            assert_eq!(hex_of("sha1", &[secret, &inner]), expected);
        }
        let inner = hex_of("sha1", &["GET&somepath&1424&3424&someuser&somedomain"]);
        assert_eq!(inner, "bbc849db3c0fb6c550601a90b22284748b19a654");
    }

    #[test]
    fn secure_link_and_bunny_tokens_come_out() {
        assert_eq!(base64url_of("md5", "2147483647/s/link127.0.0.1 secret"), "_e4Nc3iduzkWRm01TBBNYw");
        assert_eq!(hex_of("md5", &["link", "secret"]), "5e814704a28d9bc1914ff19fa0c4a00a");
        assert_eq!(base64url_of("md5", "SecurityKey/300kb.jpg1598024587"), "Ao9wBEuhqk4V_zyPZgkzkA");
        assert_eq!(
            base64url_of("sha256", "SecurityKey/300kb.jpg1598024587"),
            "DlAr_yuteDmLE0l9_myLDuNMbGzKG67E5uBEAp3vnvw"
        );
        let secrets = secrets(&[("bunny", b"SecurityKey"), ("timed", b"mysecrettoken")]);
        let mac = secrets.mac("hmac-sha256", "bunny", b"/300kb.jpg1598024587").unwrap();
        assert_eq!(Encoding::Base64Url.encode(mac.as_slice()), "o10JRWlsAItyAsdKS6jJKjabHN4FrFsplDHPV1idcX4");
        let mac = secrets.mac("hmac-sha256", "timed", b"/images/cat.jpg1484063787").unwrap();
        assert_eq!(Encoding::Base64.encode(mac.as_slice()), "XsZ5NmtNBxOd4f4fBOtqVmpWRnDRNkHKVZieqDPKu3U=");
        assert!(Encoding::Base64.matches(mac.as_slice(), "XsZ5NmtNBxOd4f4fBOtqVmpWRnDRNkHKVZieqDPKu3U"));
    }

    #[test]
    fn akamai_and_rfc_2202_codes_come_out() {
        let akamai = [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99];
        let secrets = secrets(&[("akamai", &akamai), ("rfc", &[0x0b; 20])]);
        let mac = secrets.mac("hmac-sha256", "akamai", b"exp=1893456000~acl=/videos/*").unwrap();
        assert_eq!(
            Encoding::Hex.encode(mac.as_slice()),
            "701fa3ae9a366d37c196d08b7c609350f80b9b45742e50cabf476d3650fa44a2"
        );
        let mac = secrets.mac("hmac-sha1", "rfc", b"Hi There").unwrap();
        assert_eq!(Encoding::Hex.encode(mac.as_slice()), "b617318655057264e28bc0b6fb378c8ef146be00");
    }

    #[test]
    fn unknown_names_are_errors_in_words() {
        assert!(digest("sha512", std::iter::empty()).err().unwrap().contains("sha512"));
        assert!(Encoding::parse("base32").is_err());
        let secrets = secrets(&[("a", b"x")]);
        assert!(secrets.mac("hmac-md5", "a", b"").err().unwrap().contains("hmac-md5"));
        assert!(secrets.mac("hmac-sha1", "b", b"").err().unwrap().contains("\"b\""));
        assert!(secrets.bytes("b").is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_matches_and_nothing_else_does(bytes in prop::collection::vec(any::<u8>(), 16..=32), other in ".{0,70}") {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                let text = encoding.encode(&bytes);
                prop_assert!(encoding.matches(&bytes, &text));
                prop_assert!(!encoding.matches(&bytes[1..], &text));
                let _ = encoding.matches(&bytes, &other);
            }
            prop_assert!(Encoding::Hex.matches(&bytes, &Encoding::Hex.encode(&bytes).to_uppercase()));
        }
    }
}
