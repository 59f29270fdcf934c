//! Makes compressed forms in the background: one after the other, so that they take no more than one core, piece by piece on the
//! blocking pool, and streamed through, so that no body lies in memory whole.

use std::collections::HashSet;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::StreamReader;

use super::form;
use crate::cache::entry::{Entry, EntryBody};
use crate::cache::fill::{Piece, Writer};
use crate::cache::key::CacheKey;
use crate::cache::{Asked, Cache};
use crate::proxy::body::Pieces;
use crate::proxy::steps::Carried;
use crate::semantics::content_coding::Coding;

/// Forms that wait to be made. What finds no place is asked for again by its next client.
const WAITING_MOST: usize = 64;

/// Forms of which it is remembered that they are not worth it, or could not be kept.
const LEFT_MOST: usize = 10_000;

/// Bodies that are decompressed at once: each takes up to 16 MiB for its window.
const DECODINGS_MOST: usize = 64;

/// Bytes that are made at a time, between which the pool is free for others.
const PIECE_BYTES: usize = 64 << 10;

/// What a form has to be smaller than, in twentieths of its original: else to decompress it costs the client more than it saves.
const MOST_TWENTIETHS: u64 = 19;

/// A form: the entry that it is made of, and how.
type Name = (u64, Coding);

/// What is being made, and what is not to be.
pub struct Compression {
    turn: Semaphore,
    under_way: Mutex<HashSet<Name>>,
    left: quick_cache::sync::Cache<Name, ()>,
    decodings: Arc<Semaphore>,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            turn: Semaphore::new(1),
            under_way: Mutex::default(),
            left: quick_cache::sync::Cache::new(LEFT_MOST),
            decodings: Arc::new(Semaphore::new(DECODINGS_MOST)),
        }
    }
}

impl Compression {
    /// A place to decompress a body; none if too many are.
    pub fn place_to_decode(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.decodings).try_acquire_owned().ok()
    }
}

/// A form of an entry, whole and good.
pub async fn find(carried: &Carried, entry: &Entry, coding: Coding) -> Option<Arc<Entry>> {
    let compression = &carried.proxy.compression;
    let name = (entry.id, coding);
    if compression.left.get(&name).is_some() || compression.under_way.lock().contains(&name) {
        return None;
    }
    let key = form::key(&entry.key, coding)?;
    let request = &carried.exchange.request;
    let asked = Asked { key: &key, headers: &request.headers, request_path: request.path() };
    let made = look_up(&carried.proxy.cache, &asked).await?;
    match form::made_of(&made) {
        Some(id) if id == entry.id => {}
        // What it was made of is gone. Numbers rise: one that is higher is a newer version's, and ours is the old one.
        of => {
            if of.is_none_or(|id| id < entry.id) {
                carried.proxy.cache.remove(&made);
            }
            return None;
        }
    }
    if !form::is_whole(&made) {
        return None;
    }
    if let EntryBody::Sliced(body) = &made.body
        && !body.check(0..body.size()?).await
    {
        return None;
    }
    Some(made)
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
    cache: Cache,
    original: CacheKey,
    headers: HeaderMap,
    request_path: String,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.compression.under_way.lock().remove(&self.name);
    }
}

/// Makes a form, unless that is under way already, is not worth it, or too many wait.
pub fn start(carried: &Carried, entry: &Entry, coding: Coding) {
    let compression = &carried.proxy.compression;
    let name = (entry.id, coding);
    if compression.left.get(&name).is_some() {
        return;
    }
    {
        let mut under_way = compression.under_way.lock();
        if under_way.len() >= WAITING_MOST || !under_way.insert(name) {
            return;
        }
    }
    let request = &carried.exchange.request;
    let job = Job {
        compression: Arc::clone(compression),
        name,
        cache: carried.proxy.cache.clone(),
        original: entry.key.clone(),
        headers: request.headers.clone(),
        request_path: request.path().to_owned(),
    };
    let metrics = Arc::clone(&carried.proxy.metrics);
    tokio::spawn(async move {
        // Never closed.
        let _turn = job.compression.turn.acquire().await;
        match job.make().await {
            Made::Kept => _ = metrics.compressed.inc(),
            Made::Left(why) => {
                tracing::debug!(coding = job.name.1.name(), why, "a response is not compressed");
                job.compression.left.insert(job.name, ());
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
        let Some((entry, key)) = entry.and_then(|entry| form::key(&entry.key, coding).map(|key| (entry, key))) else {
            return Made::Gone;
        };
        let size = match &entry.body {
            EntryBody::Inline(bytes) => bytes.len() as u64,
            EntryBody::Sliced(body) => body.size().unwrap_or(0),
        };
        let most = size * MOST_TWENTIETHS / 20;
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
                None => match self.cache.keep(&key, &self.headers, form::head(&entry, coding, sequence)) {
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
