//! What a bucket or a folder has: page by page, in the order of the bytes of its paths, so that it can be held against an index in
//! the same order without keeping either.

use super::OriginError;
use super::dir::listing::Walk;

/// Things of a page, at most: what S3 gives at once.
pub(super) const PAGE: usize = 1000;

/// One thing that an origin has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Decoded path with the host's prefix joined, as a request for it has it.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Its ETag, as a response has it.
    pub etag: Option<String>,
    /// When it was changed, in seconds since 1970.
    pub modified: Option<u64>,
}

/// Some of what an origin has.
#[derive(Debug, Default)]
pub struct Page {
    /// In the order of the bytes of their paths.
    pub listed: Vec<Listed>,
    /// Names that no request can have: not UTF-8, or longer than a key.
    pub left_out: u64,
    /// Where the next page begins; none: that was the last.
    pub next: Option<Place>,
}

/// Where a page begins.
#[derive(Debug)]
pub enum Place {
    /// At the first path that begins so.
    Start {
        /// Decoded path with the host's prefix joined.
        prefix: String,
    },
    /// Where a bucket's page before has ended.
    Token {
        /// As it was asked for.
        prefix: String,
        /// What S3 calls a continuation token.
        token: String,
    },
    /// Where a walk through a folder stands.
    Walk(Box<Walk>),
}

impl Place {
    /// A place that can be asked for twice.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Self::Start { prefix } => Some(Self::Start { prefix: prefix.clone() }),
            Self::Token { prefix, token } => Some(Self::Token { prefix: prefix.clone(), token: token.clone() }),
            Self::Walk(_) => None,
        }
    }
}

/// An origin that has no list.
pub(super) fn none(origin: &str) -> OriginError {
    let reason = "an http origin has no list of what it has".to_owned();
    OriginError::Configuration { origin: origin.to_owned(), reason }
}
