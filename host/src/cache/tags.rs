//! Tags that origins give to purge by: `Surrogate-Key` (words, as Fastly has it), `Cache-Tag` (a list with commas, as Cloudflare
//! and Akamai), `xkey` (either, as Varnish), and the metadata `cache-tag` of an S3 object, which comes as `x-amz-meta-cache-tag` (a
//! list with commas). They are for us and go to no client.
//!
//! Bounded: `TAGS_MOST` of at most `TAG_MOST_BYTES`. What is beyond is left out and counted, and the response is kept all the same:
//! it can be purged by its other tags, by path, prefix, pattern, host, and all. Not to keep it would let an origin's slip take a
//! site out of the cache.

use http::{HeaderMap, HeaderName};

/// Tags of one response.
pub const TAGS_MOST: usize = 512;

/// The longest tag, in bytes; a longer one is left out.
pub const TAG_MOST_BYTES: usize = 1024;

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const XKEY: HeaderName = HeaderName::from_static("xkey");
const AMZ_META_CACHE_TAG: HeaderName = HeaderName::from_static("x-amz-meta-cache-tag");

/// The fields that carry tags.
pub const FIELDS: [HeaderName; 4] = [SURROGATE_KEY, CACHE_TAG, XKEY, AMZ_META_CACHE_TAG];

/// Takes the fields out that are for us.
pub fn strip(headers: &mut HeaderMap) {
    for name in FIELDS {
        headers.remove(name);
    }
}

/// Tags of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Sorted, each once.
    pub kept: Vec<String>,
    /// So many were left out.
    pub left_out: u64,
}

/// Tags of a policy, and of the origin's fields. The policy's come first where there are too many.
pub fn of(given: &[String], headers: &HeaderMap) -> Tags {
    let mut tags = Tags::default();
    given.iter().for_each(|tag| tags.add(tag));
    for (name, separators) in [
        (SURROGATE_KEY, &[' ', '\t'][..]),
        (CACHE_TAG, &[',']),
        (XKEY, &[',', ' ', '\t']),
        (AMZ_META_CACHE_TAG, &[',']),
    ] {
        for value in headers.get_all(name) {
            // Tags are text; of a field that is none there is nothing to purge by.
            let Ok(text) = std::str::from_utf8(value.as_bytes()) else {
                tags.left_out += 1;
                continue;
            };
            text.split(separators).for_each(|tag| tags.add(tag));
        }
    }
    tags.kept.sort_unstable();
    tags.kept.dedup();
    tags
}

impl Tags {
    fn add(&mut self, tag: &str) {
        let tag = tag.trim();
        if tag.is_empty() {
            return;
        }
        if self.kept.len() >= TAGS_MOST {
            // Those that came twice make room.
            self.kept.sort_unstable();
            self.kept.dedup();
        }
        if tag.len() > TAG_MOST_BYTES || self.kept.len() >= TAGS_MOST {
            self.left_out += 1;
        } else {
            self.kept.push(tag.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn each_field_is_split_as_its_inventors_do() {
        let cases = [
            ("surrogate-key", "a  b,c\td", vec!["a", "b,c", "d"]),
            ("cache-tag", "a b , c,,", vec!["a b", "c"]),
            ("xkey", "a b,c , d", vec!["a", "b", "c", "d"]),
            ("x-amz-meta-cache-tag", "a b,c", vec!["a b", "c"]),
            ("x-tag", "a", vec![]),
        ];
        for (name, value, expected) in cases {
            assert_eq!(of(&[], &fields(&[(name, value)])).kept, expected, "{name}");
        }
        let all = of(&["p".into(), "b".into()], &fields(&[("xkey", "b"), ("xkey", "a"), ("cache-tag", "a")]));
        assert_eq!(all.kept, ["a", "b", "p"]);
    }

    #[test]
    fn too_many_and_too_long_ones_are_left_out_and_counted() {
        let many: String = (0..100_000).map(|number| format!("t{number:07} ")).collect();
        let tags = of(&["policy".into()], &fields(&[("surrogate-key", &many)]));
        assert_eq!(tags.kept.len(), TAGS_MOST);
        assert!(tags.kept.contains(&"policy".to_owned()));
        assert_eq!(tags.left_out, 100_001 - TAGS_MOST as u64);
        let long = "x".repeat(TAG_MOST_BYTES + 1);
        let tags = of(&[], &fields(&[("cache-tag", &format!("a,{long},b"))]));
        assert_eq!((tags.kept.len(), tags.left_out), (2, 1));
        let same = "a ".repeat(10_000);
        assert_eq!(of(&[], &fields(&[("xkey", &same)])), Tags { kept: vec!["a".into()], left_out: 0 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_tags_or_not(value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                for name in FIELDS {
                    let tags = of(&[], &HeaderMap::from_iter([(name, value.clone())]));
                    prop_assert!(tags.kept.iter().all(|tag| !tag.is_empty() && tag.trim() == tag));
                }
            }
        }
    }
}
