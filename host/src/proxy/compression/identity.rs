//! What came coded, for clients that do not take it so. A small body is decompressed each time. Of a larger one the plain form is
//! made once, at our own pace, and kept beside it like a compressed form; who asks meanwhile reads along. So no client, however
//! slowly it reads, holds a decoder and its window. Only what cannot be kept is decompressed as its client takes it.
//!
//! It is begun before the head goes out: what is broken is answered with 502, and what finds no memory in time with 503. Never does
//! a client get a coding that it does not take because there is much to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::decoding::{Decoding, Failure, Places, note};
use super::{form, making};
use crate::cache::entry::{Entry, EntryBody};
use crate::proxy::body::Pieces;
use crate::proxy::deliver::{self, Deliverable, Source};
use crate::proxy::gap::{self, Refetch};
use crate::proxy::steps::Carried;
use crate::semantics::content_coding::Coding;

/// What decoders of bodies that are kept hold together: eight of the largest windows.
const KEPT_BYTES: u64 = 132 << 20;

/// The same of bodies that are not kept, which wait for their clients: one cannot take the memory of the other.
const PASSING_BYTES: u64 = 132 << 20;

/// Plain bytes of what is small, and not kept.
const SMALL_BYTES: usize = 64 << 10;

/// So long is waited whether a body that still comes is small.
const SMALL_WAIT: Duration = Duration::from_millis(50);

/// Bodies that are decompressed or wait for it.
const UNDER_WAY_MOST: usize = 1024;

/// Entries of which it is remembered that their plain form is not kept.
const LEFT_MOST: usize = 10_000;

/// What is being decompressed.
pub struct Decoded {
    /// By the number of the entry.
    under_way: Mutex<HashMap<u64, watch::Receiver<Progress>>>,
    left: quick_cache::sync::Cache<u64, Left>,
    kept: Places,
    passing: Arc<Places>,
}

impl Default for Decoded {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            left: quick_cache::sync::Cache::new(LEFT_MOST),
            kept: Places::new(KEPT_BYTES),
            passing: Arc::new(Places::new(PASSING_BYTES)),
        }
    }
}

impl Decoded {
    /// The memory of what is decompressed as its client takes it.
    pub fn passing(&self) -> Arc<Places> {
        Arc::clone(&self.passing)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It grows beyond measure: nobody can have it.
    Grown,
    /// The cache does not take it.
    NotKept,
}

#[derive(Clone)]
enum Progress {
    Begun,
    /// All of a small one.
    Here(Bytes),
    Coming(Arc<Entry>),
    NotKept,
    Failed(Why),
}

/// Why a client that takes no coding cannot have a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Too many are being decompressed.
    Busy,
    /// It could not be read.
    Unread,
    /// It is not what it says, or grows beyond measure.
    Undecodable,
}

impl From<&Failure> for Why {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Busy => Self::Busy,
            Failure::Source(_) => Self::Unread,
            Failure::Broken(_) | Failure::Grown => Self::Undecodable,
        }
    }
}

/// What is kept, plain.
pub async fn of_kept(answer: &mut Deliverable, entry: &Arc<Entry>, coding: Coding) -> Result<Source, Why> {
    let compression = Arc::clone(&answer.carried.proxy.compression);
    let decoded = &compression.decoded;
    match decoded.left.get(&entry.id) {
        Some(Left::Grown) => return Err(Why::Undecodable),
        Some(Left::NotKept) => return unkept(answer, entry, coding).await,
        None => {}
    }
    let is_under_way = decoded.under_way.lock().contains_key(&entry.id);
    if !is_under_way
        && let Some(form) = making::look_up_form(&answer.carried, entry, None).await
        && is_good(&form).await
    {
        return Ok(plain(&answer.carried, &form));
    }
    let (mut progress, begun) = join(&answer.carried, entry, coding).ok_or(Why::Busy)?;
    let leads = begun.is_some();
    if let Some(job) = begun {
        let pieces = coded(answer, entry).await;
        tokio::spawn(job.run(pieces));
    }
    loop {
        let now = progress.borrow_and_update().clone();
        match now {
            Progress::Begun => progress.changed().await.map_err(|_| Why::Busy)?,
            Progress::Here(bytes) => return Ok(Source::Bytes(bytes)),
            Progress::Failed(why) => return Err(why),
            Progress::Coming(form) if leads => return Ok(plain(&answer.carried, &form)),
            // Found as anyone finds it: not, if the disk does not take it and its beginning is gone.
            Progress::Coming(_) => {
                return match making::look_up_form(&answer.carried, entry, None).await {
                    Some(form) => Ok(plain(&answer.carried, &form)),
                    None => unkept(answer, entry, coding).await,
                };
            }
            Progress::NotKept => return unkept(answer, entry, coding).await,
        }
    }
}

async fn unkept(answer: &mut Deliverable, entry: &Arc<Entry>, coding: Coding) -> Result<Source, Why> {
    let pieces = coded(answer, entry).await;
    of_stream(&answer.carried, pieces, coding).await
}

/// Decompressed as the client takes it: of no known length.
pub async fn of_stream(carried: &Carried, pieces: Pieces, coding: Coding) -> Result<Source, Why> {
    let first = async {
        let mut decoding = Decoding::begin(pieces, coding, &carried.proxy.compression.decoded.passing).await?;
        Ok((decoding.next().await?, decoding))
    };
    match first.await {
        Ok((None, _)) => Ok(Source::Bytes(Bytes::new())),
        Ok((Some(piece), rest)) => {
            let pieces = Box::pin(stream::iter([Ok(piece)]).chain(rest.into_pieces()));
            Ok(Source::Stream { pieces, length: None })
        }
        Err(failure) => {
            note(&failure, coding);
            Err(Why::from(&failure))
        }
    }
}

/// The body as it is kept.
pub async fn coded(answer: &mut Deliverable, entry: &Arc<Entry>) -> Pieces {
    let length = deliver::length_of(&answer.source);
    let refetch = deliver::refetch(answer, entry, 0, length).await;
    gap::read(entry, 0, length, refetch)
}

/// Whether a form can go out.
async fn is_good(form: &Entry) -> bool {
    match &form.body {
        EntryBody::Inline(_) => true,
        EntryBody::Sliced(body) => match body.size() {
            Some(size) => form::is_whole(form) && body.check(0..size).await,
            None => false,
        },
    }
}

fn plain(carried: &Carried, form: &Arc<Entry>) -> Source {
    let body = match &form.body {
        EntryBody::Inline(bytes) => return Source::Bytes(bytes.clone()),
        EntryBody::Sliced(body) => body,
    };
    let length = body.size();
    match length.and_then(|length| body.in_memory(0..length)) {
        Some(bytes) => Source::Bytes(bytes),
        None => Source::Stream { pieces: gap::read(form, 0, length, Refetch::of(carried)), length },
    }
}

/// The duty to decompress an entry. Dropped, it lets the next one do it.
struct Job {
    carried: Box<Carried>,
    entry: Arc<Entry>,
    coding: Coding,
    progress: watch::Sender<Progress>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.carried.proxy.compression.decoded.under_way.lock().remove(&self.entry.id);
    }
}

/// What goes on with an entry, and the duty if nothing did. None if too much goes on.
fn join(carried: &Carried, entry: &Arc<Entry>, coding: Coding) -> Option<(watch::Receiver<Progress>, Option<Job>)> {
    let mut under_way = carried.proxy.compression.decoded.under_way.lock();
    if let Some(progress) = under_way.get(&entry.id) {
        return Some((progress.clone(), None));
    }
    if under_way.len() >= UNDER_WAY_MOST {
        return None;
    }
    let (progress, seen) = watch::channel(Progress::Begun);
    under_way.insert(entry.id, seen.clone());
    drop(under_way);
    let job = Job { carried: carried.fork(), entry: Arc::clone(entry), coding, progress };
    Some((seen, Some(job)))
}

impl Job {
    async fn run(self, pieces: Pieces) {
        let Err(failure) = self.make(pieces).await else { return };
        note(&failure, self.coding);
        match &failure {
            // It would fail all who come until it is stale.
            Failure::Broken(_) => self.carried.proxy.cache.remove(&self.entry),
            Failure::Grown => self.left(Left::Grown),
            Failure::Source(_) | Failure::Busy => {}
        }
        self.progress.send_replace(Progress::Failed(Why::from(&failure)));
    }

    fn left(&self, left: Left) {
        self.carried.proxy.compression.decoded.left.insert(self.entry.id, left);
    }

    async fn make(&self, pieces: Pieces) -> Result<(), Failure> {
        let proxy = &self.carried.proxy;
        let sequence = proxy.cache.sequence();
        let mut decoding = Decoding::begin(pieces, self.coding, &proxy.compression.decoded.kept).await?;
        let mut first = BytesMut::new();
        let deadline = Instant::now() + SMALL_WAIT;
        while first.len() < SMALL_BYTES {
            let next = match decoding.next() {
                next if first.is_empty() => next.await,
                next => match timeout_at(deadline, next).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some(piece) = next? else {
                self.progress.send_replace(Progress::Here(first.freeze()));
                return Ok(());
            };
            first.extend_from_slice(&piece);
        }
        let headers = &self.carried.exchange.request.headers;
        let kept = form::key(&self.entry.key, None)
            .map(|key| proxy.cache.keep(&key, headers, form::head(&self.entry, None, sequence)));
        let Some((form, Some(mut writer))) = kept else {
            self.progress.send_replace(Progress::NotKept);
            return Ok(());
        };
        // Of no known length, so that any is taken.
        writer.write(first.freeze()).await;
        self.progress.send_replace(Progress::Coming(form));
        loop {
            match decoding.next().await {
                Ok(Some(piece)) => _ = writer.write(piece).await,
                Ok(None) => break,
                Err(failure) => {
                    writer.fail(failure.to_string());
                    return Err(failure);
                }
            }
            // Others have work too.
            tokio::task::yield_now().await;
        }
        // Its memory is another's now, and not when the disk is through.
        drop(decoding);
        if !writer.finish().await {
            self.left(Left::NotKept);
        }
        Ok(())
    }
}
