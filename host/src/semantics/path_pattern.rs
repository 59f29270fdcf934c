//! Patterns of paths, as the rules of a host have them: `*` stands for any run of characters, slashes included, and so does `**`.
//! It is the one meaning that `*` has in this program; the policies' patterns have it too.
//!
//! A pattern is held against the decoded path, which is what everything else here goes by. Slashes that follow one another count
//! as one: many origins read `//admin/a` as `/admin/a`, and nobody shall get around a rule for `/admin/*` by a slash more.

use std::borrow::Cow;

use smallvec::SmallVec;

/// The longest pattern, in bytes.
const LONGEST: usize = 1024;

/// A pattern of paths, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    written: String,
    /// What stands before the first star.
    first: String,
    /// What stands between two stars, and behind the last one; none where there is no star.
    rest: Option<(Vec<String>, String)>,
}

/// Why a text is no pattern of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Neither a slash nor a star comes first: no path would fit.
    #[error("it begins with neither a slash nor a star")]
    Beginning,
    /// `?` or `#`.
    #[error("the query is no part of a path, and the only wildcard is a star")]
    Query,
    /// `%XX`.
    #[error("paths are matched decoded, and this is encoded")]
    Encoded,
    /// `.` or `..` as a segment.
    #[error("no path has a dot segment")]
    DotSegment,
    /// A control character.
    #[error("it has a control character")]
    Control,
    /// More than 1024 bytes.
    #[error("it is longer than 1024 bytes")]
    Long,
}

impl PathPattern {
    /// Compiles. What could never fit a path is an error.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > LONGEST {
            return Err(PatternError::Long);
        }
        if !text.starts_with(['/', '*']) {
            return Err(PatternError::Beginning);
        }
        if text.contains(['?', '#']) {
            return Err(PatternError::Query);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        let encoded = |tail: &str| tail.len() >= 2 && tail.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
        if text.split('%').skip(1).any(encoded) {
            return Err(PatternError::Encoded);
        }
        if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(PatternError::DotSegment);
        }
        let single = single_slashes(text);
        let mut pieces = single.split('*');
        let first = pieces.next().unwrap_or_default().to_owned();
        let mut middle: Vec<String> = pieces.map(str::to_owned).collect();
        let rest = middle.pop().map(|last| {
            middle.retain(|piece| !piece.is_empty());
            (middle, last)
        });
        Ok(Self { written: text.to_owned(), first, rest })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether a path fits. Takes time that grows with path and pattern, not with their product.
    pub fn matches(&self, path: &Matchable<'_>) -> bool {
        let Some(mut path) = path.0.strip_prefix(self.first.as_str()) else { return false };
        let Some((middle, last)) = &self.rest else { return path.is_empty() };
        // The earliest place of each piece leaves the most for those behind it: no way back is needed.
        for piece in middle {
            let Some(at) = path.find(piece.as_str()) else { return false };
            path = &path[at + piece.len()..];
        }
        path.ends_with(last.as_str())
    }

    /// Paths that stand for all that fit: a pattern covers this one if they fit it.
    pub fn examples(&self) -> Examples {
        // No pattern has this character: what it stands for here, only a star can fit, and that fits anything.
        let any = self.written.replace('*', "\0");
        let mut paths = SmallVec::new();
        let mut add = |path: &str| paths.push(Matchable(single_slashes(path).into_owned().into()));
        let behind = any.trim_start_matches('\0');
        if behind.len() == any.len() {
            add(&any);
        } else {
            // All paths begin with a slash: the star's own, or the one behind it.
            add(&format!("/{any}"));
            if behind.starts_with('/') {
                add(behind);
            }
        }
        Examples(paths)
    }

    /// Whether every path that fits the pattern of these examples fits this one too.
    pub fn covers(&self, examples: &Examples) -> bool {
        examples.0.iter().all(|path| self.matches(path))
    }
}

/// Paths that stand for all that fit a pattern.
pub struct Examples(SmallVec<[Matchable<'static>; 2]>);

/// A path to hold against patterns.
pub struct Matchable<'a>(Cow<'a, str>);

impl<'a> Matchable<'a> {
    /// Of a decoded path. Copies only one with slashes that follow one another.
    pub fn of(path: &'a str) -> Self {
        Self(single_slashes(path))
    }
}

fn single_slashes(text: &str) -> Cow<'_, str> {
    if !text.contains("//") {
        return Cow::Borrowed(text);
    }
    let mut single = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '/' || !single.ends_with('/') {
            single.push(character);
        }
    }
    Cow::Owned(single)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).expect("a pattern").matches(&Matchable::of(path))
    }

    #[test]
    fn stars_stand_for_any_run_of_characters() {
        for (pattern, path) in [
            ("/a", "/a"),
            ("/assets/*", "/assets/"),
            ("/assets/*", "/assets/css/a.css"),
            ("/assets/**", "/assets/css/a.css"),
            ("*.jpg", "/a/b.jpg"),
            ("/a/**/*.jpg", "/a/b/c/d.jpg"),
            ("/*/edit", "/a/b/edit"),
            ("*", "/"),
            ("**", "/a/b"),
            ("/a*a", "/aa"),
            ("/ü*", "/übung"),
            ("/100%", "/100%"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/a", "/a/"),
            ("/a", "/b/a"),
            ("/assets/*", "/assets"),
            ("/assets/*", "/x/assets/a"),
            ("*.jpg", "/a.jpg/b"),
            ("*.jpg", "/a.JPG"),
            ("/a*a", "/a"),
            ("/a/*/b", "/a/b"),
            ("*ab*ab", "/xab"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn slashes_that_follow_one_another_are_one() {
        for path in ["//admin/a", "/admin//a", "///admin///a"] {
            assert!(fits("/admin/*", path), "{path}");
            assert!(fits("/admin/a", path), "{path}");
        }
        assert!(fits("//admin//*", "/admin/a"));
    }

    #[test]
    fn a_pattern_covers_what_fits_only_where_it_fits_too() {
        let covers = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| PathPattern::parse(text).expect("a pattern"));
            one.covers(&other.examples())
        };
        for (one, other) in [
            ("*", "/a"),
            ("/*", "*"),
            ("/*", "*.jpg"),
            ("/*", "*/a"),
            ("*.jpg", "/a/*.jpg"),
            ("/a/*", "/a/b/*"),
            ("/a", "/a"),
            ("/a/*", "//a//*"),
            ("*/a", "*/b/a"),
        ] {
            assert!(covers(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("/a/*", "/*"),
            ("*.jpg", "/a/*"),
            ("/a", "/a*"),
            ("/a/*", "/a"),
            ("*b", "*"),
            ("/*/a", "*/a"),
            ("/*/a", "**/a"),
        ] {
            assert!(!covers(one, other), "{one} {other}");
        }
    }

    #[test]
    fn what_no_path_could_fit_is_refused() {
        use PatternError::*;
        for (text, error) in [
            ("", Beginning),
            ("a/*", Beginning),
            ("/a?b", Query),
            ("/a#b", Query),
            ("/a%20b", Encoded),
            ("/a/../b", DotSegment),
            ("/./*", DotSegment),
            ("/a\nb", Control),
        ] {
            assert_eq!(PathPattern::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(PathPattern::parse(&format!("/{}", "a".repeat(LONGEST))), Err(Long));
    }

    /// Slow and plain: all places of a star are tried.
    fn tried(pattern: &[char], path: &[char]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some(('*', rest)) => (0..=path.len()).any(|taken| tried(rest, &path[taken..])),
            Some((first, rest)) => path.split_first().is_some_and(|(next, path)| first == next && tried(rest, path)),
        }
    }

    proptest! {
        #[test]
        fn it_says_what_trying_all_places_says(pattern in "/[ab/*ü]{0,7}", path in "/[ab/ü]{0,9}") {
            let parsed = PathPattern::parse(&pattern).expect("a pattern");
            let (pattern, single) = (single_slashes(&pattern), single_slashes(&path));
            let plain = tried(&pattern.chars().collect::<Vec<_>>(), &single.chars().collect::<Vec<_>>());
            prop_assert_eq!(parsed.matches(&Matchable::of(&path)), plain);
        }

        #[test]
        fn what_a_covered_pattern_fits_the_other_fits_too(
            one in "(/|\\*|/\\*|/\\*/|\\*\\*|\\*/|\\*\\*/)(|a|\\*a|a\\*|b)",
            other in "(/|\\*|/\\*|/\\*/|\\*\\*|\\*/|\\*\\*/)(|a|\\*a|a\\*|b)",
            paths in prop::collection::vec("/[ab/]{0,3}", 1..40),
        ) {
            let [one, other] = [one, other].map(|text| PathPattern::parse(&text).expect("a pattern"));
            let fits = |pattern: &PathPattern, path: &String| pattern.matches(&Matchable::of(path));
            let covered = one.covers(&other.examples());
            if covered {
                prop_assert!(paths.iter().all(|path| !fits(&other, path) || fits(&one, path)));
            }
            // Any run of a character that neither has can stand for a star.
            let other_than_all = format!("/{}", other.as_str().trim_start_matches('/').replace('*', "cc"));
            if fits(&other, &other_than_all) && !fits(&one, &other_than_all) {
                prop_assert!(!covered);
            }
        }

        #[test]
        fn a_slash_more_gets_around_nothing(pattern in "[/*][ab/*]{0,7}", path in "/[ab/]{0,9}", at in 0..10usize) {
            let parsed = PathPattern::parse(&pattern).expect("a pattern");
            let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            let mut more = path.clone();
            more.insert(slashes[at % slashes.len()], '/');
            prop_assert_eq!(parsed.matches(&Matchable::of(&path)), parsed.matches(&Matchable::of(&more)));
        }

        #[test]
        fn any_text_is_a_pattern_or_none(text in ".{0,30}", path in "/.{0,30}") {
            if let Ok(parsed) = PathPattern::parse(&text) {
                let _ = parsed.matches(&Matchable::of(&path));
            }
        }
    }
}
