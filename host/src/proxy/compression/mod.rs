//! Content codings between what is kept and what a client takes, for hosts and paths that compress (RFC 9110 sections 8.4 and 12.5.3).
//!
//! What is kept as it is goes out compressed to who takes that, once there is a compressed form of it: the first who asks gets it as
//! it is, and the form is made behind him, once for all (`making`). It is an entry of its own beside the one it was made of and
//! says which that was, so that no form outlives its original; head, age and freshness of an answer are always the original's.
//! What came compressed goes out as it is, and decompressed to who does not take that (`identity`), also what is not kept.
//!
//! A form of what has a strong ETag has a strong one of its own, made of that and of the form's number (section 8.8.3.3): ranges
//! of a form that is gone are never put together with those of the next. By it the original is known, so that a client's
//! If-None-Match is answered 304 whichever form it has. A range is of what is named by If-Range, and of the original without it.

mod decoding;
mod form;
mod identity;
mod making;
mod members;

use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use self::identity::Why;
use super::deliver::{self, Deliverable, Source};
use super::outcome::{Outcome, Word};
use super::steps::Carried;
use super::{digest, failure, gap};
use crate::cache::entry::{Entry, EntryBody};
use crate::semantics::content_coding::{Accepted, Coded, Coding};
use crate::semantics::etag::{EntityTag, TagList};
use crate::semantics::interest::Interest;
use crate::semantics::list;
use crate::semantics::precondition::{self, Precondition};

pub use form::is_key as is_key_of_form;
pub use making::Compression;

/// The largest body that is compressed: what is larger is seldom text, and would hold up everything behind it. As much may come of
/// any body that is decompressed.
const MOST_BYTES: u64 = 256 << 20;

/// Notes what the client takes, and says it in short from here on: in the variant, and to the origin.
pub fn note_accepted(carried: &mut Carried) {
    let headers = &mut carried.exchange.request.headers;
    if headers.contains_key(ACCEPT_ENCODING) {
        carried.accepted = Accepted::of(headers);
        headers.insert(ACCEPT_ENCODING, carried.accepted.in_short());
    }
}

/// Chooses the form of a response that the client gets.
pub async fn choose(answer: &mut Deliverable) {
    let request = &answer.carried.exchange.request;
    if !answer.carried.is_read() || !matches!(answer.source, Source::Entry(_) | Source::Stream { .. }) {
        return;
    }
    let coded = Coded::of(&answer.headers);
    let kept = match &answer.source {
        Source::Entry(entry) => Some(Arc::clone(entry)),
        _ => None,
    };
    let fits = match coded {
        Coded::No => kept.is_some() && answer.negotiate && answer.status == StatusCode::OK,
        Coded::Once(_) => has_whole_body(answer),
        Coded::Otherwise => false,
    };
    // RFC 9111 section 5.2.2.6, and 5.2.1.6 for the client's own word.
    let forbidden = || {
        is_forbidden(&answer.headers) || (request.interest.has(Interest::DIRECTIVES) && is_forbidden(&request.headers))
    };
    if !fits || forbidden() {
        return;
    }
    match (coded, kept) {
        (Coded::No, Some(entry)) => compressed(answer, &entry).await,
        (Coded::Once(coding), kept) => {
            vary(&mut answer.headers);
            // What is not kept may have gone another way than what is, with what the client said as it said it.
            let request = &answer.carried.exchange.request;
            let takes = match &kept {
                Some(_) => answer.carried.accepted.takes(coding),
                None => Accepted::of(&request.headers).takes(coding),
            };
            if !takes {
                decompressed(answer, kept, coding).await;
            }
        }
        _ => {}
    }
}

/// A part cannot be decompressed, and nothing has no coding.
fn has_whole_body(answer: &Deliverable) -> bool {
    let without = matches!(
        answer.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    );
    !without && !answer.status.is_informational() && !answer.headers.contains_key(CONTENT_RANGE)
}

fn is_forbidden(headers: &HeaderMap) -> bool {
    list::of(headers, &CACHE_CONTROL).any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// What is chosen by Accept-Encoding says so.
fn vary(headers: &mut HeaderMap) {
    let named = list::of(headers, &VARY).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"));
    if !named {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

async fn compressed(answer: &mut Deliverable, entry: &Arc<Entry>) {
    let carried = &answer.carried;
    let Some(compress) = &carried.caching().compress else { return };
    let size = deliver::length_of(&answer.source);
    let in_bounds = size.is_none_or(|size| (compress.min_bytes..=MOST_BYTES).contains(&size));
    if !in_bounds || !answer.headers.get(CONTENT_TYPE).is_some_and(|kind| compress.fits(kind)) {
        return;
    }
    let named = named(carried);
    let wanted = match &named {
        Named::Forms(tags) => named_codings(tags).filter(|coding| carried.accepted.takes(*coding)).collect(),
        Named::Original => smallvec::SmallVec::new(),
        Named::Nothing => carried.accepted.best(&compress.encodings),
    };
    vary(&mut answer.headers);
    let original = EntityTag::of(&answer.headers);
    let mut found = None;
    for (place, coding) in wanted.into_iter().enumerate() {
        if let Some(made) = making::find(&answer.carried, entry, coding).await {
            let tag = original.as_ref().filter(|tag| !tag.weak).map(|tag| form::tag(tag, coding, made.id));
            let is_named = match &named {
                // Of several that a client has, one that is still there.
                Named::Forms(tags) if tags.len() > 1 => tag.as_ref().is_some_and(|tag| tags.contains(tag)),
                _ => true,
            };
            if is_named && is_good(&answer.carried, &answer.headers, &made, tag.as_ref(), original.as_ref()).await {
                found = Some((coding, made, tag));
                break;
            }
        }
        // Only what the client likes best is made for it.
        if place == 0 && form::is_whole(entry) {
            making::start(&answer.carried, entry, coding);
        }
    }
    if let Some((coding, made, tag)) = found {
        if let Some(tag) = tag {
            answer.headers.insert(ETAG, tag.to_value());
        }
        answer.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        of_other_bytes(&mut answer.headers);
        answer.source = Source::Entry(made);
    } else if !answer.carried.accepted.best(&Coding::ALL).is_empty() {
        leave_range_by_date(answer);
    }
    if let Some(original) = original {
        know_again(&answer.carried, &mut answer.headers, &original);
    }
}

/// Whether what the client gets of a form can be read, under the head of the original. Nothing is read for who gets nothing of it.
async fn is_good(
    carried: &Carried,
    head: &HeaderMap,
    made: &Entry,
    tag: Option<&EntityTag>,
    original: Option<&EntityTag>,
) -> bool {
    let EntryBody::Sliced(body) = &made.body else { return true };
    let interest = carried.exchange.request.interest;
    let wanted = if interest.has(Interest::CONDITIONS) || interest.has(Interest::RANGE) {
        // As it will be.
        let mut head = head.clone();
        if let Some(tag) = tag {
            head.insert(ETAG, tag.to_value());
        }
        if let Some(original) = original {
            know_again(carried, &mut head, original);
        }
        gap::wanted_of(carried, &head, body)
    } else {
        gap::wanted_of(carried, head, body)
    };
    match wanted {
        Some(wanted) => body.check(wanted).await,
        None => true,
    }
}

fn of_other_bytes(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    digest::of_other_representation(headers);
}

/// Which form a request is about, by its own word.
enum Named {
    Nothing,
    Original,
    /// One of these, which are forms' tags.
    Forms(Vec<EntityTag>),
}

fn named(carried: &Carried) -> Named {
    let request = &carried.exchange.request;
    let named_by = |name: &HeaderName| {
        let value = request.headers.get(name)?;
        let mut tags = match TagList::of(&request.headers, name) {
            Some(TagList::Tags(tags)) => tags,
            _ => EntityTag::parse(value.as_bytes()).into_iter().collect(),
        };
        tags.retain(|tag| form::original(tag).is_some());
        Some(if tags.is_empty() { Named::Original } else { Named::Forms(tags) })
    };
    if request.interest.has(Interest::RANGE) && request.headers.contains_key(RANGE) {
        // Without If-Range nobody knows which form the client has part of; all clients understand the original.
        return named_by(&IF_RANGE).unwrap_or(Named::Original);
    }
    if request.interest.has(Interest::CONDITIONS) && request.headers.get(IF_MATCH).is_some_and(|value| value != "*") {
        return named_by(&IF_MATCH).unwrap_or(Named::Nothing);
    }
    Named::Nothing
}

/// The codings that tags name, each once.
fn named_codings(tags: &[EntityTag]) -> impl Iterator<Item = Coding> {
    let named = Coding::ALL.map(|coding| {
        let first = tags.iter().position(|tag| form::original(tag).is_some_and(|(_, of)| of == coding));
        (first, coding)
    });
    let mut named: smallvec::SmallVec<[_; 3]> = named.into_iter().filter(|(first, _)| first.is_some()).collect();
    named.sort_by_key(|(first, _)| *first);
    named.into_iter().map(|(_, coding)| coding)
}

/// All forms were modified at one time, so If-Range with a date does not tell which one the client has part of: it gets all of it.
fn leave_range_by_date(answer: &mut Deliverable) {
    let headers = &mut answer.carried.exchange.request.headers;
    if headers.get(IF_RANGE).is_some_and(|value| EntityTag::parse(value.as_bytes()).is_none()) {
        headers.remove(RANGE);
    }
}

/// A client that has the original, or any form of it, has what it asks for: its own tag is the one that is answered, since it
/// is by that that it knows what it has (RFC 9111 section 4.3.4).
fn know_again(carried: &Carried, headers: &mut HeaderMap, original: &EntityTag) {
    let request = &carried.exchange.request;
    if !request.interest.has(Interest::CONDITIONS) {
        return;
    }
    let Some(TagList::Tags(tags)) = TagList::of(&request.headers, &IF_NONE_MATCH) else { return };
    let current = EntityTag::of(headers);
    if current.is_some_and(|current| tags.iter().any(|tag| tag.weak_eq(&current))) {
        return;
    }
    let same = |tag: &&EntityTag| {
        tag.weak_eq(original) || form::original(tag).is_some_and(|(of, _)| of == original.opaque.as_slice())
    };
    if let Some(tag) = tags.iter().find(same) {
        headers.insert(ETAG, tag.to_value());
    }
}

/// As it was before it was coded, without ranges.
async fn decompressed(answer: &mut Deliverable, kept: Option<Arc<Entry>>, coding: Coding) {
    if let Some(mut tag) = EntityTag::of(&answer.headers) {
        // Equivalent, and other bytes (RFC 9110 section 8.8.1).
        tag.weak = true;
        answer.headers.insert(ETAG, tag.to_value());
    }
    answer.headers.remove(CONTENT_ENCODING);
    answer.headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    of_other_bytes(&mut answer.headers);
    if answer.carried.is_head() {
        answer.source = Source::Stream { pieces: Box::pin(futures_util::stream::empty()), length: None };
        return;
    }
    let request = &answer.carried.exchange.request;
    let idle = answer.negotiate
        && answer.status == StatusCode::OK
        && request.interest.has(Interest::CONDITIONS)
        && precondition::evaluate(&request.method, &request.headers, &answer.headers) != Precondition::Proceed;
    let source = match kept {
        Some(entry) if idle => {
            let places = answer.carried.proxy.compression.decoded.passing();
            let pieces = decoding::later(identity::coded(answer, &entry).await, coding, places);
            Ok(Source::Stream { pieces, length: None })
        }
        Some(entry) => identity::of_kept(answer, &entry, coding).await,
        None => match std::mem::replace(&mut answer.source, Source::Nothing) {
            Source::Stream { pieces, .. } => identity::of_stream(&answer.carried, pieces, coding).await,
            source => Ok(source),
        },
    };
    match source {
        Ok(source) => answer.source = source,
        Err(why) => refuse(answer, coding, why),
    }
}

/// In place of what the client could not read.
fn refuse(answer: &mut Deliverable, coding: Coding, why: Why) {
    answer.carried.proxy.metrics.not_decompressed.inc();
    let ((status, headers, body), detail) = match why {
        Why::Busy => (failure::of_load(), "busy"),
        Why::Unread => (failure::of_incomplete(), "http_response_incomplete"),
        Why::Undecodable => (failure::of_content_coding(coding.name()), "http_response_content_coding"),
    };
    answer.status = status;
    answer.headers = headers;
    answer.source = Source::Bytes(body);
    // It is ours: for policies too.
    answer.origin_path = None;
    let was = std::mem::replace(&mut answer.outcome, Outcome::local(Word::Error));
    answer.outcome.forward = was.forward;
    answer.outcome.forward_status = was.forward_status;
    answer.outcome.detail = Some(detail);
    answer.negotiate = false;
}
