//! The language of an answer: the best of those that the site has (RFC 9110 section 12.5.4, RFC 4647 section 3.4).

use proxyhost_policy::prelude::*;

/// How much of Accept-Language is read: no browser sends more, and each range costs a look at every language.
const RANGES_MAX: usize = 32;

/// As written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    /// The languages that the site has, the best first.
    allow: Vec<String>,
    /// What is chosen when nothing fits; the first of `allow` by default.
    default: Option<String>,
    /// A cookie that overrules the browser, if it names a language of the site.
    cookie: Option<String>,
}

/// As used: tags in lower case beside the way they are written.
pub(crate) struct Languages {
    allow: Vec<(String, String)>,
    default: String,
    cookie: Option<String>,
}

impl Languages {
    pub(crate) fn resolve(written: Written) -> Result<Self, String> {
        for tag in &written.allow {
            let part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
            if !tag.split('-').all(part) {
                return Err(format!("config: language.allow: {tag:?} is not a language such as \"en\" or \"pt-BR\""));
            }
        }
        let Some(first) = written.allow.first() else {
            return Err("config: language.allow is empty".to_owned());
        };
        let default = written.default.unwrap_or_else(|| first.clone());
        if !written.allow.contains(&default) {
            return Err(format!("config: language.default: {default:?} is not in language.allow"));
        }
        let allow = written.allow.iter().map(|tag| (tag.to_ascii_lowercase(), tag.clone())).collect();
        Ok(Self { allow, default, cookie: written.cookie })
    }

    /// The language for the request in hand.
    pub(crate) fn choose(&self) -> &str {
        if let Some(wanted) = self.cookie.as_ref().and_then(|name| request::cookie(name)) {
            let wanted = wanted.to_ascii_lowercase();
            if let Some((_, tag)) = self.allow.iter().find(|(lower, _)| *lower == wanted) {
                return tag;
            }
        }
        request::header("accept-language").and_then(|accept| self.negotiate(&accept)).unwrap_or(&self.default)
    }

    /// The first language of the highest weight. A range fits a language that it is or begins (`en` fits `en-GB`), and
    /// is cut from its end until it fits one (`de-CH` finds `de`); a weight of 0 rules out.
    fn negotiate(&self, accept: &str) -> Option<&str> {
        let accept = accept.to_ascii_lowercase();
        let mut ranges: Vec<(&str, u16)> = Vec::new();
        for range in accept.split(',').take(RANGES_MAX) {
            let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
            if let Some(weight) = weight(parameters) {
                ranges.push((tag.trim(), weight));
            }
        }
        let ruled_out = |lower: &str| ranges.iter().any(|(range, weight)| *weight == 0 && fits(range, lower));
        // A stable sort: among equals the browser's order stands.
        let mut wanted: Vec<_> = ranges.iter().filter(|(_, weight)| *weight > 0).collect();
        wanted.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        for (range, _) in wanted {
            if *range == "*" {
                return self.allow.iter().find(|(lower, _)| !ruled_out(lower)).map(|(_, tag)| tag.as_str());
            }
            let mut range = *range;
            loop {
                let found = self.allow.iter().find(|(lower, _)| fits(range, lower) && !ruled_out(lower));
                if let Some((_, tag)) = found {
                    return Some(tag);
                }
                match range.rsplit_once('-') {
                    Some((shorter, _)) => range = shorter,
                    None => break,
                }
            }
        }
        None
    }
}

/// Whether a range is a language, or begins it at a hyphen.
fn fits(range: &str, lower: &str) -> bool {
    !range.is_empty() && lower.strip_prefix(range).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// A weight in thousandths: 1000 where none is written, none where it can't be read (RFC 9110 section 12.4.2).
fn weight(parameters: &str) -> Option<u16> {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return Some(1000);
    }
    let value = parameters.strip_prefix("q=")?.trim();
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(accept: &str) -> String {
        let allow = ["en", "de", "pt-BR", "fr"].map(str::to_owned).to_vec();
        let languages = Languages::resolve(Written { allow, default: None, cookie: None }).expect("a good list");
        languages.negotiate(accept).unwrap_or("none").to_owned()
    }

    #[test]
    fn the_heaviest_language_that_the_site_has_is_chosen() {
        assert_eq!(negotiate("de"), "de");
        assert_eq!(negotiate("da, de;q=0.8, en;q=0.9"), "en");
        assert_eq!(negotiate("fr;q=0.5,de;q=0.5"), "fr");
        assert_eq!(negotiate("DE-ch, fr;q=0.9"), "de");
        assert_eq!(negotiate("pt"), "pt-BR");
        assert_eq!(negotiate("pt-PT"), "pt-BR");
        assert_eq!(negotiate("ja"), "none");
    }

    #[test]
    fn a_weight_of_nothing_rules_out() {
        assert_eq!(negotiate("en;q=0, *"), "de");
        assert_eq!(negotiate("en;q=0"), "none");
        assert_eq!(negotiate("*;q=0.1, fr;q=0.2"), "fr");
    }

    #[test]
    fn odd_headers_choose_nothing_by_accident() {
        for odd in ["", ",,", ";q=1", "de;q=2", "de;q=0.1234", "de;q=.5x", "de;level=1", "d", "deu", "-", "--"] {
            assert_eq!(negotiate(odd), "none", "{odd}");
        }
        assert_eq!(negotiate(&"ja,".repeat(100_000)), "none");
    }
}
