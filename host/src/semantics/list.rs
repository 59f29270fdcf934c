//! Fields that are lists of names and words (RFC 9110 section 5.6.1): all lines are one list, and empty members are none.
//!
//! For lists whose members have no quotes in them; a comma is a comma here wherever it stands.

use http::{HeaderMap, HeaderName};

/// The members of one line, without the whitespace around them.
pub fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The members of all lines of a field, in their order.
pub fn of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|line| members(line.as_bytes()))
}

/// The names of a list; none if one of its members is no name.
pub fn names<'a>(members: impl Iterator<Item = &'a [u8]>) -> Option<Vec<HeaderName>> {
    members.map(|name| HeaderName::from_bytes(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONNECTION;

    use super::*;

    #[test]
    fn lines_are_one_list_without_empty_members() {
        let mut headers = HeaderMap::new();
        for line in ["a,, B \t", "", " , c"] {
            headers.append(CONNECTION, HeaderValue::from_static(line));
        }
        assert_eq!(of(&headers, &CONNECTION).collect::<Vec<_>>(), [&b"a"[..], b"B", b"c"]);
        assert_eq!(names(of(&headers, &CONNECTION)).expect("names"), ["a", "b", "c"]);
        assert_eq!(names(members(b"a, b c")), None);
        assert_eq!(names(members(b" , ")), Some(Vec::new()));
    }
}
