//! Public keys named in hosts.json: one in PEM, or a set in JWKS form (RFC 7517). They verify signatures and JSON Web Tokens
//! (RFC 7519); the algorithm must fit the key's own type, and no symmetric key is taken, so that a public key can never serve
//! as the secret of an HMAC token.

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation};

use crate::clock::Timestamp;
use crate::policy::settings::PublicKeyFile;

/// Clocks of issuers may run ahead by this much (seconds); it is never granted to expiry.
const NOT_BEFORE_LEEWAY: f64 = 60.0;
/// Longest token that is looked at: more does not fit into a request's head.
const TOKEN_BYTES_MAX: usize = 64 << 10;

impl PublicKeyFile {
    /// Whether the text is a PEM or JWKS with a key that can be used.
    pub fn check(&self) -> Result<(), String> {
        PublicKeys::parse(&self.text).map(|_| ())
    }
}

/// One key, or a set of them.
#[derive(Debug)]
pub(crate) struct PublicKeys {
    keys: Vec<OneKey>,
}

struct OneKey {
    id: Option<String>,
    /// JWKS may bind a key to one algorithm.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for OneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneKey").field("id", &self.id).field("family", &self.key.family()).finish_non_exhaustive()
    }
}

impl PublicKeys {
    /// Reads PEM or JWKS.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('{') { Self::parse_set(text) } else { Self::parse_pem(text) }
    }

    fn parse_pem(text: &str) -> Result<Self, String> {
        if text.contains("PRIVATE KEY") {
            return Err("it is a private key: give the public one".to_owned());
        }
        let bytes = text.as_bytes();
        let key = DecodingKey::from_rsa_pem(bytes)
            .or_else(|_| DecodingKey::from_ec_pem(bytes))
            .or_else(|_| DecodingKey::from_ed_pem(bytes))
            .map_err(|_| "it is neither PEM with an RSA, EC or Ed25519 public key nor JWKS".to_owned())?;
        Ok(Self { keys: vec![OneKey { id: None, algorithm: None, key }] })
    }

    fn parse_set(text: &str) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let set: JwkSet = if value.get("keys").is_some() {
            serde_json::from_value(value).map_err(|error| format!("it is not JWKS: {error}"))?
        } else {
            let one: Jwk = serde_json::from_value(value).map_err(|error| format!("it is not a JWK: {error}"))?;
            JwkSet { keys: vec![one] }
        };
        let keys: Vec<OneKey> = set.keys.iter().filter_map(one_of_set).collect();
        if keys.is_empty() {
            return Err("the key set has no RSA, EC or Ed25519 public key".to_owned());
        }
        Ok(Self { keys })
    }

    /// Whether any key of the set made this signature. `Err` for an algorithm that no key of the set fits.
    pub(crate) fn verify(&self, algorithm: &str, data: &[u8], signature: &[u8]) -> Result<bool, String> {
        let algorithm = SignatureAlgorithm::parse(algorithm)?;
        let mut fits = false;
        for key in &self.keys {
            if let Some(good) = algorithm.verify(&key.key, data, signature) {
                fits = true;
                if good {
                    return Ok(true);
                }
            }
        }
        if fits { Ok(false) } else { Err("the key is of another type than the algorithm".to_owned()) }
    }

    /// Checks signature, `exp` and `nbf` (where there are), and gives the claims as JSON.
    pub(crate) fn verify_jwt(&self, token: &str, now: Timestamp) -> Result<String, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(format!("the token is longer than {TOKEN_BYTES_MAX} bytes"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| format!("not a token: {error}"))?;
        let mut reason = "no key fits the token".to_owned();
        for key in self.keys.iter().filter(|key| key.fits(header.alg, header.kid.as_deref())) {
            let mut validation = Validation::new(header.alg);
            // Time is the request's, checked below; who a token is for is the policy's to say, from the claims.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<serde_json::Map<String, serde_json::Value>>(token, &key.key, &validation) {
                Ok(token) => {
                    check_times(&token.claims, now)?;
                    return serde_json::to_string(&token.claims).map_err(|error| error.to_string());
                }
                Err(error) => reason = format!("the token is refused: {error}"),
            }
        }
        Err(reason)
    }
}

impl OneKey {
    fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let named = match (&self.id, id) {
            (Some(own), Some(asked)) => own == asked,
            _ => true,
        };
        named && self.algorithm.is_none_or(|own| own == algorithm) && algorithm_fits(&self.key, algorithm)
    }
}

/// Whether an algorithm can be of this very key: never by the token's word alone.
fn algorithm_fits(key: &DecodingKey, algorithm: Algorithm) -> bool {
    use Algorithm as A;
    match key.family() {
        AlgorithmFamily::Rsa => {
            matches!(algorithm, A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512)
        }
        AlgorithmFamily::Ec => match ec_point(key).map(<[u8]>::len) {
            Some(65) => algorithm == A::ES256,
            Some(97) => algorithm == A::ES384,
            _ => false,
        },
        AlgorithmFamily::Ed => algorithm == A::EdDSA,
        AlgorithmFamily::Hmac => false,
    }
}

fn ec_point(key: &DecodingKey) -> Option<&[u8]> {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => Some(bytes),
        DecodingKeyKind::RsaModulusExponent { .. } => None,
    }
}

fn one_of_set(jwk: &Jwk) -> Option<OneKey> {
    if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_)) {
        return None;
    }
    // A key for encryption verifies nothing (RFC 7517 section 4.2).
    if matches!(jwk.common.public_key_use, Some(jsonwebtoken::jwk::PublicKeyUse::Encryption)) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let algorithm = match jwk.common.key_algorithm {
        Some(algorithm) => Some(algorithm.to_string().parse().ok()?),
        None => None,
    };
    Some(OneKey { id: jwk.common.key_id.clone(), algorithm, key })
}

/// `exp` has no leeway, `nbf` a small one; a claim that is there and no number is a refusal (RFC 7519 section 4.1).
fn check_times(claims: &serde_json::Map<String, serde_json::Value>, now: Timestamp) -> Result<(), String> {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit into 53 bits for 285,000 years")]
    let now = now.as_millis() as f64 / 1000.0;
    let moment = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("the claim {name} is not a number")),
    };
    if moment("exp")?.is_some_and(|expires| now >= expires) {
        return Err("the token has expired".to_owned());
    }
    if moment("nbf")?.is_some_and(|begins| now + NOT_BEFORE_LEEWAY < begins) {
        return Err("the token is not valid yet".to_owned());
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum SignatureAlgorithm {
    RsaSha1,
    RsaSha256,
    EcdsaP256Sha256,
    Ed25519,
}

impl SignatureAlgorithm {
    fn parse(name: &str) -> Result<Self, String> {
        match name {
            "rsa-sha1" => Ok(Self::RsaSha1),
            "rsa-sha256" => Ok(Self::RsaSha256),
            "ecdsa-p256-sha256" => Ok(Self::EcdsaP256Sha256),
            "ed25519" => Ok(Self::Ed25519),
            _ => Err(format!(
                "there is no signature algorithm {name:?}: rsa-sha1, rsa-sha256, ecdsa-p256-sha256 and ed25519 are known"
            )),
        }
    }

    /// `None` when the key is of another type.
    fn verify(self, key: &DecodingKey, data: &[u8], signed: &[u8]) -> Option<bool> {
        let family = match self {
            Self::RsaSha1 | Self::RsaSha256 => AlgorithmFamily::Rsa,
            Self::EcdsaP256Sha256 => AlgorithmFamily::Ec,
            Self::Ed25519 => AlgorithmFamily::Ed,
        };
        if key.family() != family {
            return None;
        }
        let good = match (self, key.kind()) {
            (Self::RsaSha1 | Self::RsaSha256, DecodingKeyKind::SecretOrDer(der)) => {
                UnparsedPublicKey::new(self.rsa(), der).verify(data, signed).is_ok()
            }
            (Self::RsaSha1 | Self::RsaSha256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(self.rsa(), data, signed).is_ok()
            }
            (Self::EcdsaP256Sha256, DecodingKeyKind::SecretOrDer(point)) => {
                if point.len() != 65 {
                    return None;
                }
                // DER as X.509 has it, or the two numbers side by side as JWS has it (RFC 7518 section 3.4). A DER
                // signature of 64 bytes is possible, so both are tried then.
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point).verify(data, signed).is_ok()
                    || signed.len() == 64
                        && UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                            .verify(data, signed)
                            .is_ok()
            }
            (Self::Ed25519, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&signature::ED25519, point).verify(data, signed).is_ok()
            }
            (_, DecodingKeyKind::RsaModulusExponent { .. }) => return None,
        };
        Some(good)
    }

    /// SHA-1 is what CloudFront signs with by default; keys under 2048 bits are not taken.
    fn rsa(self) -> &'static signature::RsaParameters {
        match self {
            Self::RsaSha1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            _ => &signature::RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

#[cfg(test)]
mod tests;
