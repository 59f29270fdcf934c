//! What of a response is kept, by whose rules, and under which tags.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AGE, AUTHORIZATION, CONTENT_LENGTH};
use http::{HeaderMap, Method, StatusCode};

use super::decide;
use super::steps::Carried;
use crate::cache::Asked;
use crate::cache::entry::{Entry, EntryHead};
use crate::cache::fill::{Lead, Writer};
use crate::cache::freshness::{Retention, Timing};
use crate::cache::groups;
use crate::cache::key::CacheKey;
use crate::cache::purges::PurgeSequence;
use crate::cache::storable::{self, NotStorable, Rules, Storable};
use crate::cache::tags;
use crate::cache::targeted;
use crate::cache::vary::{Vary, VaryFields};
use crate::origin::OriginKind;
use crate::semantics::cdn_loop::CDN_LOOP;

/// How long a key whose response may not be kept is remembered, so that requests for it do not wait for each other.
const HIT_FOR_MISS: Duration = Duration::from_secs(60);

/// Keeps what comes; none when a purge came in between, so that the response is this client's alone.
pub fn keep(
    carried: &Carried,
    key: &CacheKey,
    lead: Option<Lead>,
    head: EntryHead,
    slices: Option<Range<u64>>,
) -> Option<(Arc<Entry>, Option<Writer>)> {
    let request = &carried.exchange.request;
    let asked = Asked { key, headers: &request.headers, request_path: request.path() };
    let empty = head.size == Some(0);
    let cache = &carried.proxy.cache;
    let (entry, writer) = match (lead, slices) {
        (Some(lead), slices) => lead.keep_slices(&asked, head, slices),
        (None, None) => cache.keep(key, &request.headers, head),
        (None, Some(slices)) => cache.keep_slices(key, &request.headers, head, slices),
    };
    (empty || writer.is_some()).then_some((entry, writer))
}

/// Decides by the host's rules and the policy's.
pub fn storable_by(carried: &Carried, status: StatusCode, headers: &HeaderMap) -> Storable {
    let store = &carried.exchange.store;
    let caching = carried.caching();
    let rules = Rules {
        default_ttl: caching.ttl.default,
        status_ttl: caching.ttl.of_named(status.as_u16()),
        ttl_min: caching.ttl_min,
        ttl_max: caching.ttl_max,
        ttl_override: caching.life_in_any_case(status.as_u16()),
        stale_while_revalidate: caching.stale_while_revalidate,
        stale_if_error: caching.stale_if_error,
        policy_ttl: store.ttl,
        policy_no_store: store.no_store || store.hit_for_miss.is_some(),
        policy_stale_while_revalidate: store.stale_while_revalidate,
        policy_stale_if_error: store.stale_if_error,
    };
    let request = &carried.exchange.request.headers;
    let may_be_of_a_loop = status.is_server_error()
        || (status.is_client_error() && !matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE));
    if may_be_of_a_loop && request.contains_key(CDN_LOOP) {
        // A CDN behind us refuses what says that it has been there. RFC 8586 has it passed on whoever wrote it, so that anyone
        // can bring such a refusal about: for himself.
        return Storable::No(NotStorable::RequestLoop);
    }
    if decide::origin_kind(carried) != OriginKind::Http && request.contains_key(AUTHORIZATION) {
        // Buckets and folders never see the client's Authorization, so nothing of theirs depends on it; the policy, which may,
        // is asked again for every request.
        let mut seen = request.clone();
        seen.remove(AUTHORIZATION);
        return storable::decide(&Method::GET, &seen, status, headers, &rules);
    }
    storable::decide(&Method::GET, request, status, headers, &rules)
}

/// The same for a body of this length, where it is known.
pub fn storable_within(carried: &Carried, status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Storable {
    match (length, carried.caching().max_object_bytes) {
        (Some(length), Some(most)) if length > most => match storable_by(carried, status, headers) {
            Storable::Yes(_) => Storable::No(NotStorable::TooLarge),
            no => no,
        },
        _ => storable_by(carried, status, headers),
    }
}

/// What is kept of a response besides its body: of a whole with status 200 and a body of unknown length, unless the caller says
/// otherwise. `sequence` is the newest purge before the origin was asked.
pub fn head_of(
    carried: &Carried,
    headers: &HeaderMap,
    (timing, retention): (Timing, Retention),
    sequence: PurgeSequence,
    origin_path: &str,
) -> EntryHead {
    EntryHead {
        status: StatusCode::OK,
        headers: to_keep(headers),
        timing,
        retention,
        vary: vary_of(headers),
        tags: tags(carried, headers),
        sequence,
        request_path: carried.exchange.request.path().to_owned(),
        origin_path: Some(origin_path.into()),
        size: None,
        sliceable: false,
        as_sent: None,
    }
}

/// For how long the key is remembered as not cacheable.
pub fn remember(carried: &Carried, why: NotStorable) -> Option<Duration> {
    (!why.is_of_request()).then(|| carried.exchange.store.hit_for_miss.unwrap_or(HIT_FOR_MISS))
}

/// The fields to keep and to send.
pub fn to_keep(headers: &HeaderMap) -> HeaderMap {
    let mut kept = to_keep_as_sent(headers);
    kept.remove(targeted::OWN);
    kept
}

/// The fields to keep for what a 304 freshens: with what the origin says to us alone, since a 304 need not repeat it.
pub fn to_keep_as_sent(headers: &HeaderMap) -> HeaderMap {
    let mut kept = storable::headers_to_keep(headers);
    for name in [AGE, CONTENT_LENGTH] {
        kept.remove(name);
    }
    tags::strip(&mut kept);
    kept
}

/// The request fields that the response varies by.
pub fn vary_of(headers: &HeaderMap) -> VaryFields {
    match Vary::parse(headers) {
        Vary::Fields(fields) => fields,
        Vary::Nothing | Vary::Anything => VaryFields::default(),
    }
}

/// Where groups of responses to this request are of.
pub fn group_scope(carried: &Carried) -> groups::Scope {
    groups::Scope { scheme: carried.exchange.request.scheme, port: carried.exchange.request.port }
}

/// Tags of an entry after a 304: those it had and those it was given anew. A 304 need not repeat the origin's tags, and one purge
/// too many is better than one that misses; only when they keep changing do the old ones go.
pub fn tags_after(had: Vec<String>, given: Vec<String>) -> Vec<String> {
    if had.len() + given.len() > tags::TAGS_MOST && !given.is_empty() {
        return given;
    }
    let mut tags = had;
    tags.extend(given);
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// Tags of the policy, of the origin's fields (`cache::tags`), and the groups that it names.
pub fn tags(carried: &Carried, headers: &HeaderMap) -> Vec<String> {
    let tags = tags::of(&carried.exchange.store.tags, headers);
    if tags.left_out > 0 {
        carried.proxy.metrics.cache_tags_left_out.inc_by(tags.left_out);
        let (host, path) = (&carried.site.host.settings.name, carried.exchange.request.path());
        tracing::debug!(%host, path, left_out = tags.left_out, "too many tags, or too long ones");
    }
    let mut kept = tags.kept;
    kept.extend(groups::tags(headers, group_scope(carried)));
    kept.sort_unstable();
    kept.dedup();
    kept
}
