//! What is known of a TLS connection that was accepted.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::clock::Timestamp;
use crate::semantics::authority::Hostname;

/// One accepted connection.
#[derive(Clone, Debug)]
pub struct Session {
    /// The host that the client named (RFC 6066 section 3).
    pub sni: Option<Hostname>,
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite's name of the IANA registry.
    pub cipher: &'static str,
    /// `h3`, `h2` or `http/1.1`, if one was agreed on.
    pub alpn: Option<&'static str>,
    /// It goes on with the secrets of an earlier connection.
    pub resumed: bool,
    /// Whom the client's certificate names, and the CA that it was verified by.
    pub client: Option<(Identity, [u8; 32])>,
}

/// Whom a client's certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
    /// Its issuer, likewise.
    pub issuer: String,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// Its alternative names, with commas between them: `DNS:a.example,email:b@c.example,IP:192.0.2.1`. Commas and backslashes
    /// within a name have a backslash in front.
    pub alternative_names: String,
    /// SHA-256 of its DER form in hexadecimal digits.
    pub fingerprint: String,
    /// When it ends.
    pub not_after: Timestamp,
}

impl Session {
    /// Of a connection whose handshake is over. `client_ca`: the CA that the client was verified by, if it had to be.
    pub fn of(connection: &ServerConnection, client_ca: Option<[u8; 32]>) -> Self {
        let leaf = connection.peer_certificates().and_then(|chain| chain.first());
        Self {
            sni: connection.server_name().and_then(|name| Hostname::parse(name).ok()),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                _ => "unknown",
            },
            cipher: connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
            alpn: match connection.alpn_protocol() {
                Some(b"h2") => Some("h2"),
                Some(b"http/1.1") => Some("http/1.1"),
                _ => None,
            },
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client: client_ca.zip(leaf.and_then(Identity::of)).map(|(ca, identity)| (identity, ca)),
        }
    }

    /// Of a QUIC connection whose handshake is over. The settings of `Tls::quic` leave nothing open but the name.
    pub fn of_quic(server_name: Option<&str>) -> Self {
        Self {
            sni: server_name.and_then(|name| Hostname::parse(name).ok()),
            version: "1.3",
            cipher: "TLS13_AES_128_GCM_SHA256",
            alpn: Some("h3"),
            resumed: false,
            client: None,
        }
    }

    /// What policies are told by this name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let identity = || self.client.as_ref().map(|(identity, _)| identity);
        match name {
            "tls.version" => Some(self.version),
            "tls.cipher" => Some(self.cipher),
            "tls.sni" => self.sni.as_ref().map(Hostname::as_str),
            "tls.alpn" => self.alpn,
            "tls.resumed" => Some(if self.resumed { "true" } else { "false" }),
            "tls.client.subject" => Some(&identity()?.subject),
            "tls.client.issuer" => Some(&identity()?.issuer),
            "tls.client.serial" => Some(&identity()?.serial),
            "tls.client.san" => Some(&identity()?.alternative_names),
            "tls.client.fingerprint" => Some(&identity()?.fingerprint),
            _ => None,
        }
    }
}

impl Identity {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(format!("DNS:{}", one_of_several(name))),
            GeneralName::RFC822Name(name) => Some(format!("email:{}", one_of_several(name))),
            GeneralName::URI(name) => Some(format!("URI:{}", one_of_several(name))),
            GeneralName::IPAddress(bytes) => match **bytes {
                [a, b, c, d] => Some(format!("IP:{}", Ipv4Addr::new(a, b, c, d))),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|six| format!("IP:{}", Ipv6Addr::from(six))),
            },
            _ => None,
        });
        Some(Self {
            subject: distinguished_name(parsed.subject()),
            issuer: distinguished_name(parsed.issuer()),
            serial: hex(parsed.raw_serial()),
            alternative_names: names.collect::<Vec<_>>().join(","),
            fingerprint: hex(digest::digest(&digest::SHA256, certificate).as_ref()),
            not_after: Timestamp::from_millis(
                u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1000),
            ),
        })
    }
}

/// A name that stands among others with commas between them.
fn one_of_several(name: &str) -> String {
    name.replace('\\', "\\\\").replace(',', "\\,")
}

/// A name as RFC 4514 writes it: the last component first, and what could be taken for more than a value escaped, so that no
/// value passes for another component.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let components: Vec<_> = name.iter_rdn().collect();
    let written = components.iter().rev().map(|component| {
        let attributes = component.iter().map(|attribute| {
            let oid = attribute.attr_type();
            let kind = ATTRIBUTE_TYPES.iter().find(|(known, _)| *known == oid.to_id_string());
            let kind = kind.map_or_else(|| oid.to_id_string(), |(_, short)| (*short).to_owned());
            match attribute.as_str() {
                Ok(text) => format!("{kind}={}", escaped(text)),
                // Section 2.4: what is no text, or of no known type, is given as it was encoded.
                Err(_) => format!("{kind}=#{}", hex(attribute.as_slice())),
            }
        });
        attributes.collect::<Vec<_>>().join("+")
    });
    written.collect::<Vec<_>>().join(",")
}

/// The types that RFC 4514 section 3 gives short names, and the two others that certificates of clients have.
const ATTRIBUTE_TYPES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// A value as RFC 4514 section 2.4 escapes it.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, character) in value.char_indices() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' | ' ' if at == 0 => text.extend(['\\', character]),
            ' ' if at == last => text.push_str("\\ "),
            control if control.is_ascii_control() => {
                // Writing into a string cannot fail.
                let _ = write!(text, "\\{:02x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn no_value_passes_for_another_component() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, " Acme + Sons #1 ");
        params.distinguished_name.push(DnType::CommonName, "bob,CN=admin");
        params.subject_alt_names = vec![
            SanType::URI("urn:x,DNS:admin.example".try_into().unwrap()),
            SanType::DnsName("bob.example".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
        ];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let identity = Identity::of(certificate.der()).unwrap();
        assert_eq!(identity.subject, r"CN=bob\,CN=admin,O=\ Acme \+ Sons #1\ ,C=DE");
        assert_eq!(identity.issuer, identity.subject);
        assert_eq!(identity.alternative_names, r"URI:urn:x\,DNS:admin.example,DNS:bob.example,IP:192.0.2.1");
        assert!(identity.not_after > Timestamp::from_millis(0));
    }
}
