//! One fetch for the cache: what is asked (all, a part, or whether what is kept is still good), and what becomes of the answer:
//! kept while it streams, freshened, passed on, or stale served in its place.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::ask::{Answer, Ask};
use super::decide;
use super::deliver::Deliverable;
use super::digest;
use super::failure;
use super::gap::{self, Usable};
use super::keeping::{head_of, keep, remember, storable_by, storable_within, tags, tags_after, to_keep, vary_of};
use super::outcome::{Forward, Outcome, Word};
use super::parts::Missing;
use super::pass::{Judged, failed, judge, passed_on};
use super::plan::{MAX_OBJECT_BYTES, Part, Plan, part_of, probe};
use super::pump;
use super::steps::{Carried, Early, Hit, StaleEntry, Wanting, directives, seconds};
use super::warm::Expected;
use crate::cache::Asked;
use crate::cache::entry::{EntryHead, SLICE_BYTES};
use crate::cache::fill::Lead;
use crate::cache::freshness::{Retention, Timing};
use crate::cache::key::CacheKey;
use crate::cache::purges::PurgeSequence;
use crate::cache::storable::{self, NotStorable, Storable};
use crate::cache::targeted;
use crate::cache::validation;
use crate::clock::Timestamp;
use crate::origin::{OriginError, OriginKind, OriginResponse};
use crate::policy::Phase;
use crate::semantics::date;
use crate::semantics::digest as digests;
use crate::semantics::etag::EntityTag;

/// One fetch for the cache.
pub(super) struct Fill {
    pub carried: Box<Carried>,
    pub key: CacheKey,
    pub lead: Option<Lead>,
    pub stale: Option<StaleEntry>,
}

/// What an origin answered to the cache, with what is needed to keep it.
pub(super) struct Come {
    pub response: OriginResponse,
    pub path: String,
    pub request_at: Timestamp,
    pub response_at: Timestamp,
    /// The newest purge before it was asked for.
    pub sequence: PurgeSequence,
}

impl Fill {
    /// Asks for what is known not to be kept: a range is the client's own.
    pub async fn ask_for_this(self) -> Early {
        if self.stale.is_some() || Plan::of(&self.carried).is_whole() {
            return self.ask().await;
        }
        self.ask_by(Plan::Asked).await
    }

    /// Asks, and gives the answer for the client on whose behalf it asked.
    pub async fn ask(self) -> Early {
        let plan = if self.stale.is_none() { Plan::of(&self.carried) } else { Plan::Whole };
        self.ask_by(plan).await
    }

    /// What a listing says of an object is what a 304 would say: that it is still good.
    pub async fn listed(wanting: Wanting, expected: &Expected) -> Early {
        let Wanting { carried, key, stale } = wanting;
        let response_at = carried.proxy.clock.now();
        let mut headers = HeaderMap::new();
        date::ensure_date(&mut headers, response_at);
        let path = stale.as_ref().and_then(|stale| stale.entry.head.origin_path.as_deref().map(str::to_owned));
        let path = path.unwrap_or_else(|| carried.exchange.request.path().to_owned());
        let (status, length) = (StatusCode::NOT_MODIFIED, Some(0));
        let body = Box::pin(futures_util::stream::empty());
        let response = OriginResponse { status, headers, length, body, upgraded: None };
        let (request_at, sequence) = (expected.at, expected.sequence);
        let come = Come { response, path, request_at, response_at, sequence };
        Self { carried, key, lead: None, stale }.still_good(come).await
    }

    async fn ask_by(mut self, mut plan: Plan) -> Early {
        let sequence = self.carried.proxy.cache.sequence();
        self.carried.exchange.response = None;
        if self.carried.policies.exports(Phase::OnOriginRequest) {
            self.carried = match decide::run(self.carried, Phase::OnOriginRequest).await {
                Ok(carried) => carried,
                Err(early) => {
                    release(self.lead, None);
                    return early;
                }
            };
        }
        let ask = Ask::of(&self.carried, true);
        if let Some(stale) = &mut self.stale {
            match gap::is_usable(&self.carried, &stale.entry).await {
                Usable::Whole => {}
                // Asked about all the same, but useless if the origin fails.
                Usable::WithOrigin => stale.if_error = false,
                Usable::Broken => self.stale = None,
            }
        }
        if let Plan::Probe(specs) = &plan {
            plan = match probe(&ask, specs).await {
                Ok(plan) => plan,
                Err(error) => return self.origin_failed(&error),
            };
        }
        if matches!(plan, Plan::Asked) {
            return self.by_itself(&ask, None).await;
        }
        let mut conditions = self.stale.as_ref().and_then(|stale| {
            let fields = validation::conditions(stale.entry.head.as_sent().1)?;
            Some((fields, stale.entry.head.origin_path.clone()))
        });
        let mut missing = if plan.is_whole() { Missing::find(&self.carried, self.stale.as_ref()).await } else { None };
        loop {
            let request_at = self.carried.proxy.clock.now();
            let range = plan.field();
            let sent = ask
                .send(&Method::GET, None, |path| {
                    let mut fields = HeaderMap::new();
                    if let Some((conditions, of)) = &conditions
                        && of.as_deref().is_none_or(|of| *of == *path)
                    {
                        fields.extend(conditions.clone());
                    }
                    if let Some(range) = &range {
                        fields.insert(RANGE, range.clone());
                    }
                    if let Some(missing) = &missing {
                        missing.fields(&mut fields);
                    }
                    Some(fields)
                })
                .await;
            let Answer { mut response, path } = match sent {
                Ok(answer) => answer,
                Err(error) => return self.origin_failed(&error),
            };
            let response_at = self.carried.proxy.clock.now();
            // RFC 9110 section 6.6.1; Expires is counted from it, and If-Range held against it.
            date::ensure_date(&mut response.headers, response_at);
            let come = Come { response, path, request_at, response_at, sequence };
            match come.response.status {
                StatusCode::NOT_MODIFIED if conditions.is_some() => {
                    let stored = self.stale.as_ref().map(|stale| stale.entry.head.as_sent().1);
                    if stored.is_some_and(|stored| validation::selects(stored, &come.response.headers)) {
                        return self.still_good(come).await;
                    }
                    // It speaks of another response than ours: ask for the thing itself.
                    conditions = None;
                }
                StatusCode::PARTIAL_CONTENT if range.is_some() => match part_of(&come.response, &plan) {
                    Some(part) => return self.part(come, part).await,
                    None => match Box::pin(self.other_part(come)).await {
                        Ok(answer) => return answer,
                        Err(back) => {
                            let (fill, come) = *back;
                            return match plan {
                                Plan::Own(_) => fill.pass_through(come).await,
                                _ => fill.by_itself(&ask, None).await,
                            };
                        }
                    },
                },
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if let Some(lacks) = missing.take() => {
                    if lacks.is_it(&come.response) {
                        return Box::pin(self.complete(come, lacks)).await;
                    }
                    lacks.forget(&self.carried);
                }
                // A range beyond the end says nothing of the key: it would let anyone undo coalescing.
                StatusCode::RANGE_NOT_SATISFIABLE if range.is_some() => return self.by_itself(&ask, None).await,
                status if self.stale_for(status) => {
                    return self.serve_stale("origin-error", Some(status));
                }
                status => {
                    // Another version, or none: what was kept of the one before is not served any more.
                    if let Some(lacks) = missing.take()
                        && !status.is_server_error()
                    {
                        lacks.forget(&self.carried);
                    }
                    return self.whole(come, ask.kind(), None).await;
                }
            }
        }
    }

    /// Whether stale is better than this status: only where header, policy, host or client said so (RFC 5861 section 4).
    pub(super) fn stale_for(&self, status: StatusCode) -> bool {
        let said = |stale: &StaleEntry| {
            let origin = stale.entry.head.retention.stale_if_error;
            origin.is_some() || directives(&self.carried).stale_if_error.is_some()
        };
        self.carried.caching().is_error(status.as_u16())
            && self.stale.as_ref().is_some_and(|stale| stale.if_error && said(stale))
    }

    pub(super) fn origin_failed(self, error: &OriginError) -> Early {
        if self.stale.as_ref().is_some_and(|stale| stale.if_error) {
            tracing::warn!(%error, host = %self.carried.site.host.settings.name, "origin failed, stale is served");
            return self.serve_stale(failure::word_of(error), None);
        }
        release(self.lead, None);
        let why = self.stale.as_ref().map_or(self.carried.lacking, |stale| stale.why);
        failed(self.carried, Outcome::forwarded(why), error)
    }

    /// Serves what is kept in place of what the origin answered. Where it was not reached, nothing was forwarded: that is a hit
    /// (RFC 9211 section 2.1).
    pub(super) fn serve_stale(self, detail: &'static str, answered: Option<StatusCode>) -> Early {
        let Self { carried, key, lead, stale } = self;
        let Some(StaleEntry { entry, why, .. }) = stale else {
            release(lead, None);
            let (headers, body) = failure::page(StatusCode::BAD_GATEWAY, "");
            return Deliverable::local(carried, StatusCode::BAD_GATEWAY, headers, body, Outcome::local(Word::Error));
        };
        if let Some(lead) = lead {
            lead.serve_stale(&entry);
        }
        let left = ttl_s(&entry.head.retention, &entry.head.timing, carried.proxy.clock.now());
        // What is fresh was asked about for this client's sake alone.
        let left = if left > 0 { left } else { left.min(-1) };
        let forward = answered.map(|_| why);
        let outcome = Outcome { detail: Some(detail), forward, forward_status: answered, ..Outcome::hit(left) };
        Deliverable::entry(Hit { carried, key, entry, outcome })
    }

    /// A range that cannot be kept: the client's own Range goes to the origin, and the answer to the client. With `remembered`
    /// it is the key that cannot be kept, and not only this range.
    async fn by_itself(self, ask: &Ask, remembered: Option<Duration>) -> Early {
        let why = self.stale.as_ref().map_or(self.carried.lacking, |stale| stale.why);
        release(self.lead, remembered);
        let carried = self.carried;
        let request = &carried.exchange.request.headers;
        let mut fields = HeaderMap::new();
        for name in [RANGE, http::header::IF_RANGE] {
            if let Some(value) = request.get(&name) {
                fields.insert(name, value.clone());
            }
        }
        match ask.send(&Method::GET, None, |_| Some(fields.clone())).await {
            Ok(Answer { response, path }) => {
                let outcome = Outcome { forward_status: Some(response.status), ..Outcome::forwarded(why) };
                match judge(carried, response, &path, outcome.word()).await {
                    Ok(Judged { carried, response, .. }) => passed_on(carried, response, path, outcome, false),
                    Err(early) => early,
                }
            }
            Err(error) => failed(carried, Outcome::forwarded(why), &error),
        }
    }

    /// An answer to the client's own Range that is of no use to the cache.
    async fn pass_through(self, come: Come) -> Early {
        release(self.lead, None);
        let outcome =
            Outcome { forward_status: Some(come.response.status), ..Outcome::forwarded(self.carried.lacking) };
        match judge(self.carried, come.response, &come.path, outcome.word()).await {
            Ok(Judged { carried, response, .. }) => passed_on(carried, response, come.path, outcome, false),
            Err(early) => early,
        }
    }

    /// The entry is still good (RFC 9111 sections 4.3.4 and 4.3.5).
    pub(super) async fn still_good(self, come: Come) -> Early {
        let Self { carried, key, lead, stale } = self;
        let Some(StaleEntry { entry, why, .. }) = stale else {
            release(lead, None);
            return failed(carried, Outcome::forwarded(Forward::Stale), &unexpected_304());
        };
        let (status, headers) = entry.head.as_sent();
        let merged = OriginResponse {
            status,
            headers: validation::freshened(headers, &come.response.headers),
            length: None,
            body: come.response.body,
            upgraded: None,
        };
        let judged = judge(carried, merged, &come.path, Word::Revalidated).await;
        let Judged { carried, response: merged, as_sent } = match judged {
            Ok(judged) => judged,
            Err(early) => {
                release(lead, None);
                return early;
            }
        };
        let mut outcome = Outcome::forwarded(why);
        outcome.forward_status = Some(come.response.status);
        outcome.word = Some(Word::Revalidated);
        let timing = Timing::of(&come.response.headers, come.request_at, come.response_at);
        let same_place = vary_of(&merged.headers) == entry.head.vary;
        let entry = match storable_by(&carried, merged.status, &merged.headers) {
            Storable::Yes(retention) if same_place => {
                let mut head = entry.head.clone();
                head.status = merged.status;
                head.headers = to_keep(&merged.headers);
                head.as_sent = as_sent;
                head.timing = timing;
                head.retention = retention;
                head.sequence = come.sequence;
                head.tags = tags_after(head.tags, tags(&carried, &merged.headers));
                outcome.stored = true;
                outcome.ttl_s = Some(ttl_s(&head.retention, &head.timing, come.response_at));
                match lead {
                    Some(lead) => lead.freshen(&entry, head),
                    None => carried.proxy.cache.freshen(&entry, head),
                }
            }
            other => {
                match other {
                    Storable::No(why) => {
                        outcome.detail = Some(why.as_str());
                        if !why.is_of_request() {
                            carried.proxy.cache.remove(&entry);
                        }
                        release(lead, remember(&carried, why));
                    }
                    // It varies by other fields than it did: whose answer it is has to be asked anew.
                    Storable::Yes(_) => {
                        outcome.detail = Some("vary-changed");
                        carried.proxy.cache.remove(&entry);
                        release(lead, None);
                    }
                }
                // This client gets it as the origin and the policy have it now: `private` of the 304 included.
                let mut headers = merged.headers;
                headers.remove(targeted::OWN);
                crate::cache::tags::strip(&mut headers);
                let head = EntryHead { status: merged.status, headers, timing, ..entry.head.clone() };
                Arc::new(entry.with_head(head))
            }
        };
        let mut answer = Deliverable::entry(Hit { carried, key, entry, outcome });
        answer.status = merged.status;
        answer
    }

    /// A whole response, and why it was asked for if that is not what the cache lacked.
    pub(super) async fn whole(self, come: Come, kind: OriginKind, why: Option<Forward>) -> Early {
        let Self { carried, key, lead, stale } = self;
        let why = why.or(stale.as_ref().map(|stale| stale.why)).unwrap_or(carried.lacking);
        let Come { response, path, request_at, response_at, sequence } = come;
        let forward_status = response.status;
        // As the origin says it, whatever a policy makes of its head.
        let told = if forward_status == StatusCode::OK { digests::told(&response.headers) } else { Vec::new() };
        let Judged { carried, response, as_sent } = match judge(carried, response, &path, Word::Miss).await {
            Ok(judged) => judged,
            Err(early) => {
                release(lead, None);
                return early;
            }
        };
        let mut outcome = Outcome { forward_status: Some(forward_status), ..Outcome::forwarded(why) };
        let retention = match storable_within(&carried, response.status, &response.headers, response.length) {
            Storable::Yes(retention) => retention,
            Storable::No(reason) => {
                outcome.detail = Some(reason.as_str());
                let remembered = if response.status.is_server_error() { None } else { remember(&carried, reason) };
                release(lead, remembered);
                if let Some(stale) = &stale
                    && !response.status.is_server_error()
                    && !reason.is_of_request()
                {
                    carried.proxy.cache.remove(&stale.entry);
                }
                return passed_on(carried, response, path, outcome, true);
            }
        };
        let timing = Timing::of(&response.headers, request_at, response_at);
        outcome.ttl_s = Some(ttl_s(&retention, &timing, response_at));
        // What is not kept of the head is for the client on whose behalf the origin was asked, and for no other.
        let personal = storable::fields_withheld(&response.headers);
        let size = match response.status {
            StatusCode::NO_CONTENT => Some(0),
            _ => response.length.filter(|length| *length <= MAX_OBJECT_BYTES),
        };
        let ranged = kind != OriginKind::Http
            || response.headers.get(http::header::ACCEPT_RANGES).is_some_and(|value| value == "bytes");
        let head = EntryHead {
            status: response.status,
            size,
            sliceable: response.status == StatusCode::OK
                && ranged
                && size.is_some()
                && EntityTag::of(as_sent.as_ref().map_or(&response.headers, |sent| &sent.headers))
                    .is_some_and(|tag| !tag.weak),
            as_sent,
            ..head_of(&carried, &response.headers, (timing, retention), sequence, &path)
        };
        if size == Some(0)
            && let Err(error) = digest::check_empty(&told, carried.site.host.origin.name())
        {
            digest::note(&carried.proxy.metrics, &error, &key.display());
            release(lead, None);
            return failed(carried, outcome, &error);
        }
        let Some((entry, writer)) = keep(&carried, &key, lead, head, None) else {
            outcome.detail = Some("purged");
            return passed_on(carried, response, path, outcome, true);
        };
        outcome.stored = true;
        if let Some(writer) = writer {
            let writer = writer.keeping_at_most(carried.caching().max_object_bytes);
            let body = if told.is_empty() {
                response.body
            } else {
                let (metrics, name) = (carried.proxy.metrics.clone(), carried.site.host.origin.name());
                digest::checked(response.body, told, name, digest::Noted { metrics, key: key.display() })
            };
            pump::start(carried.proxy.orphans.clone(), body, writer, 0, None, !carried.is_head());
        }
        let mut answer = Deliverable::entry(Hit { carried, key, entry, outcome });
        answer.headers.extend(personal);
        answer
    }

    /// Some slices of an object.
    async fn part(self, come: Come, part: Part) -> Early {
        let Self { carried, key, lead, .. } = self;
        let Come { response, path, request_at, response_at, sequence } = come;
        // The policy judges the object, not the part: it sees what a whole answer would have had.
        let mut headers = response.headers;
        headers.remove(CONTENT_RANGE);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(part.size));
        digest::of_other_content(&mut headers);
        let whole = OriginResponse {
            status: StatusCode::OK,
            headers,
            length: response.length,
            body: response.body,
            upgraded: None,
        };
        // Judged anew if it turns out that the client's own range has to be asked for.
        let before = carried.policies.exports(Phase::OnOriginResponse).then(|| carried.exchange.clone());
        let Judged { mut carried, response: whole, as_sent } = match judge(carried, whole, &path, Word::Miss).await {
            Ok(judged) => judged,
            Err(early) => {
                release(lead, None);
                return early;
            }
        };
        let mut outcome = Outcome::forwarded(carried.lacking);
        outcome.forward_status = Some(StatusCode::PARTIAL_CONTENT);
        let retention = match storable_within(&carried, whole.status, &whole.headers, Some(part.size)) {
            Storable::Yes(retention) if whole.status == StatusCode::OK => retention,
            other => {
                let reason = match other {
                    Storable::No(reason) => reason,
                    Storable::Yes(_) => NotStorable::Status,
                };
                let remembered = remember(&carried, reason);
                if let Some(before) = before {
                    carried.exchange = before;
                }
                let ask = Ask::of(&carried, true).only(&path);
                let fill = Self { carried, key, lead, stale: None };
                tracing::debug!(reason = reason.as_str(), "a range is passed on and not kept");
                return Box::pin(fill.by_itself(&ask, remembered)).await;
            }
        };
        let timing = Timing::of(&whole.headers, request_at, response_at);
        outcome.ttl_s = Some(ttl_s(&retention, &timing, response_at));
        let head = EntryHead {
            size: Some(part.size),
            sliceable: true,
            as_sent,
            ..head_of(&carried, &whole.headers, (timing, retention), sequence, &path)
        };
        let ask = Ask::of(&carried, true);
        let Some((entry, writer)) = keep(&carried, &key, lead, head, Some(part.slices.clone())) else {
            let fill = Self { carried, key, lead: None, stale: None };
            return Box::pin(fill.by_itself(&ask, None)).await;
        };
        outcome.stored = true;
        if let Some(writer) = writer {
            let take = (part.slices.end * SLICE_BYTES).min(part.size) - part.slices.start * SLICE_BYTES;
            pump::start(carried.proxy.orphans.clone(), whole.body, writer, 0, Some(take), true);
        }
        Deliverable::entry(Hit { carried, key, entry, outcome })
    }
}

/// Seconds of freshness left, negative when stale.
pub(super) fn ttl_s(retention: &Retention, timing: &Timing, now: Timestamp) -> i64 {
    seconds(retention.lifetime) - seconds(timing.age(now))
}

/// How the cache is asked for a request.
pub(super) fn asked_of<'a>(carried: &'a Carried, key: &'a CacheKey) -> Asked<'a> {
    let request = &carried.exchange.request;
    Asked { key, headers: &request.headers, request_path: request.path() }
}

fn unexpected_304() -> OriginError {
    OriginError::Broken { origin: String::new(), reason: "304 to a request without conditions".to_owned() }
}

fn release(lead: Option<Lead>, remember: Option<Duration>) {
    if let Some(lead) = lead {
        lead.release(remember);
    }
}
