//! Decompresses a body as it is read: in pieces of a bounded size, within bounded memory, and no more of them than an honest body
//! makes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_compression::tokio::bufread::{BrotliDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncBufRead, AsyncRead};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::{ReaderStream, StreamReader};

use super::MOST_BYTES;
use super::members::Members;
use crate::proxy::body::Pieces;
use crate::semantics::content_coding::Coding;

/// Bytes that are made at a time.
const PIECE_BYTES: usize = 64 << 10;

/// So many bytes of each byte may come beyond the bound for any body: text makes ten, logs make fifty, a bomb makes a thousand.
const MOST_PER_BYTE: u64 = 100;

/// RFC 9659: what asks for a larger window than 8 MiB is no `zstd` of HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Beside its window, a decoder holds a piece, tables, and what it reads.
const BESIDE_WINDOW_BYTES: u64 = 512 << 10;

/// A place for memory is counted in these.
const UNIT_BYTES: u64 = 64 << 10;

/// What waits longer for memory is refused.
const WAIT: Duration = Duration::from_secs(2);

/// The memory that decoders may hold together.
pub struct Places(Arc<Semaphore>);

impl Places {
    /// Of so many bytes; at least what the largest window takes.
    pub fn new(bytes: u64) -> Self {
        // A few thousand units.
        Self(Arc::new(Semaphore::new((bytes / UNIT_BYTES) as usize)))
    }

    async fn take(&self, window: u64) -> Result<OwnedSemaphorePermit, Failure> {
        // At most some hundreds, of windows of at most 16 MiB.
        let units = (window + BESIDE_WINDOW_BYTES).div_ceil(UNIT_BYTES) as u32;
        let taken = tokio::time::timeout(WAIT, Arc::clone(&self.0).acquire_many_owned(units)).await;
        taken.ok().and_then(Result::ok).ok_or(Failure::Busy)
    }
}

/// Why a body is not had decompressed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("too many bodies are being decompressed")]
    Busy,
    /// It could not be read.
    #[error("the body could not be read: {0}")]
    Source(io::Error),
    #[error("the body is not what its Content-Encoding says: {0}")]
    Broken(io::Error),
    #[error("the body grows beyond measure when it is decompressed")]
    Grown,
}

/// A body that is being decompressed.
pub struct Decoding {
    /// None of an empty body.
    pieces: Option<ReaderStream<Reader>>,
    source: Arc<Source>,
    coding: Coding,
    made: u64,
    /// Held until the end.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Source {
    read: AtomicU64,
    failed: AtomicBool,
}

impl Decoding {
    /// Waits for the first bytes, then for memory. No body at all is an empty one, whatever it says that it is coded by.
    pub async fn begin(mut pieces: Pieces, coding: Coding, places: &Places) -> Result<Self, Failure> {
        let source = Arc::new(Source::default());
        let first = loop {
            match pieces.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => break piece,
                Some(Err(error)) => return Err(Failure::Source(error)),
                None => return Ok(Self { pieces: None, source, coding, made: 0, _place: None }),
            }
        };
        let place = places.take(window(coding, first[0])?).await?;
        let counted = {
            let source = Arc::clone(&source);
            stream::iter([Ok(first)]).chain(pieces).inspect(move |piece| match piece {
                Ok(bytes) => _ = source.read.fetch_add(bytes.len() as u64, Ordering::Relaxed),
                Err(_) => source.failed.store(true, Ordering::Relaxed),
            })
        };
        let decoded = ReaderStream::with_capacity(decoder(StreamReader::new(counted), coding), PIECE_BYTES);
        Ok(Self { pieces: Some(decoded), source, coding, made: 0, _place: Some(place) })
    }

    /// The next piece; none at the end. Given up, it can be asked for again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(pieces) = &mut self.pieces else { return Ok(None) };
        match pieces.next().await {
            Some(Ok(bytes)) => {
                self.made += bytes.len() as u64;
                if self.made > most(self.source.read.load(Ordering::Relaxed)) {
                    return Err(Failure::Grown);
                }
                Ok(Some(bytes))
            }
            Some(Err(error)) if self.source.failed.load(Ordering::Relaxed) => Err(Failure::Source(error)),
            Some(Err(error)) => Err(Failure::Broken(error)),
            None => Ok(None),
        }
    }

    /// The rest of the body. It breaks off where it is damaged, or a bomb, and that is told.
    pub fn into_pieces(self) -> Pieces {
        Box::pin(stream::try_unfold(self, |mut decoding| async move {
            let next = decoding.next().await.map_err(|failure| {
                note(&failure, decoding.coding);
                io::Error::other(failure)
            })?;
            Ok(next.map(|piece| (piece, decoding)))
        }))
    }
}

/// Tells what was found wrong.
pub fn note(failure: &Failure, coding: Coding) {
    tracing::warn!(%failure, coding = coding.name(), "a body cannot be decompressed");
}

/// The body as it was before, of which nothing is done before it is asked for: by an answer that most likely has none.
pub fn later(pieces: Pieces, coding: Coding, places: Arc<Places>) -> Pieces {
    let begun = async move {
        let begun = Decoding::begin(pieces, coding, &places).await;
        begun.map(Decoding::into_pieces).map_err(io::Error::other)
    };
    Box::pin(stream::once(begun).try_flatten())
}

fn most(read: u64) -> u64 {
    MOST_BYTES.saturating_add(read.saturating_mul(MOST_PER_BYTE))
}

/// Bytes of the window that a decoder holds.
fn window(coding: Coding, first: u8) -> Result<u64, Failure> {
    let log = match coding {
        Coding::Gzip => 15,
        // Each frame has its own.
        Coding::Zstd => ZSTD_WINDOW_LOG,
        Coding::Brotli => brotli_window_log(first).ok_or_else(|| {
            Failure::Broken(io::Error::new(io::ErrorKind::InvalidData, "a window that Brotli does not have"))
        })?,
    };
    Ok(1 << log)
}

/// WBITS of RFC 7932 section 9.1. Its one reserved value begins a stream of "large window" Brotli, which may ask for a gigabyte.
fn brotli_window_log(first: u8) -> Option<u32> {
    let (three, four) = (u32::from(first >> 1 & 7), u32::from(first >> 4 & 7));
    match (first & 1, three, four) {
        (0, ..) => Some(16),
        (_, 0, 0) => Some(17),
        (_, 0, 1) => None,
        (_, 0, more) => Some(8 + more),
        (_, more, _) => Some(17 + more),
    }
}

type Reader = Pin<Box<dyn AsyncRead + Send>>;

fn decoder(coded: impl AsyncBufRead + Send + Unpin + 'static, coding: Coding) -> Reader {
    match coding {
        Coding::Brotli => Box::pin(BrotliDecoder::new(coded)),
        Coding::Zstd => {
            let mut decoder = ZstdDecoder::with_params(coded, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)]);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Coding::Gzip => Box::pin(Members::new(coded)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::making::encoder;
    use super::*;

    fn pieces(bytes: &[u8], each: usize) -> Pieces {
        let pieces: Vec<_> = bytes.chunks(each).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Box::pin(stream::iter(pieces))
    }

    async fn encoded(bytes: &[u8], coding: Coding) -> Vec<u8> {
        let mut made = Vec::new();
        let mut reader = encoder(StreamReader::new(pieces(bytes, 1000)), coding);
        reader.read_to_end(&mut made).await.expect("it is encoded");
        made
    }

    async fn decoded_in(bytes: &[u8], each: usize, coding: Coding) -> Result<Vec<u8>, Failure> {
        let places = Places::new(32 << 20);
        let free = places.0.available_permits();
        let mut decoding = Decoding::begin(pieces(bytes, each), coding, &places).await?;
        assert_eq!(places.0.available_permits() == free, bytes.is_empty());
        let mut made = Vec::new();
        while let Some(piece) = decoding.next().await? {
            assert!(piece.len() <= PIECE_BYTES);
            made.extend_from_slice(&piece);
        }
        drop(decoding);
        assert_eq!(places.0.available_permits(), free);
        Ok(made)
    }

    async fn decoded(bytes: &[u8], coding: Coding) -> Result<Vec<u8>, Failure> {
        decoded_in(bytes, 777, coding).await
    }

    #[tokio::test]
    async fn what_was_encoded_is_decoded() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
        for coding in Coding::ALL {
            for bytes in [&b""[..], b"x", &text] {
                let made = encoded(bytes, coding).await;
                assert_eq!(decoded(&made, coding).await.expect("whole"), bytes);
                let cut = &made[..made.len() - 1];
                // Nothing at all is an empty body.
                let breaks_off = decoded(cut, coding).await.is_err();
                assert_eq!(breaks_off, !cut.is_empty(), "{coding:?} of {} bytes, cut", bytes.len());
            }
            assert!(encoded(&text, coding).await.len() < text.len() / 2);
            let error = decoded(b"this is not what it says", coding).await.expect_err("not coded");
            assert!(matches!(error, Failure::Broken(_)), "{coding:?}: {error}");
            assert_eq!(decoded(b"", coding).await.expect("nothing at all"), b"");
        }
        let twice = [encoded(b"one, ", Coding::Gzip).await, encoded(b"two", Coding::Gzip).await].concat();
        assert_eq!(decoded(&twice, Coding::Gzip).await.expect("two members"), b"one, two");
    }

    #[tokio::test]
    async fn a_bomb_breaks_off() {
        let zeros = vec![0; 300 << 20];
        for coding in [Coding::Gzip, Coding::Zstd] {
            let bomb = encoded(&zeros, coding).await;
            assert!(bomb.len() < 1 << 20);
            let error = decoded(&bomb, coding).await.expect_err("a bomb");
            assert!(error.to_string().contains("beyond measure"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_behind_the_last_member_is_passed_over() {
        let member = encoded(b"one", Coding::Gzip).await;
        for behind in [&[0; 512][..], b"junk", b"\x1f not", b"\0"] {
            for each in [1, 7, 10_000] {
                let padded = [&member, &member, behind].concat();
                assert_eq!(decoded_in(&padded, each, Coding::Gzip).await.expect("whole"), b"oneone", "{behind:?}");
            }
        }
        for cut in 2..member.len() {
            let two = [&member, &member[..cut]].concat();
            assert!(decoded(&two, Coding::Gzip).await.is_err(), "{cut} bytes of the second");
        }
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let made = encoded(&vec![7; 100_000], Coding::Brotli).await;
        let places = Places::new(17 << 20);
        let mut held = Vec::new();
        let error = loop {
            match Decoding::begin(pieces(&made, 100), Coding::Brotli, &places).await {
                Ok(decoding) => held.push(decoding),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Failure::Busy) && (1..40).contains(&held.len()), "{error}, {}", held.len());
        drop(held);
        assert!(Decoding::begin(pieces(&made, 100), Coding::Brotli, &places).await.is_ok());
    }

    #[test]
    fn windows_are_those_of_the_rfc() {
        for (first, log) in [(0b0, 16), (0b1, 17), (0b11, 18), (0b1111, 24), (0b10_0001, 10), (0b111_0001, 15)] {
            assert_eq!(brotli_window_log(first), Some(log), "{first:b}");
        }
        assert_eq!(brotli_window_log(0b1_0001), None);
    }
}
