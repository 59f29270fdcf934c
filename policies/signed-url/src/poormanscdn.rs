//! The scheme of poormanscdn, in the generation of its README (G2) and of its last code (G4).
//!
//! `sig` is lower-hex SHA1( secret + lower-hex SHA1( text ) ), where the text is, joined by `&` and not escaped:
//!
//! ```text
//! G2            METHOD & path & modified & expires & host & domain      both times as they stand in the query
//! G3            the same                                                absent or empty times are 0
//! G4  AUTHORITY & METHOD & path & modified & expires & host & domain    as G3; Host with its port, if it has one
//! ```
//!
//! The path is decoded, without the slashes and spaces at its ends, and as it was asked for: before any index document.
//! All else in the query is neither signed nor looked at: it reaches neither the origin nor the key.
//!
//! Where we differ: a GET link is good for HEAD too; a parameter may stand there once; `host` means the client's address
//! in G4 as well (the original compared it with address and port, which never match); `domain` is the Referer's host or
//! a domain above it, where G2 took any text within it and G4 only the same; signatures are compared in constant time.

use proxyhost_policy::net;
use proxyhost_policy::prelude::*;

use crate::parameters::Parameters;
use crate::{Refusal, Stop, Written, now};

/// Which links are good.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Generation {
    G2,
    G3,
    G4,
    /// All of them, while clients move from one to the next.
    Auto,
}

/// How `domain` is compared with the Referer.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DomainMatch {
    /// The same host, or one below it.
    Suffix,
    /// The same host.
    Exact,
    /// Any host that has the text in it, as G2 did. `mysite.com.evil.test` passes.
    Substring,
}

/// The scheme as used.
pub(crate) struct Poormanscdn {
    keys: Vec<String>,
    generation: Generation,
    /// Without it only requests with `modified` above 0, DELETE and `/cacheStats` need a signature.
    sig_required: bool,
    domain_match: DomainMatch,
    leeway_seconds: u64,
    names: [String; 5],
}

const SIG: usize = 0;
const MODIFIED: usize = 1;
const EXPIRES: usize = 2;
const HOST: usize = 3;
const DOMAIN: usize = 4;

impl Poormanscdn {
    pub(crate) fn resolve(written: Written) -> Result<Self, String> {
        let others = [("prefix", written.prefix.is_some()), ("expires_required", written.expires_required.is_some())];
        written.only_for("poormanscdn", &others)?;
        Ok(Self {
            keys: written.keys,
            generation: written.generation.unwrap_or(Generation::G2),
            // The original's default is false. A policy of this name that lets everyone in would surprise more people.
            sig_required: written.sig_required.unwrap_or(true),
            domain_match: written.domain_match.unwrap_or(DomainMatch::Suffix),
            leeway_seconds: written.leeway_seconds,
            names: ["sig", "modified", "expires", "host", "domain"].map(str::to_owned),
        })
    }

    /// Judges the request in hand.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        let query = request::query();
        let parameters = Parameters::take(query.as_deref(), &self.names)?;
        let method = request::method();
        let path = request::path();
        let signed_path = path.trim_matches([' ', '/']);
        let modified = seconds(parameters.get(MODIFIED))?;

        if self.sig_required || modified > 0 || method == "DELETE" || signed_path == "cacheStats" {
            let signature = parameters.get(SIG).ok_or(Refusal::Missing)?;
            let expires = seconds(parameters.get(EXPIRES))?;
            // G2 signs an `expires` of 0 as a time that is long over; G4 as never. Nobody means the former.
            if expires != 0 && expires.saturating_add_unsigned(self.leeway_seconds) < now().cast_signed() {
                return Err(Refusal::Expired.into());
            }
            if let Some(host) = parameters.get(HOST) {
                check_address(host)?;
            }
            if let Some(domain) = parameters.get(DOMAIN) {
                self.check_referer(domain)?;
            }
            self.check_signature(&parameters, &method, signed_path, signature)?;
            if modified > 0 {
                // An entry that was fetched before `modified` counts as missing.
                let modified_ms = modified.unsigned_abs().saturating_mul(1000);
                cache_lookup::max_age_ms(request::received_at_ms().saturating_sub(modified_ms));
            }
        }
        if query.is_some() {
            upstream::set_query(None);
        }
        Ok(())
    }

    fn check_signature(
        &self,
        parameters: &Parameters<'_>,
        method: &str,
        path: &str,
        signature: &str,
    ) -> Result<(), Stop> {
        let authority = request::authority();
        let generations: &[Generation] = match self.generation {
            Generation::Auto => &[Generation::G2, Generation::G3, Generation::G4],
            Generation::G2 => &[Generation::G2],
            Generation::G3 => &[Generation::G3],
            Generation::G4 => &[Generation::G4],
        };
        let methods: &[&str] = if method == "HEAD" { &["GET", "HEAD"] } else { &[method] };
        for &generation in generations {
            for method in methods {
                let text = text_to_sign(generation, &authority, method, path, parameters)?;
                let inner = crypto::digest("sha1", &[Part::Text(text)], "hex")?;
                for key in &self.keys {
                    let parts = [Part::Secret(key.clone()), Part::Text(inner.clone())];
                    if crypto::verify_digest("sha1", &parts, "hex", signature)? {
                        return Ok(());
                    }
                }
            }
        }
        Err(Refusal::Signature.into())
    }

    /// The Referer's host, or host and port, against `domain`.
    fn check_referer(&self, domain: &str) -> Result<(), Stop> {
        let referer =
            request::header("referer").and_then(|referer| text::url_host(&referer)).ok_or(Refusal::Referer)?;
        let domain = domain.to_ascii_lowercase();
        let (host, port) = referer;
        let with_port = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let fits = |host: &str| match self.domain_match {
            DomainMatch::Suffix => text::host_within(host, &domain),
            DomainMatch::Exact => host == domain,
            DomainMatch::Substring => host.contains(&domain),
        };
        if fits(&host) || fits(&with_port) { Ok(()) } else { Err(Refusal::Referer.into()) }
    }
}

/// The text whose digest is signed.
fn text_to_sign(
    generation: Generation,
    authority: &str,
    method: &str,
    path: &str,
    parameters: &Parameters<'_>,
) -> Result<String, Refusal> {
    let time = |index: usize| match (generation, parameters.get(index)) {
        (Generation::G2, text) => Ok(text.unwrap_or("").to_owned()),
        (_, text) => seconds(text).map(|seconds| seconds.to_string()),
    };
    let modified = time(MODIFIED)?;
    let expires = time(EXPIRES)?;
    let host = parameters.get(HOST).unwrap_or("");
    let domain = parameters.get(DOMAIN).unwrap_or("");
    let text = [method, path, &modified, &expires, host, domain].join("&");
    Ok(if generation == Generation::G4 { format!("{authority}&{text}") } else { text })
}

/// Seconds since 1970; absent and empty are 0.
fn seconds(text: Option<&str>) -> Result<i64, Refusal> {
    text.map_or(Ok(0), |text| text.parse().map_err(|_| Refusal::Malformed))
}

/// `host` holds the client's address.
fn check_address(host: &str) -> Result<(), Stop> {
    let wanted: std::net::IpAddr = host.parse().map_err(|_| Refusal::Malformed)?;
    if wanted.to_canonical() == net::client_address()? { Ok(()) } else { Err(Refusal::Address.into()) }
}
