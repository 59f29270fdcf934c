//! Structured fields: Cache-Groups and Cache-Group-Invalidation (RFC 9875), lists of strings. Each line of the input is a line
//! of the field.

#![no_main]

use http::HeaderName;
use libfuzzer_sys::fuzz_target;
use proxyhost::cache::groups::{Scope, invalidated, tags};

const KEPT: HeaderName = HeaderName::from_static("cache-groups");
const CHANGED: HeaderName = HeaderName::from_static("cache-group-invalidation");
const SCOPE: Scope = Scope { scheme: "https", port: None };

fuzz_target!(|data: &[u8]| {
    let kept = tags(&proxyhost_fuzz::field(&KEPT, data), SCOPE);
    let gone = invalidated(&proxyhost_fuzz::field(&CHANGED, data), SCOPE);
    assert!(kept.len() <= 2 * 64 && kept.iter().all(|tag| tag.len() <= 128 + "\u{1}https:0:".len()));
    assert!(gone.is_sorted_by(|one, other| one < other));
    // What a change names is what was kept under that name; each group has one more tag, its name.
    let marked = |tag: &&String| tag.starts_with('\u{1}');
    let mut of_kept: Vec<&String> = kept.iter().filter(marked).collect();
    of_kept.sort_unstable();
    of_kept.dedup();
    assert!(of_kept.iter().copied().eq(&gone));
    assert!(
        invalidated(&proxyhost_fuzz::field(&CHANGED, data), Scope { scheme: "http", ..SCOPE })
            .iter()
            .all(|tag| !kept.contains(tag))
    );
    let lines: Vec<String> = proxyhost_fuzz::lines(data)
        .map(|line| line.as_bytes().iter().map(|byte| char::from(*byte)).collect())
        .collect();
    if let Some(names) = plain(&lines.join(",")) {
        let names: Vec<&str> = names.into_iter().take(64).filter(|name| name.len() <= 128).collect();
        let expected: Vec<&str> = kept.iter().filter(|tag| !marked(tag)).map(String::as_str).collect();
        assert_eq!(names, expected);
    }
});

/// A second reading of lists of strings without escapes and parameters; none where there is more to it, or it is malformed.
fn plain(text: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut rest = text.trim_matches(' ');
    while !rest.is_empty() {
        let (name, behind) = rest.strip_prefix('"')?.split_once('"')?;
        if name.contains('\\') || !name.chars().all(|c| (' '..='~').contains(&c)) {
            return None;
        }
        names.push(name);
        rest = behind.trim_start_matches([' ', '\t']);
        if !rest.is_empty() {
            rest = rest.strip_prefix(',')?.trim_start_matches([' ', '\t']);
            if rest.is_empty() {
                return None;
            }
        }
    }
    Some(names)
}
