//! What tells a compressed form of an entry from others: its entity tag, its key, and what it was made of.

use http::header::{CONTENT_ENCODING, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::cache::entry::{AsSent, Entry, EntryBody, EntryHead};
use crate::cache::key::CacheKey;
use crate::cache::purges::PurgeSequence;
use crate::semantics::content_coding::Coding;
use crate::semantics::etag::EntityTag;

/// In place of what an origin said: the number of the entry that a form was made of. It is never sent.
const MADE_OF: HeaderName = HeaderName::from_static("proxyhost-made-of");

/// Parts the tag of an original from what tells its forms apart.
const MARK: u8 = b'~';

/// The tag of a form: `"x"` gives `"x~br.1f"`.
pub fn tag(original: &EntityTag, coding: Coding, id: u64) -> EntityTag {
    let mut opaque = original.opaque.clone();
    opaque.push(MARK);
    opaque.extend_from_slice(format!("{}.{id:x}", coding.name()).as_bytes());
    EntityTag { weak: original.weak, opaque }
}

/// What a tag is made of, if it is a form's.
pub fn original(tag: &EntityTag) -> Option<(&[u8], Coding)> {
    let mark = memchr::memrchr(MARK, &tag.opaque)?;
    let form = &tag.opaque[mark + 1..];
    let dot = memchr::memchr(b'.', form)?;
    let id = &form[dot + 1..];
    let coding = Coding::ALL.into_iter().find(|coding| coding.name().as_bytes() == &form[..dot])?;
    let is_id = (1..=16).contains(&id.len()) && id.iter().all(u8::is_ascii_hexdigit);
    is_id.then_some((&tag.opaque[..mark], coding))
}

/// The part of a key that a form has and its original has not.
const PART: &str = ":z";

/// What a form is in; none: not coded at all, of what came coded.
pub type Target = Option<Coding>;

/// Where a form lies: beside its original. None where the key would be too long.
pub fn key(original: &CacheKey, into: Target) -> Option<CacheKey> {
    original.beside(PART, into.map_or("identity", Coding::name)).ok()
}

/// Whether a form lies there.
pub fn is_key(key: &CacheKey) -> bool {
    key.parts().any(|(name, _)| name == PART)
}

/// The head that a form is kept under: purged by whatever purges its original, and told apart by that one's number. What is sent
/// is the original's head.
pub fn head(original: &Entry, into: Target, sequence: PurgeSequence) -> EntryHead {
    let made_of = HeaderMap::from_iter([(MADE_OF, HeaderValue::from(original.id))]);
    let mut head = original.head.clone();
    let coded = into.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding.name())));
    head.headers = HeaderMap::from_iter(coded);
    head.sequence = sequence;
    head.size = None;
    head.sliceable = false;
    head.as_sent = Some(Box::new(AsSent { status: StatusCode::OK, headers: made_of }));
    head
}

/// The number of the entry that a form was made of.
pub fn made_of(form: &Entry) -> Option<u64> {
    form.head.as_sent.as_ref()?.headers.get(MADE_OF)?.to_str().ok()?.parse().ok()
}

/// Whether all of a body is there.
pub fn is_whole(entry: &Entry) -> bool {
    match &entry.body {
        EntryBody::Inline(_) => true,
        EntryBody::Sliced(body) => {
            !body.is_filling() && body.size().is_some_and(|size| body.first_gap(0..size).is_none())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_only_looks_like_a_form_is_none() {
        for text in ["a", "a~br", "a~br.", "a~br.xyz", "a~deflate.1", "a~BR.1", "br.1", "a~br.00000000000000001"] {
            let tag = EntityTag { weak: false, opaque: text.into() };
            assert_eq!(original(&tag), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_form_tells_its_original(opaque in "[!#-~]{0,20}", id: u64, weak: bool, other: u64) {
            let of = EntityTag { weak, opaque: opaque.clone().into_bytes() };
            for coding in Coding::ALL {
                let made = tag(&of, coding, id);
                prop_assert_eq!(original(&made), Some((opaque.as_bytes(), coding)));
                prop_assert_eq!(EntityTag::parse(made.to_value().as_bytes()), Some(made.clone()));
                prop_assert!(!made.weak_eq(&of));
                prop_assert_eq!(made == tag(&of, coding, other), id == other);
            }
        }
    }
}
