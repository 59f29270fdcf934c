//! Mistakes of hosts.json: where (a JSON path), what stood there, what was expected. All of them are collected before anyone is told.
//!
//! What is shown of a value is short, and never a secret: values below a field of the secret kind are only named by their type,
//! and user information in anything that looks like a URL is masked.

use std::fmt;

use super::json::Json;

/// The most mistakes that are kept; the rest is counted, so that a huge wrong file gives a short answer.
const MOST: usize = 100;
/// The longest value that is shown whole, in characters.
const SHOWN_CHARACTERS: usize = 80;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where: a JSON path such as `hosts."a.example".ttl`, or the file itself.
    pub path: String,
    /// What stood there, secrets aside.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, expected {}", self.path, self.found, self.expected)
    }
}

/// All mistakes of a file, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    list: Vec<Mistake>,
    beyond: usize,
}

impl Mistakes {
    /// Notes one, unless the same stands there already.
    pub fn add(&mut self, path: &Path, found: impl Into<String>, expected: impl Into<String>) {
        let mistake = Mistake {
            path: visible(path.to_string()),
            found: visible(found.into()),
            expected: visible(expected.into()),
        };
        if self.list.len() >= MOST {
            self.beyond += 1;
        } else if !self.list.contains(&mistake) {
            self.list.push(mistake);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Those that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.list.iter()
    }

    /// A line for each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.list.iter().map(Mistake::to_string).collect();
        if self.beyond > 0 {
            lines.push(format!("and {} more", self.beyond));
        }
        lines
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// The same without control characters, with which a terminal is steered: as JSON, which leaves some of them as they are, could
/// write them.
fn visible(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// A place in hosts.json, grown on the way down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// The file itself.
    pub fn file(file: &std::path::Path) -> Self {
        Self(file.display().to_string())
    }

    /// A field or a name below this place: `hosts."a.example"`.
    pub fn key(&self, key: &str) -> Self {
        let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if plain { shorten(key) } else { quoted(key) };
        if self.0.is_empty() { Self(key) } else { Self(format!("{}.{key}", self.0)) }
    }

    /// An item of a list: `policy[1]`.
    pub fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(the whole file)" } else { &self.0 })
    }
}

/// What stood there, for a person.
pub fn shown(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Bool(flag) => flag.to_string(),
        Json::Number(number) => number.to_string(),
        Json::Text(text) => quoted(text),
        Json::List(_) | Json::Object(_) => json.kind().to_owned(),
    }
}

/// Text as JSON writes it, shortened, without user information.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(shorten(&without_user(text))).to_string()
}

/// The known name that is nearest to one that is not known, if it is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: String = name.chars().take(SHOWN_CHARACTERS).collect();
    known
        .into_iter()
        .map(|other| (strsim::damerau_levenshtein(&name.to_ascii_lowercase(), &other.to_ascii_lowercase()), other))
        .filter(|(distance, other)| *distance <= (other.chars().count().max(name.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// `one of a, b, c`, or what to say when there is none; with the nearest in front when one is near.
pub fn one_of<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone, none: &str) -> String {
    let listed: Vec<&str> = known.clone().take(30).collect();
    match (nearest(name, known), listed.is_empty()) {
        (Some(near), _) if listed.len() > 1 => format!("{near:?} (or another of {})", listed.join(", ")),
        (Some(near), _) => format!("{near:?}"),
        (None, false) => format!("one of {}", listed.join(", ")),
        (None, true) => none.to_owned(),
    }
}

fn shorten(text: &str) -> String {
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(SHOWN_CHARACTERS).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

/// `http://user:password@host/` with the user information masked: people put passwords there.
fn without_user(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            match rest[..end].rfind('@') {
                Some(at) => format!("{scheme}://(hidden){}", &rest[at..]),
                None => text.to_owned(),
            }
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_quote_what_is_not_a_plain_name() {
        let path = Path::default().key("hosts").key("a.example").key("policy").item(1).key("time_ms");
        assert_eq!(path.to_string(), r#"hosts."a.example".policy[1].time_ms"#);
        assert_eq!(Path::default().key("a\"\n").to_string(), r#""a\"\n""#);
    }

    #[test]
    fn no_mistake_steers_a_terminal() {
        let mut mistakes = Mistakes::default();
        mistakes.add(&Path::default().key("a\u{7f}"), "b\u{9b}2J", "one of c\u{1b}[0m");
        assert_eq!(mistakes.lines(), [r#""a\u007f": found b\u009b2J, expected one of c\u001b[0m"#]);
    }

    #[test]
    fn user_information_is_never_shown() {
        let text = quoted("https://me:p@ss@host/x@y");
        assert_eq!(text, r#""https://(hidden)@host/x@y""#);
        assert_eq!(quoted("a@b"), r#""a@b""#);
    }

    #[test]
    fn the_nearest_name_is_found_only_when_it_is_near() {
        assert_eq!(nearest("tll", ["ttl", "origin"]), Some("ttl"));
        assert_eq!(nearest("orgins", ["listen", "origins"]), Some("origins"));
        assert_eq!(nearest("zzzzzz", ["ttl", "origin"]), None);
        assert_eq!(nearest("acme", ["cache"]), None);
    }

    #[test]
    fn a_flood_of_mistakes_is_counted_and_not_kept() {
        let mut mistakes = Mistakes::default();
        for index in 0..1000 {
            mistakes.add(&Path::default().item(index), "x", "y");
        }
        assert_eq!(mistakes.lines().len(), MOST + 1);
        assert_eq!(mistakes.lines().last().map(String::as_str), Some("and 900 more"));
    }
}
