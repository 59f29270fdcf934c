//! Takes the parameters of a scheme out of a query.

use proxyhost_policy::text;

use crate::Refusal;

/// A query, taken apart.
pub(crate) struct Parameters {
    /// The decoded values of the scheme's parameters, in the order of the names asked for.
    values: Vec<Option<String>>,
    /// The pieces of the query that are not the scheme's, as they stand and in their order. None if there are none.
    pub(crate) rest: Option<String>,
    /// The decoded names in `rest`.
    pub(crate) rest_names: Vec<String>,
}

impl Parameters {
    /// Takes a query apart. A name counts in its decoded form, so that `%73ig` is no way around the rule that a
    /// parameter stands there once.
    pub(crate) fn take(query: Option<&str>, names: &[String]) -> Result<Self, Refusal> {
        let mut taken = Self { values: vec![None; names.len()], rest: None, rest_names: Vec::new() };
        let Some(query) = query else { return Ok(taken) };
        for piece in query.split('&') {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let name = text::query_decode(name).unwrap_or_else(|| name.to_owned());
            if let Some(index) = names.iter().position(|known| *known == name) {
                if taken.values[index].is_some() {
                    return Err(Refusal::Twice);
                }
                taken.values[index] = Some(text::query_decode(value).ok_or(Refusal::Malformed)?);
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
            taken.rest_names.push(name);
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

    fn take(query: &str) -> Result<Parameters, Refusal> {
        Parameters::take(Some(query), &["sig".to_owned(), "expires".to_owned()])
    }

    #[test]
    fn the_rest_stays_as_it_stands() {
        let Parameters { values, rest, rest_names } = take("b=%20&sig=x%2B&a&&expires=5&b=2").unwrap();
        assert_eq!(values, [Some("x+".to_owned()), Some("5".to_owned())]);
        assert_eq!(rest.as_deref(), Some("b=%20&a&&b=2"));
        assert_eq!(rest_names, ["b", "a", "", "b"]);
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
