//! Several ranges in one answer: multipart/byteranges (RFC 9110 section 14.6).

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::HeaderValue;

use super::body::Pieces;
use crate::semantics::byte_range::{ByteRange, ContentRange};

/// The parts of one answer, with their heads made, so that its length is known before the first byte.
pub struct Layout {
    boundary: String,
    parts: Vec<(Bytes, ByteRange)>,
    closing: Bytes,
}

impl Layout {
    /// Of ranges within a representation of this length and type.
    pub fn new(ranges: &[ByteRange], complete: u64, content_type: Option<&HeaderValue>) -> Self {
        // Random, so that no body can hold it on purpose.
        let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let parts = ranges
            .iter()
            .enumerate()
            .map(|(number, range)| {
                let mut head = Vec::with_capacity(160);
                if number > 0 {
                    head.extend_from_slice(b"\r\n");
                }
                head.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
                if let Some(value) = content_type {
                    head.extend_from_slice(b"Content-Type: ");
                    head.extend_from_slice(value.as_bytes());
                    head.extend_from_slice(b"\r\n");
                }
                let content = ContentRange { range: Some(*range), complete: Some(complete) };
                head.extend_from_slice(b"Content-Range: ");
                head.extend_from_slice(content.to_value().as_bytes());
                head.extend_from_slice(b"\r\n\r\n");
                (Bytes::from(head), *range)
            })
            .collect();
        let closing = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        Self { boundary, parts, closing }
    }

    /// The Content-Type of the whole.
    pub fn content_type(&self) -> HeaderValue {
        HeaderValue::from_str(&format!("multipart/byteranges; boundary={}", self.boundary))
            .unwrap_or(HeaderValue::from_static("multipart/byteranges"))
    }

    /// Length of the whole.
    pub fn length(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(|(head, range)| head.len() as u64 + range.len()).sum();
        parts + self.closing.len() as u64
    }

    /// All of it, reading each range with `read`.
    pub fn pieces(self, read: impl Fn(ByteRange) -> Pieces + Send + 'static) -> Pieces {
        let closing = self.closing;
        let parts = stream::iter(self.parts)
            .flat_map(move |(head, range)| stream::iter([Ok(head)]).chain(read(range)))
            .chain(stream::iter([Ok(closing)]));
        Box::pin(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_announced_length_is_the_real_one() {
        let ranges = [ByteRange { start: 0, end: 3 }, ByteRange { start: 5, end: 6 }];
        let layout = Layout::new(&ranges, 10, Some(&HeaderValue::from_static("text/plain")));
        let announced = layout.length();
        let body = Bytes::from_static(b"0123456789");
        let pieces: Vec<_> = layout
            .pieces(move |range| {
                let piece = body.slice(range.start as usize..range.end as usize);
                Box::pin(stream::iter([Ok(piece)]))
            })
            .collect()
            .await;
        let whole: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
        assert_eq!(whole.len() as u64, announced);
        let text = String::from_utf8(whole).unwrap();
        assert!(text.contains("Content-Range: bytes 0-2/10\r\n\r\n012\r\n--"), "{text}");
        assert!(text.contains("Content-Range: bytes 5-5/10\r\n\r\n5\r\n--"), "{text}");
    }
}
