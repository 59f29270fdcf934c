//! Patterns of purges against what they mean by definition. The first line of the input is a pattern, the second a path.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyhost::cache::glob::{GLOB_MOST_BYTES, Glob};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, path) = text.split_once('\n').unwrap_or((text, "/"));
    let Ok(glob) = Glob::parse(pattern) else { return };
    assert!(pattern.len() <= GLOB_MOST_BYTES && pattern.starts_with('/'));
    let matches = glob.matches(path);
    assert!(!matches || path.starts_with(&glob.prefix()));
    // By definition it takes for ever on long ones, and knows no percent signs.
    if pattern.len() <= 16 && path.len() <= 24 && !pattern.contains('%') {
        let (pattern, path): (Vec<char>, Vec<char>) = (pattern.chars().collect(), path.chars().collect());
        assert_eq!(matches, by_definition(&pattern, &path), "{pattern:?} {path:?}");
    }
    // Encoded in full it stands for itself.
    let encoded: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
    if let (Some(behind), Ok(itself)) =
        (path.strip_prefix('/'), Glob::parse(&format!("/{}", &encoded[3.min(encoded.len())..])))
    {
        assert!(itself.matches(path) && !itself.matches(behind));
    }
});

fn by_definition(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => {
            let rest = &rest[rest.iter().take_while(|c| **c == '*').count()..];
            (0..=path.len()).any(|from| by_definition(rest, &path[from..]))
        }
        ['*', rest @ ..] => {
            let run = path.iter().take_while(|c| **c != '/').count();
            (0..=run).any(|from| by_definition(rest, &path[from..]))
        }
        ['?', rest @ ..] => path.first().is_some_and(|c| *c != '/') && by_definition(rest, &path[1..]),
        [one, rest @ ..] => path.first() == Some(one) && by_definition(rest, &path[1..]),
    }
}
