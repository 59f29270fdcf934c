//! Our own scheme: HMAC-SHA256 over everything that decides what is answered.
//!
//! The signature is base64url (RFC 4648 section 5) without padding, of this text, lines joined by a line feed:
//!
//! ```text
//! proxyhost-1
//! GET                     the method; a HEAD request is checked as GET
//! downloads.example.com   the host, lower case, without port
//! /some/file.zip          the decoded path
//! w=100&h=50              the other parameters as they stand, in their order; empty if there are none
//! 1893456000              `expires`; empty if it is not there
//! 203.0.113.0/24          `ip`; empty if it is not there
//! example.com             `ref`; empty if it is not there
//! ```
//!
//! The other parameters are not sorted: what was signed is what the origin gets, byte for byte. A path with a line feed
//! in it is refused, so that no text can be read as two requests.

use proxyhost_policy::net::{self, Cidr};
use proxyhost_policy::prelude::*;

use crate::parameters::Parameters;
use crate::{Refusal, Stop, Written, now};

/// The scheme as used.
pub(crate) struct Own {
    keys: Vec<String>,
    names: [String; 5],
    expires_required: bool,
    leeway_seconds: u64,
}

/// How what is signed begins: with the scheme's name, since another reading would have another one, and the method.
const BEGIN: &[u8] = b"proxyhost-1\n";
const BEGIN_OF_A_READ: &[u8] = b"proxyhost-1\nGET";

const SIG: usize = 0;
const EXPIRES: usize = 1;
const KID: usize = 2;
const IP: usize = 3;
const REF: usize = 4;

impl Own {
    pub(crate) fn resolve(written: Written) -> Result<Self, String> {
        let others = [
            ("generation", written.generation.is_some()),
            ("sig_required", written.sig_required.is_some()),
            ("domain_match", written.domain_match.is_some()),
        ];
        written.only_for("proxyhost", &others)?;
        let prefix = written.prefix.unwrap_or_default();
        Ok(Self {
            keys: written.keys,
            names: ["sig", "expires", "kid", "ip", "ref"].map(|name| format!("{prefix}{name}")),
            expires_required: written.expires_required.unwrap_or(true),
            leeway_seconds: written.leeway_seconds,
        })
    }

    /// Judges the request in hand, and leaves the scheme's parameters out of the key and the origin's request.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        let line = request::line();
        let parameters = Parameters::take(line.query.as_deref(), &self.names)?;
        let signature = parameters.get(SIG).ok_or(Refusal::Missing)?;
        self.check_time(parameters.get(EXPIRES))?;
        if let Some(block) = parameters.get(IP) {
            check_address(block)?;
        }
        if let Some(domain) = parameters.get(REF) {
            check_referer(domain)?;
        }
        self.check_signature(&line, &parameters, signature)?;

        // Key and origin's request alike go by what is set here.
        upstream::set_query(parameters.rest.as_deref());
        Ok(())
    }

    fn check_time(&self, expires: Option<&str>) -> Result<(), Stop> {
        let Some(expires) = expires else {
            return if self.expires_required { Err(Refusal::Missing.into()) } else { Ok(()) };
        };
        // Not `parse`, which takes a plus sign in front.
        let digits = expires.bytes().try_fold(0u64, |number, byte| match byte {
            b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        });
        let expires = digits.ok_or(Refusal::Malformed)?;
        if expires.saturating_add(self.leeway_seconds) < now() { Err(Refusal::Expired.into()) } else { Ok(()) }
    }

    fn check_signature(
        &self,
        line: &request::RequestLine,
        parameters: &Parameters<'_>,
        signature: &str,
    ) -> Result<(), Stop> {
        if line.path.bytes().any(|byte| byte == b'\n') {
            return Err(Refusal::Malformed.into());
        }
        let lines = [
            &line.host,
            &line.path,
            parameters.rest.as_deref().unwrap_or(""),
            parameters.get(EXPIRES).unwrap_or(""),
            parameters.get(IP).unwrap_or(""),
            parameters.get(REF).unwrap_or(""),
        ];
        // Each copy is a call of the host's: nearly all requests begin alike, and most lines are empty.
        let read = matches!(&*line.method, "GET" | "HEAD");
        let (begin, method) = if read { (BEGIN_OF_A_READ, "") } else { (BEGIN, &*line.method) };
        let length = begin.len() + method.len() + lines.iter().map(|line| line.len() + 1).sum::<usize>();
        let mut text = Vec::with_capacity(length);
        text.extend_from_slice(begin);
        if !read {
            text.extend_from_slice(method.as_bytes());
        }
        for line in lines {
            text.push(b'\n');
            if !line.is_empty() {
                text.extend_from_slice(line.as_bytes());
            }
        }
        let keys = match parameters.get(KID) {
            None => self.keys.as_slice(),
            Some(kid) => {
                let key = self.keys.iter().find(|key| *key == kid).ok_or(Refusal::Key)?;
                std::slice::from_ref(key)
            }
        };
        for key in keys {
            if crypto::verify_mac("hmac-sha256", key, &text, "base64url", signature)? {
                return Ok(());
            }
        }
        Err(Refusal::Signature.into())
    }
}

/// `ip` holds an address or a block of them.
fn check_address(block: &str) -> Result<(), Stop> {
    let block = Cidr::parse(block).map_err(|_| Refusal::Malformed)?;
    if block.contains(net::client_address()?) { Ok(()) } else { Err(Refusal::Address.into()) }
}

/// `ref` holds a domain: the Referer's host is it, or lies below it.
fn check_referer(domain: &str) -> Result<(), Stop> {
    let referer = request::header("referer").and_then(|referer| text::url_host(&referer));
    match referer {
        Some((host, _)) if text::host_within(&host, &domain.to_ascii_lowercase()) => Ok(()),
        _ => Err(Refusal::Referer.into()),
    }
}
