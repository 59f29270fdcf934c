//! Authority and host names (RFC 9110 section 7.2, RFC 3986 section 3.2).
//!
//! A name has one form from the door on: lower case, no trailing dot, no port; so that routing, keys, purges and what
//! policies see can compare bytes. Internationalised names come in as their ASCII form (`xn--`); raw non-ASCII is refused.
//! Whether a name exists, or is a name at all for DNS (labels of 63 bytes), is not asked here.

use std::borrow::Borrow;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::HeaderValue;

/// The longest host name (RFC 1035 section 2.3.4, without the length bytes and the root).
pub const MAX_HOSTNAME_BYTES: usize = 253;

/// A host name or address: lower case, without port, without a trailing dot; IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

/// Why an authority could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthorityError(pub String);

impl Hostname {
    /// Reads a host without port.
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner =
                inner.strip_suffix(']').ok_or_else(|| wrong(text, "an opening bracket without a closing one"))?;
            let address: Ipv6Addr = inner.parse().map_err(|_| wrong(text, "no IPv6 address in the brackets"))?;
            // The standard library's text is RFC 5952's: one address, one name.
            return Ok(Self(Arc::from(format!("[{address}]"))));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(wrong(text, "an empty host name"));
        }
        if name.len() > MAX_HOSTNAME_BYTES {
            return Err(AuthorityError(format!("a host name of more than {MAX_HOSTNAME_BYTES} bytes")));
        }
        let mut lower = true;
        let mut before = b'.';
        for byte in name.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
                b'A'..=b'Z' => lower = false,
                b'.' if before == b'.' => return Err(wrong(text, "an empty label")),
                b'.' => {}
                _ => return Err(wrong(text, "a character that no host name has")),
            }
            before = byte;
        }
        if before == b'.' {
            return Err(wrong(text, "an empty label"));
        }
        Ok(Self(if lower { Arc::from(name) } else { Arc::from(name.to_ascii_lowercase()) }))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an IPv4 or IPv6 address.
    pub fn is_address(&self) -> bool {
        self.0.starts_with('[') || self.0.parse::<std::net::Ipv4Addr>().is_ok()
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets a map with names as keys be asked with a piece of another name: hash and order are those of the text.
impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The text is of a client or of hosts.json: shown escaped, and only so much of it as a log line bears.
fn wrong(text: &str, what: &str) -> AuthorityError {
    let shown: String = text.chars().take(64).collect();
    AuthorityError(format!("{what}: {shown:?}"))
}

/// Host and port, as in the Host field or an absolute target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Hostname,
    /// The port, when there is one.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `host[:port]`; user information is refused. An empty port (`host:`) is none, as RFC 3986 has it.
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        if memchr::memchr(b'@', text.as_bytes()).is_some() {
            // Not shown: it may hold a password.
            return Err(AuthorityError("an authority with user information".to_owned()));
        }
        let host_end = if text.starts_with('[') {
            text.find(']').map(|at| at + 1).ok_or_else(|| wrong(text, "an opening bracket without a closing one"))?
        } else {
            memchr::memchr(b':', text.as_bytes()).unwrap_or(text.len())
        };
        let (host, rest) = text.split_at(host_end);
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(wrong(text, "something other than a port behind the host")),
            Some("") => None,
            Some(digits) => Some(parse_port(digits).ok_or_else(|| wrong(text, "a port that is none"))?),
        };
        Ok(Self { host: Hostname::parse(host)?, port })
    }
}

/// An authority as it was sent, read and found good. A copy shares the text.
#[derive(Clone, Debug)]
pub struct AuthorityText(Sent);

#[derive(Clone, Debug)]
enum Sent {
    Target(http::uri::Authority),
    Field(HeaderValue),
    Own(Arc<str>),
}

impl AuthorityText {
    /// Of an absolute target or `:authority`.
    pub fn of_target(target: &http::uri::Authority) -> Self {
        Self(Sent::Target(target.clone()))
    }

    /// Of a Host field; none if it is not visible ASCII.
    pub fn of_field(field: &HeaderValue) -> Option<Self> {
        field.to_str().is_ok().then(|| Self(Sent::Field(field.clone())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Sent::Target(target) => target.as_str(),
            // Visible ASCII, as `of_field` has seen.
            Sent::Field(field) => std::str::from_utf8(field.as_bytes()).unwrap_or_default(),
            Sent::Own(text) => text,
        }
    }
}

impl From<&str> for AuthorityText {
    fn from(text: &str) -> Self {
        Self(Sent::Own(Arc::from(text)))
    }
}

/// One to 65535, in digits alone: `u16::from_str` would take a plus sign.
fn parse_port(digits: &str) -> Option<u16> {
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

/// A name of hosts.json: `a.example`, `*.example` or `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This name only.
    Exact(Hostname),
    /// Every name that ends with a dot and this one, at any depth.
    Wildcard(Hostname),
    /// Every name.
    Any,
}

impl HostPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some(parent) = text.strip_prefix("*.") else {
            return Hostname::parse(text).map(Self::Exact);
        };
        let parent = Hostname::parse(parent)?;
        if parent.is_address() {
            return Err(wrong(text, "a wildcard before an address"));
        }
        Ok(Self::Wildcard(parent))
    }

    /// Whether a name is meant. A wildcard does not mean its own parent.
    pub fn matches(&self, host: &Hostname) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Wildcard(parent) => {
                host.as_str().strip_suffix(parent.as_str()).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => name.fmt(f),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_one_form() {
        for (text, name) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_dmarc.a-b.test", "_dmarc.a-b.test"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(Hostname::parse(text).map(|host| host.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let long = "a".repeat(MAX_HOSTNAME_BYTES + 1);
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            "a/b",
            "a%41",
            "a:80",
            "bücher.example",
            "a\0",
            "*",
            "a*",
            "[::1",
            "[fe80::1%eth0]",
            "[1.2.3.4]",
            "::1",
            "[]",
            long.as_str(),
        ] {
            assert!(Hostname::parse(text).is_err(), "{text:?}");
        }
        assert!(Hostname::parse(&"a".repeat(MAX_HOSTNAME_BYTES)).is_ok());
    }

    #[test]
    fn authorities_have_a_port_or_none() {
        let read = |text: &str| Authority::parse(text).map(|a| (a.host.to_string(), a.port));
        assert_eq!(read("A.test:8080"), Ok(("a.test".to_owned(), Some(8080))));
        assert_eq!(read("a.test"), Ok(("a.test".to_owned(), None)));
        assert_eq!(read("a.test:"), Ok(("a.test".to_owned(), None)));
        assert_eq!(read("[::1]:443"), Ok(("[::1]".to_owned(), Some(443))));
        assert_eq!(read("[::1]"), Ok(("[::1]".to_owned(), None)));
        for text in [
            "u@a.test",
            "u:p@a.test",
            "a.test:0",
            "a.test:65536",
            "a.test:+80",
            "a.test:-1",
            "a.test:8 0",
            "a.test:80:80",
            "[::1]x",
            "::1",
            ":80",
            "",
            "a.test:000080",
        ] {
            assert!(Authority::parse(text).is_err(), "{text:?}");
        }
        assert!(!Authority::parse("user:secret@a.test").is_err_and(|error| error.0.contains("secret")));
    }

    #[test]
    fn wildcards_mean_any_depth_but_not_the_parent() {
        let pattern = HostPattern::parse("*.Example.com").expect("a pattern");
        let host = |text: &str| Hostname::parse(text).expect("a name");
        assert!(pattern.matches(&host("a.example.com")));
        assert!(pattern.matches(&host("b.a.example.com")));
        assert!(!pattern.matches(&host("example.com")));
        assert!(!pattern.matches(&host("badexample.com")));
        assert_eq!(pattern.to_string(), "*.example.com");
        assert_eq!(HostPattern::parse("*"), Ok(HostPattern::Any));
        for text in ["*.", "*a.test", "a.*.test", "**", "*.*", "*.192.0.2.1", "*.[::1]", "*.*.test"] {
            assert!(HostPattern::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reading_again_changes_nothing(text in ".{0,80}") {
            if let Ok(host) = Hostname::parse(&text) {
                prop_assert_eq!(Hostname::parse(host.as_str()), Ok(host.clone()));
            }
            if let Ok(authority) = Authority::parse(&text) {
                prop_assert_eq!(Authority::parse(&authority.to_string()), Ok(authority.clone()));
            }
            let _ = HostPattern::parse(&text);
        }
    }
}
