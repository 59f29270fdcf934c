//! Tags of responses: bounded, trimmed, each once, and none that no field names. A line of the input that begins with `a` is one
//! of Surrogate-Key, with `b` of Cache-Tag, with `c` of xkey, with `d` of x-amz-meta-cache-tag.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyhost::cache::tags::{self, FIELDS, TAG_MOST_BYTES, TAGS_MOST, Tags};

fuzz_target!(|data: &[u8]| {
    let mut headers = proxyhost_fuzz::fields(&FIELDS, data);
    let read = tags::of(&["policy".to_owned()], &headers);
    assert!(read.kept.len() <= TAGS_MOST && read.kept.contains(&"policy".to_owned()));
    assert!(read.kept.is_sorted_by(|one, other| one < other));
    let said = |tag: &String| {
        FIELDS.iter().any(|name| {
            let mut lines = headers.get_all(name).iter().filter_map(|line| std::str::from_utf8(line.as_bytes()).ok());
            lines.any(|line| line.contains(tag))
        })
    };
    for tag in &read.kept {
        assert!(!tag.is_empty() && tag.trim() == tag && tag.len() <= TAG_MOST_BYTES && !tag.contains('\n'));
        assert!(tag == "policy" || said(tag), "{tag:?} comes from nowhere");
    }
    // Word for word, where all is text and nothing is left out.
    let words = headers.get_all(&FIELDS[0]).iter().filter_map(|line| line.to_str().ok());
    for word in words.flat_map(|line| line.split([' ', '\t']).filter(|word| !word.is_empty())) {
        assert!(read.left_out > 0 || read.kept.iter().any(|tag| tag == word), "{word:?} is lost");
    }
    tags::strip(&mut headers);
    assert_eq!(tags::of(&[], &headers), Tags::default());
});
