//! Digests of bodies (RFC 9530): bodies that are kept are held against what their origins say of them, and clients are told what they
//! ask for where that is known, or cheap to make.
//!
//! No digest goes out that is of other bytes than it says: `Content-Digest` and `Content-MD5` are of the content of the message that
//! had them, so they go where another content goes out (a part, a head, another coding); `Repr-Digest` stays as long as the
//! representation is the same. What a client wishes for is a wish: a large body is not read for it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, StatusCode};

use super::body::Body;
use super::deliver::{Deliverable, Source};
use crate::cache::entry::{EntryBody, INLINE_BYTES};
use crate::origin::{BodyStream, OriginError};
use crate::semantics::digest::{
    self, CONTENT_DIGEST, Digest, Hasher, REPR_DIGEST, WANT_CONTENT_DIGEST, WANT_REPR_DIGEST,
};
use crate::semantics::interest::Interest;
use crate::telemetry::metrics::Metrics;

/// The longest body that a digest is made of because a client wishes for it: one that lies in memory with its head.
const MOST_BYTES: usize = INLINE_BYTES as usize;

/// RFC 1864; gone from HTTP, and still sent.
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
/// RFC 3230; like `Repr-Digest`.
const DIGEST: HeaderName = HeaderName::from_static("digest");
/// What S3 calls its checksums.
const S3_CHECKSUM: &str = "x-amz-checksum-";

/// What is said of other content than goes out is said no more. S3 gives no checksum with a part, and its SDKs hold the part against one
/// that is there.
pub fn of_other_content(headers: &mut HeaderMap) {
    headers.remove(CONTENT_DIGEST);
    headers.remove(CONTENT_MD5);
    let checksums: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(S3_CHECKSUM)).cloned().collect();
    for name in checksums {
        headers.remove(name);
    }
}

/// The same where the representation is another one: coded otherwise, or no longer.
pub fn of_other_representation(headers: &mut HeaderMap) {
    of_other_content(headers);
    headers.remove(REPR_DIGEST);
    headers.remove(DIGEST);
}

/// A body that breaks off before its last piece goes out if all of it is not what each of its digests says.
pub fn checked(body: BodyStream, expected: Vec<Digest>, origin: &str, noted: Noted) -> BodyStream {
    let hashers = expected.iter().map(|digest| digest.algorithm().hasher()).collect();
    let begin = Checking { body, hashers, expected, held: None, origin: origin.to_owned(), noted };
    Box::pin(stream::unfold(Some(begin), |checking| async move {
        let mut checking = checking?;
        loop {
            match checking.body.next().await {
                Some(Ok(piece)) => {
                    checking.hashers.iter_mut().for_each(|hasher| hasher.update(&piece));
                    // A last piece without bytes would hold nothing back.
                    let piece = if piece.is_empty() { None } else { checking.held.replace(piece) };
                    if let Some(piece) = piece {
                        return Some((Ok(piece), Some(checking)));
                    }
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None => {
                    let Checking { hashers, expected, held, origin, noted, .. } = checking;
                    if hashers.into_iter().map(Hasher::finish).eq(expected) {
                        return Some((Ok(held?), None));
                    }
                    let error = altered(origin);
                    note(&noted.metrics, &error, &noted.key);
                    return Some((Err(error), None));
                }
            }
        }
    }))
}

struct Checking {
    body: BodyStream,
    hashers: Vec<Hasher>,
    expected: Vec<Digest>,
    /// The newest piece.
    held: Option<Bytes>,
    origin: String,
    noted: Noted,
}

/// Who is told of a body that is not what it should be.
pub struct Noted {
    pub metrics: Arc<Metrics>,
    /// What it would have been kept under, as a person reads it.
    pub key: String,
}

/// Tells of a body that is not what it should be: the origin, or somebody on the way from it, alters what it sends.
pub fn note(metrics: &Metrics, error: &OriginError, key: &str) {
    metrics.digest_mismatches.inc();
    tracing::warn!(%error, key, "a body is broken off and not kept");
}

/// Whether a body without bytes is what its digests say.
pub fn check_empty(expected: &[Digest], origin: &str) -> Result<(), OriginError> {
    let right = expected.iter().all(|digest| Digest::of(digest.algorithm(), b"") == *digest);
    if right { Ok(()) } else { Err(altered(origin.to_owned())) }
}

fn altered(origin: String) -> OriginError {
    OriginError::Altered { origin }
}

/// Tells a client the digests that it wishes for.
pub fn tell(answer: &mut Deliverable, status: StatusCode, body: &Body) {
    let request = &answer.carried.exchange.request;
    if !request.interest.has(Interest::DIGESTS) || status == StatusCode::NOT_MODIFIED {
        return;
    }
    let wanted = |name| digest::wanted(&request.headers, name);
    let (of_representation, of_content) = (wanted(&WANT_REPR_DIGEST), wanted(&WANT_CONTENT_DIGEST));
    let short = |bytes: &Bytes| bytes.len() <= MOST_BYTES;
    let is_part = status == StatusCode::PARTIAL_CONTENT;
    if let Some(algorithm) = of_representation.filter(|_| !answer.headers.contains_key(REPR_DIGEST)) {
        let whole = match &answer.source {
            Source::Entry(entry) if entry.head.status != StatusCode::PARTIAL_CONTENT => match &entry.body {
                EntryBody::Inline(bytes) => Some(bytes),
                EntryBody::Sliced(_) => None,
            },
            _ => body.bytes().filter(|_| !is_part),
        };
        if let Some(bytes) = whole.filter(|bytes| short(bytes)) {
            let value = Digest::of(algorithm, bytes).to_value();
            answer.headers.insert(REPR_DIGEST, value);
        }
    }
    let lacks = !answer.headers.contains_key(CONTENT_DIGEST) && !answer.carried.is_head();
    if let Some(algorithm) = of_content.filter(|_| lacks) {
        let made = body.bytes().filter(|bytes| short(bytes)).map(|bytes| Digest::of(algorithm, bytes));
        // The content is the representation.
        let known = || digest::read(&answer.headers, &REPR_DIGEST).filter(|known| known.algorithm() == algorithm);
        let whole = status == StatusCode::OK && answer.negotiate;
        if let Some(digest) = made.or_else(|| known().filter(|_| whole)) {
            answer.headers.insert(CONTENT_DIGEST, digest.to_value());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::digest::Algorithm;

    fn body(pieces: &[Vec<u8>]) -> BodyStream {
        let pieces: Vec<Result<Bytes, OriginError>> = pieces.iter().cloned().map(|piece| Ok(piece.into())).collect();
        Box::pin(stream::iter(pieces))
    }

    fn noted() -> Noted {
        Noted { metrics: Metrics::new().0, key: String::new() }
    }

    proptest! {
        #[test]
        fn a_body_that_is_not_what_its_digest_says_is_never_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..6), flip: prop::sample::Index,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let all = pieces.concat();
            let digest = Digest::of(Algorithm::Sha256, &all);
            let digests = vec![digest.clone(), Digest::of(Algorithm::Sha512, &all)];
            let come = runtime.block_on(checked(body(&pieces), digests, "o", noted()).try_collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(come.concat(), all.clone());
            prop_assert_eq!(check_empty(std::slice::from_ref(&digest), "o").is_ok(), all.is_empty());
            if all.is_empty() {
                return Ok(());
            }
            let mut altered = pieces;
            let mut left = flip.index(all.len());
            let piece = altered.iter_mut().find(|piece| left < piece.len() || { left -= piece.len(); false }).unwrap();
            piece[left] ^= 1;
            // Of two one is enough.
            let digests = vec![Digest::of(Algorithm::Sha512, &altered.concat()), digest];
            let mut stream = checked(body(&altered), digests, "o", noted());
            let mut come = 0;
            let broken = runtime.block_on(async {
                while let Some(piece) = stream.next().await {
                    match piece {
                        Ok(piece) => come += piece.len(),
                        Err(OriginError::Altered { .. }) => return true,
                        Err(_) => return false,
                    }
                }
                false
            });
            prop_assert!(broken && come < all.len());
        }
    }

    #[test]
    fn only_what_is_still_true_is_said() {
        let names = ["repr-digest", "content-digest", "digest", "content-md5", "x-amz-checksum-crc32", "etag"];
        let all: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), http::HeaderValue::from_static("x"))).collect();
        let mut part = all.clone();
        of_other_content(&mut part);
        assert_eq!(part.len(), 3, "{part:?}");
        let mut coded = all;
        of_other_representation(&mut coded);
        assert_eq!(coded.keys().collect::<Vec<_>>(), ["etag"]);
    }
}
