//! Methods, the policy's decision, purging by method, and the cache key.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, MAX_FORWARDS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

use super::deliver::Deliverable;
use super::failure;
use super::outcome::{Outcome, Word};
use super::parts::PART;
use super::request::Brought;
use super::steps::{Carried, Decided, Early, Routed, method_allowed};
use crate::cache::error::CacheError;
use crate::cache::key::{CacheKey, KeyParts, KeyTooLong};
use crate::origin::OriginKind;
use crate::policy::{Decision, Phase};
use crate::purge;
use crate::semantics::interest::Interest;
use crate::semantics::target;
use crate::vhost::{Methods, PurgeAllow};

/// Checks method and body, purges if that is asked for, and asks the policy.
pub async fn decide(routed: Routed) -> Result<Decided, Early> {
    let Routed { mut carried, mut upload } = routed;
    // Before anything else of it: what waits for itself waits in vain.
    if carried.exchange.request.interest.has(Interest::LOOP) && has_passed(&carried) {
        return Err(loop_detected(carried));
    }
    if upload.brought == Brought::Unknown && carried.is_read() {
        upload = Box::pin(upload.settled()).await;
    }
    let site = carried.site.clone();
    let method = carried.exchange.request.method.clone();
    let purge = site.host.settings.purge.as_ref().filter(|purge| purge.method == method);
    if purge.is_none() && !method_allowed(&site, &method) {
        return Err(not_allowed(carried));
    }
    if let Err((status, why)) = body_allowed(&carried, upload.brought, purge.is_some()) {
        return Err(refuse(carried, status, why));
    }
    if upload.websocket.is_some() && (site.host.settings.methods != Methods::All || upload.brought != Brought::Nothing)
    {
        return Err(refuse(carried, StatusCode::BAD_REQUEST, "no WebSocket is spoken here"));
    }
    if carried.is_read() && is_query_refused(&carried) {
        return Err(refuse(carried, StatusCode::BAD_REQUEST, "the query has a parameter that is not taken here"));
    }
    if let Some(PurgeAllow::Addresses(nets)) = purge.map(|purge| &purge.allow) {
        let client = carried.exchange.client.ip;
        if nets.iter().any(|net| net.contains(&client)) {
            return Err(purge_by_method(carried).await);
        }
        return Err(refuse(carried, StatusCode::FORBIDDEN, "purging is not allowed from this address"));
    }
    let policed = carried.policies.exports(Phase::OnRequest);
    if policed {
        carried = if carried.by_operator {
            run_without_refusals(carried).await?
        } else {
            run(carried, Phase::OnRequest).await?
        };
        if carried.exchange.unreadable_header {
            return Err(refuse(carried, StatusCode::BAD_REQUEST, "a header is not UTF-8"));
        }
    }
    if purge.is_some() {
        if !policed {
            // A policy that judges no requests lets nobody through.
            return Err(refuse(carried, StatusCode::FORBIDDEN, "no policy decides who may purge"));
        }
        if carried.exchange.failed_open {
            return Err(refuse(carried, StatusCode::FORBIDDEN, "the policy could not decide"));
        }
        return Err(purge_by_method(carried).await);
    }
    if method == Method::OPTIONS && origin_kind(&carried) != OriginKind::Http {
        return Err(options(carried));
    }
    if matches!(method, Method::OPTIONS | Method::TRACE) && !goes_further(&mut carried.exchange.request.headers) {
        return Err(if method == Method::OPTIONS { options(carried) } else { not_allowed(carried) });
    }
    Ok(Decided { carried, upload })
}

/// Whether the request came back to us (RFC 8586).
fn has_passed(carried: &Carried) -> bool {
    let request = &carried.exchange.request;
    carried.proxy.instance.has_passed(request.host.as_str(), &request.headers)
}

fn loop_detected(carried: Box<Carried>) -> Early {
    tracing::warn!(
        host = %carried.exchange.request.host,
        path = carried.exchange.request.path(),
        "a request came back: the origin of this host leads here"
    );
    let (status, headers, body) = failure::of_loop();
    let outcome = Outcome { detail: Some("loop"), ..Outcome::local(Word::Error) };
    Deliverable::local(carried, status, headers, body, outcome)
}

/// Takes one from Max-Forwards; false when there was nothing to take, and this is where the request ends (RFC 9110 section 7.6.2).
fn goes_further(headers: &mut HeaderMap) -> bool {
    let Some(left) = headers.get(MAX_FORWARDS).and_then(|value| value.to_str().ok()?.parse::<u32>().ok()) else {
        return true;
    };
    let Some(left) = left.checked_sub(1) else { return false };
    headers.insert(MAX_FORWARDS, HeaderValue::from(left));
    true
}

/// Runs a phase that decides; anything but `Next` ends the request.
pub async fn run(mut carried: Box<Carried>, phase: Phase) -> Result<Box<Carried>, Early> {
    let (exchange, decision) = carried.policies.run(phase, carried.exchange).await;
    carried.exchange = exchange;
    settle(carried, &decision)
}

/// The same of on-request for the operator, whom no policy refuses. Boxed, so that requests do not carry its room along.
async fn run_without_refusals(mut carried: Box<Carried>) -> Result<Box<Carried>, Early> {
    let (exchange, decision) = Box::pin(carried.policies.run_without_refusals(carried.exchange)).await;
    carried.exchange = exchange;
    settle(carried, &decision)
}

fn settle(mut carried: Box<Carried>, decision: &Decision) -> Result<Box<Carried>, Early> {
    match answer(decision) {
        None => Ok(carried),
        Some((status, headers, body, word)) => {
            carried.exchange.response = None;
            Err(Deliverable::local(carried, status, headers, body, Outcome::local(word)))
        }
    }
}

/// The answer that a decision makes, none for `Next`.
pub fn answer(decision: &Decision) -> Option<(StatusCode, HeaderMap, Bytes, Word)> {
    match decision {
        Decision::Next => None,
        Decision::Deny(status) => {
            let (headers, body) = failure::page(*status, "");
            Some((*status, headers, body, Word::Policy))
        }
        Decision::Redirect(status, location) => {
            let (mut headers, body) = failure::page(*status, "");
            headers.insert(LOCATION, location.clone());
            Some((*status, headers, body, Word::Policy))
        }
        Decision::Reply(reply) => Some((reply.status, reply.headers.clone(), reply.body.clone(), Word::Policy)),
        Decision::Failed(failed) => {
            let (status, headers, body) = failure::of_policy(failed);
            Some((status, headers, body, Word::Error))
        }
    }
}

/// The kind of the origin that the request would go to.
pub fn origin_kind(carried: &Carried) -> OriginKind {
    match &carried.exchange.upstream.origin {
        Some(name) => carried
            .generation
            .origins
            .get(name)
            .map_or_else(|| carried.site.host.origin.kind(), |service| service.origin.kind()),
        None => carried.site.host.origin.kind(),
    }
}

/// The client's query as far as it counts on its host: in the key, and for the origin where the cache asks it.
pub fn counted_query(carried: &Carried) -> Option<Cow<'_, str>> {
    let query = carried.exchange.request.query()?;
    match &carried.caching().query {
        None => Some(Cow::Borrowed(query)),
        Some(rule) => Some(rule.apply(query)).filter(|counted| !counted.is_empty()),
    }
}

/// Whether the host refuses a query like this one.
pub fn is_query_refused(carried: &Carried) -> bool {
    let rule = carried.caching().query.as_ref();
    rule.zip(carried.exchange.request.query()).is_some_and(|(rule, query)| rule.refuses(query))
}

/// The key: host and path as asked for, whatever the policy changed about where to fetch, and for http origins scheme and
/// query. Names of the host's own parts begin with a colon, those of the policy with a plus sign.
pub fn key(carried: &Carried) -> Result<CacheKey, KeyTooLong> {
    key_with(carried, None)
}

/// The key of a part of what has that key.
pub fn key_of_part(carried: &Carried) -> Result<CacheKey, KeyTooLong> {
    key_with(carried, Some((PART, "1")))
}

fn key_with(carried: &Carried, more: Option<(&'static str, &'static str)>) -> Result<CacheKey, KeyTooLong> {
    let exchange = &carried.exchange;
    let (lookup, upstream, request) = (&exchange.lookup, &exchange.upstream, &exchange.request);
    // What parts are made of outlives them.
    let port = request.port.map(|port| port.to_string());
    let (filtered, counted);
    let named: SmallVec<[(String, &str); 4]> =
        lookup.parts.iter().map(|(name, value)| (format!("+{name}"), value.as_str())).collect();
    let mut parts: SmallVec<[(&str, &str); 6]> = SmallVec::new();
    let identity = match upstream.origin.as_ref().and_then(|name| carried.generation.origins.get(name)) {
        Some(service) => {
            parts.push((":other", "1"));
            &service.identity
        }
        None => &carried.site.identity,
    };
    parts.push((":o", identity));
    let http = origin_kind(carried) == OriginKind::Http;
    if http {
        parts.push((":s", request.scheme));
        // The origin is told the port (X-Forwarded-Host, and Host where it is the client's) and may write it into links.
        if let Some(port) = &port {
            parts.push((":a", port));
        }
    }
    if lookup.key.is_none() {
        counted = if upstream.query.is_none() { counted_query(carried) } else { None };
        let query = upstream.query.as_ref().map_or(counted.as_deref(), Option::as_deref);
        match (&lookup.query_only, query) {
            (Some(names), Some(_)) if names.is_empty() => {}
            (Some(names), Some(query)) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                filtered = target::filter_query(query, &names);
                if !filtered.is_empty() {
                    parts.push((":q", &filtered));
                }
            }
            (None, Some(query)) if http => parts.push((":q", query)),
            _ => {}
        }
    }
    if let (Some(_), true, Some(query)) = (&lookup.key, http, &upstream.query) {
        // The policy's key stands for the client's query, not for another one that is fetched.
        parts.push((":u", query.as_deref().unwrap_or("")));
    }
    if let Some(path) = &upstream.path {
        parts.push((":p", path));
    }
    parts.extend(upstream.try_paths.iter().map(|path| (":t", path.as_str())));
    parts.extend(named.iter().map(|(name, value)| (name.as_str(), *value)));
    parts.extend(more);
    CacheKey::build(&KeyParts {
        host: &carried.exchange.request.host,
        path: lookup.key.as_deref().unwrap_or_else(|| request.path()),
        parts: &parts,
    })
}

fn body_allowed(carried: &Carried, brought: Brought, purges: bool) -> Result<(), (StatusCode, &'static str)> {
    let settings = &carried.site.host.settings;
    if brought == Brought::Nothing {
        return Ok(());
    }
    if settings.methods == Methods::Read || purges {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "this host takes no request bodies"));
    }
    match brought {
        Brought::Bytes(length) if length > settings.max_body_bytes => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large"))
        }
        _ => Ok(()),
    }
}

fn refuse(carried: Box<Carried>, status: StatusCode, why: &str) -> Early {
    let (headers, body) = failure::page(status, why);
    Deliverable::local(carried, status, headers, body, Outcome::local(Word::Error))
}

fn not_allowed(carried: Box<Carried>) -> Early {
    let allow = allow_of(&carried);
    let mut deliverable = refuse(carried, StatusCode::METHOD_NOT_ALLOWED, "");
    deliverable.headers.insert(ALLOW, allow);
    deliverable
}

fn options(carried: Box<Carried>) -> Early {
    let mut headers = HeaderMap::new();
    headers.insert(ALLOW, allow_of(&carried));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Deliverable::local(carried, StatusCode::NO_CONTENT, headers, Bytes::new(), Outcome::local(Word::Policy))
}

fn allow_of(carried: &Carried) -> HeaderValue {
    let settings = &carried.site.host.settings;
    let mut text = match settings.methods {
        Methods::Read => "GET, HEAD, OPTIONS".to_owned(),
        Methods::All => "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE".to_owned(),
    };
    if let Some(purge) = &settings.purge
        && !text.split(", ").any(|method| method == purge.method.as_str())
    {
        text.push_str(", ");
        text.push_str(purge.method.as_str());
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("GET, HEAD"))
}

async fn purge_by_method(carried: Box<Carried>) -> Early {
    let request = &carried.exchange.request;
    let order = match purge::of_request(&request.host, request.path(), &request.headers) {
        Ok(order) => order,
        Err(why) => return refuse(carried, StatusCode::BAD_REQUEST, &why),
    };
    let proxy = &carried.proxy;
    match order.carry_out(&proxy.cache, &proxy.clock).await {
        Ok(done) => {
            // The signed DELETE of poormanscdn is answered without a body.
            let told = request.method != Method::DELETE;
            let (mut headers, mut body) = (HeaderMap::new(), Bytes::new());
            if told {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                body = format!("{}\n", done.json(&order)).into();
            }
            Deliverable::local(carried, StatusCode::OK, headers, body, Outcome::local(Word::Policy))
        }
        Err(error @ CacheError::TooManyPurges(_)) => {
            tracing::warn!(%error, "purge failed");
            refuse(carried, StatusCode::SERVICE_UNAVAILABLE, "too many purges, ask again later")
        }
        Err(error @ CacheError::PurgeNotPassedOn(_)) => {
            tracing::warn!(%error, "purge failed");
            refuse(carried, StatusCode::SERVICE_UNAVAILABLE, "another program has taken over, ask again")
        }
        Err(error) => {
            tracing::error!(%error, "purge failed");
            refuse(carried, StatusCode::INTERNAL_SERVER_ERROR, "the purge could not be recorded")
        }
    }
}
