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

/// Calls `found` with the place of each byte of a query that means something here: `&`, `=`, `%`, `+`. Eight bytes at a
/// time: a loop costs a look at the host's clock for each turn, and this runs over each query.
fn for_each_mark(query: &[u8], mut found: impl FnMut(usize, u8) -> Result<(), Refusal>) -> Result<(), Refusal> {
    /// The high bit of each byte that is `byte`, and no other.
    fn equal_to(word: u64, byte: u8) -> u64 {
        const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
        let differing = word ^ u64::from_ne_bytes([byte; 8]);
        !(((differing & LOW) + LOW) | differing | LOW)
    }
    for (number, bytes) in query.chunks(8).enumerate() {
        let mut word = [0; 8];
        match <[u8; 8]>::try_from(bytes) {
            Ok(whole) => word = whole,
            Err(_) => word[..bytes.len()].copy_from_slice(bytes),
        }
        let word = u64::from_le_bytes(word);
        let mut marks = equal_to(word, b'&') | equal_to(word, b'=') | equal_to(word, b'%') | equal_to(word, b'+');
        while marks != 0 {
            let within = marks.trailing_zeros() as usize / 8;
            marks &= marks - 1;
            found(number * 8 + within, bytes[within])?;
        }
    }
    Ok(())
}

/// A piece of a query, as far as it has been read.
#[derive(Default)]
struct Piece {
    start: usize,
    equals: Option<usize>,
    encoded: bool,
}

impl<'a> Parameters<'a> {
    /// Takes a query apart. A name counts in its decoded form, so that `%73ig` is no way around the rule that a
    /// parameter stands there once.
    pub(crate) fn take(query: Option<&'a str>, names: &[String; 5]) -> Result<Self, Refusal> {
        let mut taken = Self { values: [const { None }; 5], rest: None };
        let Some(query) = query else { return Ok(taken) };
        let mut piece = Piece::default();
        for_each_mark(query.as_bytes(), |at, mark| {
            match mark {
                b'&' => {
                    taken.add(query, &piece, at, names)?;
                    piece = Piece { start: at + 1, ..Piece::default() };
                }
                b'=' => piece.equals = piece.equals.or(Some(at)),
                _ => piece.encoded = true,
            }
            Ok(())
        })?;
        taken.add(query, &piece, query.len(), names)?;
        Ok(taken)
    }

    fn add(&mut self, query: &'a str, piece: &Piece, end: usize, names: &[String; 5]) -> Result<(), Refusal> {
        let text = &query[piece.start..end];
        let (name, value) = match piece.equals {
            Some(at) => (&query[piece.start..at], &query[at + 1..end]),
            None => (text, ""),
        };
        let decode = |text: &'a str| if piece.encoded { text::query_decode(text) } else { Some(Cow::Borrowed(text)) };
        let name = decode(name).unwrap_or(Cow::Borrowed(name));
        // Lengths first: comparing them costs nothing, and they mostly differ.
        if let Some(index) = names.iter().position(|known| known.len() == name.len() && *known == name) {
            if self.values[index].is_some() {
                return Err(Refusal::Twice);
            }
            self.values[index] = Some(decode(value).ok_or(Refusal::Malformed)?);
            return Ok(());
        }
        match &mut self.rest {
            Some(rest) => {
                rest.push('&');
                rest.push_str(text);
            }
            None if text.is_empty() => {}
            None => self.rest = Some(text.to_owned()),
        }
        Ok(())
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
    fn marks_are_found_wherever_they_stand_and_nothing_else_is_one() {
        let marks = |query: &[u8]| {
            let mut found = Vec::new();
            for_each_mark(query, |at, mark| {
                found.push((at, mark));
                Ok(())
            })
            .unwrap();
            found
        };
        let is_mark = |byte: &u8| b"&=%+".contains(byte);
        for length in 0..=25 {
            for first in 0..=u8::MAX {
                // Every byte beside its neighbours, so that none is taken for another.
                let query: Vec<u8> = (0..length).map(|at| first.wrapping_add(at)).collect();
                let expected: Vec<_> = query.iter().copied().enumerate().filter(|(_, byte)| is_mark(byte)).collect();
                assert_eq!(marks(&query), expected, "{query:?}");
            }
            let query = vec![b'&'; length.into()];
            assert_eq!(marks(&query).len(), query.len());
        }
    }

    #[test]
    fn a_parameter_twice_is_refused_however_it_is_spelt() {
        assert_eq!(take("sig=x&sig=x").err(), Some(Refusal::Twice));
        assert_eq!(take("sig=x&%73ig=y").err(), Some(Refusal::Twice));
        assert_eq!(take("sig=%zz").err(), Some(Refusal::Malformed));
    }
}
