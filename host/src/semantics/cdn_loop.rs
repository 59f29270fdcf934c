//! Whether a request has been here already (RFC 8586).
//!
//! What goes to an http origin says so in CDN-Loop, with a pseudonym of three parts: `proxyhost`, a number that each process draws
//! at its start, and a digest of the host that was asked for. So two programs in a row are no loop, nor is one that is its own
//! origin for another host (a cache before a cache); a request that comes back for the same host is one at once, before it could
//! wait for itself. Hosts that keep changing on the way (a policy that makes new names) end at a count.
//!
//! The field is searched as bytes, wherever the pseudonym stands: no malformed member hides it. It is never removed, neither by a
//! policy nor by what Connection names.

use std::hash::{BuildHasher as _, RandomState};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field.
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Hosts of this process that one request may pass: more than anyone puts in a row, and little to pay for a loop.
const MAX_PASSES: usize = 8;

/// This process, to itself.
#[derive(Debug)]
pub struct Instance {
    /// Begins each of our pseudonyms, and nobody else's.
    prefix: String,
    /// What digests are keyed with: they tell nobody the host.
    keys: RandomState,
}

impl Instance {
    /// Draws a number.
    pub fn draw() -> Self {
        let keys = RandomState::new();
        Self { prefix: format!("proxyhost-{:016x}-", keys.hash_one("instance")), keys }
    }

    fn pseudonym(&self, host: &str) -> String {
        format!("{}{:08x}", self.prefix, self.keys.hash_one(host) as u32)
    }

    /// Whether a request for this host has been here for it, or for too many others.
    pub fn has_passed(&self, host: &str, request: &HeaderMap) -> bool {
        let own = self.pseudonym(host);
        let mut passes = 0;
        for line in request.get_all(CDN_LOOP) {
            let line = line.as_bytes().to_ascii_lowercase();
            if memchr::memmem::find(&line, own.as_bytes()).is_some() {
                return true;
            }
            passes += memchr::memmem::find_iter(&line, self.prefix.as_bytes()).count();
        }
        passes >= MAX_PASSES
    }

    /// Says that a request for this host has been here: behind what it came with, whatever was done to that meanwhile.
    pub fn mark(&self, host: &str, came: &HeaderMap, headers: &mut HeaderMap) {
        headers.remove(CDN_LOOP);
        for line in came.get_all(CDN_LOOP) {
            headers.append(CDN_LOOP, line.clone());
        }
        let own = HeaderValue::from_str(&self.pseudonym(host)).expect("made of letters, digits and hyphens");
        headers.append(CDN_LOOP, own);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marked(by: &Instance, host: &str, came: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        by.mark(host, came, &mut headers);
        headers
    }

    #[test]
    fn what_comes_back_for_the_same_host_is_a_loop() {
        let (one, two) = (Instance::draw(), Instance::draw());
        let first = marked(&one, "a.test", &HeaderMap::new());
        assert!(one.has_passed("a.test", &first));
        assert!(!one.has_passed("b.test", &first), "a cache before a cache");
        assert!(!two.has_passed("a.test", &first), "another program");
        let second = marked(&two, "a.test", &first);
        assert!(one.has_passed("a.test", &second) && two.has_passed("a.test", &second));
        assert!(!one.has_passed("a.test", &HeaderMap::new()));
    }

    #[test]
    fn hosts_that_keep_changing_end_at_a_count() {
        let instance = Instance::draw();
        let mut headers = HeaderMap::new();
        for number in 0..MAX_PASSES {
            let host = format!("{number}.test");
            assert!(!instance.has_passed(&host, &headers), "{number}");
            headers = marked(&instance, &host, &headers);
        }
        assert!(instance.has_passed("last.test", &headers));
    }

    #[test]
    fn what_was_taken_away_meanwhile_is_put_back() {
        let instance = Instance::draw();
        let came =
            marked(&instance, "a.test", &HeaderMap::from_iter([(CDN_LOOP, HeaderValue::from_static("other; a=b"))]));
        let mut edited = HeaderMap::from_iter([(CDN_LOOP, HeaderValue::from_static("nothing"))]);
        instance.mark("b.test", &came, &mut edited);
        assert_eq!(edited.get_all(CDN_LOOP).iter().count(), 3);
        assert!(instance.has_passed("a.test", &edited) && instance.has_passed("b.test", &edited));
        assert_eq!(edited.get(CDN_LOOP).unwrap(), "other; a=b");
    }

    proptest! {
        #[test]
        fn nothing_around_it_hides_a_loop(before in prop::collection::vec(any::<u8>(), 0..40), after in "[ -~]{0,40}", upper: bool) {
            let instance = Instance::draw();
            let mut own = instance.pseudonym("a.test");
            if upper {
                own = own.to_uppercase();
            }
            let line = [&before[..], own.as_bytes(), after.as_bytes()].concat();
            if let Ok(line) = HeaderValue::from_bytes(&line) {
                prop_assert!(instance.has_passed("a.test", &HeaderMap::from_iter([(CDN_LOOP, line)])));
            }
        }

        #[test]
        fn what_strangers_write_is_none_of_ours(line in "[ -~]{0,60}") {
            let headers = HeaderMap::from_iter([(CDN_LOOP, HeaderValue::from_str(&line).expect("visible"))]);
            prop_assert!(!Instance::draw().has_passed("a.test", &headers));
        }
    }
}
