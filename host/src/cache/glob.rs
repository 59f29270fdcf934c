//! Patterns over decoded paths, for purges: `*` is any run of characters but slashes, `**` any run, `?` one character but a
//! slash. All else stands for itself, percent-encoded as in URLs: `%2A` is a star, `%3F` a question mark.

use percent_encoding::percent_decode_str;

/// The longest pattern, in bytes as written: what is matched against every path costs, at worst, its length times the path's.
pub const GLOB_MOST_BYTES: usize = 512;

/// The most wildcards of a pattern: each is one more way to read every path.
pub const GLOB_MOST_WILDCARDS: usize = 16;

/// A pattern, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Is(char),
    One,
    Run,
    Anything,
}

impl Glob {
    /// Reads a pattern. The error says in words what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > GLOB_MOST_BYTES {
            return Err(format!("must have at most {GLOB_MOST_BYTES} bytes"));
        }
        if !text.starts_with('/') {
            return Err("must begin with a slash".to_owned());
        }
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let literal = rest.find(['*', '?']).unwrap_or(rest.len());
            if literal > 0 {
                let (plain, after) = rest.split_at(literal);
                tokens.extend(decoded(plain)?.chars().map(Token::Is));
                rest = after;
            } else if first == '?' {
                tokens.push(Token::One);
                rest = &rest[1..];
            } else {
                let stars = rest.len() - rest.trim_start_matches('*').len();
                tokens.push(if stars == 1 { Token::Run } else { Token::Anything });
                rest = &rest[stars..];
            }
        }
        if tokens.iter().filter(|token| !matches!(token, Token::Is(_))).count() > GLOB_MOST_WILDCARDS {
            return Err(format!("must have at most {GLOB_MOST_WILDCARDS} of `*`, `**` and `?`"));
        }
        Ok(Self { tokens })
    }

    /// Whether it matches all of a path. Each character is compared at most once for each token.
    pub fn matches(&self, path: &str) -> bool {
        // Which tokens may come next, as a row that the path is led through: no pattern makes it go back.
        let mut may = vec![false; self.tokens.len() + 1];
        let mut next = may.clone();
        may[0] = true;
        self.skip_empty(&mut may);
        for character in path.chars() {
            next.fill(false);
            let mut any = false;
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| may[*at]) {
                match token {
                    Token::Is(one) if *one == character => next[at + 1] = true,
                    Token::One if character != '/' => next[at + 1] = true,
                    Token::Run if character != '/' => next[at] = true,
                    Token::Anything => next[at] = true,
                    _ => continue,
                }
                any = true;
            }
            if !any {
                return false;
            }
            self.skip_empty(&mut next);
            std::mem::swap(&mut may, &mut next);
        }
        may.last().copied().unwrap_or(false)
    }

    /// Runs may be of no length.
    fn skip_empty(&self, may: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if may[at] && matches!(token, Token::Run | Token::Anything) {
                may[at + 1] = true;
            }
        }
    }

    /// What all matching paths begin with.
    pub fn prefix(&self) -> String {
        let literal = |token: &Token| if let Token::Is(one) = token { Some(*one) } else { None };
        self.tokens.iter().map_while(literal).collect()
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' && !(0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit())) {
            return Err("has a percent sign that is not followed by two hexadecimal digits".to_owned());
        }
    }
    let plain = percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 when it is decoded".to_owned())?;
    Ok(plain.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        Glob::parse(glob).expect(glob).matches(path)
    }

    #[test]
    fn stars_stay_within_a_segment_and_double_stars_do_not() {
        for (glob, path, expected) in [
            ("/img/*/thumb-?.jpg", "/img/a/thumb-1.jpg", true),
            ("/img/*/thumb-?.jpg", "/img//thumb-1.jpg", true),
            ("/img/*/thumb-?.jpg", "/img/a/b/thumb-1.jpg", false),
            ("/img/*/thumb-?.jpg", "/img/a/thumb-12.jpg", false),
            ("/img/*/thumb-?.jpg", "/img/a/thumb-/.jpg", false),
            ("/img/**/thumb-?.jpg", "/img/a/b/thumb-ü.jpg", true),
            ("/**.css", "/a/b.css", true),
            ("/*.css", "/a/b.css", false),
            ("/a%2Ab", "/a*b", true),
            ("/a%2Ab", "/axb", false),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a", "/A", false),
            ("/***", "/", true),
        ] {
            assert_eq!(matches(glob, path), expected, "{glob} {path}");
        }
        assert_eq!(Glob::parse("/a%20b/*c").unwrap().prefix(), "/a b/");
    }

    #[test]
    fn a_bad_pattern_is_refused_in_words() {
        for (glob, part) in [("a*", "slash"), ("", "slash"), ("/%2", "percent"), ("/%ff*", "UTF-8")] {
            assert!(Glob::parse(glob).expect_err(glob).contains(part), "{glob}");
        }
        assert!(Glob::parse(&format!("/{}", "*a".repeat(GLOB_MOST_BYTES))).is_err());
    }

    /// The same by its definition, which takes for ever on long ones.
    fn by_definition(tokens: &[Token], path: &[char]) -> bool {
        let Some(token) = tokens.first() else { return path.is_empty() };
        let first = path.first();
        match token {
            Token::Is(one) => first == Some(one) && by_definition(&tokens[1..], &path[1..]),
            Token::One => first.is_some_and(|first| *first != '/') && by_definition(&tokens[1..], &path[1..]),
            Token::Run | Token::Anything => {
                by_definition(&tokens[1..], path)
                    || (first.is_some_and(|first| *token == Token::Anything || *first != '/')
                        && by_definition(tokens, &path[1..]))
            }
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_its_definition_says(glob in "/[ab/*?]{0,7}", path in "/[ab/]{0,8}") {
            let glob = Glob::parse(&glob).unwrap();
            let path_characters: Vec<char> = path.chars().collect();
            prop_assert_eq!(glob.matches(&path), by_definition(&glob.tokens, &path_characters));
            prop_assert!(!glob.matches(&path) || path.starts_with(&glob.prefix()));
        }

        #[test]
        fn any_text_is_a_pattern_or_refused(text in "\\PC{0,40}") {
            let _ = Glob::parse(&text);
        }
    }
}
