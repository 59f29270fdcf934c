//! hosts.json: any text is read, or refused with words that name a place in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyhost::config::{self, json::Json};

fuzz_target!(|data: &[u8]| {
    let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let by_serde = serde_json::from_slice::<serde_json::Value>(text);
    match Json::parse(data) {
        // Of doubles the last counts there.
        Ok(json) => assert_eq!(Some(json.to_value()), by_serde.ok()),
        Err(_) => assert!(by_serde.is_err()),
    }
    match config::load_text(data) {
        Ok(resolved) => {
            assert!(resolved.summary().iter().all(|line| !line.is_empty()));
            let shown = resolved.show();
            assert!(shown.is_object());
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes.iter() {
                assert!(!mistake.found.is_empty() && !mistake.expected.is_empty());
            }
            for line in mistakes.lines() {
                assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
            }
        }
    }
});
