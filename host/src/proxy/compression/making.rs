//! Makes compressed forms in the background: short ones one after the other, and long ones beside them, so that they take no more
//! than two cores and no page waits for a film's subtitles; piece by piece on the blocking pool, and streamed through, so that no
//! body lies in memory whole.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_compression::Level;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::io::StreamReader;

use super::form::{self, Target};
use super::identity::Decoded;
use crate::cache::entry::{Entry, EntryBody};
use crate::cache::fill::{Piece, Writer};
use crate::cache::key::CacheKey;
use crate::cache::{Asked, Cache};
use crate::proxy::body::Pieces;
use crate::proxy::steps::Carried;
use crate::semantics::content_coding::Coding;

/// Forms that wait to be made, short ones and long ones each. What finds no place is asked for again by its next client.
const WAITING_MOST: usize = 64;

/// Of these, forms of one host: those of the others find place beside them.
const WAITING_OF_A_HOST: usize = 8;

/// Bytes of what does not wait for what is longer: its form is made in a tenth of a second.
const SHORT_BYTES: u64 = 1 << 20;

/// Forms of which it is remembered that they are not worth it, or could not be kept.
const LEFT_MOST: usize = 10_000;

/// Bytes that are made at a time, between which the pool is free for others.
const PIECE_BYTES: usize = 64 << 10;

/// What a form has to be smaller than, in twentieths of its original: else to decompress it costs the client more than it saves.
const MOST_TWENTIETHS: u64 = 19;

/// A form: the entry that it is made of, and how.
type Name = (u64, Coding);

/// What is being made, and what is not to be.
#[derive(Default)]
pub struct Compression {
    short: Turn,
    long: Turn,
    left: Left,
    pub(super) decoded: Decoded,
}

struct Left(quick_cache::sync::Cache<Name, ()>);

impl Default for Left {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(LEFT_MOST))
    }
}

/// Forms that are made one after the other, and the hosts that they are for.
struct Turn {
    turn: Semaphore,
    under_way: Mutex<HashMap<Name, String>>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), under_way: Mutex::default() }
    }
}

impl Turn {
    /// Whether there was a place to wait for this one.
    fn enter(&self, name: Name, host: &str) -> bool {
        let mut under_way = self.under_way.lock();
        let of_host = under_way.values().filter(|of| *of == host).count();
        if under_way.len() >= WAITING_MOST || of_host >= WAITING_OF_A_HOST || under_way.contains_key(&name) {
            return false;
        }
        under_way.insert(name, host.to_owned());
        true
    }
}

impl Compression {
    /// By the size of the original.
    fn turn(&self, size: u64) -> &Turn {
        if size <= SHORT_BYTES { &self.short } else { &self.long }
    }
}

/// A compressed form of an entry, whole.
pub async fn find(carried: &Carried, entry: &Entry, coding: Coding) -> Option<Arc<Entry>> {
    let compression = &carried.proxy.compression;
    let name = (entry.id, coding);
    let under_way = || compression.turn(size_of(entry)).under_way.lock().contains_key(&name);
    if compression.left.0.get(&name).is_some() || under_way() {
        return None;
    }
    look_up_form(carried, entry, Some(coding)).await.filter(|made| form::is_whole(made))
}

/// A form of an entry, as far as it is there.
pub(super) async fn look_up_form(carried: &Carried, entry: &Entry, into: Target) -> Option<Arc<Entry>> {
    let key = form::key(&entry.key, into)?;
    let request = &carried.exchange.request;
    let asked = Asked { key: &key, headers: &request.headers, request_path: request.path() };
    let made = look_up(&carried.proxy.cache, &asked).await?;
    match form::made_of(&made) {
        Some(id) if id == entry.id => Some(made),
        // What it was made of is gone. Numbers rise: one that is higher is a newer version's, and ours is the old one.
        of => {
            if of.is_none_or(|id| id < entry.id) {
                carried.proxy.cache.remove(&made);
            }
            None
        }
    }
}

fn size_of(entry: &Entry) -> u64 {
    match &entry.body {
        EntryBody::Inline(bytes) => bytes.len() as u64,
        EntryBody::Sliced(body) => body.size().unwrap_or(0),
    }
}

async fn look_up(cache: &Cache, asked: &Asked<'_>) -> Option<Arc<Entry>> {
    match cache.lookup_memory(asked) {
        Some(found) => Some(found.entry),
        None => Some(Box::pin(cache.lookup_disk(asked)).await?.entry),
    }
}

/// What it takes to make a form.
struct Job {
    compression: Arc<Compression>,
    name: Name,
    /// Of the original.
    size: u64,
    cache: Cache,
    original: CacheKey,
    headers: HeaderMap,
    request_path: String,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.compression.turn(self.size).under_way.lock().remove(&self.name);
    }
}

/// Makes a form, unless that is under way already, is not worth it, or too many wait.
pub fn start(carried: &Carried, entry: &Entry, coding: Coding) {
    let compression = &carried.proxy.compression;
    let name = (entry.id, coding);
    let size = size_of(entry);
    let host = &carried.site.host.settings.name;
    if compression.left.0.get(&name).is_some() || !compression.turn(size).enter(name, host) {
        return;
    }
    let request = &carried.exchange.request;
    let job = Job {
        compression: Arc::clone(compression),
        name,
        size,
        cache: carried.proxy.cache.clone(),
        original: entry.key.clone(),
        headers: request.headers.clone(),
        request_path: request.path().to_owned(),
    };
    let metrics = Arc::clone(&carried.proxy.metrics);
    tokio::spawn(async move {
        // Never closed.
        let _turn = job.compression.turn(job.size).turn.acquire().await;
        match job.make().await {
            Made::Kept => _ = metrics.compressed.inc(),
            Made::Left(why) => {
                tracing::debug!(coding = job.name.1.name(), why, "a response is not compressed");
                job.compression.left.0.insert(job.name, ());
                metrics.not_compressed.inc();
            }
            Made::Gone => {}
        }
    });
}

enum Made {
    Kept,
    /// It stays as it is.
    Left(&'static str),
    /// What it was to be made of is no more.
    Gone,
}

impl Job {
    async fn make(&self) -> Made {
        let (id, coding) = self.name;
        // Before the original is looked for: a purge that does not hit that one cannot mean what is made of it.
        let sequence = self.cache.sequence();
        let asked = Asked { key: &self.original, headers: &self.headers, request_path: &self.request_path };
        let entry = look_up(&self.cache, &asked).await.filter(|entry| entry.id == id && form::is_whole(entry));
        let Some((entry, key)) = entry.and_then(|entry| form::key(&entry.key, Some(coding)).map(|key| (entry, key)))
        else {
            return Made::Gone;
        };
        let most = size_of(&entry) * MOST_TWENTIETHS / 20;
        let mut encoder = encoder(StreamReader::new(body_of(&entry)), coding);
        let mut writer: Option<Writer> = None;
        let mut made = 0;
        loop {
            let piece = match next(encoder).await {
                Ok((back, piece)) => {
                    encoder = back;
                    piece
                }
                Err(error) => {
                    tracing::debug!(%error, "a body could not be read to be compressed");
                    return Made::Gone;
                }
            };
            if piece.is_empty() {
                break;
            }
            made += piece.len() as u64;
            if made > most {
                // The writer is dropped, and what it had is forgotten.
                return Made::Left("it does not get smaller");
            }
            let mut into = match writer.take() {
                Some(writer) => writer,
                None => match self.cache.keep(&key, &self.headers, form::head(&entry, Some(coding), sequence)) {
                    (_, Some(writer)) => writer,
                    (_, None) => return Made::Gone,
                },
            };
            if !into.write(piece).await {
                return Made::Left("it could not be written");
            }
            writer = Some(into);
        }
        let kept = match writer {
            Some(writer) => writer.finish().await,
            None => false,
        };
        if kept { Made::Kept } else { Made::Left("it could not be kept") }
    }
}

/// All of a body that is there; nothing is fetched for it.
fn body_of(entry: &Arc<Entry>) -> Pieces {
    match &entry.body {
        EntryBody::Inline(bytes) => {
            let bytes = bytes.clone();
            Box::pin(stream::once(async { Ok(bytes) }))
        }
        EntryBody::Sliced(body) => Box::pin(stream::try_unfold(body.reader(0), |mut reader| async move {
            match reader.next(None).await {
                Piece::Bytes(bytes) => Ok(Some((bytes, reader))),
                Piece::End => Ok(None),
                Piece::Missing(_) => Err(io::Error::other("a part of the body is gone")),
                Piece::Failed(why) => Err(io::Error::other(why)),
            }
        })),
    }
}

pub(super) type Encoder = Pin<Box<dyn AsyncRead + Send>>;

/// Levels at which a core makes some ten megabytes a second: made once, sent many times.
pub(super) fn encoder(plain: impl AsyncBufRead + Send + 'static, coding: Coding) -> Encoder {
    match coding {
        Coding::Brotli => Box::pin(BrotliEncoder::with_quality(plain, Level::Precise(6))),
        Coding::Zstd => Box::pin(ZstdEncoder::with_quality(plain, Level::Precise(12))),
        Coding::Gzip => Box::pin(GzipEncoder::with_quality(plain, Level::Precise(7))),
    }
}

/// The next piece, empty at the end: made on the blocking pool, in time that a shutdown can wait for.
async fn next(mut encoder: Encoder) -> io::Result<(Encoder, Bytes)> {
    let runtime = Handle::current();
    let made = tokio::task::spawn_blocking(move || {
        runtime.block_on(async move {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            while piece.len() < PIECE_BYTES && encoder.read_buf(&mut piece).await? > 0 {}
            io::Result::Ok((encoder, piece.freeze()))
        })
    });
    made.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_takes_all_places_and_short_ones_have_their_own() {
        let compression = Compression::default();
        let long = compression.turn(SHORT_BYTES + 1);
        let taken = (0..100).filter(|id| long.enter((*id, Coding::Gzip), "greedy")).count();
        assert_eq!(taken, WAITING_OF_A_HOST);
        assert!(long.enter((200, Coding::Gzip), "modest") && !long.enter((200, Coding::Gzip), "modest"));
        assert!(compression.turn(SHORT_BYTES).enter((300, Coding::Gzip), "greedy"));
        for id in 1000..2000 {
            long.enter((id, Coding::Brotli), &id.to_string());
        }
        assert_eq!(long.under_way.lock().len(), WAITING_MOST);
    }
}
