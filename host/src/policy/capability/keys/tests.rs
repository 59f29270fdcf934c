//! Signatures and tokens made here with fresh keys.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> String {
    pem(key.as_der().unwrap().as_ref())
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::generate(KeySize::Rsa2048).unwrap()
}

fn ec() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn sign_ec(key: &EcdsaKeyPair, data: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), data).unwrap().as_ref().to_vec()
}

#[test]
fn rsa_signatures_are_verified_from_pem() {
    let pair = rsa();
    let keys = PublicKeys::parse(&spki(pair.public_key())).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"data", &mut signature).unwrap();
    assert_eq!(keys.verify("rsa-sha256", b"data", &signature), Ok(true));
    assert_eq!(keys.verify("rsa-sha256", b"other", &signature), Ok(false));
    assert_eq!(keys.verify("rsa-sha1", b"data", &signature), Ok(false));
    assert!(keys.verify("ed25519", b"data", &signature).unwrap_err().contains("another type"));
    assert!(keys.verify("rsa-md5", b"data", &signature).unwrap_err().contains("rsa-md5"));
}

#[test]
fn ecdsa_signatures_are_verified_in_both_forms() {
    let pair = ec();
    let keys = PublicKeys::parse(&spki(pair.public_key())).unwrap();
    assert_eq!(keys.verify("ecdsa-p256-sha256", b"data", &sign_ec(&pair, b"data")), Ok(true));
    let private = pair.to_pkcs8v1().unwrap();
    let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private.as_ref()).unwrap();
    assert_eq!(keys.verify("ecdsa-p256-sha256", b"data", &sign_ec(&asn1, b"data")), Ok(true));
    assert_eq!(keys.verify("ecdsa-p256-sha256", b"data", &[0; 64]), Ok(false));
    assert_eq!(keys.verify("ecdsa-p256-sha256", b"data", &[]), Ok(false));
}

#[test]
fn ed25519_signatures_are_verified() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let keys = PublicKeys::parse(&spki(pair.public_key())).unwrap();
    assert_eq!(keys.verify("ed25519", b"data", pair.sign(b"data").as_ref()), Ok(true));
    assert_eq!(keys.verify("ed25519", b"datb", pair.sign(b"data").as_ref()), Ok(false));
}

fn token(pair: &EcdsaKeyPair, header: &serde_json::Value, claims: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", text(header), text(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign_ec(pair, signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn jwk(pair: &EcdsaKeyPair, id: &str) -> serde_json::Value {
    let point = pair.public_key().as_ref();
    let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    json!({ "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "use": "sig", "x": part(1..33), "y": part(33..65) })
}

#[test]
fn tokens_are_verified_by_key_and_time() {
    let pair = ec();
    let keys = PublicKeys::parse(&spki(pair.public_key())).unwrap();
    let seconds = NOW.as_secs();
    let header = json!({ "alg": "ES256", "typ": "JWT" });
    let verify = |claims: serde_json::Value| keys.verify_jwt(&token(&pair, &header, &claims), NOW);
    let claims = verify(json!({ "sub": "ann", "aud": "any", "exp": seconds + 1, "nbf": seconds })).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&claims).unwrap()["sub"], "ann");
    assert!(verify(json!({ "sub": "ann" })).is_ok());
    assert!(verify(json!({ "exp": seconds })).unwrap_err().contains("expired"));
    assert!(verify(json!({ "exp": "soon" })).unwrap_err().contains("exp"));
    assert!(verify(json!({ "nbf": seconds + 30 })).is_ok(), "a clock that runs ahead a little");
    assert!(verify(json!({ "nbf": seconds + 61 })).unwrap_err().contains("not valid yet"));
    let good = token(&pair, &header, &json!({ "sub": "ann" }));
    let other = ec();
    assert!(PublicKeys::parse(&spki(other.public_key())).unwrap().verify_jwt(&good, NOW).is_err());
    for bad in ["", "a.b.c", &good[..good.len() - 4], &good.replacen('.', "..", 1)] {
        assert!(keys.verify_jwt(bad, NOW).is_err(), "{bad}");
    }
}

#[test]
fn a_token_cannot_choose_its_own_algorithm() {
    let pair = ec();
    let public = spki(pair.public_key());
    let keys = PublicKeys::parse(&public).unwrap();
    let text = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    // The public key as the secret of an HMAC.
    let signed = format!("{}.{}", text(&json!({ "alg": "HS256" })), text(&json!({ "sub": "ann" })));
    let mac = jsonwebtoken::crypto::sign(
        signed.as_bytes(),
        &jsonwebtoken::EncodingKey::from_secret(public.as_bytes()),
        Algorithm::HS256,
    )
    .unwrap();
    assert!(keys.verify_jwt(&format!("{signed}.{mac}"), NOW).is_err());
    let unsigned = format!("{}.{}.", text(&json!({ "alg": "none" })), text(&json!({ "sub": "ann" })));
    assert!(keys.verify_jwt(&unsigned, NOW).is_err());
}

#[test]
fn a_key_set_is_searched_by_name() {
    let (old, new) = (ec(), ec());
    let secret = json!({ "kty": "oct", "k": "AAAA", "kid": "shared" });
    let set = json!({ "keys": [jwk(&old, "old"), secret, jwk(&new, "new")] });
    let keys = PublicKeys::parse(&set.to_string()).unwrap();
    assert_eq!(keys.keys.len(), 2);
    for (pair, id, good) in [(&old, "old", true), (&new, "new", true), (&new, "old", false), (&new, "gone", false)] {
        let token = token(pair, &json!({ "alg": "ES256", "kid": id }), &json!({ "sub": "ann" }));
        assert_eq!(keys.verify_jwt(&token, NOW).is_ok(), good, "{id}");
    }
    let unnamed = token(&new, &json!({ "alg": "ES256" }), &json!({ "sub": "ann" }));
    assert!(keys.verify_jwt(&unnamed, NOW).is_ok());
    assert_eq!(keys.verify("ecdsa-p256-sha256", b"data", &sign_ec(&new, b"data")), Ok(true));
}

#[test]
fn what_is_no_public_key_is_refused_in_words() {
    for (text, word) in [
        ("", "neither PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "private key"),
        ("{", "not JSON"),
        ("{\"keys\": []}", "no RSA, EC or Ed25519"),
        ("{\"keys\": 3}", "JWKS"),
    ] {
        let reason = PublicKeys::parse(text).unwrap_err();
        assert!(reason.contains(word), "{reason}");
    }
}
