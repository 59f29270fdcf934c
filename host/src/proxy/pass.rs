//! Asking the origin for one client: what the cache has no part in, and what becomes of any answer of an origin: the policy
//! speaks, and it is passed on.

use futures_util::StreamExt;
use http::{Method, StatusCode};

use super::ask::{Answer, Ask};
use super::decide;
use super::deliver::{Deliverable, Source};
use super::failure;
use super::fill::{Come, Fill};
use super::invalidate;
use super::keeping::{tags, to_keep_as_sent};
use super::outcome::{Forward, Outcome, Word};
use super::request::Brought;
use super::steps::{Carried, Decided, Early, Upload};
use crate::cache::entry::AsSent;
use crate::cache::key::CacheKey;
use crate::cache::purges::{Candidate, Purged};
use crate::cache::storable;
use crate::cache::{tags as tag_fields, targeted};
use crate::clock::Timestamp;
use crate::origin::{BodyStream, OriginError, OriginResponse, RequestBody};
use crate::policy::Phase;
use crate::policy::exchange::ResponseView;
use crate::semantics::date;
use crate::vhost::CacheUse;

/// What the cache has no part in: passed on with the client's own conditions and ranges.
pub async fn pass(decided: Decided, why: Forward) -> Early {
    let Decided { mut carried, upload } = decided;
    carried.exchange.response = None;
    if carried.policies.exports(Phase::OnOriginRequest) {
        carried = match decide::run(carried, Phase::OnOriginRequest).await {
            Ok(carried) => carried,
            Err(early) => return early,
        };
    }
    let ask = Ask::of(&carried, false);
    let method = carried.exchange.request.method.clone();
    let max_bytes = carried.site.host.settings.max_body_bytes;
    let body = request_body(upload, max_bytes);
    let request_at = carried.proxy.clock.now();
    let asked_after = carried.proxy.cache.sequence();
    let Answer { mut response, path } = match ask.send(&method, body, |_| None).await {
        Ok(answer) => answer,
        Err(error) => return failed(carried, Outcome::forwarded(why), &error),
    };
    let mut outcome = Outcome::forwarded(why);
    outcome.forward_status = Some(response.status);
    let response_at = carried.proxy.clock.now();
    let key = if method == Method::POST { key_of_get(&carried, &mut response, response_at) } else { None };
    let candidate = key.as_ref().map(|key| Candidate {
        host: key.host().to_owned(),
        paths: [key.path().to_owned(), carried.exchange.request.path().to_owned(), path.clone()],
        tags: tags(&carried, &response.headers),
        asked_after,
    });
    let purged = invalidate::after(&carried, &method, response.status, &response.headers, candidate).await;
    if let (Some(key), Some(Purged { first, last: sequence, .. })) = (key, purged) {
        // A policy may give it tags yet, of which nobody knows whether they were purged.
        let may_be_tagged = carried.policies.exports(Phase::OnOriginResponse);
        if !may_be_tagged || first.0 == asked_after.0 + 1 {
            let come = Come { response, path, request_at, response_at, sequence };
            return Fill { carried, key, lead: None, stale: None }.whole(come, ask.kind(), Some(why)).await;
        }
    }
    match judge(carried, response, &path, outcome.word()).await {
        Ok(Judged { carried, response, .. }) => passed_on(carried, response, path, outcome, false),
        Err(early) => early,
    }
}

/// The key of a GET for what this answer to POST is too: it says so, and that it lives (RFC 9110 section 9.3.3). The purge that
/// the request was itself does not hit it.
fn key_of_get(carried: &Carried, response: &mut OriginResponse, response_at: Timestamp) -> Option<CacheKey> {
    let cached = !carried.exchange.lookup.bypass && carried.caching().cache == CacheUse::On;
    if response.status != StatusCode::OK || !cached || !is_query_counted(carried) {
        return None;
    }
    date::ensure_date(&mut response.headers, response_at);
    if !storable::gives_life(&response.headers) || !invalidate::is_of_target(carried, &response.headers) {
        return None;
    }
    decide::key(carried).ok()
}

/// Whether all of the query that the origin got would be in the key of a GET.
fn is_query_counted(carried: &Carried) -> bool {
    carried.exchange.upstream.query.is_some()
        || decide::counted_query(carried).as_deref() == carried.exchange.request.query()
}

/// HEAD for which nothing is kept: asked as HEAD, kept nowhere.
pub(super) async fn head_only(mut carried: Box<Carried>) -> Early {
    if carried.policies.exports(Phase::OnOriginRequest) {
        carried = match decide::run(carried, Phase::OnOriginRequest).await {
            Ok(carried) => carried,
            Err(early) => return early,
        };
    }
    let outcome = Outcome::forwarded(carried.lacking);
    match Ask::of(&carried, true).send(&Method::HEAD, None, |_| None).await {
        Ok(Answer { response, path }) => match judge(carried, response, &path, Word::Miss).await {
            Ok(Judged { carried, response, .. }) => {
                let outcome = Outcome { forward_status: Some(response.status), ..outcome };
                passed_on(carried, response, path, outcome, true)
            }
            Err(early) => early,
        },
        Err(error) => failed(carried, outcome, &error),
    }
}

/// A response after on-origin-response.
pub(super) struct Judged {
    pub carried: Box<Carried>,
    pub response: OriginResponse,
    /// What there was before, if the policy edited it, or if it says something to us that goes no further.
    pub as_sent: Option<Box<AsSent>>,
}

/// Runs on-origin-response on a final response.
pub(super) async fn judge(
    mut carried: Box<Carried>,
    mut response: OriginResponse,
    path: &str,
    word: Word,
) -> Result<Judged, Early> {
    let told_us = response.headers.contains_key(targeted::OWN);
    if !carried.policies.exports(Phase::OnOriginResponse) {
        let as_sent =
            told_us.then(|| Box::new(AsSent { status: response.status, headers: to_keep_as_sent(&response.headers) }));
        return Ok(Judged { carried, response, as_sent });
    }
    let sent = AsSent { status: response.status, headers: response.headers.clone() };
    carried.exchange.response = Some(ResponseView {
        status: response.status,
        headers: std::mem::take(&mut response.headers),
        cache_status: word.as_str(),
        origin_path: Some(path.into()),
    });
    carried = decide::run(carried, Phase::OnOriginResponse).await?;
    if let Some(view) = carried.exchange.response.take() {
        response.status = view.status;
        response.headers = view.headers;
    }
    let edited = told_us || sent.status != response.status || sent.headers != response.headers;
    let as_sent = edited.then(|| Box::new(AsSent { status: sent.status, headers: to_keep_as_sent(&sent.headers) }));
    Ok(Judged { carried, response, as_sent })
}

/// An origin's answer on its way to this client only.
pub(super) fn passed_on(
    carried: Box<Carried>,
    response: OriginResponse,
    path: String,
    outcome: Outcome,
    negotiate: bool,
) -> Early {
    let OriginResponse { status, mut headers, length, body, .. } = response;
    headers.remove(targeted::OWN);
    tag_fields::strip(&mut headers);
    let source = Source::Stream { pieces: pieces(body), length };
    Box::new(Deliverable { carried, status, headers, source, outcome, origin_path: Some(path.into()), negotiate })
}

fn pieces(body: BodyStream) -> super::body::Pieces {
    Box::pin(body.map(|piece| piece.map_err(std::io::Error::other)))
}

/// The answer to a client whose origin failed.
pub(super) fn failed(carried: Box<Carried>, outcome: Outcome, error: &OriginError) -> Early {
    let (status, headers, body) = failure::of_origin(error);
    let forward_status = match error {
        OriginError::Status { status, .. } => Some(*status),
        _ => outcome.forward_status,
    };
    let detail = Some(failure::word_of(error));
    let outcome = Outcome { word: Some(Word::Error), forward_status, detail, ..outcome };
    Deliverable::local(carried, status, headers, body, outcome)
}

/// The client's body on its way, cut off past the host's limit.
fn request_body(upload: Upload, max_bytes: u64) -> Option<RequestBody> {
    let Upload { body, brought, .. } = upload;
    let length = match brought {
        Brought::Nothing => return None,
        Brought::Bytes(length) => Some(length),
        Brought::Unknown => None,
    };
    let mut taken: u64 = 0;
    let stream = http_body_util::BodyStream::new(body?.into_body()).filter_map(move |frame| {
        let piece = match frame {
            Ok(frame) => frame.into_data().ok().map(|data| {
                taken += data.len() as u64;
                if taken > max_bytes {
                    let reason = "longer than the host allows".to_owned();
                    return Err(OriginError::RequestBody { reason, status: StatusCode::PAYLOAD_TOO_LARGE });
                }
                Ok(data)
            }),
            Err(error) => {
                let status = StatusCode::BAD_REQUEST;
                Some(Err(OriginError::RequestBody { reason: error.to_string(), status }))
            }
        };
        std::future::ready(piece)
    });
    Some(RequestBody { length, stream: Box::pin(stream) })
}
