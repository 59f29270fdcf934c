//! What an unsafe method makes untrue of what is kept (RFC 9111 section 4.4).
//!
//! The target, and what the answer's Location and Content-Location name on the same origin: of another origin nobody may
//! invalidate anything. So do the groups that Cache-Group-Invalidation names (RFC 9875 section 3). A path goes with all its queries and variants, which is more than is asked for and never too little.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};

use super::keeping::group_scope;
use super::steps::Carried;
use crate::cache::error::CacheError;
use crate::cache::groups;
use crate::cache::purges::{Candidate, PurgeScope, Purged};
use crate::semantics::reference::Base;

/// Invalidates, if the answer says that something was done: an error does not. Tells under which numbers, if the answer itself may
/// be kept: not if it is no candidate, or was purged by somebody else since it was asked for.
pub async fn after(
    carried: &Carried,
    method: &Method,
    status: StatusCode,
    response: &HeaderMap,
    candidate: Option<Candidate>,
) -> Option<Purged> {
    if method.is_safe() || status.as_u16() >= 400 {
        return None;
    }
    let is_candidate = candidate.is_some();
    let request = &carried.exchange.request;
    let mut paths = vec![request.path().to_owned()];
    for name in [LOCATION, CONTENT_LOCATION] {
        let named = response.get(&name).and_then(|value| base(carried).same_origin(value.to_str().ok()?));
        if let Some(target) = named
            && !paths.iter().any(|path| path == target.path())
        {
            paths.push(target.path().to_owned());
        }
    }
    let host = || request.host.as_str().to_owned();
    let paths = paths.into_iter().map(|path| PurgeScope::Path { host: host(), path });
    let groups = groups::invalidated(response, group_scope(carried)).into_iter();
    let groups = groups.map(|tag| PurgeScope::Tag { host: host(), tag });
    match carried.proxy.cache.invalidate(paths.chain(groups).collect(), candidate).await {
        Ok(purged) => return (is_candidate && !purged.overtaken).then_some(purged),
        Err(error @ CacheError::PurgeNotPassedOn(_)) => {
            tracing::warn!(%error, "invalidation after an unsafe method failed");
        }
        Err(error) => tracing::error!(%error, "invalidation after an unsafe method failed"),
    }
    None
}

/// Whether an answer to POST says that a GET would get the same (RFC 9110 section 9.3.3): its Content-Location is the target.
pub fn is_of_target(carried: &Carried, response: &HeaderMap) -> bool {
    let mut named = response.get_all(CONTENT_LOCATION).iter();
    let (Some(value), None) = (named.next(), named.next()) else { return false };
    let target = value.to_str().ok().and_then(|reference| base(carried).same_origin(reference));
    target.is_some_and(|target| target.raw() == carried.exchange.request.target.raw())
}

fn base(carried: &Carried) -> Base<'_> {
    let request = &carried.exchange.request;
    Base { scheme: request.scheme, host: &request.host, port: request.port, raw: request.target.raw() }
}
