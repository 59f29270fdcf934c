//! Parts of what an HTTP origin gives in a 206 that is not made of whole slices, or has no strong ETag: kept as they came.
//!
//! A part lies under a key of its own beside that of the whole, one for each variant: the newest. It serves every range inside
//! it. Under a strong ETag it grows by what touches it, and the whole is had by asking for the piece that is missing (RFC 9111
//! sections 3.3 and 3.4, RFC 9110 section 15.3.7.3); under any other nothing is ever combined.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::deliver::Deliverable;
use super::fill::{Come, Fill, asked_of, ttl_s};
use super::gap::{self, Refetch};
use super::keeping::{head_of, keep, storable_within};
use super::outcome::{Forward, Outcome, Word};
use super::pass::{Judged, judge, passed_on};
use super::plan::MAX_OBJECT_BYTES;
use super::steps::{Carried, Early, Hit, StaleEntry, seconds};
use super::{decide, digest, pump};
use crate::cache::control::RequestDirectives;
use crate::cache::entry::{Entry, EntryHead};
use crate::cache::freshness::{self, Freshness, Timing};
use crate::cache::key::CacheKey;
use crate::cache::storable::Storable;
use crate::origin::{BodyStream, OriginError, OriginKind, OriginResponse};
use crate::semantics::byte_range::{self, ByteRange, ContentRange, RangeSpec, Resolved};
use crate::semantics::etag::EntityTag;
use crate::semantics::precondition;

/// The part of a key that parts of representations have.
pub const PART: &str = ":part";

/// Where a part lies in its representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its bytes.
    pub range: ByteRange,
    /// Length of the whole, if it is known.
    pub complete: Option<u64>,
}

impl Span {
    /// What the fields of a 206 with one part say.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(CONTENT_RANGE).iter();
        let content = ContentRange::parse(lines.next()?).filter(|_| lines.next().is_none())?;
        let range = content.range.filter(|range| range.end <= MAX_OBJECT_BYTES)?;
        Some(Self { range, complete: content.complete.filter(|complete| *complete <= MAX_OBJECT_BYTES) })
    }

    /// The bytes that are asked for, if it is one range and all of it lies here.
    pub fn covers(&self, specs: &[RangeSpec]) -> Option<ByteRange> {
        let wanted = match (self.complete, specs) {
            (Some(complete), specs) => match byte_range::resolve(specs, complete) {
                Resolved::Single(range) => range,
                _ => return None,
            },
            // Where the whole ends is not known: it may be shorter than what is asked for.
            (None, [RangeSpec::Inclusive(first, last)]) => ByteRange { start: *first, end: last.checked_add(1)? },
            _ => return None,
        };
        (self.range.start <= wanted.start && wanted.end <= self.range.end).then_some(wanted)
    }

    /// Both together, if they leave nothing out.
    fn with(&self, other: &Self) -> Option<Self> {
        let (mine, others) = (self.range, other.range);
        let same = self.complete.is_some() && self.complete == other.complete;
        let range = ByteRange { start: mine.start.min(others.start), end: mine.end.max(others.end) };
        (same && mine.start <= others.end && others.start <= mine.end).then_some(Self { range, ..*self })
    }

    /// The one piece that is missing of the whole. None if there are two, or none.
    fn gap(&self) -> Option<ByteRange> {
        match (self.range, self.complete?) {
            (ByteRange { start: 0, end }, complete) if end < complete => Some(ByteRange { start: end, end: complete }),
            (ByteRange { start: 1.., end }, complete) if end == complete => {
                Some(ByteRange { start: 0, end: self.range.start })
            }
            _ => None,
        }
    }

    fn is_whole(&self) -> bool {
        self.complete == Some(self.range.len())
    }
}

/// A part that is kept.
#[derive(Clone)]
pub struct Part {
    entry: Arc<Entry>,
    key: CacheKey,
    span: Span,
}

impl Part {
    /// What is kept of what a request asks for.
    async fn find(carried: &Carried) -> Option<Self> {
        let key = decide::key_of_part(carried).ok()?;
        let cache = &carried.proxy.cache;
        let asked = asked_of(carried, &key);
        let found = match cache.lookup_memory(&asked) {
            Some(found) => found,
            None => cache.lookup_disk(&asked).await?,
        };
        let span =
            Span::of(&found.entry.head.headers).filter(|_| found.entry.head.status == StatusCode::PARTIAL_CONTENT)?;
        Some(Self { entry: found.entry, key, span })
    }

    /// Its ETag, if what has the same belongs to it.
    fn strong(&self) -> Option<&HeaderValue> {
        let headers = self.entry.head.as_sent().1;
        EntityTag::of(headers).filter(|tag| !tag.weak).and(headers.get(ETAG))
    }

    /// Whether a response is of the same version.
    fn is_of(&self, headers: &HeaderMap) -> bool {
        let own = self.strong().and_then(|etag| EntityTag::parse(etag.as_bytes()));
        own.zip(EntityTag::of(headers)).is_some_and(|(own, other)| own.strong_eq(&other))
    }

    /// Its bytes from one place of the whole to another.
    fn bytes(&self, carried: &Carried, range: ByteRange) -> BodyStream {
        let start = self.span.range.start;
        let pieces = gap::read(&self.entry, range.start - start, Some(range.end - start), Refetch::of(carried));
        let origin = carried.site.host.origin.name().to_owned();
        Box::pin(pieces.map_err(move |error| OriginError::Broken { origin: origin.clone(), reason: error.to_string() }))
    }
}

/// The ranges that a client asks for, where a part may answer it.
fn asked(carried: &Carried) -> Option<Vec<RangeSpec>> {
    let request = &carried.exchange.request;
    let may = request.method == Method::GET && decide::origin_kind(carried) == OriginKind::Http;
    may.then(|| byte_range::parse_range(&request.headers)).flatten()
}

/// The answer from a part, where nothing else is kept. The client's own word on age counts as it does for anything kept.
pub async fn look_up(carried: Box<Carried>, directives: &RequestDirectives) -> Result<Hit, Box<Carried>> {
    let Some(specs) = asked(&carried) else { return Err(carried) };
    let Some(part) = Part::find(&carried).await else { return Err(carried) };
    let (head, now) = (&part.entry.head, carried.proxy.clock.now());
    let max_age = carried.exchange.lookup.max_age;
    let left = match freshness::decide(&head.retention, &head.timing, directives, max_age, now) {
        Freshness::Fresh(left) => seconds(left),
        Freshness::Accepted { since } => -seconds(since).max(1),
        _ => return Err(carried),
    };
    if part.span.covers(&specs).is_none()
        || !precondition::if_range_holds(&carried.exchange.request.headers, &head.headers)
    {
        return Err(carried);
    }
    Ok(Hit { carried, key: part.key, entry: part.entry, outcome: Outcome::hit(left) })
}

/// What a whole lacks that is kept but for one piece.
pub struct Missing {
    part: Part,
    piece: ByteRange,
}

impl Missing {
    /// For a request that wants all of something of which nothing but a part is kept.
    pub async fn find(carried: &Carried, stale: Option<&StaleEntry>) -> Option<Self> {
        if stale.is_some() || decide::origin_kind(carried) != OriginKind::Http {
            return None;
        }
        let part = Part::find(carried).await?;
        let piece = part.span.gap()?;
        part.strong()?;
        Some(Self { part, piece })
    }

    /// The fields that ask for it: the whole comes if it is another version by now.
    pub fn fields(&self, fields: &mut HeaderMap) {
        let range = format!("bytes={}-{}", self.piece.start, self.piece.end - 1);
        if let (Some(etag), Ok(range)) = (self.part.strong(), HeaderValue::from_str(&range)) {
            fields.insert(RANGE, range);
            fields.insert(IF_RANGE, etag.clone());
        }
    }

    /// Forgets the part: the origin did not give what goes with it.
    pub fn forget(self, carried: &Carried) {
        carried.proxy.cache.remove(&self.part.entry);
    }

    /// Whether a 206 is what was asked for.
    pub fn is_it(&self, response: &OriginResponse) -> bool {
        let span = Span::of(&response.headers);
        let wanted = Span { range: self.piece, complete: self.part.span.complete };
        span == Some(wanted) && self.part.is_of(&response.headers)
    }
}

/// Whether a part lies under a key.
pub fn is_key_of_part(key: &CacheKey) -> bool {
    key.parts().any(|(name, _)| name == PART)
}

impl Fill {
    /// The whole, of what was kept and what has come.
    pub async fn complete(self, mut come: Come, missing: Missing) -> Early {
        let Missing { part, piece } = missing;
        come.response.body = exactly(come.response.body, piece.len(), self.carried.site.host.origin.name());
        let span = Span { range: ByteRange { start: 0, end: part.span.complete.unwrap_or(0) }, ..part.span };
        let come = combined(&self.carried, come, &part, span);
        self.made_whole(come).await
    }

    async fn made_whole(self, mut come: Come) -> Early {
        come.response.status = StatusCode::OK;
        come.response.headers.remove(CONTENT_RANGE);
        if let Some(length) = come.response.length {
            come.response.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut answer = self.whole(come, OriginKind::Http, Some(Forward::Partial)).await;
        answer.outcome.forward_status = Some(StatusCode::PARTIAL_CONTENT);
        answer
    }

    /// A 206 that is not made of slices. None of it is lost: it answers the client, if it has what that asked for, and is kept.
    /// Err: it has not.
    pub async fn other_part(mut self, mut come: Come) -> Result<Early, Box<(Self, Come)>> {
        let specs = asked(&self.carried);
        let found = Span::of(&come.response.headers).zip(specs.as_deref());
        let Some((mut span, wanted)) = found.and_then(|(span, specs)| Some((span, span.covers(specs)?))) else {
            return Err(Box::new((self, come)));
        };
        // One that contradicts itself is the client's to make something of.
        let contradicts = come.response.length.is_some_and(|length| length != span.range.len());
        if contradicts || !precondition::if_range_holds(&self.carried.exchange.request.headers, &come.response.headers)
        {
            return Err(Box::new((self, come)));
        }
        if let Some(lead) = self.lead.take() {
            lead.release(None);
        }
        // Neither more nor less than it says: what ends early breaks off, and is kept by nobody.
        come.response.body = exactly(come.response.body, span.range.len(), self.carried.site.host.origin.name());
        come.response.length = Some(span.range.len());
        if EntityTag::of(&come.response.headers).is_some_and(|tag| !tag.weak)
            && let Some(part) = Part::find(&self.carried).await
            && part.is_of(&come.response.headers)
            && let Some(both) = part.span.with(&span)
            && both != span
        {
            come = combined(&self.carried, come, &part, both);
            span = both;
        }
        if span.is_whole() {
            return Ok(self.made_whole(come).await);
        }
        let Come { mut response, path, request_at, response_at, sequence } = come;
        let content = ContentRange { range: Some(span.range), complete: span.complete }.to_value();
        response.headers.insert(CONTENT_RANGE, content.clone());
        // What is kept of it, and what this client gets, may be less.
        digest::of_other_content(&mut response.headers);
        let Judged { carried, response, as_sent } = match judge(self.carried, response, &path, Word::Miss).await {
            Ok(judged) => judged,
            Err(early) => return Ok(early),
        };
        let mut outcome = Outcome::forwarded(carried.lacking);
        outcome.forward_status = Some(StatusCode::PARTIAL_CONTENT);
        let retention = match storable_within(
            &carried,
            StatusCode::OK,
            &response.headers,
            Some(span.complete.unwrap_or(span.range.end)),
        ) {
            _ if response.status != StatusCode::PARTIAL_CONTENT => {
                return Ok(passed_on(carried, response, path, outcome, false));
            }
            Storable::Yes(retention) => retention,
            Storable::No(reason) => {
                outcome.detail = Some(reason.as_str());
                return Ok(cut(carried, response, path, outcome, span, wanted));
            }
        };
        let timing = Timing::of(&response.headers, request_at, response_at);
        outcome.ttl_s = Some(ttl_s(&retention, &timing, response_at));
        let mut head = EntryHead {
            status: StatusCode::PARTIAL_CONTENT,
            size: Some(span.range.len()),
            as_sent,
            ..head_of(&carried, &response.headers, (timing, retention), sequence, &path)
        };
        // Whatever a policy made of it: it says which bytes these are.
        head.headers.insert(CONTENT_RANGE, content);
        let kept = decide::key_of_part(&carried).ok().and_then(|key| {
            let (entry, writer) = keep(&carried, &key, None, head, None)?;
            Some((key, entry, writer))
        });
        let Some((key, entry, writer)) = kept else {
            outcome.detail = Some("purged");
            return Ok(cut(carried, response, path, outcome, span, wanted));
        };
        outcome.stored = true;
        if let Some(writer) = writer {
            let take = Some(span.range.len());
            pump::start(carried.proxy.orphans.clone(), response.body, writer, 0, take, true);
        }
        Ok(Deliverable::entry(Hit { carried, key, entry, outcome }))
    }
}

/// What has come, which is exactly as long as it says, with what was kept before and behind it. The fields are those that came (RFC 9111 section 3.4).
fn combined(carried: &Carried, come: Come, part: &Part, span: Span) -> Come {
    let Come { mut response, path, request_at, response_at, sequence } = come;
    let kept = part.span.range;
    let new = Span::of(&response.headers).map_or(kept, |span| span.range);
    // Of what both have, that which has just come is taken.
    let before = ByteRange { start: span.range.start, end: new.start };
    let behind = ByteRange { start: new.end, end: span.range.end };
    digest::of_other_content(&mut response.headers);
    let mut body = response.body;
    if !before.is_empty() {
        body = Box::pin(part.bytes(carried, before).chain(body));
    }
    if !behind.is_empty() {
        body = Box::pin(body.chain(part.bytes(carried, behind)));
    }
    response.body = body;
    response.length = Some(span.range.len());
    // What is kept is fetched in time or not at all: a purge after it was keeps the whole out.
    let sequence = sequence.min(part.entry.head.sequence);
    Come { response, path, request_at, response_at, sequence }
}

/// A body that has so many bytes, or breaks off: what follows it would be in the wrong place.
fn exactly(body: BodyStream, length: u64, origin: &str) -> BodyStream {
    let origin = origin.to_owned();
    let counted = stream::unfold((body, length, origin), |(mut body, left, origin)| async move {
        let broken = |reason: &str| OriginError::Broken { origin: origin.clone(), reason: reason.to_owned() };
        match body.next().await {
            Some(Ok(piece)) if piece.len() as u64 > left => {
                let error = broken("a part is longer than it says");
                Some((Err(error), (body, 0, origin)))
            }
            Some(Ok(piece)) => {
                let left = left - piece.len() as u64;
                Some((Ok(piece), (body, left, origin)))
            }
            Some(Err(error)) => Some((Err(error), (body, left, origin))),
            None if left > 0 => {
                let error = broken("a part is shorter than it says");
                Some((Err(error), (body, 0, origin)))
            }
            None => None,
        }
    });
    Box::pin(counted)
}

/// The bytes that the client wants, of a part that is passed on.
fn cut(
    carried: Box<Carried>,
    mut response: OriginResponse,
    path: String,
    outcome: Outcome,
    span: Span,
    wanted: ByteRange,
) -> Early {
    let content = ContentRange { range: Some(wanted), complete: span.complete };
    response.headers.insert(CONTENT_RANGE, content.to_value());
    response.headers.insert(CONTENT_LENGTH, HeaderValue::from(wanted.len()));
    response.length = Some(wanted.len());
    let begin = (response.body, wanted.start - span.range.start, Some(wanted.len()));
    response.body = Box::pin(stream::unfold(begin, |(mut body, mut skip, mut left)| async move {
        while left != Some(0) {
            let piece = match body.next().await? {
                Ok(piece) => pump::trim(piece, &mut skip, &mut left).map(Ok),
                Err(error) => Some(Err(error)),
            };
            if let Some(piece) = piece {
                return Some((piece, (body, skip, left)));
            }
        }
        None
    }));
    passed_on(carried, response, path, outcome, false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start: u64, end: u64, complete: Option<u64>) -> Span {
        Span { range: ByteRange { start, end }, complete }
    }

    fn headers(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (CONTENT_RANGE, HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn what_a_206_holds_is_read_and_never_guessed() {
        assert_eq!(Span::of(&headers(&["bytes 4-9/10"])), Some(span(4, 10, Some(10))));
        assert_eq!(Span::of(&headers(&["bytes 4-9/*"])), Some(span(4, 10, None)));
        for wrong in
            [&[][..], &["bytes */10"], &["bytes 9-4/10"], &["bytes 4-10/10"], &["bytes 4-9/10", "bytes 4-9/10"]]
        {
            assert_eq!(Span::of(&headers(wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn ranges_inside_are_covered() {
        let part = span(4, 8, Some(10));
        let whole = |start, end| Some(ByteRange { start, end });
        assert_eq!(part.covers(&[RangeSpec::Inclusive(4, 7)]), whole(4, 8));
        assert_eq!(part.covers(&[RangeSpec::Inclusive(5, 6)]), whole(5, 7));
        for outside in
            [RangeSpec::Inclusive(3, 5), RangeSpec::Inclusive(5, 8), RangeSpec::From(5), RangeSpec::Suffix(2)]
        {
            assert_eq!(part.covers(&[outside]), None, "{outside:?}");
        }
        let end = span(4, 10, Some(10));
        assert_eq!(end.covers(&[RangeSpec::From(6)]), whole(6, 10));
        assert_eq!(end.covers(&[RangeSpec::Suffix(3)]), whole(7, 10));
        assert_eq!(end.covers(&[RangeSpec::Inclusive(6, 99)]), whole(6, 10));
        let unknown = span(4, 10, None);
        assert_eq!(unknown.covers(&[RangeSpec::Inclusive(6, 9)]), whole(6, 10));
        for unclear in [RangeSpec::Inclusive(6, 10), RangeSpec::From(6), RangeSpec::Suffix(3)] {
            assert_eq!(unknown.covers(&[unclear]), None, "{unclear:?}");
        }
    }

    #[test]
    fn parts_that_touch_are_one_and_what_is_missing_is_known() {
        let ten = Some(10);
        assert_eq!(span(0, 4, ten).with(&span(4, 10, ten)), Some(span(0, 10, ten)));
        assert_eq!(span(2, 6, ten).with(&span(4, 8, ten)), Some(span(2, 8, ten)));
        assert_eq!(span(0, 4, ten).with(&span(5, 10, ten)), None);
        assert_eq!(span(0, 4, ten).with(&span(4, 10, Some(11))), None);
        assert_eq!(span(0, 4, None).with(&span(4, 10, None)), None, "of what length is unknown nothing is whole");
        assert_eq!(span(0, 4, ten).gap(), Some(ByteRange { start: 4, end: 10 }));
        assert_eq!(span(5, 10, ten).gap(), Some(ByteRange { start: 0, end: 5 }));
        for none in [span(0, 10, ten), span(2, 8, ten), span(0, 4, None)] {
            assert_eq!(none.gap(), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_covered_lies_inside(
            start in 0u64..50, length in 1u64..50, behind in 0u64..50, first in 0u64..120, count in 0u64..60,
        ) {
            let part = span(start, start + length, Some(start + length + behind));
            let specs = [RangeSpec::Inclusive(first, first + count), RangeSpec::From(first), RangeSpec::Suffix(count)];
            for spec in specs {
                if let Some(wanted) = part.covers(&[spec]) {
                    prop_assert!(!wanted.is_empty() && part.range.start <= wanted.start && wanted.end <= part.range.end);
                }
            }
        }
    }
}
