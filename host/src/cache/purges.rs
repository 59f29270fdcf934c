//! What is purged, and how: the words of purges. `purge_table` judges by them.

use futures_util::future::BoxFuture;

use crate::clock::Timestamp;

/// A point in the order of purges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct PurgeSequence(pub u64);

/// What is purged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurgeScope {
    /// One path of a host: all variants and key parts; as asked for, as keyed, or as the origin answered.
    Path {
        /// Host as asked for.
        host: String,
        /// Decoded path.
        path: String,
    },
    /// All paths that begin so.
    Prefix {
        /// Host.
        host: String,
        /// Beginning of the decoded path.
        prefix: String,
    },
    /// All paths that a pattern matches (`glob::Glob`).
    Glob {
        /// Host.
        host: String,
        /// The pattern as written; one that cannot be read stands for all of the host.
        glob: String,
    },
    /// All entries of a host that bear a tag.
    Tag {
        /// Host.
        host: String,
        /// Tag.
        tag: String,
    },
    /// All entries of any host that bear a tag.
    TagEverywhere {
        /// Tag.
        tag: String,
    },
    /// All of a host.
    Host {
        /// Host.
        host: String,
    },
    /// Everything.
    All,
}

impl PurgeScope {
    /// The host that it names.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Path { host, .. }
            | Self::Prefix { host, .. }
            | Self::Glob { host, .. }
            | Self::Tag { host, .. }
            | Self::Host { host } => Some(host),
            Self::TagEverywhere { .. } | Self::All => None,
        }
    }
}

/// What becomes of what is purged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurgeMode {
    /// It is gone.
    #[default]
    Hard,
    /// It is stale from a moment on: used again when the origin says that it is still good, and within the windows of RFC 5861.
    Soft {
        /// The moment, in milliseconds since 1970.
        at_ms: u64,
    },
}

impl PurgeMode {
    /// Stale from now on.
    pub fn soft(now: Timestamp) -> Self {
        Self::Soft { at_ms: now.as_millis() }
    }
}

/// A purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What.
    pub scope: PurgeScope,
    /// How.
    pub mode: PurgeMode,
}

impl From<PurgeScope> for Purge {
    fn from(scope: PurgeScope) -> Self {
        Self { scope, mode: PurgeMode::Hard }
    }
}

/// A response that is to be kept although the request that brought it purges it: a POST that says what a GET would get.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Host of its key.
    pub host: String,
    /// Decoded paths of its key, of the request, and at the origin.
    pub paths: [String; 3],
    /// Tags that it bears.
    pub tags: Vec<String>,
    /// The newest purge before the origin was asked.
    pub asked_after: PurgeSequence,
}

/// What was purged.
#[derive(Clone, Copy, Debug)]
pub struct Purged {
    /// The number of the first purge, and of the last; those between are of the same call.
    pub first: PurgeSequence,
    /// See `first`.
    pub last: PurgeSequence,
    /// Whether somebody else has purged the candidate since it was asked for, so that it may be older than that purge.
    pub overtaken: bool,
}

/// Tells somebody else of a purge that is in force here; done when it is in force there.
pub type PurgeListener = Box<dyn Fn(PurgeSequence, Purge) -> BoxFuture<'static, ()> + Send + Sync>;

/// Makes the program that has the folder purge; the number there, or why it has not. The flag is whether the record must be safe
/// against the loss of power.
pub type PurgeRecorder = Box<dyn Fn(Purge, bool) -> BoxFuture<'static, Result<PurgeSequence, String>> + Send + Sync>;
