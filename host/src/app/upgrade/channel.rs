//! What two programs say to each other while one takes over from the other: messages of JSON over a pair of unix sockets, which
//! sockets can come along with (SCM_RIGHTS, unix(7)).
//!
//! Both may be of different versions, so messages only ever grow: fields that are not known are passed over, and a message that is
//! not known is for the reader to judge. Until the new program serves it is an error; afterwards both go on.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::cache::purges::{PurgeMode, PurgeScope, PurgeSequence};

/// The longest message: a purge of the longest path, escaped, is far shorter.
const MESSAGE_BYTES: usize = 128 << 10;
/// What is kept of a message that is not known.
const LATER_BYTES: usize = 200;
/// Sockets in one message. The kernel takes 253 (SCM_MAX_FD).
pub(super) const SOCKETS: usize = 64;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The new program could serve: configuration, policies and certificates are good.
    Ready {
        /// Its version.
        version: String,
    },
    /// It can't.
    Failed {
        /// Why.
        reason: String,
    },
    /// The old program no longer accepts; these are its listening sockets, which come along in this order.
    Sockets(Vec<Name>),
    /// It has closed the cache folder, and that was all.
    Released,
    /// The new program serves.
    Serving,
    /// It has purged.
    Purged {
        /// The purge's number.
        sequence: PurgeSequence,
        /// What.
        scope: PurgeScope,
        /// How; a version that does not know of it takes each for a hard one.
        #[serde(default)]
        mode: PurgeMode,
    },
    /// The old program goes by that purge too.
    Heard {
        /// The purge's number.
        sequence: PurgeSequence,
    },
    /// The old program was asked for a purge; the new one shall record it, and tell of it by `Purged` as of its own.
    Purge {
        /// Names the answer.
        number: u64,
        /// What.
        scope: PurgeScope,
        /// How.
        #[serde(default)]
        mode: PurgeMode,
        /// The record must be safe against the loss of power.
        synced: bool,
    },
    /// It has.
    Recorded {
        /// That of the question.
        number: u64,
        /// The purge's number.
        sequence: PurgeSequence,
    },
    /// It has not.
    NotRecorded {
        /// That of the question.
        number: u64,
        /// Why.
        reason: String,
    },
    /// What this version does not know, as it came. Not to be sent.
    #[serde(skip)]
    Later(String),
}

/// What a socket is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    /// The listener.
    pub listener: String,
    /// The address as configured.
    pub asked: String,
    /// An IPv6 address that leaves IPv4 to another one beside it.
    pub beside: bool,
    /// Device and inode of a unix socket's file.
    #[serde(default)]
    pub file: Option<(u64, u64)>,
}

/// One end. tokio waits for it as for a stream; what is sent and received is messages.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// Both ends: ours, and one for another process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::over(ours)?, theirs))
    }

    /// The end that was handed to us.
    pub fn over(end: OwnedFd) -> io::Result<Self> {
        if rustix::net::sockopt::socket_type(&end)? != SocketType::SEQPACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket of messages"));
        }
        let end = std::os::unix::net::UnixStream::from(end);
        end.set_nonblocking(true)?;
        UnixStream::from_std(end).map(Self)
    }

    /// Says something; sockets come along.
    pub async fn send(&self, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MESSAGE_BYTES || sockets.len() > SOCKETS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message that is too long"));
        }
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(sockets));
            }
            rustix::net::sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// What is said next; none when the other process is gone.
    pub async fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut text = vec![0; MESSAGE_BYTES];
        let mut sockets = Vec::new();
        let mut receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut text)];
            let received = rustix::net::recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    sockets.extend(received);
                }
            }
            Ok(received.bytes)
        };
        let mut received = self.0.async_io(Interest::READABLE, &mut receive).await;
        if matches!(&received, Err(error) if error.kind() == io::ErrorKind::ConnectionReset) {
            // It ended without having read all; what it said before is still to be had.
            received = self.0.async_io(Interest::READABLE, &mut receive).await;
        }
        let bytes = match received {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        if bytes == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(&text[..bytes]).unwrap_or_else(|_| {
            let start = String::from_utf8_lossy(&text[..bytes.min(LATER_BYTES)]);
            Message::Later(start.into_owned())
        });
        Ok(Some((message, sockets)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::{Channel, Message, Name};

    #[tokio::test]
    async fn messages_and_sockets_arrive_in_order_and_then_the_end() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::over(theirs).unwrap();
        let (mut kept, given) = UnixStream::pair().unwrap();
        let name = Name { listener: "http".into(), asked: "127.0.0.1:0".into(), beside: false, file: None };
        let sockets = Message::Sockets(vec![name]);
        ours.send(&sockets, &[given.as_fd()]).await.unwrap();
        ours.send(&Message::Released, &[]).await.unwrap();
        drop((ours, given));
        let (message, mut received) = theirs.receive().await.unwrap().unwrap();
        assert_eq!((&message, received.len()), (&sockets, 1));
        UnixStream::from(received.remove(0)).write_all(b"x").unwrap();
        let mut byte = [0];
        kept.read_exact(&mut byte).unwrap();
        assert_eq!(theirs.receive().await.unwrap().unwrap().0, Message::Released);
        assert!(theirs.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_heard_though_something_was_left_unread() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::over(theirs).unwrap();
        ours.send(&Message::Released, &[]).await.unwrap();
        let failed = Message::Failed { reason: "no such file".into() };
        theirs.send(&failed, &[]).await.unwrap();
        drop(theirs);
        assert!(ours.send(&Message::Released, &[]).await.is_err());
        assert_eq!(ours.receive().await.unwrap().unwrap().0, failed);
        assert!(ours.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_such_socket_is_refused() {
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(Channel::over(stream.into()).is_err());
    }
}
