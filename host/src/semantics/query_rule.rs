//! Which parameters of a query count: what a rule leaves is both in the cache key and what the origin gets, so that nothing which
//! is not in the key can make a difference at the origin.
//!
//! Names are compared as forms decode them (`%61` is `a`, `+` a space), and the parameters that stay are the bytes that came in:
//! an origin that decodes in another way gets what it would have had.

use std::borrow::Cow;

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRule {
    /// Which parameters stay.
    pub select: Select,
    /// In order of their names; those of one name in the order they came in.
    pub sort: bool,
}

/// Which parameters stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// All.
    All,
    /// None.
    Nothing,
    /// These.
    Only(Vec<ParameterName>),
    /// These, and a request with another is refused.
    OnlyOrRefuse(Vec<ParameterName>),
    /// All but these.
    Except(Vec<ParameterName>),
}

/// The name of a parameter, decoded; or, with a star at its end, how names begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterName {
    text: String,
    begins: bool,
}

impl ParameterName {
    /// Reads `utm_source` or `utm_*`. None for a name that is empty, and for a star elsewhere.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, begins) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        let sound = !name.contains('*') && (begins || !name.is_empty());
        sound.then(|| Self { text: name.to_owned(), begins })
    }

    /// As it is written.
    pub fn written(&self) -> String {
        format!("{}{}", self.text, if self.begins { "*" } else { "" })
    }

    fn is(&self, raw: &str) -> bool {
        let mut decoded = decoded(raw);
        self.text.bytes().all(|byte| decoded.next() == Some(byte)) && (self.begins || decoded.next().is_none())
    }
}

impl QueryRule {
    /// What of the query counts; the same text where the rule changes nothing in it, and an empty one where nothing counts.
    pub fn apply<'a>(&self, query: &'a str) -> Cow<'a, str> {
        if self.select == Select::All && !self.sort {
            return Cow::Borrowed(query);
        }
        let mut kept: Vec<&str> = parameters(query).filter(|text| self.select.keeps(name_of(text))).collect();
        if self.sort {
            kept.sort_by(|a, b| decoded(name_of(a)).cmp(decoded(name_of(b))));
        }
        let text = kept.join("&");
        if text == query { Cow::Borrowed(query) } else { Cow::Owned(text) }
    }

    /// Whether a request with this query is refused.
    pub fn refuses(&self, query: &str) -> bool {
        let Select::OnlyOrRefuse(names) = &self.select else { return false };
        parameters(query).any(|text| !listed(names, name_of(text)))
    }
}

impl Select {
    fn keeps(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Only(names) | Self::OnlyOrRefuse(names) => listed(names, name),
            Self::Except(names) => !listed(names, name),
        }
    }
}

fn listed(names: &[ParameterName], raw: &str) -> bool {
    names.iter().any(|name| name.is(raw))
}

fn parameters(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|text| !text.is_empty())
}

fn name_of(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// The bytes of a name; a percent sign without two hexadecimal digits stands for itself.
fn decoded(raw: &str) -> impl Iterator<Item = u8> {
    let mut rest = raw.as_bytes();
    std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        let digit = |at: usize| behind.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (byte, taken) = match (first, digit(0).zip(digit(1))) {
            // Two digits of four bits each.
            (b'%', Some((high, low))) => ((high << 4 | low) as u8, 2),
            (b'+', _) => (b' ', 0),
            (byte, _) => (*byte, 0),
        };
        rest = &behind[taken..];
        Some(byte)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(texts: &[&str]) -> Vec<ParameterName> {
        texts.iter().map(|text| ParameterName::parse(text).expect("a name")).collect()
    }

    fn rule(select: Select, sort: bool) -> QueryRule {
        QueryRule { select, sort }
    }

    #[test]
    fn what_a_rule_leaves_is_as_it_came_in() {
        let only = rule(Select::Only(names(&["page", "a b", "q_*"])), false);
        for (query, left) in [
            ("page=1&utm=2", "page=1"),
            ("utm=2", ""),
            ("%70age=%31&PAGE=2", "%70age=%31"),
            ("page", "page"),
            ("page=1&x&page=2", "page=1&page=2"),
            ("a+b=1&a%20b=2&a%2Bb=3", "a+b=1&a%20b=2"),
            ("q_1=x&q=y&q_=z", "q_1=x&q_=z"),
            ("&&page=1&&", "page=1"),
            ("page=1;utm=2", "page=1;utm=2"),
            ("page%00=1&%ff=1&=1", ""),
        ] {
            assert_eq!(only.apply(query), left, "{query}");
        }
        let except = rule(Select::Except(names(&["utm_*", "fbclid"])), false);
        assert_eq!(except.apply("b=1&utm_source=x&%75tm_medium=y&a=%zz&fbclid=1&fbclid2=2"), "b=1&a=%zz&fbclid2=2");
        assert_eq!(rule(Select::Nothing, false).apply("a=1"), "");
        assert_eq!(rule(Select::All, false).apply("b&&a"), "b&&a");
        assert_eq!(rule(Select::All, true).apply("b=2&a=1&b=1&%61=0"), "a=1&%61=0&b=2&b=1");
    }

    #[test]
    fn what_is_not_listed_is_refused_however_it_is_written() {
        let strict = rule(Select::OnlyOrRefuse(names(&["page"])), false);
        for query in ["", "page=1", "&", "page=1&page=2", "p%61ge=1"] {
            assert!(!strict.refuses(query), "{query}");
        }
        for query in ["x=1", "page=1&x", "page%20=1", "Page=1", "=1", "%=1"] {
            assert!(strict.refuses(query), "{query}");
        }
        assert!(rule(Select::OnlyOrRefuse(Vec::new()), false).refuses("a"));
        assert!(!rule(Select::Nothing, false).refuses("a"));
    }

    #[test]
    fn a_star_is_at_the_end_or_nowhere() {
        assert!(ParameterName::parse("*").is_some_and(|any| any.is("") && any.is("x")));
        for bad in ["", "a*b", "*a", "**"] {
            assert_eq!(ParameterName::parse(bad), None, "{bad}");
        }
        assert_eq!(ParameterName::parse("utm_*").map(|name| name.written()).as_deref(), Some("utm_*"));
    }

    fn rules() -> impl Strategy<Value = QueryRule> {
        let list = proptest::collection::vec("[ab]{1,2}\\*?", 0..3)
            .prop_map(|texts| texts.iter().filter_map(|text| ParameterName::parse(text)).collect::<Vec<_>>());
        let select = prop_oneof![
            Just(Select::All),
            Just(Select::Nothing),
            list.clone().prop_map(Select::Only),
            list.clone().prop_map(Select::OnlyOrRefuse),
            list.prop_map(Select::Except),
        ];
        (select, any::<bool>()).prop_map(|(select, sort)| QueryRule { select, sort })
    }

    proptest! {
        #[test]
        fn what_is_left_is_left_again(rule in rules(), query in "([ab%+6=;]{0,4}&){0,5}") {
            let once = rule.apply(&query).into_owned();
            prop_assert_eq!(rule.apply(&once), once.as_str());
        }

        #[test]
        fn only_what_came_in_and_may_stay_is_left(rule in rules(), query in "([ab%+6=;]{0,4}&){0,5}") {
            let left = rule.apply(&query);
            for text in parameters(&left) {
                prop_assert!(parameters(&query).any(|came| came == text));
                prop_assert!(rule.select.keeps(name_of(text)));
            }
            let stay = parameters(&query).filter(|text| rule.select.keeps(name_of(text))).count();
            prop_assert_eq!(parameters(&left).count(), stay);
        }

        #[test]
        fn sorting_makes_one_of_all_orders(query in "([abc]=[0-9]&){0,6}", turn in 0..6usize) {
            let sorting = rule(Select::All, true);
            // Names that differ: those of one name keep their order.
            let mut all: Vec<&str> = parameters(&query).collect();
            all.sort_unstable();
            all.dedup_by_key(|text| name_of(text).to_owned());
            let one = all.join("&");
            let by = turn.min(all.len());
            all.rotate_left(by);
            let turned = all.join("&");
            prop_assert_eq!(sorting.apply(&turned), sorting.apply(&one));
        }

        #[test]
        fn any_query_is_read(rule in rules(), query in ".{0,40}") {
            let _ = (rule.apply(&query), rule.refuses(&query));
        }
    }
}
