//! The request line: `method SP request-target SP HTTP-version` (RFC 9112 section 3).
//!
//! Section 3 lets a recipient split at any whitespace and forgive what surrounds it, and warns of it; here it is one
//! space, twice. The target holds visible ASCII: section 3.2 has a sender encode the rest, and says that a recipient
//! should not mend it. Of the visible only `#` is refused (no form of a target has a fragment, and hyper cuts it off):
//! browsers send `|`, `{` or `"` as they are, and they separate nothing.

use super::Refusal;
use super::field::token_bytes;

/// The longest method. The longest one registered has 17 letters; section 3 gives 501 to those longer than any known.
pub(super) const METHOD_BYTES_MAX: usize = 32;

/// The space and the version at the end.
pub(super) const VERSION_BYTES: usize = b" HTTP/1.1".len();

/// HTTP/1.x: which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    #[default]
    Http11,
}

/// A request line that was found good; the target's form was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) version: Version,
}

/// Reads a request line, which has no control bytes but perhaps HTAB.
#[inline]
pub(super) fn parse(line: &[u8], target_bytes_max: usize) -> Result<RequestLine<'_>, Refusal> {
    let method_end = token_bytes(line);
    if line.get(method_end) != Some(&b' ') || method_end == 0 {
        return Err(Refusal::bad("a request line that begins with no method and space"));
    }
    let (method, rest) = line.split_at(method_end);
    if method.len() > METHOD_BYTES_MAX {
        return Err(Refusal::new(501, "a method longer than any that is known"));
    }
    let Some((target, version)) = rest[1..].split_last_chunk::<VERSION_BYTES>() else {
        return Err(Refusal::bad("a request line without a version"));
    };
    let version = match version {
        b" HTTP/1.1" => Version::Http11,
        b" HTTP/1.0" => Version::Http10,
        _ => return Err(unknown_version(version)),
    };
    if target.len() > target_bytes_max {
        return Err(Refusal::new(414, "a target over the limit"));
    }
    // Without a way out in the middle, so that many bytes are compared at once.
    if !target.iter().fold(true, |good, byte| good & is_target_byte(*byte)) {
        return Err(unfit(target));
    }
    if target.is_empty() {
        return Err(Refusal::bad("an empty target"));
    }
    if method == b"PRI" {
        // RFC 9113 section 3.4: it announces HTTP/2, and no request has it.
        return Err(Refusal::new(501, "the method that announces HTTP/2"));
    }
    Ok(RequestLine { method, target, version })
}

fn is_target_byte(byte: u8) -> bool {
    byte.wrapping_sub(b'!') <= b'~' - b'!' && byte != b'#'
}

/// RFC 9110 section 2.5: 505 is for a version that is well-formed. HTTP/1.2 and on, which nobody has defined, is among
/// them: hyper does not read it, and to read it as 1.1 would be a guess.
#[cold]
fn unknown_version(version: &[u8; VERSION_BYTES]) -> Refusal {
    match version {
        [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Refusal::new(505, "a version other than HTTP/1.1 and HTTP/1.0")
        }
        _ => Refusal::bad("a request line that ends with no version"),
    }
}

#[cold]
fn unfit(target: &[u8]) -> Refusal {
    Refusal::bad(match target.iter().find(|byte| !is_target_byte(**byte)) {
        Some(b' ' | b'\t') => "whitespace in the target",
        Some(b'#') => "a fragment in the target",
        _ => "bytes in the target that are not ASCII",
    })
}
