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

impl<'a> Parameters<'a> {
    /// Takes a query apart. A name counts in its decoded form, so that `%73ig` is no way around the rule that a
    /// parameter stands there once.
    pub(crate) fn take(query: Option<&'a str>, names: &[String; 5]) -> Result<Self, Refusal> {
        let mut taken = Self { values: [const { None }; 5], rest: None };
        let Some(query) = query else { return Ok(taken) };
        // Most links have nothing to decode: one look at the whole saves a look at each piece.
        let plain = !query.bytes().any(|byte| matches!(byte, b'%' | b'+'));
        let decode = |text: &'a str| if plain { Some(Cow::Borrowed(text)) } else { text::query_decode(text) };
        for piece in query.split('&') {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let name = decode(name).unwrap_or(Cow::Borrowed(name));
            if let Some(index) = names.iter().position(|known| *known == name) {
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
