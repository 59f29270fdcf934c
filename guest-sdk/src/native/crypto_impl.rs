//! Real digests and codes for tests, so that test vectors mean what they say.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::crypto::Part;

type Secrets = HashMap<String, Vec<u8>>;

/// The secret of that name.
fn secret<'a>(name: &str, secrets: &'a Secrets) -> Result<&'a [u8], String> {
    secrets.get(name).map(Vec::as_slice).ok_or_else(|| format!("no secret is named {name:?}"))
}

/// Digests the parts, one behind the other.
pub fn digest(algorithm: &str, parts: &[Part], secrets: &Secrets) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => data.extend_from_slice(text.as_bytes()),
            Part::Bytes(bytes) => data.extend_from_slice(bytes),
            Part::Secret(name) => data.extend_from_slice(secret(name, secrets)?),
        }
    }
    match algorithm {
        "md5" => Ok(Md5::digest(&data).to_vec()),
        "sha1" => Ok(Sha1::digest(&data).to_vec()),
        "sha256" => Ok(Sha256::digest(&data).to_vec()),
        other => Err(format!("unknown digest algorithm {other:?}: md5, sha1 and sha256 are known")),
    }
}

/// A message authentication code.
pub fn mac(algorithm: &str, name: &str, data: &[u8], secrets: &Secrets) -> Result<Vec<u8>, String> {
    let key = secret(name, secrets)?;
    let length = |_| format!("secret {name:?} cannot be a key");
    match algorithm {
        "hmac-sha1" => {
            Ok(Hmac::<Sha1>::new_from_slice(key).map_err(length)?.chain_update(data).finalize().into_bytes().to_vec())
        }
        "hmac-sha256" => {
            Ok(Hmac::<Sha256>::new_from_slice(key).map_err(length)?.chain_update(data).finalize().into_bytes().to_vec())
        }
        other => Err(format!("unknown mac algorithm {other:?}: hmac-sha1 and hmac-sha256 are known")),
    }
}

/// Bytes as text.
pub fn encode(bytes: &[u8], encoding: &str) -> Result<String, String> {
    match encoding {
        "hex" => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        "base64" => Ok(STANDARD.encode(bytes)),
        "base64url" => Ok(URL_SAFE_NO_PAD.encode(bytes)),
        other => Err(format!("unknown encoding {other:?}: hex, base64 and base64url are known")),
    }
}

/// Whether a text stands for these bytes. Hex may be in either case and base64 with or without padding, as in the host.
pub fn matches(bytes: &[u8], encoding: &str, expected: &str) -> Result<bool, String> {
    let unpadded = expected.trim_end_matches('=');
    Ok(match encoding {
        "hex" => encode(bytes, encoding)? == expected.to_ascii_lowercase(),
        "base64" => STANDARD_NO_PAD.decode(unpadded).is_ok_and(|given| given == bytes),
        "base64url" => URL_SAFE_NO_PAD.decode(unpadded).is_ok_and(|given| given == bytes),
        _ => return encode(bytes, encoding).map(|_| false),
    })
}
