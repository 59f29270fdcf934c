//! Why an order came to nothing, and from what the protocol's errors tell that.
//!
//! The kinds differ in what follows: a failed validation counts against the name, a rate limit means an hour's rest, a server
//! that is down concerns every name and none's limits, a refusal concerns the one name, a bad nonce nobody.

use rustls_acme::acme::AcmeError as ProtocolError;
use rustls_acme::acme::Problem;
use serde::Deserialize;

/// How much of a server's words goes into messages.
const MAX_REASON_CHARS: usize = 500;

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The CA looked for the answer to a challenge and did not find it.
    Validation(String),
    /// The CA wants no more for a while (RFC 8555 section 6.6). With its words.
    RateLimited(String),
    /// The server cannot be reached, or is not well.
    Server(String),
    /// The server does not do what is asked for this name.
    Refused(String),
    /// Our own store or keys are at fault.
    Internal(String),
    /// The server does not know our account (any more).
    AccountUnknown,
    /// The name is not configured any more.
    Removed,
}

impl Failure {
    /// In words, for the log and the status.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Validation(reason) => reason.clone(),
            Self::RateLimited(detail) => format!("rate limited: {detail}"),
            Self::Server(reason) => format!("the ACME server: {reason}"),
            Self::Refused(reason) => format!("refused: {reason}"),
            Self::Internal(reason) => reason.clone(),
            Self::AccountUnknown => "the ACME server does not know our account".to_owned(),
            Self::Removed => "the name is not configured any more".to_owned(),
        }
    }
}

/// An error of the protocol crate, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The nonce was refused (RFC 8555 section 6.5): nothing was done, send it again.
    BadNonce,
    /// Anything else.
    Failure(Failure),
}

/// The body of an error response (RFC 7807, RFC 8555 section 6.7).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

/// Reads an error of the protocol crate. `doing` tells in the message what was asked for.
pub(super) fn read(doing: &str, error: &ProtocolError) -> Read {
    Read::Failure(match error {
        ProtocolError::HttpRequest(error) => match refusal(&error.to_string()) {
            Some((status, body)) => return answer(doing, status, &body),
            None => Failure::Server(format!("{doing}: {}", shortened(&error.to_string()))),
        },
        ProtocolError::Io(error) => Failure::Server(format!("{doing}: {error}")),
        ProtocolError::Json(_)
        | ProtocolError::HttpResponseNonStringHeader(_)
        | ProtocolError::MissingHeader(_)
        | ProtocolError::NoTlsAlpn01Challenge
        | ProtocolError::NoHttp01Challenge => {
            Failure::Refused(format!("{doing}: the answer is not understood: {error}"))
        }
        ProtocolError::Rcgen(_) | ProtocolError::Jose(_) | ProtocolError::KeyRejected(_) | ProtocolError::Crypto(_) => {
            Failure::Internal(format!("{doing}: {error}"))
        }
    })
}

/// What a status and a body mean.
pub(super) fn answer(doing: &str, status: u16, body: &str) -> Read {
    let document: Document = serde_json::from_str(body).unwrap_or_default();
    let kind = document.kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(&document.kind);
    let said = match (kind, document.detail.as_str()) {
        ("", _) => format!("{doing}: status {status}"),
        (kind, "") => format!("{doing}: {kind}"),
        (kind, detail) => format!("{doing}: {kind}: {}", shortened(detail)),
    };
    Read::Failure(match (kind, status) {
        ("badNonce", _) => return Read::BadNonce,
        ("rateLimited", _) => Failure::RateLimited(shortened(&document.detail)),
        ("", 429) => Failure::RateLimited(said),
        ("accountDoesNotExist", _) => Failure::AccountUnknown,
        ("serverInternal", _) | (_, 500..) => Failure::Server(said),
        // A proxy in between, or an address where no ACME server lives.
        ("", 300..400 | 404 | 405 | 408) => Failure::Server(said),
        _ => Failure::Refused(said),
    })
}

/// What the CA says of a challenge or an order.
pub(super) fn problem(problem: Option<&Problem>) -> String {
    let Some(problem) = problem else { return "no reason given".to_owned() };
    let kind = problem.typ.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    match problem.detail.as_deref() {
        None => kind.to_owned(),
        Some(detail) => format!("{kind}: {}", shortened(detail)),
    }
}

/// Whether a rate limit concerns the one name, not the account or our address. Let's Encrypt's words for limits of a name
/// hold the name or its registered domain, or speak of the exact set of identifiers. In doubt all rest.
pub(super) fn concerns_name(detail: &str, name: &str) -> bool {
    let named = |word: &str| {
        word.contains('.') && (word == name || name.strip_suffix(word).is_some_and(|rest| rest.ends_with('.')))
    };
    let lower = detail.to_ascii_lowercase();
    lower.contains("exact set of")
        || lower
            .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
            .any(|word| named(word.trim_matches('.')))
}

/// Status and body of an error response, out of the crate's message `non 2xx http status: 400 "…"`, where the body is printed
/// as Rust prints strings. The type that carries them as fields is private in rustls-acme 0.15, so there is no other way; the
/// tests with a real server notice when the message changes.
fn refusal(message: &str) -> Option<(u16, String)> {
    let (status, body) = message.strip_prefix("non 2xx http status: ")?.split_once(' ')?;
    let quoted = body.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match chars.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            'u' => {
                let digits: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
            }
            other => other,
        });
    }
    Some((status.parse().ok()?, text))
}

fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(status: u16, body: &str) -> Read {
        answer("order", status, body)
    }

    #[test]
    fn the_status_and_body_are_found_in_the_message() {
        for body in ["", "plain", "{\"type\": \"a\\\\b\"}", "line\nline\ttab\u{7}bell\u{301}é'quote'", "\0\u{1f600}"] {
            let message = format!("non 2xx http status: {} {body:?}", 429);
            assert_eq!(refusal(&message), Some((429, body.to_owned())), "{message}");
        }
        assert_eq!(refusal("io error: x"), None);
        assert_eq!(refusal("non 2xx http status: x \"\""), None);
    }

    #[test]
    fn what_follows_depends_on_the_problem() {
        let error = |kind: &str| format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}", "detail": "so it is"}}"#);
        assert_eq!(read_of(400, &error("badNonce")), Read::BadNonce);
        let failure = |status, body: &str| match read_of(status, body) {
            Read::Failure(failure) => failure,
            Read::BadNonce => panic!("a bad nonce"),
        };
        assert_eq!(failure(429, &error("rateLimited")), Failure::RateLimited("so it is".into()));
        assert_eq!(failure(503, &error("rateLimited")), Failure::RateLimited("so it is".into()));
        assert!(matches!(failure(429, "slow down"), Failure::RateLimited(_)));
        assert_eq!(failure(400, &error("accountDoesNotExist")), Failure::AccountUnknown);
        assert!(matches!(failure(500, &error("serverInternal")), Failure::Server(_)));
        assert!(matches!(failure(502, "<html>"), Failure::Server(_)));
        assert!(matches!(failure(404, "<html>"), Failure::Server(_)));
        assert_eq!(
            failure(400, &error("rejectedIdentifier")),
            Failure::Refused("order: rejectedIdentifier: so it is".into())
        );
    }

    #[test]
    fn a_limit_concerns_a_name_when_it_speaks_of_it() {
        for detail in [
            "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s",
            "too many certificates (50) already issued for \"a.test\" in the last 168h0m0s, retry after 2025",
            "too many failed authorizations (5) for \"www.a.test\" in the last 1h0m0s",
            "Too many failures for WWW.A.TEST.",
        ] {
            assert!(concerns_name(detail, "www.a.test"), "{detail}");
        }
        for detail in [
            "too many new orders (300) from this account in the last 3h0m0s, see https://ca.test/limits",
            "too many new registrations (10) from this IP address",
            "too many certificates for \"other.test\"",
            "Service busy; retry later.",
            "",
        ] {
            assert!(!concerns_name(detail, "www.a.test"), "{detail}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_found_in_its_message(body in ".*", status in 300u16..600) {
            proptest::prop_assert_eq!(refusal(&format!("non 2xx http status: {status} {body:?}")), Some((status, body)));
        }
    }
}
