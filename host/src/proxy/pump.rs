//! Carries a body from an origin into the cache, on a task of its own: it goes on when its client leaves, within limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;

use crate::cache::fill::Writer;
use crate::origin::{BodyStream, OriginError};

/// Fills that go on without a reader at the same time. More than these end with their clients: an attacker who opens and
/// drops requests must not keep the origin busy without bound.
const MAX_ORPHANS: usize = 64;

/// The most that is still fetched for nobody, when the length is known. What is larger is kept as far as it came and completed
/// when someone asks again.
const ORPHAN_BYTES: u64 = 4 << 30;

/// The most that is still fetched for nobody, when the length is not known.
const ORPHAN_BYTES_UNKNOWN: u64 = 64 << 20;

/// Bytes in which the reader that a fill was started for has to begin.
const READER_PATIENCE: u64 = 4 << 20;

/// Counts the fills that go on without a reader.
#[derive(Clone, Debug, Default)]
pub struct Orphans(Arc<AtomicUsize>);

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Orphans {
    fn enter(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.0));
        // On refusal `place` is dropped and takes the count back.
        (self.0.fetch_add(1, Ordering::AcqRel) < MAX_ORPHANS).then_some(place)
    }
}

/// Starts carrying. `skip` bytes at the beginning are thrown away, and the body is cut at `take` bytes (none: all of it).
pub fn start(orphans: Orphans, mut body: BodyStream, mut writer: Writer, mut skip: u64, take: Option<u64>, read: bool) {
    tokio::spawn(async move {
        let mut left = take;
        let mut orphaned: Option<(Place, u64)> = None;
        // The reader that this was started for may not have begun yet.
        let mut patience = if read { READER_PATIENCE } else { 0 };
        while left != Some(0) {
            let piece = match body.next().await {
                Some(Ok(piece)) => piece,
                Some(Err(error @ OriginError::Altered { .. })) => return writer.refuse(error.to_string()),
                Some(Err(error)) => return writer.fail(error.to_string()),
                None => break,
            };
            let Some(piece) = trim(piece, &mut skip, &mut left) else { continue };
            let length = piece.len() as u64;
            if !writer.write(piece).await {
                return;
            }
            if writer.has_readers() {
                patience = 0;
                orphaned = None;
            } else if patience > length {
                patience -= length;
            } else if writer.is_given_up() {
                return writer.fail("nobody reads it, and it is larger than is kept".to_owned());
            } else {
                let spent = match orphaned.take() {
                    Some((place, spent)) => (place, spent + length),
                    None => match orphans.enter() {
                        Some(place) => (place, length),
                        None => return writer.fail("too many fills without a client".to_owned()),
                    },
                };
                let enough = match left {
                    Some(left) => left > ORPHAN_BYTES,
                    None => spent.1 > ORPHAN_BYTES_UNKNOWN,
                };
                if enough {
                    return writer.fail("the client left a very large body".to_owned());
                }
                orphaned = Some(spent);
            }
        }
        writer.finish().await;
    });
}

/// What of a piece counts, of a body of which `skip` bytes are not wanted and then only `left`.
pub fn trim(mut piece: Bytes, skip: &mut u64, left: &mut Option<u64>) -> Option<Bytes> {
    if *skip > 0 {
        let drop = (*skip).min(piece.len() as u64);
        *skip -= drop;
        // At most the piece's length, so it fits.
        piece = piece.split_off(drop as usize);
    }
    if let Some(left) = left {
        if (piece.len() as u64) > *left {
            piece.truncate(*left as usize);
        }
        *left -= piece.len() as u64;
    }
    (!piece.is_empty()).then_some(piece)
}
