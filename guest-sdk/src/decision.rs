//! Shorter ways to write the decisions that policies make.

use crate::types::{Body, Decision, Redirect, Reply};

impl Decision {
    /// Sends the client elsewhere.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::Redirect(Redirect { status, location: location.into() })
    }

    /// Answers with a text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::Reply(Reply {
            status,
            headers: vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())],
            body: Body::Text(text.into()),
        })
    }

    /// Answers with a status alone.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self::Reply(Reply { status, headers: Vec::new(), body: Body::None })
    }
}
