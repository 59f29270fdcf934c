//! Cache-Control (RFC 9111 section 5.2) as the host reads it, against a second reading: one pass, character by character.
//! Each line of the input is a line of the field.

#![no_main]

use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName};
use libfuzzer_sys::fuzz_target;
use proxyhost::cache::control::{RequestDirectives, ResponseDirectives};

fuzz_target!(|data: &[u8]| {
    let headers = proxyhost_fuzz::field(&CACHE_CONTROL, data);
    let said = directives(&headers);
    assert_eq!(ResponseDirectives::parse(&headers), of_response(&said));
    if !headers.is_empty() {
        assert_eq!(RequestDirectives::parse(&headers), of_request(&said));
    }
});

#[derive(Clone)]
enum Argument {
    None,
    Token(String),
    Quoted(String),
    /// A quote that is never closed.
    Unclosed,
}

enum At {
    Name,
    BeforeArgument,
    Token,
    Quoted,
    Escaped,
    Behind,
}

/// One char stands for each byte.
fn directives(headers: &HeaderMap) -> Vec<(String, Argument)> {
    let mut found = Vec::new();
    for line in headers.get_all(CACHE_CONTROL) {
        let line: Vec<char> = line.as_bytes().iter().map(|byte| char::from(*byte)).chain([',']).collect();
        let (mut at, mut name, mut argument) = (At::Name, String::new(), Argument::None);
        for (place, &c) in line.iter().enumerate() {
            let is_end = c == ',' && !matches!(at, At::Quoted | At::Escaped);
            if is_end {
                if matches!(at, At::BeforeArgument) {
                    argument = Argument::Token(String::new());
                }
                found.push((std::mem::take(&mut name), std::mem::replace(&mut argument, Argument::None)));
                at = At::Name;
                continue;
            }
            at = match at {
                At::Name if c == '=' => At::BeforeArgument,
                At::Name => {
                    name.push(c);
                    At::Name
                }
                At::BeforeArgument if c == ' ' || c == '\t' => At::BeforeArgument,
                At::BeforeArgument if c == '"' && is_closed(&line[place + 1..]) => {
                    argument = Argument::Quoted(String::new());
                    At::Quoted
                }
                At::BeforeArgument if c == '"' => {
                    argument = Argument::Unclosed;
                    At::Behind
                }
                At::BeforeArgument => {
                    argument = Argument::Token(c.to_string());
                    At::Token
                }
                At::Quoted if c == '\\' => At::Escaped,
                At::Quoted if c == '"' => At::Behind,
                At::Token | At::Quoted | At::Escaped => {
                    if let Argument::Token(text) | Argument::Quoted(text) = &mut argument {
                        text.push(c);
                    }
                    if matches!(at, At::Token) { At::Token } else { At::Quoted }
                }
                At::Behind => At::Behind,
            };
        }
    }
    let named = |(name, argument): (String, Argument)| (trimmed(&name).to_ascii_lowercase(), argument);
    found.into_iter().map(named).filter(|(name, _)| !name.is_empty()).collect()
}

/// The last comma is ours, and no part of the line.
fn is_closed(behind: &[char]) -> bool {
    let mut rest = behind[..behind.len() - 1].iter();
    while let Some(c) = rest.next() {
        match c {
            '"' => return true,
            '\\' => drop(rest.next()),
            _ => {}
        }
    }
    false
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// None where it is no number of seconds.
fn seconds(argument: &Argument) -> Option<Duration> {
    let text = match argument {
        Argument::Token(text) => trimmed(text),
        Argument::Quoted(text) => text,
        Argument::None | Argument::Unclosed => return None,
    };
    let number = text.chars().try_fold(0u64, |sum, c| Some((sum * 10 + u64::from(c.to_digit(10)?)).min(1 << 31)))?;
    (!text.is_empty()).then_some(Duration::from_secs(number))
}

/// Of all that are said of a name.
fn all<'a>(said: &'a [(String, Argument)], name: &'a str) -> impl Iterator<Item = &'a Argument> {
    said.iter().filter(move |(other, _)| other == name).map(|(_, argument)| argument)
}

fn shortest(said: &[(String, Argument)], name: &str) -> Option<Duration> {
    all(said, name).map(|argument| seconds(argument).unwrap_or_default()).min()
}

fn is_there(said: &[(String, Argument)], name: &str) -> bool {
    all(said, name).next().is_some()
}

/// Whether a directive stands without names, and the names of those that have some.
fn with_names(said: &[(String, Argument)], name: &str) -> (bool, Vec<HeaderName>) {
    let (mut bare, mut names) = (false, Vec::new());
    for argument in all(said, name) {
        let members = match argument {
            Argument::Quoted(text) => text.split(',').map(trimmed).filter(|member| !member.is_empty()).collect(),
            _ => Vec::new(),
        };
        let read: Option<Vec<_>> = members.iter().map(|member| member.parse::<HeaderName>().ok()).collect();
        match read {
            Some(read) if !read.is_empty() => names.extend(read),
            _ => bare = true,
        }
    }
    (bare, names)
}

fn of_response(said: &[(String, Argument)]) -> ResponseDirectives {
    let (no_cache, no_cache_fields) = with_names(said, "no-cache");
    let (private, private_fields) = with_names(said, "private");
    ResponseDirectives {
        targeted: false,
        no_store: is_there(said, "no-store"),
        no_cache,
        no_cache_fields,
        private,
        private_fields,
        public: is_there(said, "public"),
        must_revalidate: is_there(said, "must-revalidate"),
        proxy_revalidate: is_there(said, "proxy-revalidate"),
        must_understand: is_there(said, "must-understand"),
        immutable: is_there(said, "immutable"),
        max_age: shortest(said, "max-age"),
        s_maxage: shortest(said, "s-maxage"),
        stale_while_revalidate: shortest(said, "stale-while-revalidate"),
        stale_if_error: shortest(said, "stale-if-error"),
    }
}

fn of_request(said: &[(String, Argument)]) -> RequestDirectives {
    let bounded = |argument: &&Argument| !matches!(argument, Argument::None);
    let limit = all(said, "max-stale").filter(bounded).map(|limit| seconds(limit).unwrap_or_default()).min();
    RequestDirectives {
        no_store: is_there(said, "no-store"),
        no_cache: is_there(said, "no-cache"),
        only_if_cached: is_there(said, "only-if-cached"),
        max_age: shortest(said, "max-age"),
        min_fresh: all(said, "min-fresh").filter_map(seconds).max(),
        max_stale: is_there(said, "max-stale").then_some(limit),
        stale_if_error: shortest(said, "stale-if-error"),
    }
}
