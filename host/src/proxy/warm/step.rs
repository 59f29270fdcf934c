//! The steps of a request whose answer is to be kept, and fresh for a while, whatever a client would be content with.

use std::time::Duration;

use http::StatusCode;
use http::header::{ETAG, LAST_MODIFIED};

use super::super::deliver::Deliverable;
use super::super::fill::Fill;
use super::super::outcome::Forward;
use super::super::steps::{Early, LookedUp, Routed, StaleEntry, Wanting};
use super::super::{decide, fetch};
use crate::cache::control::RequestDirectives;
use crate::cache::entry::Entry;
use crate::cache::key::CacheKey;
use crate::cache::purges::PurgeSequence;
use crate::clock::Timestamp;
use crate::semantics::date;

/// Sees to it that what this request leads to is kept, and fresh for at least so long.
pub(in crate::proxy) async fn warm(routed: Routed, min_fresh: Duration, expected: Option<&Expected>) -> Warm {
    let decided = match decide::decide(routed).await {
        Ok(decided) => decided,
        Err(early) => return Warm::Answered(early),
    };
    let keyed = match decided.key() {
        Ok(keyed) => keyed,
        Err((_, why)) => return Warm::NotKept(why),
    };
    let key = keyed.key.clone();
    // What is stale is not good enough, nor what may be served while somebody else asks.
    let directives = RequestDirectives { min_fresh: Some(min_fresh), ..RequestDirectives::default() };
    let answer = match keyed.look_up(directives).await {
        Ok(LookedUp::Fresh(hit)) if expected.is_some_and(|expected| !expected.is(&hit.entry)) => {
            let stale = Some(StaleEntry { entry: hit.entry, if_error: false, why: Forward::Request });
            fetch::fetch(Wanting { carried: hit.carried, key: hit.key, stale }).await
        }
        Ok(LookedUp::Fresh(hit)) => Deliverable::entry(hit),
        Ok(LookedUp::Wanting(wanting)) => match expected {
            Some(expected) if wanting.stale.as_ref().is_some_and(|stale| expected.is(&stale.entry)) => {
                Fill::listed(wanting, expected).await
            }
            _ => fetch::fetch(wanting).await,
        },
        Err(early) => early,
    };
    Warm::Kept(answer, key)
}

/// The version of an object that a listing has.
pub(in crate::proxy) struct Expected {
    /// Its ETag.
    pub etag: Option<String>,
    /// When it was changed, in seconds since 1970.
    pub modified: Option<u64>,
    /// When the listing was asked for.
    pub at: Timestamp,
    /// The newest purge then.
    pub sequence: PurgeSequence,
}

impl Expected {
    /// Whether an entry is of this version, as far as that is known of both.
    fn is(&self, entry: &Entry) -> bool {
        let headers = entry.head.as_sent().1;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let bare = |tag: &str| tag.trim_matches('"').to_owned();
        let same_tag = self.etag.as_deref().map(bare).is_some_and(|tag| text(ETAG).map(bare) == Some(tag));
        let modified = date::of(headers, &LAST_MODIFIED).map(|at| at.as_secs());
        let same_time = self.modified.zip(modified).is_none_or(|(listed, kept)| listed == kept);
        entry.head.status == StatusCode::OK && same_tag && same_time
    }
}

/// What became of a request that is to be kept.
pub(in crate::proxy) enum Warm {
    /// The cache or the origin has answered.
    Kept(Early, CacheKey),
    /// Somebody else has: a policy, or a refusal of our own.
    Answered(Early),
    /// The cache has no part in it.
    NotKept(Forward),
}
