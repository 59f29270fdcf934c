//! What is told of a warm-up, thing by thing, and what it comes to.

use futures_util::stream::BoxStream;
use serde_json::{Value, json};

/// What became of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its URL, or what stands in the list where there should be one.
    pub url: String,
    /// What is kept of it now, or why nothing is.
    pub outcome: Result<Kept, String>,
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The origin was asked for it; else it was fresh and whole already.
    pub fetched: bool,
    /// Bytes of its body.
    pub bytes: u64,
}

/// The cache keeps nothing any more: the program ends, or another one takes over. Nothing is told behind this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

/// A warm-up under way: what becomes of each thing, as it is known. It ends when this is dropped.
pub type Warming = BoxStream<'static, Result<Told, Interrupted>>;

impl Told {
    /// For a program.
    pub fn json(&self) -> Value {
        match &self.outcome {
            Ok(kept) => {
                json!({ "url": self.url, "result": if kept.fetched { "fetched" } else { "fresh" }, "bytes": kept.bytes })
            }
            Err(why) => json!({ "url": self.url, "result": "failed", "because": why }),
        }
    }
}

/// What many come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// The origin was asked for them.
    pub fetched: u64,
    /// They were there.
    pub fresh: u64,
    /// They are not there.
    pub failed: u64,
    /// Bytes of the bodies that were fetched.
    pub bytes: u64,
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, outcome: &Result<Kept, String>) {
        match outcome {
            Ok(kept) if kept.fetched => {
                self.fetched += 1;
                self.bytes += kept.bytes;
            }
            Ok(_) => self.fresh += 1,
            Err(_) => self.failed += 1,
        }
    }

    /// Counts those of another.
    pub fn add(&mut self, other: Self) {
        self.fetched += other.fetched;
        self.fresh += other.fresh;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}
