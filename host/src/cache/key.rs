//! Cache keys: ordered bytes, so that a path's variants and a prefix are ranges.
//!
//! ```text
//! host NUL path NUL part NUL part NUL ...      each part `name=value`
//! ```
//!
//! Two requests share a key only if all their parts are equal: in path, names and values NUL is written 0x01 0x02 and 0x01
//! is written 0x01 0x01, and in names `=` is written 0x01 0x03. Escapes stand character by character, so a prefix of a path
//! is a prefix of its bytes. A host name has none of these bytes. Since a part is never empty, what follows a key in a record
//! (a variant) is told from further parts by one more NUL in front of it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::semantics::authority::Hostname;

/// The longest key. Longer than any path a site has, short enough that keys stay small beside what they lead to.
pub const MAX_KEY_BYTES: usize = 8 << 10;

const END: u8 = 0;
const ESCAPE: u8 = 1;
const ESCAPED_ESCAPE: u8 = 1;
const ESCAPED_NUL: u8 = 2;
const ESCAPED_EQUALS: u8 = 3;

/// The key of an entry without its variant. At most 8 KiB.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Arc<[u8]>);

/// What a key is made of.
pub struct KeyParts<'a> {
    /// As asked for, not the pattern that matched.
    pub host: &'a Hostname,
    /// Decoded path, or what the policy put in place of path and query.
    pub path: &'a str,
    /// Name and value, in order.
    pub parts: &'a [(&'a str, &'a str)],
}

/// The key would be longer than 8 KiB: the request is not cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache key is longer than 8 KiB")]
pub struct KeyTooLong;

impl CacheKey {
    /// Builds a key.
    pub fn build(parts: &KeyParts<'_>) -> Result<Self, KeyTooLong> {
        // On the stack, so that a hit allocates once.
        let mut bytes: SmallVec<[u8; 256]> = SmallVec::new();
        bytes.extend_from_slice(parts.host.as_str().as_bytes());
        bytes.push(END);
        escape_into(&mut bytes, parts.path, false);
        bytes.push(END);
        for (name, value) in parts.parts {
            if name.starts_with(':') {
                // The host's own, which are as they should be.
                bytes.extend_from_slice(name.as_bytes());
            } else {
                escape_into(&mut bytes, name, true);
            }
            bytes.push(b'=');
            escape_into(&mut bytes, value, false);
            bytes.push(END);
            if bytes.len() > MAX_KEY_BYTES {
                break;
            }
        }
        if bytes.len() > MAX_KEY_BYTES { Err(KeyTooLong) } else { Ok(Self(Arc::from(bytes.as_slice()))) }
    }

    /// The key of what is kept beside what has this one: one more part of the host's own.
    pub fn beside(&self, name: &'static str, value: &str) -> Result<Self, KeyTooLong> {
        let mut bytes: SmallVec<[u8; 256]> = SmallVec::from_slice(&self.0);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        escape_into(&mut bytes, value, false);
        bytes.push(END);
        if bytes.len() > MAX_KEY_BYTES { Err(KeyTooLong) } else { Ok(Self(Arc::from(bytes.as_slice()))) }
    }

    /// From bytes of the index; none if `build` could not have made them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_KEY_BYTES || bytes.last() != Some(&END) || std::str::from_utf8(bytes).is_err() {
            return None;
        }
        let mut pieces = bytes[..bytes.len() - 1].split(|byte| *byte == END);
        let host = pieces.next()?;
        let path = pieces.next()?;
        let host_is_one = std::str::from_utf8(host).ok().and_then(|host| Hostname::parse(host).ok());
        if host_is_one.is_none_or(|parsed| parsed.as_str().as_bytes() != host) || !is_escaped(path, false) {
            return None;
        }
        for part in pieces {
            let equals = memchr::memchr(b'=', part)?;
            if !is_escaped(&part[..equals], true) || !is_escaped(&part[equals + 1..], false) {
                return None;
            }
        }
        Some(Self(Arc::from(bytes)))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The host.
    pub fn host(&self) -> &str {
        self.pieces().next().unwrap_or_default()
    }

    /// The path, or what stands in its place. As written in the key: in the rare path with a byte 0 or 1 that is escaped,
    /// and `path_text` is what was asked for.
    pub fn path(&self) -> &str {
        self.pieces().nth(1).unwrap_or_default()
    }

    /// The path as it was given to `build`.
    pub fn path_text(&self) -> Cow<'_, str> {
        unescape(self.path())
    }

    /// Names and values of the parts, as they were given to `build`.
    pub fn parts(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.pieces().skip(2).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (unescape(name), unescape(value))
        })
    }

    /// Whether it is not that of one query: of those clients make as many as they like.
    pub fn is_for_all_queries(&self) -> bool {
        !self.parts().any(|(name, _)| name == ":q" || name == ":u")
    }

    /// As a person reads it: host and path, then the parts in brackets: `a.test/x [query=a=1] [lang=de]`. Control
    /// characters are shown as Rust writes them.
    pub fn display(&self) -> String {
        let mut shown = String::from(self.host());
        show(&mut shown, &self.path_text());
        for (name, value) in self.parts() {
            shown.push_str(" [");
            show(&mut shown, &name);
            shown.push('=');
            show(&mut shown, &value);
            shown.push(']');
        }
        shown
    }

    fn pieces(&self) -> impl Iterator<Item = &str> {
        let end = self.0.len().saturating_sub(1);
        std::str::from_utf8(&self.0[..end])
            .expect("made of strings by `build`, or checked by `from_bytes`")
            .split(END as char)
    }
}

impl std::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CacheKey({:?})", String::from_utf8_lossy(&self.0))
    }
}

/// What all keys of a host begin with, and no other's.
pub fn host_range(host: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(host.len() + 1);
    bytes.extend_from_slice(host.as_bytes());
    bytes.push(END);
    bytes
}

/// The host of a key's bytes, with or without a variant behind them.
pub fn host_of(bytes: &[u8]) -> &str {
    bytes.split(|byte| *byte == END).next().and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default()
}

/// What all keys of this path of a host begin with, and no others.
pub fn path_range(host: &str, path: &str) -> Vec<u8> {
    let mut bytes = prefix_range(host, path);
    bytes.push(END);
    bytes
}

/// What all keys of a host begin with whose paths begin so, and no others.
pub fn prefix_range(host: &str, prefix: &str) -> Vec<u8> {
    let mut bytes: SmallVec<[u8; 256]> = SmallVec::new();
    bytes.extend_from_slice(host.as_bytes());
    bytes.push(END);
    escape_into(&mut bytes, prefix, false);
    bytes.into_vec()
}

fn escape_into(bytes: &mut SmallVec<[u8; 256]>, text: &str, is_name: bool) {
    let special = |byte: u8| byte <= ESCAPE || (is_name && byte == b'=');
    // To the end without stopping: that takes many bytes at a time, and there is next to never one to stop at.
    if !text.bytes().fold(false, |found, byte| found | special(byte)) {
        bytes.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match byte {
            END => bytes.extend_from_slice(&[ESCAPE, ESCAPED_NUL]),
            ESCAPE => bytes.extend_from_slice(&[ESCAPE, ESCAPED_ESCAPE]),
            b'=' if is_name => bytes.extend_from_slice(&[ESCAPE, ESCAPED_EQUALS]),
            byte => bytes.push(byte),
        }
    }
}

/// Whether each escape byte begins an escape that `escape_into` writes.
fn is_escaped(text: &[u8], is_name: bool) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte == ESCAPE {
            match bytes.next() {
                Some(&ESCAPED_ESCAPE | &ESCAPED_NUL) => {}
                Some(&ESCAPED_EQUALS) if is_name => {}
                _ => return false,
            }
        }
    }
    true
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().contains(&ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\u{1}' => match characters.next() {
                Some('\u{2}') => '\0',
                Some('\u{3}') => '=',
                _ => '\u{1}',
            },
            other => other,
        });
    }
    Cow::Owned(plain)
}

fn show(shown: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(host: &str, path: &str, parts: &[(&str, &str)]) -> CacheKey {
        let host = Hostname::parse(host).expect("a host");
        CacheKey::build(&KeyParts { host: &host, path, parts }).expect("a short key")
    }

    #[test]
    fn the_bytes_are_as_drawn() {
        let made = key("a.test", "/x", &[("scheme", "http"), ("query", "a=1")]);
        assert_eq!(made.as_bytes(), b"a.test\0/x\0scheme=http\0query=a=1\0");
        assert_eq!((made.host(), made.path()), ("a.test", "/x"));
        assert_eq!(made.display(), "a.test/x [scheme=http] [query=a=1]");
        assert_eq!(key("a.test", "/", &[]).as_bytes(), b"a.test\0/\0");
    }

    #[test]
    fn what_looks_alike_differs() {
        let keys = [
            key("a.test", "/x", &[]),
            key("a.test", "/x", &[("", "")]),
            key("a.test", "/x", &[("a", "")]),
            key("a.test", "/x", &[("a", "b=c")]),
            key("a.test", "/x", &[("a=b", "c")]),
            key("a.test", "/x", &[("a", "b"), ("c", "d")]),
            key("a.test", "/x", &[("a", "b\0c=d")]),
            key("a.test", "/x\0a=b", &[]),
            key("a.test", "/x\u{1}", &[]),
            key("a.test", "/x\u{1}\u{1}", &[]),
            key("a.test", "/x\u{1}\u{2}", &[]),
            key("a.test", "/x\0", &[]),
        ];
        for (at, one) in keys.iter().enumerate() {
            for other in &keys[at + 1..] {
                assert_ne!(one, other);
            }
        }
        assert_eq!(key("a.test", "/x\u{1}\0y", &[]).path_text(), "/x\u{1}\0y");
    }

    #[test]
    fn a_key_has_a_longest_length() {
        let host = Hostname::parse("a.test").expect("a host");
        let build = |path: &str| CacheKey::build(&KeyParts { host: &host, path, parts: &[] });
        assert!(build(&"a".repeat(MAX_KEY_BYTES - 8)).is_ok());
        assert_eq!(build(&"a".repeat(MAX_KEY_BYTES - 7)), Err(KeyTooLong));
    }

    #[test]
    fn ranges_hold_their_own_and_no_others() {
        let made = key("a.test", "/x/y", &[("q", "1")]);
        let begins = |range: Vec<u8>| made.as_bytes().starts_with(&range);
        assert!(begins(host_range("a.test")));
        assert!(!begins(host_range("a.tes")));
        assert!(begins(path_range("a.test", "/x/y")));
        assert!(!begins(path_range("a.test", "/x/")));
        assert!(begins(prefix_range("a.test", "/x/")));
        assert!(!begins(prefix_range("a.test", "/y")));
    }

    #[test]
    fn bytes_that_no_build_made_are_refused() {
        for bytes in [
            &b""[..],
            b"\0",
            b"a.test",
            b"a.test\0",
            b"a.test\0/",
            b"A.test\0/\0",
            b"\0/\0",
            b"a.test\0/\0a\0",
            b"a.test\0/\0\0",
            b"a.test\0/\x01\0",
            b"a.test\0/\x01\x03\0",
            b"a.test\0/\xff\0",
            b"a.test\0/\0a=\x01\x03\0",
            b"a/b\0/\0",
        ] {
            assert!(CacheKey::from_bytes(bytes).is_none(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_not(bytes in proptest::collection::vec(prop_oneof![0..4u8, Just(b'='), any::<u8>()], 0..40)) {
            if let Some(key) = CacheKey::from_bytes(&bytes) {
                let _ = (key.display(), key.path(), key.parts().count());
            }
        }

        #[test]
        fn what_was_built_is_read_back(
            path in "(\\PC|[\0-\u{4}=]){0,12}",
            parts in proptest::collection::vec(("([a-z]|[\0-\u{4}=]){0,4}", "(\\PC|[\0-\u{4}=]){0,6}"), 0..4),
        ) {
            let borrowed: Vec<(&str, &str)> = parts.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let made = key("a.test", &path, &borrowed);
            let read = CacheKey::from_bytes(made.as_bytes());
            prop_assert_eq!(read.as_ref(), Some(&made));
            prop_assert_eq!(made.host(), "a.test");
            prop_assert_eq!(made.path_text(), path.as_str());
            let told: Vec<(String, String)> = made.parts().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(told, parts);
        }

        #[test]
        fn a_prefix_of_a_path_is_a_prefix_of_its_keys(path in "/([a-c/ü]|[\0-\u{2}]){0,8}", other in "/([a-c/ü]|[\0-\u{2}]){0,4}") {
            let made = key("a.test", &path, &[]);
            prop_assert_eq!(made.as_bytes().starts_with(&prefix_range("a.test", &other)), path.starts_with(&other));
            prop_assert_eq!(made.as_bytes().starts_with(&path_range("a.test", &other)), path == other);
        }
    }
}
