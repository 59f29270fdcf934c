//! Reading a kept body in pieces, and fetching what is missing of it: the rest of a partly filled object, evicted slices,
//! slices whose checksum did not match. Every piece belongs to one version of the object (If-Match with its strong ETag).

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, ETAG, IF_MATCH, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::ask::{Answer, Ask};
use super::body::Pieces;
use super::decide;
use super::outcome::{Forward, Outcome, Word};
use super::pass::{Judged, failed, judge, passed_on};
use super::pump::{self, Orphans};
use super::steps::{Carried, Early, Hit, Wanting, directives, only_if_cached};
use crate::cache::Cache;
use crate::cache::entry::{Entry, EntryBody, SLICE_BYTES};
use crate::cache::fill::{Piece, Reader, SlicedBody, Writer};
use crate::origin::OriginError;
use crate::policy::Phase;
use crate::semantics::byte_range::{self, ContentRange, Resolved};
use crate::semantics::etag::EntityTag;
use crate::semantics::interest::Interest;
use crate::semantics::precondition::{self, Precondition};

/// How often one reader asks the origin for the same position before it gives up: a body that broke off on its way is asked
/// for once more. What failed before that has had its retry.
const MAX_TRIES: u32 = 2;
/// How often another reader may be faster to ask for the same position, without any byte of it coming.
const MAX_LOST: u32 = 16;

/// What is needed to fetch a missing part of an entry.
#[derive(Clone)]
pub struct Refetch {
    pub ask: Ask,
    pub cache: Cache,
    pub orphans: Orphans,
    /// on-origin-request refused: what is kept may be read, and nothing fetched.
    pub refused: bool,
}

/// How an attempt to fetch a gap went.
pub enum Gap {
    /// It is coming; read again.
    Coming,
    /// The object at the origin is another one now, or cannot be had in parts: what was kept of it is gone.
    Changed,
    /// The origin failed.
    Failed(OriginError),
    /// The origin does not answer now, and said so; what is kept of the object stays.
    Refused(Box<Answer>),
    /// It cannot be had: on-origin-request refused, or the entry lacks what is needed to ask.
    Closed(&'static str),
}

impl Refetch {
    /// Of a request as the policy edited it.
    pub fn of(carried: &Carried) -> Self {
        Self {
            ask: Ask::of(carried, true),
            cache: carried.proxy.cache.clone(),
            orphans: carried.proxy.orphans.clone(),
            refused: false,
        }
    }

    /// Fetches slices that a writer was claimed for.
    pub async fn fill(&self, entry: &Arc<Entry>, body: &SlicedBody, writer: Writer, slices: Range<u64>) -> Gap {
        if self.refused {
            return closed(writer, "the policy refused to fetch more");
        }
        let stored = entry.head.as_sent().1.get(ETAG);
        let (Some(etag), Some(size)) = (stored.filter(|_| entry.head.sliceable), body.size()) else {
            return closed(writer, "the body cannot be completed");
        };
        let start = slices.start * SLICE_BYTES;
        let end = (slices.end * SLICE_BYTES).min(size);
        let fields = || {
            let mut fields = HeaderMap::with_capacity(2);
            fields.insert(IF_MATCH, etag.clone());
            if let Ok(range) = HeaderValue::from_str(&format!("bytes={start}-{}", end - 1)) {
                fields.insert(RANGE, range);
            }
            fields
        };
        let ask = entry.head.origin_path.as_ref().map_or_else(|| self.ask.clone(), |path| self.ask.only(path));
        let answer = match ask.send(&Method::GET, None, |_| Some(fields())).await {
            Ok(answer) => answer,
            Err(error) => {
                writer.fail(error.to_string());
                return Gap::Failed(error);
            }
        };
        if says_nothing_of_it(answer.response.status) {
            writer.fail(refused(answer.response.status));
            return Gap::Refused(Box::new(answer));
        }
        let answer = answer.response;
        let same = || match (EntityTag::parse(etag.as_bytes()), EntityTag::of(&answer.headers)) {
            (Some(kept), Some(come)) => kept.strong_eq(&come),
            _ => false,
        };
        let skip = match answer.status {
            StatusCode::PARTIAL_CONTENT if same() => {
                let range = answer.headers.get(http::header::CONTENT_RANGE).and_then(ContentRange::parse);
                match range.and_then(|content| content.range.map(|range| (range, content.complete))) {
                    // The length that was kept is not the object's: no answer that promises it can be whole.
                    Some((_, Some(all))) if all != size => return self.forget(entry, writer),
                    Some((range, _)) if range.start == start && range.end >= end => 0,
                    // It can't be completed like this: it is had whole or not at all.
                    _ => return self.forget(entry, writer),
                }
            }
            // An origin without ranges: the same object from its beginning.
            StatusCode::OK if same() && length_of(&answer.headers).is_none_or(|all| all == size) => start,
            _ => return self.forget(entry, writer),
        };
        pump::start(self.orphans.clone(), answer.body, writer, skip, Some(end - start), true);
        Gap::Coming
    }

    /// The same on a task of its own: others wait for what a writer was claimed for, and who asked may leave.
    async fn fill_for_all(
        &self,
        entry: &Arc<Entry>,
        body: &Arc<SlicedBody>,
        writer: Writer,
        slices: Range<u64>,
    ) -> Gap {
        let (refetch, entry, body) = (self.clone(), Arc::clone(entry), Arc::clone(body));
        let filling = tokio::spawn(async move { refetch.fill(&entry, &body, writer, slices).await });
        // A panic or a shutdown; the writer was dropped with the task.
        filling.await.unwrap_or(Gap::Closed("the fetch of a part was given up"))
    }

    /// What is kept is of an object that is no more, or never was as the origin first described it.
    fn forget(&self, entry: &Arc<Entry>, writer: Writer) -> Gap {
        self.cache.remove(entry);
        writer.fail("the object changed at the origin, or cannot be had in parts".to_owned());
        Gap::Changed
    }
}

fn refused(status: StatusCode) -> String {
    format!("it answered {} to a request for a part", status.as_u16())
}

/// Failures, limits and timeouts: a later request may get the same object.
fn says_nothing_of_it(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
}

fn closed(writer: Writer, why: &'static str) -> Gap {
    writer.fail(why.to_owned());
    Gap::Closed(why)
}

/// The length that a whole answer promises.
fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where a reader stands.
struct Reading {
    entry: Arc<Entry>,
    reader: Reader,
    /// One past the last byte wanted; none for a body whose length is not known yet.
    end: Option<u64>,
    refetch: Refetch,
    /// Attempts that it began or saw fail since bytes came last.
    tries: u32,
    /// How often another reader was faster to begin one.
    lost: u32,
}

/// The bytes of a range of an entry (all of it when `end` is none), as a stream.
pub fn read(entry: &Arc<Entry>, start: u64, end: Option<u64>, refetch: Refetch) -> Pieces {
    match &entry.body {
        EntryBody::Inline(bytes) => {
            // Callers resolve ranges against the size, which is this length.
            let end = end.unwrap_or(bytes.len() as u64).min(bytes.len() as u64);
            let start = start.min(end);
            let piece = bytes.slice(start as usize..end as usize);
            Box::pin(stream::iter([Ok(piece)]))
        }
        EntryBody::Sliced(body) => {
            let reading = Reading {
                entry: Arc::clone(entry),
                reader: body.reader(start),
                end: end.or_else(|| body.size()),
                refetch,
                tries: 0,
                lost: 0,
            };
            Box::pin(stream::try_unfold(reading, next))
        }
    }
}

async fn next(mut reading: Reading) -> io::Result<Option<(Bytes, Reading)>> {
    loop {
        if reading.end == Some(reading.reader.position()) {
            return Ok(None);
        }
        match reading.reader.next(reading.end).await {
            Piece::Bytes(bytes) => {
                (reading.tries, reading.lost) = (0, 0);
                return Ok(Some((bytes, reading)));
            }
            Piece::End => return Ok(None),
            // Whoever fetched it failed; what can be fetched in parts is asked for again from here.
            Piece::Failed(why) => {
                reading.tries += 1;
                if reading.tries >= MAX_TRIES || !reading.reader.body().is_sliceable() {
                    return Err(io::Error::other(why));
                }
            }
            Piece::Missing(slices) => {
                if reading.tries >= MAX_TRIES {
                    return Err(io::Error::other("a part of the body cannot be had"));
                }
                // None if another reader was faster: read again.
                let Some(writer) = reading.reader.body().claim(slices.clone()) else {
                    reading.lost += 1;
                    if reading.lost >= MAX_LOST {
                        return Err(io::Error::other("a part of the body cannot be had"));
                    }
                    continue;
                };
                reading.tries += 1;
                match reading.refetch.fill_for_all(&reading.entry, reading.reader.body(), writer, slices).await {
                    Gap::Coming => {}
                    Gap::Changed => return Err(io::Error::other("the object changed at the origin")),
                    Gap::Failed(error) => return Err(io::Error::other(error)),
                    Gap::Refused(answer) => return Err(io::Error::other(refused(answer.response.status))),
                    Gap::Closed(why) => return Err(io::Error::other(why)),
                }
            }
        }
    }
}

/// Sees to the first byte that the client wants before the head of the answer goes out. If the disk has it, it is checked; if
/// it is missing, its fetch begins. So what is broken or has changed at the origin is noticed while there is still a whole
/// new answer to give.
pub async fn begin(mut hit: Hit) -> Result<Hit, Begun> {
    let EntryBody::Sliced(body) = &hit.entry.body else { return Ok(hit) };
    let body = Arc::clone(body);
    let Some(wanted) = wanted(&hit.carried, &hit.entry, &body) else { return Ok(hit) };
    if !body.check(wanted.clone()).await {
        // A body that cannot be mended; what was kept of it is gone by now.
        let Hit { carried, key, .. } = hit;
        return Err(Begun::Changed(Box::new(Wanting { carried, key, stale: None })));
    }
    let Some(slices) = body.first_gap(wanted.clone()).filter(|_| body.is_sliceable()) else { return Ok(hit) };
    if directives(&hit.carried).only_if_cached {
        return Err(Begun::Answered(only_if_cached(hit.carried)));
    }
    hit.outcome.forward = Some(Forward::Partial);
    hit.outcome.word = Some(Word::Miss);
    hit.outcome.stored = true;
    if slices.start != wanted.start / SLICE_BYTES {
        // What is there goes out first; the rest is fetched on the way.
        return Ok(hit);
    }
    if hit.carried.policies.exports(Phase::OnOriginRequest) {
        hit.carried = decide::run(hit.carried, Phase::OnOriginRequest).await.map_err(Begun::Answered)?;
        hit.carried.asked_origin = true;
    }
    let Some(writer) = body.claim(slices.clone()) else { return Ok(hit) };
    let refetch = Refetch::of(&hit.carried);
    match refetch.fill_for_all(&hit.entry, &body, writer, slices).await {
        Gap::Coming => Ok(hit),
        Gap::Failed(error) => Err(Begun::Answered(failed(hit.carried, Outcome::forwarded(Forward::Partial), &error))),
        // With what it says of when to come again.
        Gap::Refused(answer) => {
            let Answer { response, path } = *answer;
            let mut outcome = Outcome::forwarded(Forward::Partial);
            outcome.forward_status = Some(response.status);
            Err(Begun::Answered(match judge(hit.carried, response, &path, outcome.word()).await {
                Ok(Judged { carried, response, .. }) => passed_on(carried, response, path, outcome, true),
                Err(early) => early,
            }))
        }
        Gap::Closed(reason) => {
            let error = OriginError::Broken { origin: refetch.ask.origin_name().to_owned(), reason: reason.to_owned() };
            Err(Begun::Answered(failed(hit.carried, Outcome::forwarded(Forward::Partial), &error)))
        }
        Gap::Changed => {
            let Hit { carried, key, .. } = hit;
            Err(Begun::Changed(Box::new(Wanting { carried, key, stale: None })))
        }
    }
}

/// What keeps an answer from beginning.
pub enum Begun {
    /// The object is another one now: fetch it anew.
    Changed(Box<Wanting>),
    /// The policy answered in its place.
    Answered(Early),
}

/// Whether a kept body that is to go out can go out as far as is known: its first byte is there and good, or can be had. What is
/// kept without that is of no use to an answer that has only it.
pub async fn is_usable(carried: &Carried, entry: &Arc<Entry>) -> Usable {
    let EntryBody::Sliced(body) = &entry.body else { return Usable::Whole };
    let Some(wanted) = wanted(carried, entry, body) else { return Usable::Whole };
    if !body.check(wanted.clone()).await {
        return Usable::Broken;
    }
    match body.first_gap(wanted.clone()) {
        Some(slices) if slices.start == wanted.start / SLICE_BYTES => Usable::WithOrigin,
        _ => Usable::Whole,
    }
}

/// What there is of a kept body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usable {
    /// What the client wants first, at least.
    Whole,
    /// What the client wants first has to be fetched.
    WithOrigin,
    /// It is broken and cannot be mended; it is gone by now.
    Broken,
}

/// The bytes that a client wants first; none if it gets none of the body.
fn wanted(carried: &Carried, entry: &Entry, body: &SlicedBody) -> Option<Range<u64>> {
    if entry.head.status != StatusCode::OK {
        let size = body.size().filter(|size| *size > 0)?;
        return (carried.exchange.request.method == Method::GET).then_some(0..size);
    }
    wanted_of(carried, &entry.head.headers, body)
}

/// The same of an answer with status 200 and these headers.
pub fn wanted_of(carried: &Carried, stored: &HeaderMap, body: &SlicedBody) -> Option<Range<u64>> {
    let request = &carried.exchange.request;
    let size = body.size().filter(|size| *size > 0)?;
    if request.method != Method::GET {
        return None;
    }
    if request.interest.has(Interest::CONDITIONS)
        && precondition::evaluate(&request.method, &request.headers, stored) != Precondition::Proceed
    {
        return None;
    }
    if request.interest.has(Interest::RANGE)
        && let Some(specs) = byte_range::parse_range(&request.headers)
        && precondition::if_range_holds(&request.headers, stored)
    {
        return match byte_range::resolve(&specs, size) {
            Resolved::Single(range) => Some(range.start..range.end),
            Resolved::Multiple(ranges) => ranges.first().map(|first| first.start..first.end),
            // Answered with 416, of which no byte is fetched.
            Resolved::Unsatisfiable => None,
            Resolved::Whole => Some(0..size),
        };
    }
    Some(0..size)
}
