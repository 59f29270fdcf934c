//! Which kinds of fields a request has that change how it is answered. Most have none of them, and one look at the names
//! there are costs less than a search for each of a dozen names there might be.

use http::HeaderMap;

/// Kinds of fields. A kind that is not among them is certainly not in the request; one that is may have been taken out since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Connection.
    pub const CONNECTION: Self = Self(1);
    /// Content-Length or Transfer-Encoding.
    pub const BODY: Self = Self(2);
    /// Cache-Control or Pragma.
    pub const DIRECTIVES: Self = Self(4);
    /// Preconditions (RFC 9110 section 13.1), If-Range aside.
    pub const CONDITIONS: Self = Self(8);
    /// Range.
    pub const RANGE: Self = Self(16);
    /// CDN-Loop.
    pub const LOOP: Self = Self(32);
    /// Wishes for digests (RFC 9530 section 4).
    pub const DIGESTS: Self = Self(64);
    /// Any of them.
    pub const ALL: Self = Self(127);

    /// Looks at all names.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |found, name| {
            let kind = match name.as_str() {
                "connection" => Self::CONNECTION,
                "content-length" | "transfer-encoding" => Self::BODY,
                "cache-control" | "pragma" => Self::DIRECTIVES,
                "if-match" | "if-none-match" | "if-modified-since" | "if-unmodified-since" => Self::CONDITIONS,
                "range" => Self::RANGE,
                "cdn-loop" => Self::LOOP,
                "want-repr-digest" | "want-content-digest" => Self::DIGESTS,
                _ => Self::default(),
            };
            Self(found.0 | kind.0)
        })
    }

    /// Whether a field of that kind may be there.
    pub fn has(self, kind: Self) -> bool {
        self.0 & kind.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn each_kind_is_found_by_each_of_its_names() {
        for (name, kind) in [
            ("connection", Interest::CONNECTION),
            ("content-length", Interest::BODY),
            ("transfer-encoding", Interest::BODY),
            ("cache-control", Interest::DIRECTIVES),
            ("pragma", Interest::DIRECTIVES),
            ("if-match", Interest::CONDITIONS),
            ("if-none-match", Interest::CONDITIONS),
            ("if-modified-since", Interest::CONDITIONS),
            ("if-unmodified-since", Interest::CONDITIONS),
            ("range", Interest::RANGE),
            ("cdn-loop", Interest::LOOP),
            ("want-repr-digest", Interest::DIGESTS),
            ("want-content-digest", Interest::DIGESTS),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("a.test"));
            assert_eq!(Interest::of(&headers), Interest::default());
            headers.insert(name, HeaderValue::from_static("x"));
            assert_eq!(Interest::of(&headers), kind, "{name}");
            assert!(Interest::ALL.has(kind) && Interest::of(&headers).has(kind));
        }
    }
}
