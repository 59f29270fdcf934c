//! What is known of a TLS connection that was accepted.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

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
    /// Its alternative names, with commas between them: `DNS:a.example,email:b@c.example`.
    pub alternative_names: String,
    /// SHA-256 of its DER form in hexadecimal digits.
    pub fingerprint: String,
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
            GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
            GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
            GeneralName::URI(name) => Some(format!("URI:{name}")),
            _ => None,
        });
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: hex(parsed.raw_serial()),
            alternative_names: names.collect::<Vec<_>>().join(","),
            fingerprint: hex(digest::digest(&digest::SHA256, certificate).as_ref()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
