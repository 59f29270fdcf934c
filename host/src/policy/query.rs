//! Parameters of a query, one at a time. `semantics::target::query_pairs` gives them all; a policy asks for a few by name on
//! every request, and this finds them without making a list. A test holds the two to the same answers.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Values of the parameter `name` in order, percent-decoded; a plus sign stays one, and what is not UTF-8 is left out.
pub(crate) fn values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(own)? == name).then(|| decode(value)).flatten()
    })
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'%', text.as_bytes()).is_none() {
        return Some(Cow::Borrowed(text));
    }
    percent_decode_str(text).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(query: &str, name: &str) -> Vec<String> {
        values(query, name).map(Cow::into_owned).collect()
    }

    #[test]
    fn parameters_are_found_by_decoded_name() {
        assert_eq!(all("a=1&b=2&a=3", "a"), ["1", "3"]);
        assert_eq!(all("%61=x%20y", "a"), ["x y"]);
        assert_eq!(all("a&b", "a"), [""]);
        assert_eq!(all("a=b=c", "a"), ["b=c"]);
        assert_eq!(all("a=1+2", "a"), ["1+2"]);
        assert_eq!(all("a=%ff&a=1", "a"), ["1"]);
        assert_eq!(all("a=%zz", "a"), ["%zz"]);
        assert!(all("", "a").is_empty());
    }
}
