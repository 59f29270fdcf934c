//! Decompresses a body as it is read: in pieces of a bounded size, and no more of them than an honest body makes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncBufRead, AsyncRead};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::proxy::body::Pieces;
use crate::semantics::content_coding::Coding;

/// Bytes that are made at a time.
const PIECE_BYTES: usize = 64 << 10;

/// So much may come of any body,
const FREE_BYTES: u64 = 64 << 20;
/// and beyond that so many bytes of each byte: text makes ten, logs make fifty, a bomb makes a thousand and more.
const MOST_PER_BYTE: u64 = 100;

/// RFC 9659: what asks for a larger window than 8 MiB is no `zstd` of HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;

/// For an answer of which only the head goes out.
pub fn nothing() -> Pieces {
    Box::pin(stream::empty())
}

/// The body as it was before. It breaks off where it is damaged, or a bomb.
pub fn decode(pieces: Pieces, coding: Coding, place: OwnedSemaphorePermit) -> Pieces {
    let read = Arc::new(AtomicU64::new(0));
    let counted = {
        let read = Arc::clone(&read);
        pieces.inspect(move |piece| {
            if let Ok(bytes) = piece {
                read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        })
    };
    let decoded = ReaderStream::with_capacity(decoder(StreamReader::new(counted), coding), PIECE_BYTES);
    let mut made = 0;
    Box::pin(decoded.map(move |piece| {
        let _place = &place;
        let bytes = piece?;
        made += bytes.len() as u64;
        if made > most(read.load(Ordering::Relaxed)) {
            tracing::warn!(made, coding = coding.name(), "a body grows beyond measure: it is broken off");
            return Err(io::Error::other("the body grows beyond measure when it is decompressed"));
        }
        Ok(bytes)
    }))
}

fn most(read: u64) -> u64 {
    FREE_BYTES.saturating_add(read.saturating_mul(MOST_PER_BYTE))
}

type Reader = Pin<Box<dyn AsyncRead + Send>>;

fn decoder(coded: impl AsyncBufRead + Send + 'static, coding: Coding) -> Reader {
    match coding {
        Coding::Brotli => Box::pin(BrotliDecoder::new(coded)),
        Coding::Zstd => {
            let mut decoder = ZstdDecoder::with_params(coded, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)]);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(coded);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::TryStreamExt;
    use tokio::io::AsyncReadExt;
    use tokio::sync::Semaphore;

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

    async fn decoded(bytes: &[u8], coding: Coding) -> io::Result<Vec<u8>> {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        let pieces: Vec<Bytes> = decode(pieces(bytes, 777), coding, place).try_collect().await?;
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn what_was_encoded_is_decoded() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
        for coding in Coding::ALL {
            for bytes in [&b""[..], b"x", &text] {
                let made = encoded(bytes, coding).await;
                assert_eq!(decoded(&made, coding).await.expect("whole"), bytes);
                let cut = &made[..made.len() - 1];
                assert!(decoded(cut, coding).await.is_err(), "{coding:?} of {} bytes, cut", bytes.len());
            }
            assert!(encoded(&text, coding).await.len() < text.len() / 2);
            assert!(decoded(b"this is not what it says", coding).await.is_err(), "{coding:?}");
        }
        let twice = [encoded(b"one, ", Coding::Gzip).await, encoded(b"two", Coding::Gzip).await].concat();
        assert_eq!(decoded(&twice, Coding::Gzip).await.expect("two members"), b"one, two");
    }

    #[tokio::test]
    async fn a_bomb_breaks_off() {
        let zeros = vec![0; 200 << 20];
        for coding in [Coding::Gzip, Coding::Zstd] {
            let bomb = encoded(&zeros, coding).await;
            assert!(bomb.len() < 1 << 20);
            let error = decoded(&bomb, coding).await.expect_err("a bomb");
            assert!(error.to_string().contains("beyond measure"), "{error}");
        }
    }
}
