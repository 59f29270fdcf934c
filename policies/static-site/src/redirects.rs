//! The table of redirects, and locations that can't be read as another site.

use std::collections::BTreeMap;

use proxyhost_policy::prelude::*;

/// One line as written: `"/old": "/new"`, or with a status.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Written {
    To(String),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Full {
    to: String,
    #[serde(default = "permanent")]
    status: u16,
}

/// 308 keeps the method, and is remembered.
fn permanent() -> u16 {
    308
}

/// The table as used.
pub(crate) struct Redirects {
    exact: BTreeMap<String, (u16, String)>,
    /// `/blog/*` by what stands before the star, the longest first.
    prefixes: Vec<(String, u16, String)>,
}

impl Redirects {
    pub(crate) fn resolve(written: BTreeMap<String, Written>) -> Result<Self, String> {
        let mut table = Self { exact: BTreeMap::new(), prefixes: Vec::new() };
        for (from, line) in written {
            let Full { to, status } = match line {
                Written::To(to) => Full { to, status: permanent() },
                Written::Full(full) => full,
            };
            let refuse = |why: &str| Err(format!("config: redirects: {from:?}: {why}"));
            if ![301, 302, 303, 307, 308].contains(&status) {
                return refuse("the status of a redirect is 301, 302, 303, 307 or 308");
            }
            let prefix = from.strip_suffix('*');
            if !from.starts_with('/') || prefix.unwrap_or(&from).contains('*') {
                return refuse("it begins with a slash, and a star stands only at its end");
            }
            if !is_location(&to) {
                return refuse("it leads to /a/path or https://a.site/path, written as it is sent");
            }
            // Behind anything else what the star stands for could become part of a host's name.
            if to.contains('*') && (prefix.is_none() || !to.ends_with("/*") || to.matches('*').count() > 1) {
                return refuse("where it leads has a star only behind its last slash, and only if it has one itself");
            }
            match prefix {
                Some(prefix) => table.prefixes.push((prefix.to_owned(), status, to)),
                None if from == to => return refuse("it leads to itself"),
                None => {
                    table.exact.insert(from, (status, to));
                }
            }
        }
        table.prefixes.sort_by_key(|(prefix, _, _)| std::cmp::Reverse(prefix.len()));
        Ok(table)
    }

    /// Status and location for a path, the query aside.
    pub(crate) fn find(&self, path: &str) -> Option<(u16, String)> {
        if let Some((status, to)) = self.exact.get(path) {
            return Some((*status, to.clone()));
        }
        self.prefixes.iter().find_map(|(prefix, status, to)| {
            let rest = path.strip_prefix(prefix.as_str())?;
            let Some(before) = to.strip_suffix('*') else { return Some((*status, to.clone())) };
            // Slashes at its beginning would make "/" + "/evil.test" of "/*".
            Some((*status, format!("{before}{}", text::path_encode(rest.trim_start_matches('/')))))
        })
    }
}

/// Whether a text can stand in Location as it is, and names its site plainly.
fn is_location(to: &str) -> bool {
    let plain = to.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
    let local = to.starts_with('/') && !to.starts_with("//");
    let absolute = to.strip_prefix("https://").or_else(|| to.strip_prefix("http://"));
    plain && (local || absolute.is_some_and(|rest| rest.find(['/', '?', '#']).unwrap_or(rest.len()) > 0))
}

/// A decoded path as a location on this site: one slash at its beginning, since `//evil.test` is another site.
pub(crate) fn local(path: &str) -> String {
    format!("/{}", text::path_encode(path.trim_start_matches('/')))
}

/// Redirects with the request's query, unless the location has one.
pub(crate) fn decide(status: u16, location: &str) -> Decision {
    let (before, fragment) = match location.find('#') {
        Some(at) => location.split_at(at),
        None => (location, ""),
    };
    match request::query().filter(|query| !query.is_empty() && !before.contains('?')) {
        Some(query) => Decision::redirect(status, format!("{before}?{}{fragment}", sendable(&query))),
        None => Decision::redirect(status, location),
    }
}

/// A query as it stands, with what can't be sent in a header percent-encoded.
fn sendable(query: &str) -> String {
    query.split_inclusive(|c: char| !c.is_ascii_graphic()).fold(String::new(), |mut out, piece| {
        match piece.chars().next_back() {
            Some(last) if !last.is_ascii_graphic() => {
                let before = &piece[..piece.len() - last.len_utf8()];
                out.push_str(before);
                out.push_str(&text::path_encode(&piece[before.len()..]));
            }
            _ => out.push_str(piece),
        }
        out
    })
}
