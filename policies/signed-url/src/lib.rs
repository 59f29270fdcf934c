//! Only links that carry a good signature. Two schemes: `proxyhost`, our own (HMAC-SHA256, [`own`]), and `poormanscdn`,
//! whose links go on working ([`poormanscdn`]).
//!
//! Whatever is not signed never reaches the origin and never counts towards the cache key: else anyone could fill the
//! cache, or ask the origin, with parameters that nobody signed. A request whose signature fails is refused with 403
//! whatever the reason, since the reason helps only whoever is guessing; the access log has it as the var `signed-url`.

mod own;
mod parameters;
mod poormanscdn;

use proxyhost_policy::prelude::*;

/// The policy, configured.
pub struct SignedUrl {
    scheme: Scheme,
}

enum Scheme {
    Own(own::Own),
    Poormanscdn(poormanscdn::Poormanscdn),
}

/// The configuration as written, of both schemes: one flat object costs the module 40 KB less than one type each.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Written {
    /// Which scheme.
    scheme: SchemeName,
    /// Names of secrets. Links are tried against all of them, so a new key stands before the old one while both are in use.
    keys: Vec<String>,
    /// How long after its end a link is still good: clocks differ.
    leeway_seconds: u64,
    /// Stands before the names of the parameters, for sites that use `sig` or `expires` themselves.
    prefix: Option<String>,
    /// Whether a link without `expires` is refused; it is by default.
    expires_required: Option<bool>,
    /// Which of poormanscdn's links are good; G2 by default.
    generation: Option<poormanscdn::Generation>,
    /// Whether every request needs a signature; it does by default.
    sig_required: Option<bool>,
    /// How poormanscdn's `domain` is compared with the Referer; as a suffix by default.
    domain_match: Option<poormanscdn::DomainMatch>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum SchemeName {
    Proxyhost,
    Poormanscdn,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            scheme: SchemeName::Proxyhost,
            keys: vec!["sign".to_owned()],
            leeway_seconds: 0,
            prefix: None,
            expires_required: None,
            generation: None,
            sig_required: None,
            domain_match: None,
        }
    }
}

impl Written {
    /// Refuses what belongs to the other scheme: whoever wrote it expects it to do something.
    fn only_for(&self, scheme: &str, others: &[(&str, bool)]) -> Result<(), String> {
        match others.iter().find(|(_, written)| *written) {
            Some((name, _)) => Err(format!("config: {name} is not known to the scheme {scheme:?}")),
            None => Ok(()),
        }
    }
}

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A parameter that the scheme needs is not there.
    Missing,
    /// A parameter of the scheme stands there twice: which one was signed is anyone's guess.
    Twice,
    /// A parameter can't be read as what it should be.
    Malformed,
    /// Its time is over.
    Expired,
    /// It is for another client.
    Address,
    /// It was followed from another site.
    Referer,
    /// It names a key that the configuration doesn't.
    Key,
    /// The signature is not that of this request.
    Signature,
}

impl Refusal {
    /// As the var `signed-url` has it.
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Twice => "parameter-twice",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::Address => "other-address",
            Self::Referer => "other-referer",
            Self::Key => "unknown-key",
            Self::Signature => "bad-signature",
        }
    }
}

/// Why a check ends early.
pub(crate) enum Stop {
    /// The link is refused.
    Refused(Refusal),
    /// The request can't be judged; the host decides by `on_failure`.
    Failed(String),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl Policy for SignedUrl {
    fn configure() -> Result<Self, String> {
        let written: Written = config::parsed()?;
        keys_exist(&written.keys)?;
        let scheme = match written.scheme {
            SchemeName::Proxyhost => Scheme::Own(own::Own::resolve(written)?),
            SchemeName::Poormanscdn => Scheme::Poormanscdn(poormanscdn::Poormanscdn::resolve(written)?),
        };
        Ok(Self { scheme })
    }

    fn on_request(&self) -> Result<Decision, String> {
        let checked = match &self.scheme {
            Scheme::Own(own) => own.check(),
            Scheme::Poormanscdn(poormanscdn) => poormanscdn.check(),
        };
        match checked {
            Ok(()) => Ok(Decision::Next),
            Err(Stop::Refused(refusal)) => {
                vars::set("signed-url", refusal.name());
                Ok(Decision::Deny(403))
            }
            Err(Stop::Failed(message)) => Err(message),
        }
    }
}

proxyhost_policy::export!(SignedUrl: on_request);

/// Finds out at load, and not at the first request, that a key is missing from the policy's secrets.
fn keys_exist(keys: &[String]) -> Result<(), String> {
    if keys.is_empty() {
        return Err("config: keys is empty, so no link could ever be good".to_owned());
    }
    for key in keys {
        crypto::mac("hmac-sha256", key, b"", "hex").map_err(|error| format!("config: keys: {key:?}: {error}"))?;
    }
    Ok(())
}

/// The time of arrival in seconds.
pub(crate) fn now() -> u64 {
    request::received_at_ms() / 1000
}
