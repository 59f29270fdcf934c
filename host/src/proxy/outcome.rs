//! What the cache did for a request: the Cache-Status field (RFC 9211), and one word for logs, metrics and policies.

use http::{HeaderValue, StatusCode};
use smallvec::SmallVec;

/// One word for what became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Word {
    /// Answered from the cache.
    Hit,
    /// Fetched.
    Miss,
    /// Answered from the cache past its life.
    Stale,
    /// The origin said that what was kept is still good.
    Revalidated,
    /// The cache was not asked.
    Bypass,
    /// A policy answered, or a purge was carried out: neither cache nor origin.
    Policy,
    /// Refused or failed.
    Error,
}

impl Word {
    /// All words, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Hit, Self::Miss, Self::Stale, Self::Revalidated, Self::Bypass, Self::Policy, Self::Error];

    /// The word itself.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
            Self::Policy => "policy",
            Self::Error => "error",
        }
    }
}

/// Why a request went to the origin (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The configuration or the policy keeps the cache out of it.
    Bypass,
    /// The method is not one that the cache answers.
    Method,
    /// Nothing is kept for the key.
    UriMiss,
    /// What is kept for the key was selected by other request fields.
    VaryMiss,
    /// Nothing was found, and whether there is another variant is not known.
    Miss,
    /// What is kept is fresh, and the client asked for better.
    Request,
    /// What is kept is stale.
    Stale,
    /// A part of the body is missing.
    Partial,
}

impl Forward {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// What the cache did for one request.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Why it went to the origin; none for a hit.
    pub forward: Option<Forward>,
    /// What the origin answered, when that is not what the client gets.
    pub forward_status: Option<StatusCode>,
    /// Seconds of freshness left; negative when stale.
    pub ttl_s: Option<i64>,
    /// The response is being kept.
    pub stored: bool,
    /// It rode on another request's fetch.
    pub collapsed: bool,
    /// A word more.
    pub detail: Option<&'static str>,
    /// For logs, metrics and policies.
    pub word: Option<Word>,
}

impl Outcome {
    /// An answer from the cache.
    pub fn hit(ttl_s: i64) -> Self {
        Self { ttl_s: Some(ttl_s), word: Some(if ttl_s < 0 { Word::Stale } else { Word::Hit }), ..Self::default() }
    }

    /// A request that went to the origin.
    pub fn forwarded(why: Forward) -> Self {
        let word = if matches!(why, Forward::Bypass | Forward::Method) { Word::Bypass } else { Word::Miss };
        Self { forward: Some(why), word: Some(word), ..Self::default() }
    }

    /// An answer that neither cache nor origin had a part in: no Cache-Status.
    pub fn local(word: Word) -> Self {
        Self { word: Some(word), ..Self::default() }
    }

    /// The word, an error if none was set.
    pub fn word(&self) -> Word {
        self.word.unwrap_or(Word::Error)
    }

    /// The field value, none for answers that the cache had no part in.
    pub fn cache_status(&self) -> Option<HeaderValue> {
        let mut text = Text(SmallVec::from_slice(b"proxyhost"));
        match (self.forward, self.word()) {
            (None, Word::Hit | Word::Stale | Word::Revalidated) => text.add("; hit"),
            // Neither kept nor fetched, by a word of the cache.
            (None, Word::Error) if self.detail.is_some() => {}
            (None, _) => return None,
            (Some(why), _) => {
                text.add("; fwd=");
                text.add(why.as_str());
            }
        }
        if let Some(status) = self.forward_status {
            text.add("; fwd-status=");
            text.add(status.as_str());
        }
        if let Some(ttl) = self.ttl_s {
            text.add("; ttl=");
            text.add(itoa::Buffer::new().format(ttl));
        }
        if self.stored {
            text.add("; stored");
        }
        if self.collapsed {
            text.add("; collapsed");
        }
        if let Some(detail) = self.detail {
            text.add("; detail=");
            text.add(detail);
        }
        HeaderValue::from_bytes(&text.0).ok()
    }
}

/// Text on the stack: a header value copies it into an allocation of its own.
struct Text(SmallVec<[u8; 96]>);

impl Text {
    fn add(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_and_forwards_exclude_each_other() {
        assert_eq!(Outcome::hit(30).cache_status().unwrap(), "proxyhost; hit; ttl=30");
        let mut outcome = Outcome::forwarded(Forward::UriMiss);
        outcome.stored = true;
        outcome.forward_status = Some(StatusCode::OK);
        assert_eq!(outcome.cache_status().unwrap(), "proxyhost; fwd=uri-miss; fwd-status=200; stored");
        assert_eq!(Outcome::local(Word::Policy).cache_status(), None);
        let refused = Outcome { detail: Some("only-if-cached"), ..Outcome::local(Word::Error) };
        assert_eq!(refused.cache_status().unwrap(), "proxyhost; detail=only-if-cached");
        assert_eq!(Outcome::hit(-7).cache_status().unwrap(), "proxyhost; hit; ttl=-7");
    }

    #[test]
    fn words_stand_at_their_numbers() {
        for (number, word) in Word::ALL.into_iter().enumerate() {
            assert_eq!(word as usize, number);
        }
    }
}
