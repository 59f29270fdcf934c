//! Interim responses (RFC 9110 section 15.2) on their way from an origin to the client that waits for the final one.

use std::fmt::Debug;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

/// Writes interim responses to one connection.
pub trait InterimWriter: Send + Sync + Debug {
    /// Writes one to whoever had its `turn` when it was asked for, if that one still waits. Does not wait; what can't be written
    /// is left out: an interim response is a hint.
    fn write(&self, turn: u64, status: StatusCode, fields: &HeaderMap);
    /// Whose turn it is.
    fn turn(&self) -> u64;
}

/// The way to a client that waits for an answer.
#[derive(Clone, Debug)]
pub struct Interim {
    writer: Arc<dyn InterimWriter>,
    turn: u64,
}

impl Interim {
    /// To whoever has the turn now.
    pub fn to(writer: &Arc<dyn InterimWriter>) -> Self {
        Self { writer: Arc::clone(writer), turn: writer.turn() }
    }

    /// Passes on what an origin has said. 100 is between it and us, and 101 is an answer.
    pub fn pass_on(&self, status: StatusCode, fields: &HeaderMap) {
        if status.is_informational() && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            self.writer.write(self.turn, status, fields);
        }
    }
}
