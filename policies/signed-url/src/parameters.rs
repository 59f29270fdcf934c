//! Takes the parameters of a scheme out of a query.

use std::borrow::Cow;

use proxyhost_policy::text;

use crate::Refusal;

/// A query, taken apart. It borrows what need not be decoded: this runs for every request.
pub(crate) struct Parameters<'a> {
    /// The decoded values of the scheme's parameters, in the order of the names asked for.
    values: [Option<Cow<'a, str>>; 5],
    /// The pieces of the query that are not the scheme's, as they stand and in their order. None if there are none.
    pub(crate) rest: Option<String>,
}

/// What a byte of a query means here: nothing, or one of these. A table, since each byte of each query is looked up.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    classes[b'&' as usize] = SEPARATOR;
    classes[b'=' as usize] = EQUALS;
    classes[b'%' as usize] = ENCODED;
    classes[b'+' as usize] = ENCODED;
    classes
};
const SEPARATOR: u8 = 1;
const EQUALS: u8 = 2;
const ENCODED: u8 = 3;

/// The piece of a query that begins at `start`: its end, the place of its first equals sign, and whether there is anything
/// in it to decode.
fn piece_at(query: &[u8], start: usize) -> (usize, Option<usize>, bool) {
    let (mut equals, mut encoded) = (None, false);
    for (offset, byte) in query[start..].iter().enumerate() {
        match CLASSES[usize::from(*byte)] {
            0 => {}
            SEPARATOR => return (start + offset, equals, encoded),
            ENCODED => encoded = true,
            _ => equals = equals.or(Some(start + offset)),
        }
    }
    (query.len(), equals, encoded)
}

impl<'a> Parameters<'a> {
    /// Takes a query apart. A name counts in its decoded form, so that `%73ig` is no way around the rule that a
    /// parameter stands there once.
    pub(crate) fn take(query: Option<&'a str>, names: &[String; 5]) -> Result<Self, Refusal> {
        let mut taken = Self { values: [const { None }; 5], rest: None };
        let Some(query) = query else { return Ok(taken) };
        let mut start = 0;
        while start <= query.len() {
            let (end, equals, encoded) = piece_at(query.as_bytes(), start);
            let piece = &query[start..end];
            let (name, value) = match equals {
                Some(at) => (&query[start..at], &query[at + 1..end]),
                None => (piece, ""),
            };
            start = end + 1;
            let decode = |text: &'a str| if encoded { text::query_decode(text) } else { Some(Cow::Borrowed(text)) };
            let name = decode(name).unwrap_or(Cow::Borrowed(name));
            // Lengths first: comparing them costs nothing, and they mostly differ.
            if let Some(index) = names.iter().position(|known| known.len() == name.len() && *known == name) {
                if taken.values[index].is_some() {
                    return Err(Refusal::Twice);
                }
                taken.values[index] = Some(decode(value).ok_or(Refusal::Malformed)?);
                continue;
            }
            match &mut taken.rest {
                Some(rest) => {
                    rest.push('&');
                    rest.push_str(piece);
                }
                None if piece.is_empty() => continue,
                None => taken.rest = Some(piece.to_owned()),
            }
        }
        Ok(taken)
    }

    /// The value of the n-th name asked for; an empty one is as good as none.
    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        self.values[index].as_deref().filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(query: &str) -> Result<Parameters<'_>, Refusal> {
        Parameters::take(Some(query), &["sig", "expires", "kid", "ip", "ref"].map(str::to_owned))
    }

    #[test]
    fn the_rest_stays_as_it_stands() {
        let Parameters { values, rest } = take("b=%20&sig=x%2B&a&&expires=5&b=2").unwrap();
        assert_eq!(values[..2], [Some("x+".into()), Some("5".into())]);
        assert_eq!(rest.as_deref(), Some("b=%20&a&&b=2"));
        assert_eq!(take("sig=x&expires=5").unwrap().rest, None);
        assert_eq!(take("").unwrap().rest, None);
    }

    #[test]
    fn a_parameter_twice_is_refused_however_it_is_spelt() {
        assert_eq!(take("sig=x&sig=x").err(), Some(Refusal::Twice));
        assert_eq!(take("sig=x&%73ig=y").err(), Some(Refusal::Twice));
        assert_eq!(take("sig=%zz").err(), Some(Refusal::Malformed));
    }
}
