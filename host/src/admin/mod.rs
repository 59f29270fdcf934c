//! The admin listener's endpoints.
//!
//! | endpoint | token | answer |
//! |---|---|---|
//! | `GET /healthz` | no | 200 as long as the program runs |
//! | `GET /readyz` | no | 200 when requests are served, else 503; both with what is known as JSON |
//! | `POST /purge` | yes | 200 `{"sequence": n, …}` when the purge is in force; 400 `{"error"}`; 413; 503 when too much is being purged already, or a program that took over does not answer |
//! | `POST /warm` | yes | 200 and JSON lines: what became of each thing, counts now and then, and at last `{"done": {…}}`, or `{"interrupted"}` where this program ends or another one takes over; 400 `{"error"}`; 413; 503 when too many warm-ups are under way. It ends with who reads it |
//! | `POST /events` | yes, also as the password of Basic | S3 event notifications: 200 with counts; 400 `{"errors": [{"at", "error"}]}` where some cannot be read, of which the others count |
//! | `POST /reload` | yes | 200 `{"changes": []}`; 422 `{"errors": []}`, and the old configuration stays |
//! | `POST /upgrade` | yes | 200 `{"pid": n}` when a new program serves; 422 `{"errors": []}`, and this one goes on; 409 during another |
//! | `GET /stats` | yes | numbers and states as JSON |
//! | `GET /policies` | yes | the part of them that concerns policies |
//! | `POST /policies/forget` | yes | `{"host"}`: takes a dropped-in policy whose file is gone out of force; 200 `{"forgotten": bool}` |
//! | `GET /metrics` | yes | all metrics, for Prometheus |
//! | `GET /explain?url=&method=` | yes | host, decision, key, entry and freshness; `header=Name: value` may be repeated |
//!
//! The token is asked for before anything else is looked at, so that without it nothing can be learnt, not even which
//! endpoints there are. A page in a browser cannot send it, which also settles DNS rebinding and forged requests.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use serde_json::Value;

use crate::purge::{Done, Order};
use crate::warm;

mod answer;
pub mod auth;
mod warming;

pub use answer::{Admin, AdminBody};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// It was tried, and failed.
    Failed(String),
    /// Another program, or one before, has its hand in it: later it may go.
    NotNow(String),
}

/// What the endpoints do, handed in by `app`, so that this room knows none of the others' insides.
pub trait Control: Send + Sync + 'static {
    /// Purges, or counts for a dry run, and asks again for what is to be refreshed.
    fn purge(&self, order: Order) -> BoxFuture<'_, Result<Done, NotDone>>;
    /// Begins to fetch into the cache: what becomes of each thing, as it is known, for as long as somebody asks for the next one.
    fn warm(&self, order: warm::Order) -> Result<warm::Warming, NotDone>;
    /// Carries out what buckets tell of their objects. Ok: counts.
    fn events(&self, events: warm::event::Events) -> BoxFuture<'_, Result<Value, NotDone>>;
    /// Reads hosts.json again: all or nothing. Ok: lines of what changed; Err: all mistakes.
    fn reload(&self) -> BoxFuture<'_, Result<Vec<String>, Vec<String>>>;
    /// Starts the program anew from its file and gives everything over to it. Ok: its process id; Err: why this one goes on.
    fn upgrade(&self) -> BoxFuture<'_, Result<u32, NotDone>>;
    /// Takes a dropped-in policy whose file has vanished out of force. Tells whether there was anything to forget.
    fn forget_policy(&self, host: String) -> BoxFuture<'_, bool>;
    /// Numbers and states as JSON.
    fn stats(&self) -> BoxFuture<'_, Value>;
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// Whether requests are served, and why not.
    fn ready(&self) -> Result<Value, Value>;
    /// Which host, decision, key, entry and freshness a URL has.
    fn explain(
        &self,
        method: String,
        url: String,
        headers: Vec<(String, String)>,
    ) -> BoxFuture<'_, Result<Value, String>>;
}

/// How the admin listener is set up.
#[derive(Clone)]
pub struct Settings {
    /// Where; loopback unless a token is configured.
    pub address: std::net::SocketAddr,
    /// The token.
    pub token: Token,
}

/// The token in force; clones share it.
#[derive(Clone)]
pub struct Token(Arc<RwLock<Arc<str>>>);

impl Token {
    /// Puts another one in force.
    pub fn set(&self, token: Arc<str>) {
        *self.0.write() = token;
    }

    /// Writes it into the folder, where it has gone missing there.
    pub fn keep_again(&self, cache_dir: &Path) {
        auth::keep_again(&self.get(), cache_dir);
    }

    fn get(&self) -> Arc<str> {
        Arc::clone(&self.0.read())
    }
}

impl From<Arc<str>> for Token {
    fn from(token: Arc<str>) -> Self {
        Self(Arc::new(RwLock::new(token)))
    }
}
