//! Signed URLs as their makers sign them: poormanscdn's two schemes, and our own.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::hex;

/// What a poormanscdn signature is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Poormanscdn<'a> {
    /// Request authority with its port: signed by the last version (G4), left out by the one before (G2).
    pub authority: Option<&'a str>,
    /// Method.
    pub method: &'a str,
    /// Decoded path; slashes and spaces at its ends do not count.
    pub path: &'a str,
    /// `modified`, as text.
    pub modified: &'a str,
    /// `expires`, as text; empty (G2) or `0` for never.
    pub expires: &'a str,
    /// Client address, or empty.
    pub host: &'a str,
    /// Referer's host, or empty.
    pub domain: &'a str,
}

/// The `sig` parameter: hex SHA-1 of the secret and the hex SHA-1 of the string to sign.
pub fn poormanscdn(secret: &str, what: Poormanscdn<'_>) -> String {
    let Poormanscdn { authority, method, path, modified, expires, host, domain } = what;
    let path = path.trim_matches(['/', ' ']);
    let mut text = format!("{method}&{path}&{modified}&{expires}&{host}&{domain}");
    if let Some(authority) = authority {
        text = format!("{authority}&{text}");
    }
    let inner = hex(&Sha1::digest(text));
    hex(&Sha1::digest(format!("{secret}{inner}")))
}

/// The whole query of a poormanscdn URL, in the order of its Python client.
pub fn poormanscdn_query(secret: &str, what: Poormanscdn<'_>) -> String {
    let Poormanscdn { modified, expires, host, domain, .. } = what;
    format!("host={host}&domain={domain}&modified={modified}&expires={expires}&sig={}", poormanscdn(secret, what))
}

/// What a signature of our own scheme is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own<'a> {
    /// Method; GET for HEAD as well.
    pub method: &'a str,
    /// Host, lower case, without port.
    pub host: &'a str,
    /// Decoded path.
    pub path: &'a str,
    /// The other parameters as they stand.
    pub rest: &'a str,
    /// `expires`, or empty.
    pub expires: &'a str,
    /// `ip`, or empty.
    pub ip: &'a str,
    /// `ref`, or empty.
    pub referer: &'a str,
}

/// The `sig` parameter of our own scheme: base64url of the HMAC over eight lines.
pub fn own(secret: &str, what: Own<'_>) -> String {
    use base64::Engine as _;
    let Own { method, host, path, rest, expires, ip, referer } = what;
    let text = ["proxyhost-1", method, host, path, rest, expires, ip, referer].join("\n");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hmac_sha256(secret.as_bytes(), text.as_bytes()))
}

/// The whole target of a link of our own scheme, for a path that needs no encoding.
pub fn own_link(secret: &str, what: Own<'_>) -> String {
    let mut query = Vec::new();
    for (name, value) in [("", what.rest), ("expires=", what.expires), ("ip=", what.ip), ("ref=", what.referer)] {
        if !value.is_empty() {
            query.push(format!("{name}{value}"));
        }
    }
    query.push(format!("sig={}", own(secret, what)));
    format!("{}?{}", what.path, query.join("&"))
}

/// Seconds since 1970, so many from now (or before, if negative).
pub fn epoch_in(seconds: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|now| now.as_secs());
    now.unwrap_or_default().saturating_add_signed(seconds).to_string()
}

/// HMAC-SHA256, as it stands.
pub fn hmac_sha256(secret: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// The fields that sign a bodiless request to S3 (Signature Version 4, payload unsigned): what the S3 server is checked with,
/// independently of the SDK that the proxy uses.
pub fn sigv4(method: &str, authority: &str, path: &str, access_key: &str, secret_key: &str) -> Vec<(String, String)> {
    let now = time::OffsetDateTime::now_utc();
    let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    let stamp = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
    let payload = "UNSIGNED-PAYLOAD";
    let canonical = format!(
        "{method}\n{path}\n\nhost:{authority}\nx-amz-content-sha256:{payload}\nx-amz-date:{stamp}\n\n\
         host;x-amz-content-sha256;x-amz-date\n{payload}"
    );
    let scope = format!("{day}/{}/s3/aws4_request", crate::s3::REGION);
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key = [day.as_str(), crate::s3::REGION, "s3", "aws4_request"]
        .iter()
        .fold(format!("AWS4{secret_key}").into_bytes(), |key, part| hmac_sha256(&key, part.as_bytes()));
    let signature = hex(&hmac_sha256(&key, text.as_bytes()));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
         Signature={signature}"
    );
    vec![
        ("x-amz-content-sha256".to_owned(), payload.to_owned()),
        ("x-amz-date".to_owned(), stamp),
        ("authorization".to_owned(), authorization),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_original_clients() {
        let first = Poormanscdn {
            method: "GET",
            path: "somepath",
            modified: "1424",
            expires: "3424",
            host: "someuser",
            domain: "somedomain",
            authority: None,
        };
        assert_eq!(poormanscdn("dummy", first), "c2fc8335eac0d7d602d92780a930340cadc52c50");
        let last = Poormanscdn { authority: Some("dummyurl.com"), ..first };
        assert_eq!(poormanscdn("dummy", last), "2150d484ece7125f5f849c8fadcf0620f8a131a1");
        let purge_all = Poormanscdn { method: "DELETE", path: "/", modified: "0", ..Poormanscdn::default() };
        assert_eq!(poormanscdn("mysecretkey", purge_all), "aa4ff96620c81d920c78dee7979d764731f308b9");
        let file = Poormanscdn { method: "GET", path: "/some/file.ext", modified: "0", ..Poormanscdn::default() };
        assert_eq!(poormanscdn("mysecretkey", file), "270f36d2938fe0c651520c2f5837b1a1f5384e80");
    }
}
