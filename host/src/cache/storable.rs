//! May this response be kept (RFC 9111 section 3)? A pure decision.
//!
//! Who decides how long: the policy's `ttl-ms`, else the host's `ttl_override`, else the origin (s-maxage, max-age, Expires)
//! between the host's `ttl_min` and `ttl_max`, else the host's `ttl`, else a guess by Last-Modified (section 4.2.2) between the
//! same bounds. The policy speaks for the operator and so overrides what the origin says of freshness, `no-cache` included; but
//! never what the origin says of secrecy: `no-store`, `private`, a Set-Cookie without a life of its own, and requests with
//! Authorization. A life that the origin gives is one in so many words and longer than zero.
//!
//! A host's `ttl_override` is for origins that say no-store of everything: it lifts `no-store`, `private` and `no-cache`, which is
//! against section 3 and the operator's to answer for. A response with a Set-Cookie, and one to Authorization, is left to what
//! the origin says of it, by `ttl_override` and by `ttl_min`.
//!
//! Where there is nothing to guess by, a response with a validator is kept all the same, with a life of zero: each use asks the
//! origin, and a 304 saves the body.
//!
//! A 206 has the life of the whole that it is a part of: the caller asks with status 200, keeps slices of a sliceable object as
//! that object, and other parts beside it.

use std::time::Duration;

use bytes::BytesMut;
use http::header::{
    AGE, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, DATE, EXPIRES, LAST_MODIFIED, PRAGMA, SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::control::{RequestDirectives, ResponseDirectives};
use super::freshness::Retention;
use super::targeted;
use super::vary::Vary;
use crate::semantics::etag::EntityTag;
use crate::semantics::{date, hop_by_hop, list};

/// What configuration and policy say about keeping.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `ttl` of the host: life of what the origin says nothing about, for statuses that are cacheable by default.
    pub default_ttl: Option<Duration>,
    /// The same for this very status, whichever it is; zero: an error is not kept.
    pub status_ttl: Option<Duration>,
    /// `ttl_min` of the host; not for errors.
    pub ttl_min: Option<Duration>,
    /// `ttl_max` of the host.
    pub ttl_max: Option<Duration>,
    /// `ttl_override` of the host, as far as it counts for this status; zero: an error is not kept.
    pub ttl_override: Option<Duration>,
    /// Windows of the host, where neither policy nor origin names one, and the origin allows any.
    pub stale_while_revalidate: Option<Duration>,
    /// Likewise.
    pub stale_if_error: Option<Duration>,
    /// `ttl-ms` of the policy: wins over the origin's word.
    pub policy_ttl: Option<Duration>,
    /// `no-store` of the policy.
    pub policy_no_store: bool,
    /// Windows of the policy.
    pub policy_stale_while_revalidate: Option<Duration>,
    /// Likewise.
    pub policy_stale_if_error: Option<Duration>,
}

/// Whether a response may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storable {
    /// Yes: for this long fresh, and under these rules.
    Yes(Retention),
    /// No, and why; the word goes to log and Cache-Status detail unchanged.
    No(NotStorable),
}

/// Why a response is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStorable {
    /// Only GET (and HEAD for freshening) are kept.
    Method,
    /// Not final, partial, about the request's conditions rather than the resource, or not understood though it must be.
    Status,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// The request had Authorization (section 3.5).
    Authorization,
    /// Set-Cookie without explicit freshness.
    SetCookie,
    /// `Vary: *`.
    VaryAny,
    /// No freshness, no default, and no validator to revalidate with.
    NoFreshness,
    /// The policy said so.
    Policy,
    /// The request said no-store.
    RequestNoStore,
    /// The request said in CDN-Loop where it had been, and is refused perhaps for that.
    RequestLoop,
    /// The body is larger than the host keeps.
    TooLarge,
}

impl NotStorable {
    /// It is this request whose answer may not be kept: nothing is said of the key, nor of what is kept for it.
    pub fn is_of_request(self) -> bool {
        matches!(self, Self::RequestNoStore | Self::RequestLoop | Self::Authorization | Self::Method)
    }

    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryAny => "vary-any",
            Self::NoFreshness => "no-freshness",
            Self::Policy => "policy",
            Self::RequestNoStore => "request-no-store",
            Self::RequestLoop => "cdn-loop",
            Self::TooLarge => "too-large",
        }
    }
}

/// The longest life that is guessed: what changes once a year is asked about once a day all the same.
pub const LONGEST_GUESS: Duration = Duration::from_secs(24 * 60 * 60);

/// Statuses that are cacheable without the origin's word (RFC 9110 section 15.1, without 206 and 501): what a host's `ttl`
/// counts for. 5xx never, since `ttl` is the life of what is there.
const CACHEABLE_BY_DEFAULT: [u16; 10] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414];

/// Cacheable by default too, and given a life by guess, but never by `ttl`.
const NOT_IMPLEMENTED: u16 = 501;

/// Further statuses whose rules we know, for `must-understand` (RFC 9111 section 5.2.2.3).
const UNDERSTOOD: [u16; 17] = [302, 303, 307, 400, 401, 402, 403, 406, 409, 415, 421, 422, 451, 500, 501, 502, 503];

/// Statuses that answer a range, a condition or a hop: kept for the next client they would be wrong.
const NEVER_KEPT: [u16; 5] = [206, 304, 407, 412, 416];

/// Whether a host's `ttl` counts for a status that it does not name.
pub fn is_cacheable_by_default(status: u16) -> bool {
    CACHEABLE_BY_DEFAULT.contains(&status)
}

/// Whether no response of this status is kept as it stands.
pub fn is_never_kept(status: u16) -> bool {
    NEVER_KEPT.contains(&status)
}

/// Decides. The response should have a Date (`semantics::date::ensure_date`): Expires and Last-Modified mean nothing without it.
pub fn decide(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    rules: &Rules,
) -> Storable {
    let said = ResponseDirectives::parse(response);
    let own_word = is_left_to_origin(request, response, &said);
    let in_any_case = rules.ttl_override.filter(|_| !own_word);
    if let Some(why) = forbidden(method, request, status, response, &said, rules, in_any_case.is_some()) {
        return Storable::No(why);
    }
    let error = status.as_u16() >= 400;
    let by_default = is_cacheable_by_default(status.as_u16());
    let has_validator = has_validator(response);
    let bounded = |lifetime: Duration| {
        let least = rules.ttl_min.filter(|_| !error && !own_word).unwrap_or_default();
        lifetime.max(least).min(rules.ttl_max.unwrap_or(Duration::MAX))
    };
    let given = origin_lifetime(response, &said);
    let lifetime = match (rules.policy_ttl, in_any_case, given, rules.status_ttl, rules.default_ttl) {
        (Some(lifetime), ..) => lifetime,
        (None, Some(life), ..) | (None, None, None, Some(life), _) if error && life.is_zero() => {
            return Storable::No(NotStorable::NoFreshness);
        }
        (None, Some(life), ..) => life,
        (None, None, Some(lifetime), ..) => bounded(lifetime),
        (None, None, None, Some(ttl), _) => ttl,
        (None, None, None, None, Some(ttl)) if by_default => ttl,
        (None, None, None, None, None) if by_default || status.as_u16() == NOT_IMPLEMENTED || said.public => {
            // What there is nothing to guess by has no life that could be bounded: that is what `ttl` is for.
            guessed_lifetime(response, &said).map(bounded).unwrap_or_default()
        }
        _ => return Storable::No(NotStorable::NoFreshness),
    };
    let asks_each_time = said.no_cache
        && rules.policy_ttl.is_none_or(|ttl| ttl.is_zero())
        && in_any_case.is_none_or(|life| life.is_zero());
    let retention = retain(lifetime, asks_each_time, &said, rules);

    let never_fresh = retention.lifetime.is_zero() || retention.no_cache;
    // The host's windows are for what is kept anyway.
    let windows = [
        rules.policy_stale_while_revalidate.or(said.stale_while_revalidate),
        rules.policy_stale_if_error.or(said.stale_if_error),
    ];
    let some_window = windows.iter().any(|window| window.is_some_and(|window| !window.is_zero()));
    let stale_is_of_use = some_window && !retention.no_cache && !retention.must_revalidate;
    if never_fresh && !has_validator && !stale_is_of_use {
        return Storable::No(NotStorable::NoFreshness);
    }
    Storable::Yes(retention)
}

/// What rules out keeping, whatever the life.
fn forbidden(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    said: &ResponseDirectives,
    rules: &Rules,
    lifted: bool,
) -> Option<NotStorable> {
    let code = status.as_u16();
    let understood = CACHEABLE_BY_DEFAULT.contains(&code) || UNDERSTOOD.contains(&code);
    if rules.policy_no_store {
        return Some(NotStorable::Policy);
    }
    if *method != Method::GET {
        return Some(NotStorable::Method);
    }
    if status.is_informational() || NEVER_KEPT.contains(&code) || (said.must_understand && !understood) {
        return Some(NotStorable::Status);
    }
    // Beside must-understand a no-store is for caches that do not understand the status.
    if said.no_store && !said.must_understand && !lifted {
        return Some(NotStorable::NoStore);
    }
    if said.private && !lifted {
        return Some(NotStorable::Private);
    }
    if RequestDirectives::parse(request).no_store {
        return Some(NotStorable::RequestNoStore);
    }
    if request.contains_key(AUTHORIZATION) && !(said.public || said.must_revalidate || said.s_maxage.is_some()) {
        return Some(NotStorable::Authorization);
    }
    if Vary::parse(response) == Vary::Anything {
        return Some(NotStorable::VaryAny);
    }
    if keeps_cookie(response, said) && !has_life(response, said) {
        return Some(NotStorable::SetCookie);
    }
    None
}

/// Whether keeping it would keep a Set-Cookie: one that `private` or `no-cache` names is not kept, and so is no reason against
/// keeping the rest.
fn keeps_cookie(response: &HeaderMap, said: &ResponseDirectives) -> bool {
    let named = said.private_fields.contains(&SET_COOKIE) || said.no_cache_fields.contains(&SET_COOKIE);
    response.contains_key(SET_COOKIE) && !named
}

/// Whether a response may be somebody's own, so that no setting of a host may make it everybody's.
fn is_left_to_origin(request: &HeaderMap, response: &HeaderMap, said: &ResponseDirectives) -> bool {
    request.contains_key(AUTHORIZATION) || keeps_cookie(response, said)
}

/// The life that the origin gives (RFC 9111 section 4.2.1). An Expires that is malformed, or without a Date to count from, is
/// a life of zero; of several the shortest counts. Beside a targeted field it means nothing (RFC 9213 section 2.2).
fn origin_lifetime(response: &HeaderMap, said: &ResponseDirectives) -> Option<Duration> {
    if let Some(given) = said.s_maxage.or(said.max_age) {
        return Some(given);
    }
    if said.targeted {
        return None;
    }
    let made = date::of(response, &DATE);
    response
        .get_all(EXPIRES)
        .iter()
        .map(|value| date::parse(value).zip(made).map(|(expires, made)| expires.since(made)).unwrap_or_default())
        .min()
}

/// Whether the origin gives a life in so many words, longer than zero.
pub fn gives_life(response: &HeaderMap) -> bool {
    has_life(response, &ResponseDirectives::parse(response))
}

fn has_life(response: &HeaderMap, said: &ResponseDirectives) -> bool {
    !said.no_cache && origin_lifetime(response, said).is_some_and(|lifetime| !lifetime.is_zero())
}

/// A life for what nobody gives one (section 4.2.2): a tenth of the time that it had not changed for when it was made. None
/// without Last-Modified, nor beside `Pragma: no-cache`: that means nothing in a response (section 5.4), but who writes it
/// wishes for no guess.
fn guessed_lifetime(response: &HeaderMap, said: &ResponseDirectives) -> Option<Duration> {
    let changed = date::of(response, &LAST_MODIFIED)?;
    let made = date::of(response, &DATE)?;
    let asked_not_to = list::of(response, &PRAGMA).any(|word| word.eq_ignore_ascii_case(b"no-cache"));
    (said.targeted || !asked_not_to).then(|| (made.since(changed) / 10).min(LONGEST_GUESS))
}

/// Life and windows under the rules of RFC 9111 section 5.2.2 and RFC 5861.
fn retain(lifetime: Duration, no_cache: bool, said: &ResponseDirectives, rules: &Rules) -> Retention {
    let mut stale_while_revalidate = rules.policy_stale_while_revalidate.or(said.stale_while_revalidate);
    let mut stale_if_error = rules.policy_stale_if_error.or(said.stale_if_error);
    // s-maxage forbids stale answers as proxy-revalidate does (section 5.2.2.10). Where a window is named beside it, that
    // is the more particular word, but it opens no other window, and the host's are no word on this response at all.
    let mut must_revalidate = said.must_revalidate || said.proxy_revalidate;
    if said.s_maxage.is_none() {
        // What had no life would be given one by it, for all who come.
        stale_while_revalidate =
            stale_while_revalidate.or(rules.stale_while_revalidate.filter(|_| !lifetime.is_zero()));
        stale_if_error = stale_if_error.or(rules.stale_if_error);
    } else if !must_revalidate {
        if stale_while_revalidate.is_none() && stale_if_error.is_none() {
            must_revalidate = true;
        } else {
            stale_if_error = stale_if_error.or(Some(Duration::ZERO));
        }
    }
    Retention {
        lifetime,
        no_cache,
        must_revalidate,
        s_maxage: said.s_maxage.is_some(),
        stale_while_revalidate,
        stale_if_error,
    }
}

/// Whether there is anything to revalidate with.
fn has_validator(response: &HeaderMap) -> bool {
    EntityTag::of(response).is_some() || date::of(response, &LAST_MODIFIED).is_some()
}

/// The fields to keep: without those that `no-cache` or `private` name, and without what is told anew at each use (Age,
/// Content-Length) or ends at the next hop. Content-Range means nothing outside a 206 and is kept like any other field.
pub fn headers_to_keep(response: &HeaderMap) -> HeaderMap {
    let said = ResponseDirectives::parse(response);
    let mut kept = response.clone();
    for name in said.no_cache_fields.iter().chain(&said.private_fields) {
        kept.remove(name);
    }
    for name in [AGE, CONTENT_LENGTH] {
        kept.remove(name);
    }
    hop_by_hop::strip(&mut kept);
    of_its_own(&kept)
}

/// The same in as little memory as it takes, and all values in one piece of their own. As they come they are parts of what was read
/// from a connection, and hold all of that: some 20 KB for each entry.
fn of_its_own(headers: &HeaderMap) -> HeaderMap {
    let mut values = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| values.extend_from_slice(value.as_bytes()));
    let mut values = values.freeze();
    let mut own = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers {
        let copy = HeaderValue::from_maybe_shared(values.split_to(value.len()));
        own.append(name, copy.unwrap_or_else(|_| value.clone()));
    }
    own
}

/// The fields that `no-cache` or `private` name: in the answer to the request that brought them, and not kept.
pub fn fields_withheld(response: &HeaderMap) -> HeaderMap {
    let said = ResponseDirectives::parse(response);
    let mut withheld = HeaderMap::new();
    for name in said.no_cache_fields.iter().chain(&said.private_fields) {
        if !withheld.contains_key(name) {
            for value in response.get_all(name) {
                withheld.append(name.clone(), value.clone());
            }
        }
    }
    for name in [AGE, CONTENT_LENGTH, CONTENT_RANGE, targeted::OWN] {
        withheld.remove(name);
    }
    super::tags::strip(&mut withheld);
    hop_by_hop::strip(&mut withheld);
    withheld
}

#[cfg(test)]
mod tests;
