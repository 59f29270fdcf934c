//! Content codings between what is kept and what a client takes, for hosts that compress (RFC 9110 sections 8.4 and 12.5.3).
//!
//! What is kept as it is goes out compressed to who takes that, once there is a compressed form of it: the first who asks gets it as
//! it is, and the form is made behind him, once for all (`making`). It is an entry of its own beside the one it was made of and
//! says which that was, so that no form outlives its original; head, age and freshness of an answer are always the original's.
//! What came compressed goes out as it is, and decompressed to who does not take that (`decoding`).
//!
//! A form of what has a strong ETag has a strong one of its own, made of that and of the form's number (section 8.8.3.3): ranges
//! of a form that is gone are never put together with those of the next. By it the original is known, so that a client's
//! If-None-Match is answered 304 whichever form it has. A range is of what is named by If-Range, and of the original without it.

mod decoding;
mod form;
mod making;

use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_NONE_MATCH, IF_RANGE, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::deliver::{self, Deliverable, Source};
use super::steps::Carried;
use crate::cache::entry::Entry;
use crate::semantics::content_coding::{Accepted, Coded, Coding};
use crate::semantics::etag::{EntityTag, TagList};
use crate::semantics::interest::Interest;
use crate::semantics::list;

pub use form::is_key as is_key_of_form;
pub use making::Compression;

/// The largest body that is compressed: what is larger is seldom text, and would hold up everything behind it.
const MOST_BYTES: u64 = 256 << 20;

/// Digests of the bytes that go out, which are others now (RFC 9530, RFC 1864).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Notes what the client takes, and says it in short from here on: in the variant, and to the origin.
pub fn note_accepted(carried: &mut Carried) {
    let headers = &mut carried.exchange.request.headers;
    if headers.contains_key(ACCEPT_ENCODING) {
        carried.accepted = Accepted::of(headers);
        headers.insert(ACCEPT_ENCODING, carried.accepted.in_short());
    }
}

/// Chooses the form of a kept response that the client gets.
pub async fn choose(answer: &mut Deliverable) {
    let request = &answer.carried.exchange.request;
    let Source::Entry(entry) = &answer.source else { return };
    let fits = answer.negotiate && answer.status == StatusCode::OK && answer.carried.is_read();
    // RFC 9111 section 5.2.2.6, and 5.2.1.6 for the client's own word.
    let forbidden =
        is_forbidden(&answer.headers) || (request.interest.has(Interest::DIRECTIVES) && is_forbidden(&request.headers));
    if !fits || forbidden {
        return;
    }
    let entry = Arc::clone(entry);
    match Coded::of(&answer.headers) {
        Coded::No => compressed(answer, &entry).await,
        Coded::Once(coding) => {
            vary(&mut answer.headers);
            if !answer.carried.accepted.takes(coding) {
                decompressed(answer, &entry, coding).await;
            }
        }
        Coded::Otherwise => {}
    }
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
    let Some(compress) = &carried.site.host.settings.compress else { return };
    let size = deliver::length_of(&answer.source);
    let in_bounds = size.is_none_or(|size| (compress.min_bytes..=MOST_BYTES).contains(&size));
    if !in_bounds || !answer.headers.get(CONTENT_TYPE).is_some_and(|kind| compress.fits(kind)) {
        return;
    }
    let wanted = match named(carried) {
        Named::Form(coding) if carried.accepted.takes(coding) => smallvec::smallvec![coding],
        Named::Form(_) | Named::Original => smallvec::SmallVec::new(),
        Named::Nothing => carried.accepted.best(&compress.encodings),
    };
    vary(&mut answer.headers);
    let mut found = None;
    for (place, coding) in wanted.into_iter().enumerate() {
        found = making::find(&answer.carried, entry, coding).await.map(|made| (coding, made));
        if found.is_some() {
            break;
        }
        // Only what the client likes best is made for it.
        if place == 0 && form::is_whole(entry) {
            making::start(&answer.carried, entry, coding);
        }
    }
    let original = EntityTag::of(&answer.headers);
    if let Some((coding, made)) = found {
        if let Some(tag) = original.as_ref().filter(|tag| !tag.weak) {
            answer.headers.insert(ETAG, form::tag(tag, coding, made.id).to_value());
        }
        answer.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        of_other_bytes(&mut answer.headers);
        answer.source = Source::Entry(made);
    } else if !answer.carried.accepted.best(&Coding::ALL).is_empty() {
        leave_range_by_date(answer);
    }
    if let Some(original) = original {
        know_again(answer, &original);
    }
}

fn of_other_bytes(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    for name in &DIGESTS {
        headers.remove(name);
    }
}

/// Which form a request is about, by its own word.
enum Named {
    Nothing,
    Original,
    Form(Coding),
}

fn named(carried: &Carried) -> Named {
    let request = &carried.exchange.request;
    let named_by = |name: &HeaderName| {
        let value = request.headers.get(name)?;
        let tag = match TagList::of(&request.headers, name) {
            Some(TagList::Tags(tags)) => tags.into_iter().next(),
            _ => EntityTag::parse(value.as_bytes()),
        };
        let form = tag.as_ref().and_then(form::original);
        Some(form.map_or(Named::Original, |(_, coding)| Named::Form(coding)))
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

/// All forms were modified at one time, so If-Range with a date does not tell which one the client has part of: it gets all of it.
fn leave_range_by_date(answer: &mut Deliverable) {
    let headers = &mut answer.carried.exchange.request.headers;
    if headers.get(IF_RANGE).is_some_and(|value| EntityTag::parse(value.as_bytes()).is_none()) {
        headers.remove(RANGE);
    }
}

/// A client that has the original, or any form of it, has what it asks for: its own tag is the one that is answered, since it
/// is by that that it knows what it has (RFC 9111 section 4.3.4).
fn know_again(answer: &mut Deliverable, original: &EntityTag) {
    let request = &answer.carried.exchange.request;
    if !request.interest.has(Interest::CONDITIONS) {
        return;
    }
    let Some(TagList::Tags(tags)) = TagList::of(&request.headers, &IF_NONE_MATCH) else { return };
    let current = EntityTag::of(&answer.headers);
    if current.is_some_and(|current| tags.iter().any(|tag| tag.weak_eq(&current))) {
        return;
    }
    let same = |tag: &&EntityTag| {
        tag.weak_eq(original) || form::original(tag).is_some_and(|(of, _)| of == original.opaque.as_slice())
    };
    if let Some(tag) = tags.iter().find(same) {
        answer.headers.insert(ETAG, tag.to_value());
    }
}

/// As it was before it was coded, read along: of no known length, and without ranges.
async fn decompressed(answer: &mut Deliverable, entry: &Arc<Entry>, coding: Coding) {
    let Some(place) = answer.carried.proxy.compression.place_to_decode() else {
        // So many at once take all the memory that they may; who has it coded may still make something of it.
        tracing::debug!("too many bodies are being decompressed: one goes out as it came");
        return;
    };
    let length = deliver::length_of(&answer.source);
    let pieces = if answer.carried.is_head() {
        decoding::nothing()
    } else {
        let refetch = deliver::refetch(answer, entry, 0, length).await;
        let pieces = super::gap::read(entry, 0, length, refetch);
        decoding::decode(pieces, coding, place)
    };
    if let Some(mut tag) = EntityTag::of(&answer.headers) {
        // Equivalent, and other bytes (RFC 9110 section 8.8.1).
        tag.weak = true;
        answer.headers.insert(ETAG, tag.to_value());
    }
    answer.headers.remove(CONTENT_ENCODING);
    answer.headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    of_other_bytes(&mut answer.headers);
    answer.source = Source::Stream { pieces, length: None };
}
