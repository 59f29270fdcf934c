//! The program that this one takes over from.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::VARIABLE;
use super::channel::{Channel, Message, Name};
use super::link::Link;
use crate::cache::Cache;
use crate::listener::Address;
use crate::listener::inherited::{self, Handed};

/// The program that serves until this one does.
#[derive(Clone, Debug)]
pub(in super::super) struct Predecessor(Arc<Link>);

impl Predecessor {
    /// None: this is a start like any other.
    pub fn find() -> io::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none_or(|value| value != "stdin") {
            return Ok(None);
        }
        let end = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Some(Self(Arc::new(Link::over(Channel::over(end)?)))))
    }

    /// Everything that can be known without the cache folder is good. Returns when that is free, with the sockets.
    pub async fn take_over(&self) -> io::Result<()> {
        self.say(&Message::Ready { version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
        loop {
            match self.0.channel().receive().await? {
                Some((Message::Sockets(names), sockets)) => {
                    let handed = names.into_iter().zip(sockets).filter_map(|(name, socket)| {
                        let asked = Address::parse(&name.asked)?;
                        let Name { listener, beside, file, .. } = name;
                        Some(Handed { listener: Some(listener), asked, beside, file, socket })
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

    /// Makes the old program go by the purges of `cache`, for what it still answers, and this one by those of the old.
    pub fn share_purges(&self, cache: &Cache) {
        tokio::spawn(Arc::clone(&self.0).listen(cache.clone()));
        let link = Arc::clone(&self.0);
        cache.tell_purges_to(Box::new(move |sequence, purge| {
            let link = Arc::clone(&link);
            Box::pin(async move { link.purged(sequence, purge).await })
        }));
    }

    async fn say(&self, message: &Message) -> io::Result<()> {
        self.0.channel().send(message, &[]).await
    }
}
