//! The answer to the client: Age and Cache-Status, the policy's last word, then conditions and ranges (RFC 9110 sections 13
//! and 14), and the access-log record.
//!
//! The policy sees the whole representation and its status; conditions and ranges are answered after it, as long as the status
//! is still 200. So a policy that makes a 404 of a page is not undone by a client that has the page already.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, ALT_SVC, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, STRICT_TRANSPORT_SECURITY,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};

use super::body::{Body, Logged, Pieces};
use super::gap::{self, Refetch};
use super::outcome::{Outcome, Word};
use super::parts::Span;
use super::steps::{Carried, Hit};
use super::{Proxy, browser, compression, digest, failure, multipart};
use crate::cache::entry::{Entry, EntryBody};
use crate::local::Local;
use crate::policy::exchange::ResponseView;
use crate::policy::{Decision, Phase};
use crate::semantics::byte_range::{self, ByteRange, ContentRange, Resolved};
use crate::semantics::interest::Interest;
use crate::semantics::precondition::{self, Precondition};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Where the bytes of an answer come from.
pub enum Source {
    /// There are none.
    Nothing,
    /// Here.
    Bytes(Bytes),
    /// The cache, whole or still coming.
    Entry(Arc<Entry>),
    /// An origin, and nothing of it is kept.
    Stream {
        /// The pieces.
        pieces: Pieces,
        /// Their length, if it is known.
        length: Option<u64>,
    },
}

/// An answer before the last phase of the policy.
pub struct Deliverable {
    pub carried: Box<Carried>,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub source: Source,
    pub outcome: Outcome,
    /// The origin path that answered.
    pub origin_path: Option<Arc<str>>,
    /// Conditions and ranges of the client are ours to answer; else the origin saw them.
    pub negotiate: bool,
}

impl Deliverable {
    /// An answer of our own: a page, a redirect, a policy's reply.
    pub fn local(
        carried: Box<Carried>,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        outcome: Outcome,
    ) -> Box<Self> {
        let source = if body.is_empty() { Source::Nothing } else { Source::Bytes(body) };
        Box::new(Self { carried, status, headers, source, outcome, origin_path: None, negotiate: false })
    }

    /// A kept response.
    pub fn entry(hit: Hit) -> Box<Self> {
        let Hit { carried, entry, outcome, .. } = hit;
        let headers = match &entry.ready {
            Some(ready) => ready.clone(),
            None => {
                let mut headers = entry.head.headers.clone();
                // Content-Length, Accept-Ranges, Age, Cache-Status: room for them at once instead of growing twice.
                headers.reserve(4);
                headers
            }
        };
        Box::new(Self {
            status: entry.head.status,
            headers,
            origin_path: entry.head.origin_path.clone(),
            source: Source::Entry(entry),
            outcome,
            carried,
            negotiate: true,
        })
    }
}

/// Length of the whole body, if it is known.
pub(super) fn length_of(source: &Source) -> Option<u64> {
    match source {
        Source::Nothing => Some(0),
        Source::Bytes(bytes) => Some(bytes.len() as u64),
        Source::Entry(entry) => match &entry.body {
            EntryBody::Inline(bytes) => Some(bytes.len() as u64),
            EntryBody::Sliced(body) => body.size(),
        },
        Source::Stream { length, .. } => *length,
    }
}

/// Makes the response.
pub async fn deliver(mut answer: Box<Deliverable>) -> Response<Body> {
    if let Source::Entry(entry) = &answer.source {
        let age = entry.head.timing.age(answer.carried.proxy.clock.now());
        answer.headers.insert(AGE, HeaderValue::from(age.as_secs()));
    }
    if answer.carried.caching().compress.is_some() {
        // Boxed, so that hosts without it do not carry its room along.
        Box::pin(compression::choose(&mut answer)).await;
    }
    browser::tell(&mut answer);
    if let Some(value) = answer.outcome.cache_status() {
        match answer.headers.get_mut(CACHE_STATUS) {
            // The place that a ready head has for it.
            Some(place) if place.is_empty() => *place = value,
            _ => _ = answer.headers.append(CACHE_STATUS, value),
        }
    }
    let https = &answer.carried.site.host.settings.https;
    if answer.carried.exchange.request.scheme != "https" {
        // RFC 6797 section 7.2: never over http, whoever said it.
        answer.headers.remove(STRICT_TRANSPORT_SECURITY);
    } else if let Some(hsts) = &https.hsts {
        answer.headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    let carried = &answer.carried;
    // Where a client has to show a certificate, it stays with TCP; and what a trusted proxy's client came by is not ours.
    if carried.exchange.client.connection.is_some()
        && carried.version < Version::HTTP_3
        && carried.site.host.settings.https.client_ca.is_none()
        && let Some((_, value)) = carried.proxy.alt_svc.load().iter().find(|(port, _)| *port == carried.port)
    {
        let value = value.clone();
        answer.headers.insert(ALT_SVC, value);
    }
    let judged = answer.carried.policies.exports(Phase::OnDeliver);
    if judged {
        show_body(&mut answer);
        answer = Box::pin(last_word(answer)).await;
    }
    if judged || !matches!(answer.source, Source::Entry(_)) {
        // How the body goes out is hyper's to say. An entry was kept without it.
        answer.headers.remove(TRANSFER_ENCODING);
    }
    let (status, body) = represent(&mut answer).await;
    digest::tell(&mut answer, status, &body);
    finish(answer, status, body)
}

/// What is kept has its length and takes ranges: the policy sees these fields however the entry was found.
fn show_body(answer: &mut Deliverable) {
    let (Source::Entry(_), Some(length)) = (&answer.source, length_of(&answer.source)) else { return };
    if answer.status == StatusCode::OK {
        answer.headers.entry(ACCEPT_RANGES).or_insert(HeaderValue::from_static("bytes"));
    }
    answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
}

/// Runs on-deliver. A failure takes the place of the answer: it may have been about to strip a header.
async fn last_word(mut answer: Box<Deliverable>) -> Box<Deliverable> {
    if answer.origin_path.is_none() && matches!(answer.outcome.word(), Word::Policy | Word::Error) {
        // Said so that a policy can tell its own answers from those of the origin.
        answer.carried.exchange.response = None;
    }
    answer.carried.exchange.response = Some(ResponseView {
        status: answer.status,
        headers: std::mem::take(&mut answer.headers),
        cache_status: answer.outcome.word().as_str(),
        origin_path: answer.origin_path.clone(),
    });
    let (exchange, decision) = answer.carried.policies.run(Phase::OnDeliver, answer.carried.exchange).await;
    answer.carried.exchange = exchange;
    let view = answer.carried.exchange.response.take();
    match (decision, view) {
        (Decision::Failed(failed), _) => {
            let (status, headers, body) = failure::of_policy(&failed);
            answer.status = status;
            answer.headers = headers;
            answer.source = Source::Bytes(body);
            answer.outcome = Outcome::local(Word::Error);
            answer.negotiate = false;
        }
        (_, Some(view)) => {
            answer.status = view.status;
            answer.headers = view.headers;
        }
        (_, None) => {}
    }
    answer
}

/// Conditions, ranges, and the bytes.
async fn represent(answer: &mut Deliverable) -> (StatusCode, Body) {
    let head = answer.carried.is_head();
    let length = length_of(&answer.source);
    let read = head || answer.carried.exchange.request.method == Method::GET;
    if answer.negotiate
        && answer.status == StatusCode::PARTIAL_CONTENT
        && let Source::Entry(entry) = &answer.source
        && entry.head.status == StatusCode::PARTIAL_CONTENT
        && let Some(span) = Span::of(&entry.head.headers)
    {
        let entry = Arc::clone(entry);
        return match conditions(answer) {
            Some(answered) => answered,
            None => of_part(answer, &entry, span).await,
        };
    }
    if answer.negotiate && read && answer.status == StatusCode::OK {
        if let Some(answered) = conditions(answer) {
            return answered;
        }
        let request = &answer.carried.exchange.request;
        if let (Source::Entry(entry), Some(length)) = (&answer.source, length) {
            answer.headers.entry(ACCEPT_RANGES).or_insert(HeaderValue::from_static("bytes"));
            if !head && request.interest.has(Interest::RANGE) && request.headers.contains_key(RANGE) {
                let entry = Arc::clone(entry);
                let resolved = match byte_range::parse_range(&request.headers) {
                    Some(specs) if precondition::if_range_holds(&request.headers, &answer.headers) => {
                        byte_range::resolve(&specs, length)
                    }
                    _ => Resolved::Whole,
                };
                match resolved {
                    Resolved::Whole => {}
                    Resolved::Single(range) => return single(answer, &entry, range, length).await,
                    Resolved::Multiple(ranges) => return multiple(answer, &entry, &ranges, length).await,
                    Resolved::Unsatisfiable => {
                        let (status, body) = own_page(answer, StatusCode::RANGE_NOT_SATISFIABLE);
                        let content = ContentRange { range: None, complete: Some(length) };
                        answer.headers.insert(CONTENT_RANGE, content.to_value());
                        return (status, body);
                    }
                }
            }
        }
    }
    whole(answer, head, length).await
}

/// The answer to the client's conditions, where they do not let it go on.
fn conditions(answer: &mut Deliverable) -> Option<(StatusCode, Body)> {
    let request = &answer.carried.exchange.request;
    if !request.interest.has(Interest::CONDITIONS) {
        return None;
    }
    match precondition::evaluate(&request.method, &request.headers, &answer.headers) {
        Precondition::Proceed => None,
        Precondition::NotModified => {
            for name in [CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, http::header::CONTENT_ENCODING] {
                answer.headers.remove(name);
            }
            digest::of_other_content(&mut answer.headers);
            Some((StatusCode::NOT_MODIFIED, Body::empty()))
        }
        Precondition::Failed => Some(own_page(answer, StatusCode::PRECONDITION_FAILED)),
    }
}

/// What a client asks for of a part that is kept, as which it was found.
async fn of_part(answer: &mut Deliverable, entry: &Arc<Entry>, span: Span) -> (StatusCode, Body) {
    let specs = byte_range::parse_range(&answer.carried.exchange.request.headers).unwrap_or_default();
    let wanted = span.covers(&specs).unwrap_or(span.range);
    let content = ContentRange { range: Some(wanted), complete: span.complete };
    answer.headers.insert(CONTENT_RANGE, content.to_value());
    answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(wanted.len()));
    let start = span.range.start;
    let body = part(answer, entry, wanted.start - start, Some(wanted.end - start)).await;
    (StatusCode::PARTIAL_CONTENT, body)
}

/// Whether a field says something of the site and not of the representation: a browser needs it beside any status.
fn is_of_the_site(name: &HeaderName) -> bool {
    const OF_THE_SITE: [HeaderName; 4] = [
        http::header::STRICT_TRANSPORT_SECURITY,
        http::header::ALT_SVC,
        http::header::VARY,
        HeaderName::from_static("cross-origin-resource-policy"),
    ];
    OF_THE_SITE.contains(name) || name.as_str().starts_with("access-control-")
}

/// A page of ours in place of the representation, whose fields go.
fn own_page(answer: &mut Deliverable, status: StatusCode) -> (StatusCode, Body) {
    let kept: Vec<(HeaderName, HeaderValue)> = answer
        .headers
        .iter()
        .filter(|(name, _)| **name == CACHE_STATUS || **name == AGE || is_of_the_site(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let (headers, body) = failure::page(status, "");
    // Nothing of it goes out, its digest as little as its bytes.
    answer.source = Source::Nothing;
    answer.headers = headers;
    answer.headers.extend(kept);
    answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len() as u64));
    let body = if answer.carried.is_head() { Body::empty() } else { Body::full(body) };
    (status, body)
}

async fn whole(answer: &mut Deliverable, head: bool, length: Option<u64>) -> (StatusCode, Body) {
    let status = answer.status;
    let bodiless = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless {
        answer.headers.remove(CONTENT_LENGTH);
        return (status, Body::empty());
    }
    if head && matches!(answer.source, Source::Nothing | Source::Stream { .. }) {
        // The origin's own Content-Length, if it gave one, tells what a GET would bring.
        return (status, Body::empty());
    }
    match length {
        Some(length) => {
            answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        None => {
            answer.headers.remove(CONTENT_LENGTH);
        }
    }
    if head {
        // RFC 9530 appendix B.2: it would be that of nothing.
        digest::of_other_content(&mut answer.headers);
        return (status, Body::empty());
    }
    let body = match std::mem::replace(&mut answer.source, Source::Nothing) {
        Source::Nothing => Body::empty(),
        Source::Bytes(bytes) => Body::full(bytes),
        Source::Stream { pieces, length } => Body::stream(pieces, length),
        Source::Entry(entry) => part(answer, &entry, 0, length).await,
    };
    (status, body)
}

async fn single(answer: &mut Deliverable, entry: &Arc<Entry>, range: ByteRange, length: u64) -> (StatusCode, Body) {
    let content = ContentRange { range: Some(range), complete: Some(length) };
    answer.headers.insert(CONTENT_RANGE, content.to_value());
    answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(range.len()));
    digest::of_other_content(&mut answer.headers);
    let body = part(answer, entry, range.start, Some(range.end)).await;
    (StatusCode::PARTIAL_CONTENT, body)
}

async fn multiple(
    answer: &mut Deliverable,
    entry: &Arc<Entry>,
    ranges: &[ByteRange],
    length: u64,
) -> (StatusCode, Body) {
    let layout = multipart::Layout::new(ranges, length, answer.headers.get(CONTENT_TYPE));
    answer.headers.remove(CONTENT_RANGE);
    digest::of_other_content(&mut answer.headers);
    answer.headers.insert(CONTENT_TYPE, layout.content_type());
    answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(layout.length()));
    let refetch = refetch(answer, entry, 0, Some(length)).await;
    let length = layout.length();
    let entry = Arc::clone(entry);
    let pieces = layout.pieces(move |range| gap::read(&entry, range.start, Some(range.end), refetch.clone()));
    (StatusCode::PARTIAL_CONTENT, Body::stream(pieces, Some(length)))
}

/// A range of an entry: at once when it is in memory, else as a stream.
async fn part(answer: &mut Deliverable, entry: &Arc<Entry>, start: u64, end: Option<u64>) -> Body {
    match (&entry.body, end) {
        (EntryBody::Inline(bytes), _) => section(bytes, start, end),
        (EntryBody::Sliced(_), _) if let Some(bytes) = &entry.held => section(bytes, start, end),
        (EntryBody::Sliced(_), Some(end)) if end <= start => Body::empty(),
        (EntryBody::Sliced(body), end) => {
            if let Some(bytes) = end.and_then(|end| body.in_memory(start..end)) {
                return Body::full(bytes);
            }
            let refetch = refetch(answer, entry, start, end).await;
            Body::stream(gap::read(entry, start, end, refetch), end.map(|end| end - start))
        }
    }
}

/// Ranges were resolved against its length.
fn section(body: &Bytes, start: u64, end: Option<u64>) -> Body {
    let length = body.len() as u64;
    let end = end.map_or(length, |end| end.min(length));
    Body::full(body.slice(start.min(end) as usize..end as usize))
}

/// What is needed to fetch missing parts. When some are missing already, on-origin-request has its say first; its refusal
/// shows as a body that breaks off, since the answer's head is decided by then.
pub(super) async fn refetch(answer: &mut Deliverable, entry: &Arc<Entry>, start: u64, end: Option<u64>) -> Refetch {
    let carried = &mut answer.carried;
    if !carried.asked_origin
        && carried.policies.exports(Phase::OnOriginRequest)
        && let (EntryBody::Sliced(body), Some(end)) = (&entry.body, end)
        && body.first_gap(start..end).is_some()
    {
        let policies = carried.policies.clone();
        let forked = carried.exchange.clone();
        let (exchange, decision) = policies.run(Phase::OnOriginRequest, forked).await;
        if !matches!(decision, Decision::Next) {
            return Refetch { refused: true, ..Refetch::of(carried) };
        }
        carried.exchange.upstream = exchange.upstream;
    }
    Refetch::of(carried)
}

fn finish(answer: Box<Deliverable>, status: StatusCode, body: Body) -> Response<Body> {
    let Deliverable { carried, headers, outcome, .. } = *answer;
    carried.site.count(outcome.word());
    let mut response = Response::new(body.logged(carried, status));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An answer to a request that belongs to no site.
pub fn plain(proxy: Local<Proxy>, why: &str, logged: Logged) -> Response<Body> {
    let (headers, page) = failure::page(logged.status, why);
    local(proxy, logged, headers, page)
}

/// The same, with these fields and this body.
pub fn local(proxy: Local<Proxy>, logged: Logged, mut headers: HeaderMap, body: Bytes) -> Response<Body> {
    let status = logged.status;
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len() as u64));
    let body = if logged.method == Method::HEAD { Body::empty() } else { Body::full(body) };
    let body = body.refused(proxy, logged);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
