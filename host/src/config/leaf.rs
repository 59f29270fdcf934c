//! Single values of hosts.json and how each is read. `accepts` and the readers below share their parsers, so what the walker
//! lets pass is what `resolve` can use.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Uri;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::json::Json;
use crate::listener::Address;
use crate::units::{ByteSize, parse_duration};

/// A kind of single value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// `null`.
    Null,
    /// `true` or `false`.
    Flag,
    /// A string that is not empty and has no control characters; what it is, in words.
    Text(&'static str),
    /// The same, or an empty one.
    TextOrEmpty(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number within bounds.
    Count {
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// "40GB", "512MiB" or bytes.
    Size,
    /// "5m" or seconds; the least in milliseconds.
    Duration {
        /// In milliseconds.
        least_ms: u64,
    },
    /// Literal, `env:NAME` or `file:PATH`; never shown.
    Secret,
    /// Address and port.
    Socket,
    /// The same, or a unix socket.
    Listen,
    /// A network in CIDR notation, or one address.
    Network,
    /// An http or https URL.
    Url,
    /// Any object.
    AnyObject,
}

/// Longest duration: more is a slip of the pen, and would overflow arithmetic on time elsewhere.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

impl Leaf {
    /// What is expected, in words.
    pub fn expected(self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Flag => "true or false".into(),
            Self::Text(what) | Self::TextOrEmpty(what) => what.into(),
            Self::Choice(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or "),
            Self::Count { least, most } => format!("a whole number from {least} to {most}"),
            Self::Size => r#"a size such as "40GB", "512MiB" or a number of bytes"#.into(),
            Self::Duration { least_ms: 0 } => r#"a duration such as "5m", "90s" or a number of seconds"#.into(),
            Self::Duration { least_ms } => {
                format!(r#"a duration such as "5m", "90s" or a number of seconds, at least "{least_ms}ms""#)
            }
            Self::Secret => r#"a secret: text that is not empty, "env:NAME" or "file:PATH""#.into(),
            Self::Socket => r#"an address and a port such as "127.0.0.1:8080" or "[::1]:8080""#.into(),
            Self::Listen => {
                r#"an address and a port such as "127.0.0.1:8080" or "[::1]:8080", or "unix:" and a path"#.into()
            }
            Self::Network => r#"a network such as "10.0.0.0/8" or "2001:db8::/32", or an address"#.into(),
            Self::Url => r#"a URL such as "http://127.0.0.1:3000", without user, query and fragment"#.into(),
            Self::AnyObject => "an object".into(),
        }
    }

    /// Whether values of that JSON type can be right at all.
    pub fn takes_type(self, json: &Json) -> bool {
        match self {
            Self::Null => matches!(json, Json::Null),
            Self::Flag => matches!(json, Json::Bool(_)),
            Self::Count { .. } => matches!(json, Json::Number(_)),
            Self::Size | Self::Duration { .. } => matches!(json, Json::Number(_) | Json::Text(_)),
            Self::AnyObject => matches!(json, Json::Object(_)),
            Self::Text(_)
            | Self::TextOrEmpty(_)
            | Self::Choice(_)
            | Self::Secret
            | Self::Socket
            | Self::Listen
            | Self::Network
            | Self::Url => matches!(json, Json::Text(_)),
        }
    }

    /// Whether a value is right.
    pub fn accepts(self, json: &Json) -> bool {
        let text = json.text();
        match self {
            Self::Null | Self::Flag | Self::AnyObject => self.takes_type(json),
            Self::Text(_) => text.is_some_and(|text| !text.is_empty() && is_plain(text)),
            Self::TextOrEmpty(_) => text.is_some_and(is_plain),
            Self::Choice(words) => text.is_some_and(|text| words.contains(&text)),
            Self::Count { least, most } => count(json).is_some_and(|count| (least..=most).contains(&count)),
            Self::Size => size(json).is_some(),
            Self::Duration { least_ms } => {
                duration(json).is_some_and(|duration| duration >= Duration::from_millis(least_ms))
            }
            Self::Secret => text.is_some_and(|text| !text.is_empty()),
            Self::Socket => text.and_then(socket).is_some(),
            Self::Listen => text.is_some_and(|text| Address::parse(text).is_some() && is_plain(text)),
            Self::Network => text.and_then(network).is_some(),
            Self::Url => text.and_then(url).is_some(),
        }
    }

    /// As JSON Schema says it (draft 2020-12); where its patterns cannot say it all, they let more pass than the walker.
    pub fn schema(self) -> Value {
        match self {
            Self::Null => json!({ "type": "null" }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Text(_) | Self::Secret => json!({ "type": "string", "minLength": 1 }),
            Self::TextOrEmpty(_) => json!({ "type": "string" }),
            Self::Choice(words) => json!({ "enum": words }),
            Self::Count { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Self::Size => json!({ "anyOf": [
                { "type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([KkMmGgTt]([Ii]?[Bb])?|[Bb])?\s*$" },
                { "type": "integer", "minimum": 0 },
            ] }),
            Self::Duration { .. } => json!({ "anyOf": [
                { "type": "string", "pattern": r"^\s*([0-9]+|([0-9]+(ms|s|m|h|d|w))+)\s*$" },
                { "type": "number", "minimum": 0 },
            ] }),
            Self::Socket => json!({ "type": "string", "pattern": "^([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]+$" }),
            Self::Listen => {
                json!({ "type": "string", "pattern": "^(([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]+|unix:.+)$" })
            }
            Self::Network => json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]+)?$" }),
            Self::Url => json!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^?#]+$" }),
            Self::AnyObject => json!({ "type": "object" }),
        }
    }
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A whole number.
pub fn count(json: &Json) -> Option<u32> {
    match json {
        Json::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        _ => None,
    }
}

/// A size in bytes.
pub fn size(json: &Json) -> Option<u64> {
    match json {
        Json::Number(number) => number.as_u64(),
        Json::Text(text) => ByteSize::parse(text).ok().map(|size| size.0),
        _ => None,
    }
}

/// A duration; a number counts seconds and may have a fraction.
pub fn duration(json: &Json) -> Option<Duration> {
    let duration = match json {
        Json::Number(number) => Duration::try_from_secs_f64(number.as_f64()?).ok()?,
        Json::Text(text) => parse_duration(text).ok()?,
        _ => return None,
    };
    (duration <= LONGEST).then_some(duration)
}

/// Address and port.
pub fn socket(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// A network, or one address as the network that has only it. Bits behind the prefix are dropped.
pub fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(IpNet::V6(six)) => Some(canonical(six)),
        Ok(network) => Some(network.trunc()),
        Err(_) => text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical())),
    }
}

/// IPv4 in IPv6's clothes (`::ffff:192.0.2.0/120`) is IPv4: clients are known so.
fn canonical(six: Ipv6Net) -> IpNet {
    match (six.trunc().addr().to_canonical(), six.prefix_len().checked_sub(96)) {
        (IpAddr::V4(four), Some(length)) => Ipv4Net::new(four, length).map_or(IpNet::V6(six), IpNet::V4),
        _ => IpNet::V6(six.trunc()),
    }
}

/// An http or https URL with an authority and without user information, query and fragment.
pub fn url(text: &str) -> Option<Uri> {
    if text.contains('#') {
        return None; // http::Uri drops fragments silently
    }
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let authority = uri.authority()?;
    let right = matches!(scheme, "http" | "https")
        && !authority.host().is_empty()
        && !authority.as_str().contains('@')
        && uri.query().is_none();
    right.then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Json {
        Json::Text(text.to_owned())
    }

    #[test]
    fn networks_are_read_with_and_without_a_prefix() {
        assert_eq!(network("10.1.2.3/8").map(|net| net.to_string()), Some("10.0.0.0/8".into()));
        assert_eq!(network("::1").map(|net| net.to_string()), Some("::1/128".into()));
        assert!(network("10.0.0.0/33").is_none() && network("localhost").is_none());
    }

    #[test]
    fn urls_with_users_queries_or_other_schemes_are_refused() {
        for good in ["http://127.0.0.1:3000", "https://a.example/base/", "http://[::1]:1/"] {
            assert!(url(good).is_some(), "{good}");
        }
        for bad in ["a.example", "/a", "ftp://a", "http://u:p@a", "http://a/?q", "http://a/#f", "http://", "http:///a"]
        {
            assert!(url(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn durations_may_be_numbers_with_a_fraction_but_not_endless() {
        assert_eq!(duration(&Json::Number(300.into())), Some(Duration::from_secs(300)));
        assert_eq!(duration(&Json::parse(b"0.5").expect("JSON")), Some(Duration::from_millis(500)));
        for bad in ["-1", "1e300", "null"] {
            assert_eq!(duration(&Json::parse(bad.as_bytes()).expect("JSON")), None, "{bad}");
        }
        assert_eq!(duration(&text("99999w")), None);
    }

    #[test]
    fn counts_are_whole_and_bounded() {
        let leaf = Leaf::Count { least: 1, most: 10 };
        assert!(leaf.accepts(&Json::Number(10.into())));
        for bad in ["0", "11", "1.5", "-1", "99999999999", "\"5\""] {
            assert!(!leaf.accepts(&Json::parse(bad.as_bytes()).expect("JSON")), "{bad}");
        }
    }
}
