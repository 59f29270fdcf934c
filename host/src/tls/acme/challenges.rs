//! The answers to the challenges that are under way (RFC 8555 section 8.3, RFC 8737), for the listeners to give.
//!
//! A listener asks at every handshake that offers `acme-tls/1` and every request below `/.well-known/acme-challenge/`. Most
//! of the time there is no challenge: then asking is one load of a pointer and a look into an empty map.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

/// The ways we prove that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A handshake on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A file on port 80 (RFC 8555 section 8.3).
    #[serde(rename = "http-01")]
    Http01,
}

impl Kind {
    /// As the RFCs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

/// What the listeners need to answer challenges.
#[derive(Debug, Default)]
pub struct Challenges {
    answers: ArcSwap<Answers>,
}

#[derive(Clone, Debug, Default)]
struct Answers {
    http_01: HashMap<String, String>,
    tls_alpn_01: HashMap<String, Arc<CertifiedKey>>,
}

/// Which answer is given; dropping this takes it back.
#[must_use]
pub(super) struct Answer {
    challenges: Arc<Challenges>,
    kind: Kind,
    /// The token of HTTP-01, the name of TLS-ALPN-01.
    key: String,
}

impl Challenges {
    /// The key authorization that is the body for `/.well-known/acme-challenge/<token>`. Type: application/octet-stream.
    pub fn http_01(&self, token: &str) -> Option<String> {
        self.answers.load().http_01.get(token).cloned()
    }

    /// The certificate for a handshake that offers the protocol `acme-tls/1` alone, with this server name.
    pub fn tls_alpn_01(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.answers.load();
        if answers.tls_alpn_01.is_empty() {
            return None;
        }
        answers.tls_alpn_01.get(&name.to_ascii_lowercase()).cloned()
    }

    /// Whether there is no challenge under way.
    pub fn is_empty(&self) -> bool {
        let answers = self.answers.load();
        answers.http_01.is_empty() && answers.tls_alpn_01.is_empty()
    }

    /// Answers a token until the duty is dropped.
    pub(super) fn answer_http_01(self: &Arc<Self>, token: String, authorization: String) -> Answer {
        self.change(|answers| {
            answers.http_01.insert(token.clone(), authorization.clone());
        });
        Answer { challenges: Arc::clone(self), kind: Kind::Http01, key: token }
    }

    /// Answers handshakes for a name until the duty is dropped.
    pub(super) fn answer_tls_alpn_01(self: &Arc<Self>, name: &str, key: Arc<CertifiedKey>) -> Answer {
        self.change(|answers| {
            answers.tls_alpn_01.insert(name.to_owned(), Arc::clone(&key));
        });
        Answer { challenges: Arc::clone(self), kind: Kind::TlsAlpn01, key: name.to_owned() }
    }

    fn change(&self, change: impl Fn(&mut Answers)) {
        self.answers.rcu(|answers| {
            let mut answers = Answers::clone(answers);
            change(&mut answers);
            answers
        });
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.challenges.change(|answers| match self.kind {
            Kind::Http01 => {
                answers.http_01.remove(&self.key);
            }
            Kind::TlsAlpn01 => {
                answers.tls_alpn_01.remove(&self.key);
            }
        });
    }
}

/// Which challenge comes next: of those the CA offers, not one that was tried in this round, that which succeeded last if
/// there is one, else TLS-ALPN-01: it needs no second port.
pub(super) fn next(offered: &[Kind], tried: &[Kind], works: Option<Kind>) -> Option<Kind> {
    let open = |kind: &Kind| offered.contains(kind) && !tried.contains(kind);
    works.filter(open).or_else(|| [Kind::TlsAlpn01, Kind::Http01].into_iter().find(open))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Http01, TlsAlpn01};

    #[test]
    fn the_other_challenge_comes_after_the_one_that_failed() {
        let both = [Http01, TlsAlpn01];
        assert_eq!(next(&both, &[], None), Some(TlsAlpn01));
        assert_eq!(next(&both, &[TlsAlpn01], None), Some(Http01));
        assert_eq!(next(&both, &[TlsAlpn01, Http01], None), None);
        assert_eq!(next(&both, &[], Some(Http01)), Some(Http01));
        assert_eq!(next(&both, &[Http01], Some(Http01)), Some(TlsAlpn01));
        assert_eq!(next(&[Http01], &[], Some(TlsAlpn01)), Some(Http01));
        assert_eq!(next(&[], &[], None), None);
    }

    #[test]
    fn an_answer_is_given_as_long_as_its_duty_lives() {
        let challenges = Arc::new(Challenges::default());
        assert!(challenges.is_empty());
        let first = challenges.answer_http_01("one".into(), "one.print".into());
        let second = challenges.answer_http_01("two".into(), "two.print".into());
        assert_eq!(challenges.http_01("one").as_deref(), Some("one.print"));
        drop(first);
        assert_eq!(challenges.http_01("one"), None);
        assert_eq!(challenges.http_01("two").as_deref(), Some("two.print"));
        assert!(challenges.tls_alpn_01("one").is_none());
        drop(second);
        assert!(challenges.is_empty());
    }
}
