//! Renewal information, ARI (RFC 9773): what to ask for and how to read the answer. Nothing here talks to a server.
//!
//! The field `replaces` of a new order (section 5) is not sent: the protocol crate has no place for it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::schedule::Window;
use crate::clock::Timestamp;
use crate::tls::store::Stored;

/// When to ask again if the server does not say (section 4.3.3).
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// Bounds of what the server may say (section 4.3.2).
const SOONEST: Duration = Duration::from_secs(60);
const LATEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    suggested_window: DocumentWindow,
    #[serde(rename = "explanationURL")]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct DocumentWindow {
    start: String,
    end: String,
}

/// The unique identifier of a certificate (section 4.1); `None` for one without an authority key identifier.
pub(super) fn identifier(certificate: &Stored) -> Option<String> {
    certificate.authority_key_id().map(|authority| identifier_of(authority, certificate.serial()))
}

fn identifier_of(authority_key_id: &[u8], serial: &[u8]) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(authority_key_id), URL_SAFE_NO_PAD.encode(serial))
}

/// Where to ask: the directory's URL and the identifier.
pub(super) fn url(base: &str, identifier: &str) -> String {
    format!("{}/{identifier}", base.trim_end_matches('/'))
}

/// The window in an answer, and where the CA explains it, if it does.
///
/// # Errors
/// It is no renewal information, or a window that ends before it begins (section 4.2: as if the server had failed).
pub(super) fn parse(body: &[u8]) -> Result<(Window, Option<String>), String> {
    let document: Document = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let moment = |text: &str| -> Result<Timestamp, String> {
        let moment: jiff::Timestamp = text.parse().map_err(|error| format!("{text:?} is no moment: {error}"))?;
        Ok(Timestamp::from_millis(u64::try_from(moment.as_millisecond()).unwrap_or(0)))
    };
    let window =
        Window { start: moment(&document.suggested_window.start)?, end: moment(&document.suggested_window.end)? };
    if window.end <= window.start {
        return Err("the suggested window ends before it begins".to_owned());
    }
    Ok((window, document.explanation_url))
}

/// How long to wait before asking again: what Retry-After says (RFC 9110 section 10.2.3), within bounds.
pub(super) fn ask_again(retry_after: Option<&str>, now: Timestamp) -> Duration {
    let said = retry_after.map(str::trim).and_then(|text| match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok().map(|moment| Timestamp::from_system(moment).since(now)),
    });
    said.map_or(ASK_AGAIN, |said| said.clamp(SOONEST, LATEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_is_that_of_the_rfc() {
        // RFC 9773 section 4.1: the leading zero of the serial stays.
        let authority = [
            0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01,
            0xC8, 0xD4,
        ];
        let identifier = identifier_of(&authority, &[0x00, 0x87, 0x65, 0x43, 0x21]);
        assert_eq!(identifier, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        let expected = "https://ca.test/renewal-info/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE";
        assert_eq!(url("https://ca.test/renewal-info", &identifier), expected);
        assert_eq!(url("https://ca.test/renewal-info/", &identifier), expected);
    }

    #[test]
    fn a_window_is_read_and_a_senseless_one_refused() {
        let body = br#"{"suggestedWindow": {"start": "2025-01-02T04:00:00Z", "end": "2025-01-03T04:00:00.5+00:00"},
            "explanationURL": "https://ca.test/why", "more": 1}"#;
        let (window, why) = parse(body).expect("renewal information");
        assert_eq!(window.start, Timestamp::from_millis(1_735_790_400_000));
        assert_eq!(window.end, Timestamp::from_millis(1_735_876_800_500));
        assert_eq!(why.as_deref(), Some("https://ca.test/why"));
        for wrong in [
            r#"{"suggestedWindow": {"start": "2025-01-02T04:00:00Z", "end": "2025-01-02T04:00:00Z"}}"#,
            r#"{"suggestedWindow": {"start": "2025-01-02T04:00:00Z", "end": "2025-01-01T04:00:00Z"}}"#,
            r#"{"suggestedWindow": {"start": "soon", "end": "later"}}"#,
            r#"{"suggestedWindow": {}}"#,
            "[]",
            "",
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_server_says_when_to_ask_again_within_bounds() {
        let now = Timestamp::from_millis(1_735_790_400_000);
        assert_eq!(ask_again(None, now), ASK_AGAIN);
        assert_eq!(ask_again(Some("soon"), now), ASK_AGAIN);
        assert_eq!(ask_again(Some("3600"), now), Duration::from_secs(3600));
        assert_eq!(ask_again(Some("0"), now), SOONEST);
        assert_eq!(ask_again(Some("99999999"), now), LATEST);
        assert_eq!(ask_again(Some("Thu, 02 Jan 2025 05:00:00 GMT"), now), Duration::from_secs(3600));
        assert_eq!(ask_again(Some("Thu, 02 Jan 2020 05:00:00 GMT"), now), SOONEST);
    }
}
