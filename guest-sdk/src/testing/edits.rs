//! What a policy did beside deciding.

use std::collections::HashMap;

use crate::log::Level;

/// Header lines in order, names in lower case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The lines of that name joined with ", ".
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let lines: Vec<_> =
            self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect();
        if lines.is_empty() { None } else { Some(lines.join(", ")) }
    }

    /// Each name once.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in &self.0 {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Replaces all lines of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.append(name, value);
    }

    /// Adds a line.
    pub fn append(&mut self, name: &str, value: &str) {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
    }

    /// Removes all lines of that name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }
}

/// Edits to the request that goes to the origin, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits(pub Vec<(String, HeaderEdit)>);

/// One edit of a header.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderEdit {
    /// Replaces all lines.
    Set(String),
    /// Adds a line.
    Append(String),
    /// Removes all lines.
    Remove,
}

impl HeaderEdits {
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.push((name.to_ascii_lowercase(), HeaderEdit::Set(value.to_owned())));
    }

    pub(crate) fn append(&mut self, name: &str, value: &str) {
        self.0.push((name.to_ascii_lowercase(), HeaderEdit::Append(value.to_owned())));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.push((name.to_ascii_lowercase(), HeaderEdit::Remove));
    }

    /// The last edit of that name.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&HeaderEdit> {
        self.0.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, edit)| edit)
    }
}

/// What the phases of one request edited, set and logged. Fields bear the names of the functions that fill them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// `upstream`: headers.
    pub upstream_headers: HeaderEdits,
    /// `upstream`: path.
    pub path: Option<String>,
    /// `upstream`: query; the inner none is "no query".
    pub query: Option<Option<String>>,
    /// `upstream`: paths to try.
    pub try_paths: Vec<String>,
    /// `upstream`: origin.
    pub origin: Option<String>,
    /// `cache-lookup`: named parts in order.
    pub key_parts: Vec<(String, String)>,
    /// `cache-lookup`: what stands for path and query.
    pub key: Option<String>,
    /// `cache-lookup`: parameters that count.
    pub key_query_only: Option<Vec<String>>,
    /// `cache-lookup`: bypass.
    pub bypass: bool,
    /// `cache-lookup`: age from which an entry is missing.
    pub max_age_ms: Option<u64>,
    /// `cache-store`: life.
    pub ttl_ms: Option<u64>,
    /// `cache-store`: stale while it is fetched again.
    pub stale_while_revalidate_ms: Option<u64>,
    /// `cache-store`: stale when the origin fails.
    pub stale_if_error_ms: Option<u64>,
    /// `cache-store`: tags.
    pub tags: Vec<String>,
    /// `cache-store`: keep nothing.
    pub no_store: bool,
    /// `cache-store`: how long it is known as not cacheable.
    pub hit_for_miss_ms: Option<u64>,
    /// `vars` in order of first setting.
    pub vars: Vec<(String, String)>,
    /// `log` lines.
    pub log: Vec<(Level, String)>,
    /// What was taken from rate limits, by bucket and key.
    pub taken: HashMap<(String, String), u32>,
}

impl Edits {
    /// The value of a key part.
    #[must_use]
    pub fn key_part(&self, name: &str) -> Option<&str> {
        self.key_parts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a var.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
