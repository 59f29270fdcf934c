//! What phases return (interface `types`).

/// A body of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// None.
    None,
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// An answer of the policy's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Fields.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Body,
}

/// Where the client is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Location.
    pub location: String,
}

/// What becomes of a request or response.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Go on: the cache, then the origin.
    Next,
    /// Refuse with this status. The host renders the page and counts it.
    Deny(u16),
    /// Send the client elsewhere.
    Redirect(Redirect),
    /// Answer now. Nothing is looked up, fetched or kept.
    Reply(Reply),
}
