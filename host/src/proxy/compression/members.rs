//! The members of a gzip body, one after the other (RFC 1952 section 2.2). What comes behind the last one and is none, padding or
//! junk, is passed over, as gzip(1) does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::GzipDecoder;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, Chain, ReadBuf};

/// What a member begins with.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The first byte of a member that was taken already, or nothing; then the rest.
type Coded<R> = Chain<&'static [u8], R>;

/// Reads what the members make.
pub struct Members<R> {
    /// None at the end.
    member: Option<GzipDecoder<Coded<R>>>,
    /// The member is whole, and what may be the first byte of the next one is taken.
    first_taken: bool,
}

fn begin<R: AsyncBufRead + Unpin>(taken: &'static [u8], coded: R) -> GzipDecoder<Coded<R>> {
    GzipDecoder::new(AsyncReadExt::chain(taken, coded))
}

impl<R: AsyncBufRead + Unpin> Members<R> {
    /// Of a body that begins with one.
    pub fn new(coded: R) -> Self {
        Self { member: Some(begin(&[], coded)), first_taken: false }
    }
}

impl<R: AsyncBufRead + Unpin> AsyncRead for Members<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        loop {
            let Some(member) = &mut this.member else { return Poll::Ready(Ok(())) };
            if !this.first_taken {
                ready!(Pin::new(&mut *member).poll_read(cx, into))?;
                if into.filled().len() > before || into.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
            // It is whole. Asked again, it says so again: nothing is lost if what is next has not come yet.
            let mut coded = Pin::new(member.get_mut().get_mut().1);
            let next = ready!(coded.as_mut().poll_fill_buf(cx))?;
            let wanted = if this.first_taken { &MAGIC[1..] } else { &MAGIC[..] };
            let begins = !next.is_empty() && next.iter().zip(wanted).all(|(one, of)| one == of);
            if begins && next.len() < wanted.len() {
                coded.consume(1);
                this.first_taken = true;
                continue;
            }
            let taken: &'static [u8] = if this.first_taken { &MAGIC[..1] } else { &[] };
            this.member =
                this.member.take().filter(|_| begins).map(|member| begin(taken, member.into_inner().into_inner().1));
            this.first_taken = false;
        }
    }
}
