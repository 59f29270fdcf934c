//! The program that this one takes over from.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::VARIABLE;
use super::channel::{Channel, Message};
use crate::cache::purges::{PurgeScope, PurgeSequence};
use crate::listener::Address;
use crate::listener::inherited::{self, Handed};

/// How long a purge waits for the old program to go by it too.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// The program that serves until this one does.
#[derive(Clone, Debug)]
pub(in super::super) struct Predecessor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    channel: Channel,
    /// One purge at a time.
    purging: Mutex<()>,
    gone: AtomicBool,
}

impl Predecessor {
    /// None: this is a start like any other.
    pub fn find() -> io::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none_or(|value| value != "stdin") {
            return Ok(None);
        }
        let end = io::stdin().as_fd().try_clone_to_owned()?;
        let channel = Channel::over(end)?;
        Ok(Some(Self(Arc::new(Inner { channel, purging: Mutex::new(()), gone: AtomicBool::new(false) }))))
    }

    /// Everything that can be known without the cache folder is good. Returns when that is free, with the sockets.
    pub async fn take_over(&self) -> io::Result<()> {
        self.say(&Message::Ready { version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
        loop {
            match self.0.channel.receive().await? {
                Some((Message::Sockets(names), sockets)) => {
                    let handed = names.into_iter().zip(sockets).filter_map(|(name, socket)| {
                        let asked = Address::parse(&name.asked)?;
                        Some(Handed { listener: Some(name.listener), asked, beside: name.beside, socket })
                    });
                    inherited::accept(handed.collect());
                }
                Some((Message::Released, _)) => return Ok(()),
                Some((message, _)) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, format!("unexpected message {message:?}")));
                }
                // It died, and with it went what it held: there is nothing to wait for.
                None => return Ok(()),
            }
        }
    }

    /// This program serves.
    pub async fn serving(&self) {
        if let Err(error) = self.say(&Message::Serving).await {
            tracing::warn!(%error, "the program before this one cannot be told that this one serves");
        }
    }

    /// This program ends without having served.
    pub async fn failed(&self, reason: String) {
        // Standard error has it in full.
        let reason = reason.chars().take(10_000).collect();
        let _ = self.say(&Message::Failed { reason }).await;
    }

    /// Makes the old program go by a purge, too, for what it still answers.
    pub async fn purged(&self, sequence: PurgeSequence, scope: PurgeScope) {
        if self.0.gone.load(Ordering::Relaxed) {
            return;
        }
        let _turn = self.0.purging.lock().await;
        let heard = async {
            self.say(&Message::Purged { sequence, scope }).await?;
            while let Some((message, _)) = self.0.channel.receive().await? {
                if message == (Message::Heard { sequence }) {
                    return io::Result::Ok(true);
                }
            }
            Ok(false)
        };
        match tokio::time::timeout(HEARD_WITHIN, heard).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false) | Err(_)) => self.0.gone.store(true, Ordering::Relaxed),
            Err(_) => tracing::warn!("the program before this one has not heard of a purge in time"),
        }
    }

    async fn say(&self, message: &Message) -> io::Result<()> {
        self.0.channel.send(message, &[]).await
    }
}
