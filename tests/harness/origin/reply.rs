//! What a scripted origin answers, and what goes wrong on the way.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    Chunked,
    UntilClose,
    Claim(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    Keep,
    SayClose,
    CloseSilently,
    SwallowNext,
}

/// What the origin answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
    pub(super) framing: Framing,
    pub(super) conditional: bool,
    pub(super) ranged: bool,
    pub(super) early: Vec<u8>,
    pub(super) late: Option<Duration>,
    pub(super) hang: bool,
    pub(super) piece: usize,
    pub(super) pause: Option<Duration>,
    pub(super) cut_after: Option<u64>,
    pub(super) gate: Option<(u64, watch::Receiver<bool>)>,
    pub(super) garbage: Bytes,
    pub(super) raw: Option<Bytes>,
    pub(super) afterwards: Afterwards,
    pub(super) no_date: bool,
}

/// Opens the way for a reply that waits in the middle of its body (or before its head).
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Lets the rest through, now and for all further requests.
    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

/// A reply of this status with this body.
pub fn reply(status: u16, content: impl Into<Content>) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        content: content.into(),
        framing: Framing::Length,
        conditional: false,
        ranged: false,
        early: Vec::new(),
        late: None,
        hang: false,
        piece: 64 * 1024,
        pause: None,
        cut_after: None,
        gate: None,
        garbage: Bytes::new(),
        raw: None,
        afterwards: Afterwards::Keep,
        no_date: false,
    }
}

/// 200 with this body.
pub fn ok(content: impl Into<Content>) -> Reply {
    reply(200, content)
}

/// A redirect.
pub fn redirect(status: u16, location: &str) -> Reply {
    reply(status, "").header("location", location)
}

/// An answer that never comes: the request is read and the connection stays open.
pub fn hang() -> Reply {
    let mut reply = ok("");
    reply.hang = true;
    reply
}

/// These bytes and the end of the connection, whatever they are.
pub fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
    let mut reply = ok("");
    reply.raw = Some(Bytes::from(bytes.into()));
    reply
}

impl Reply {
    /// Adds a field line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds Cache-Control.
    #[must_use]
    pub fn cache_control(self, value: &str) -> Self {
        self.header("cache-control", value)
    }

    /// Adds an entity tag, given with its quotes.
    #[must_use]
    pub fn etag(self, value: &str) -> Self {
        self.header("etag", value)
    }

    /// Adds Vary.
    #[must_use]
    pub fn vary(self, value: &str) -> Self {
        self.header("vary", value)
    }

    /// Adds Last-Modified.
    #[must_use]
    pub fn last_modified(self, at: SystemTime) -> Self {
        self.header("last-modified", &httpdate::fmt_http_date(at))
    }

    /// Answers If-None-Match, If-Modified-Since and If-Match by its own ETag and Last-Modified.
    #[must_use]
    pub fn conditional(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// Answers Range (one range) and If-Range.
    #[must_use]
    pub fn ranged(mut self) -> Self {
        self.ranged = true;
        self.header("accept-ranges", "bytes")
    }

    /// Sends no Date (an answer has one otherwise).
    #[must_use]
    pub fn no_date(mut self) -> Self {
        self.no_date = true;
        self
    }

    /// Sends the body in chunks.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Says no length: the body ends with the connection.
    #[must_use]
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// Claims this Content-Length, whatever the body is.
    #[must_use]
    pub fn claim_length(mut self, length: u64) -> Self {
        self.framing = Framing::Claim(length);
        self
    }

    /// Sends these bytes before the head: interim responses.
    #[must_use]
    pub fn early(mut self, bytes: &str) -> Self {
        self.early.extend_from_slice(bytes.as_bytes());
        self
    }

    /// Waits before the head.
    #[must_use]
    pub fn late(mut self, by: Duration) -> Self {
        self.late = Some(by);
        self
    }

    /// Sends the body in pieces of this size with this pause before each.
    #[must_use]
    pub fn slowly(mut self, piece: usize, pause: Duration) -> Self {
        self.piece = piece;
        self.pause = Some(pause);
        self
    }

    /// Sends so many bytes of the body and cuts the connection.
    #[must_use]
    pub fn cut_after(mut self, bytes: u64) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    /// Stops after so many bytes of the body until the gate is opened.
    #[must_use]
    pub fn gated(mut self, after: u64) -> (Self, Gate) {
        let (sender, receiver) = watch::channel(false);
        self.gate = Some((after, receiver));
        (self, Gate(Arc::new(sender)))
    }

    /// Sends these bytes after the end of the answer.
    #[must_use]
    pub fn garbage(mut self, bytes: &str) -> Self {
        self.garbage = Bytes::copy_from_slice(bytes.as_bytes());
        self
    }

    /// Says `Connection: close` and does so.
    #[must_use]
    pub fn say_close(mut self) -> Self {
        self.afterwards = Afterwards::SayClose;
        self
    }

    /// Closes the connection after the answer without having said so: a pooled connection that is dead.
    #[must_use]
    pub fn close_silently(mut self) -> Self {
        self.afterwards = Afterwards::CloseSilently;
        self
    }

    /// Reads the next request on this connection and closes it without an answer: a pooled connection that dies in use.
    #[must_use]
    pub fn swallow_next(mut self) -> Self {
        self.afterwards = Afterwards::SwallowNext;
        self
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The status, the range of the content and the extra fields that this request gets (RFC 9110 sections 13 and 14, as
    /// much of it as a sane origin does).
    pub(super) fn settle(&self, request: &Seen) -> (u16, std::ops::Range<u64>, Option<String>) {
        let length = self.content.len();
        if self.status != 200 {
            return (self.status, 0..length, None);
        }
        let etag = self.field("etag");
        let modified = self.field("last-modified");
        if self.conditional {
            let among = |list: &str| {
                list.split(',')
                    .map(|tag| tag.trim().trim_start_matches("W/"))
                    .any(|tag| tag == "*" || etag.is_some_and(|etag| etag.trim_start_matches("W/") == tag))
            };
            if request.has("if-match") && !among(request.header("if-match")) {
                return (412, 0..0, None);
            }
            let unchanged = if request.has("if-none-match") {
                among(request.header("if-none-match"))
            } else {
                let since = httpdate::parse_http_date(request.header("if-modified-since")).ok();
                let at = modified.and_then(|text| httpdate::parse_http_date(text).ok());
                matches!((since, at), (Some(since), Some(at)) if at <= since)
            };
            if unchanged {
                return (304, 0..0, None);
            }
        }
        if self.ranged && request.method == "GET" {
            let holds = !request.has("if-range")
                || etag == Some(request.header("if-range"))
                || modified == Some(request.header("if-range"));
            if let Some(range) = request.header("range").strip_prefix("bytes=").filter(|_| holds) {
                let bounds = range.split_once('-').unwrap_or_default();
                let (start, end) = match (bounds.0.parse::<u64>(), bounds.1.parse::<u64>()) {
                    (Ok(start), Ok(last)) => (start, last.saturating_add(1).min(length)),
                    (Ok(start), Err(_)) => (start, length),
                    (Err(_), Ok(suffix)) => (length.saturating_sub(suffix), length),
                    (Err(_), Err(_)) => (0, length),
                };
                if start >= end {
                    return (416, 0..0, Some(format!("bytes */{length}")));
                }
                return (206, start..end, Some(format!("bytes {start}-{}/{length}", end - 1)));
            }
        }
        (200, 0..length, None)
    }
}
