//! From the JSON body of `POST /purge`, or a request with a host's purge method, to what is purged.
//!
//! `{"host": "a.example", "path": "/a"}`, with `prefix`, `glob` or `tag` in place of `path`, or `host` alone for all of the host, or
//! `{"all": true}`. Many at once: `paths`, `prefixes`, `globs`, `tags` and `hosts`, also together; `files`, `prefixes` as
//! `a.example/b` and `purge_everything` are taken as Cloudflare has them. Without `host`, paths are URLs, and tags are those of all
//! hosts. `mode` is `hard`, `soft` or `refresh`; `dry_run` only counts.
//!
//! Paths are given as in URLs and are decoded once, by the rules of request targets. What is not clear is refused: a slip (a null,
//! a misspelt name, a key twice, an empty list) must not purge more than was meant.

use http::HeaderMap;
use serde::{Deserialize, Deserializer};

use super::order::{Action, GLOBS_MOST, Order, SCOPES_MOST};
use crate::cache::glob::Glob;
use crate::cache::purges::PurgeScope;
use crate::cache::tags::{self, TAG_MOST_BYTES};
use crate::semantics::authority::{Authority, Hostname};
use crate::semantics::target::Target;

/// The body as written. Nulls are refused, so that a value that somebody forgot to fill in is not read as "all of the host".
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object such as {\"host\": \"a.example\", \"path\": \"/a\"}")]
struct Body {
    #[serde(deserialize_with = "given")]
    host: Option<String>,
    #[serde(deserialize_with = "given")]
    path: Option<String>,
    #[serde(deserialize_with = "given")]
    prefix: Option<String>,
    #[serde(deserialize_with = "given")]
    glob: Option<String>,
    #[serde(deserialize_with = "given")]
    tag: Option<String>,
    #[serde(deserialize_with = "given")]
    all: Option<bool>,
    #[serde(deserialize_with = "given")]
    paths: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    prefixes: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    globs: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    tags: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    hosts: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    files: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    purge_everything: Option<bool>,
    mode: Action,
    dry_run: bool,
}

/// What an item of a list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A path, or a URL.
    Path,
    /// A path or URL with a query, which is not told apart from others.
    File,
    /// The beginning of a path or URL.
    Prefix,
    /// A pattern.
    Glob,
    /// A tag.
    Tag,
    /// A host.
    Host,
}

fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads the body of `POST /purge`. The error says in words why it is refused with 400, and of a list where.
pub fn parse_request(body: &[u8]) -> Result<Order, String> {
    // Derived code would also take a list of values in the order of the fields.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return refuse("the body must be a JSON object such as {\"host\": \"a.example\", \"path\": \"/a\"}");
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("the body of a purge: {error}"))?;
    let order = |scopes| Order { scopes, action: body.mode, dry_run: body.dry_run };
    let singles = [
        ("path", Kind::Path, &body.path),
        ("prefix", Kind::Prefix, &body.prefix),
        ("glob", Kind::Glob, &body.glob),
        ("tag", Kind::Tag, &body.tag),
    ];
    let lists = [
        ("paths", Kind::Path, &body.paths),
        ("files", Kind::File, &body.files),
        ("prefixes", Kind::Prefix, &body.prefixes),
        ("globs", Kind::Glob, &body.globs),
        ("tags", Kind::Tag, &body.tags),
        ("hosts", Kind::Host, &body.hosts),
    ];
    let single = singles.iter().filter(|(.., given)| given.is_some()).count();
    let many = lists.iter().filter(|(.., given)| given.is_some()).count();
    if body.all == Some(false) || body.purge_everything == Some(false) {
        return refuse("\"all\" can only be true");
    }
    if body.all.or(body.purge_everything).is_some() {
        return match (&body.host, single + many) {
            (None, 0) => Ok(order(vec![PurgeScope::All])),
            _ => refuse("\"all\": true stands alone: it purges every host"),
        };
    }
    if single > 1 || (single == 1 && many > 0) {
        return refuse(
            "only one of \"path\", \"prefix\", \"glob\" and \"tag\" at a time; lists such as \"paths\" take many",
        );
    }
    let host = body.host.as_deref().map(hostname).transpose().map_err(|error| format!("\"host\" {error}"))?;
    if let Some((name, kind, Some(text))) = singles.iter().find(|(.., given)| given.is_some()) {
        if host.is_none() && text.starts_with('/') && *kind != Kind::Tag {
            return refuse("\"host\" is missing (or \"all\": true, for every host)");
        }
        return item(*kind, host.as_deref(), text)
            .map(|scope| order(vec![scope]))
            .map_err(|error| format!("\"{name}\" {error}"));
    }
    if many == 0 {
        let Some(host) = host else { return refuse("\"host\" is missing (or \"all\": true, for every host)") };
        return Ok(order(vec![PurgeScope::Host { host }]));
    }
    if host.is_some() && body.hosts.is_some() {
        return refuse("\"host\" and \"hosts\" do not go together");
    }
    if body.globs.as_ref().is_some_and(|globs| globs.len() > GLOBS_MOST) {
        return Err(format!("\"globs\" has more than {GLOBS_MOST}: purge them in parts"));
    }
    let mut scopes = Vec::new();
    for (name, kind, texts) in lists {
        let Some(texts) = texts else { continue };
        if texts.is_empty() {
            return refuse(&format!("\"{name}\" is empty: it names nothing"));
        }
        if scopes.len() + texts.len() > SCOPES_MOST {
            return refuse(&format!(
                "more than {SCOPES_MOST} things at once: send them in parts, as `proxyhost purge --from FILE` does"
            ));
        }
        for (at, text) in texts.iter().enumerate() {
            scopes.push(item(kind, host.as_deref(), text).map_err(|error| format!("\"{name}[{at}]\" {error}"))?);
        }
    }
    Ok(order(scopes))
}

/// Reads one item. `host` is that of the list; without it, the item names its own. The error begins with a verb.
pub fn item(kind: Kind, host: Option<&str>, text: &str) -> Result<PurgeScope, String> {
    match kind {
        Kind::Host => return hostname(text).map(|host| PurgeScope::Host { host }),
        Kind::Tag => {
            let tag = text.to_owned();
            if tag.is_empty() || tag.len() > TAG_MOST_BYTES {
                return Err(format!("must have 1 to {TAG_MOST_BYTES} bytes"));
            }
            return Ok(match host {
                Some(host) => PurgeScope::Tag { host: host.to_owned(), tag },
                None => PurgeScope::TagEverywhere { tag },
            });
        }
        Kind::Path | Kind::File | Kind::Prefix | Kind::Glob => {}
    }
    let (host, path) = match host {
        Some(host) if text.starts_with('/') => (host.to_owned(), text),
        Some(_) => return refuse("must begin with a slash"),
        None => of_url(text)?,
    };
    Ok(match kind {
        Kind::Prefix => PurgeScope::Prefix { host, prefix: decoded(path, "x")? },
        Kind::Glob => {
            Glob::parse(path)?;
            PurgeScope::Glob { host, glob: path.to_owned() }
        }
        Kind::File => {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            PurgeScope::Path { host, path: decoded(path, "")? }
        }
        _ => PurgeScope::Path { host, path: decoded(path, "")? },
    })
}

/// Host and the rest of a URL; the scheme may be left out.
fn of_url(text: &str) -> Result<(String, &str), String> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let rest = match (lower.starts_with("https://"), lower.starts_with("http://")) {
        (true, _) => &text[8..],
        (_, true) => &text[7..],
        _ => text,
    };
    if rest.starts_with('/') {
        return refuse("is not a URL, and there is no \"host\"");
    }
    if rest.contains("://") {
        return refuse("is not a URL of http or https");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok((hostname(authority)?, if path.is_empty() { "/" } else { path }))
}

/// What a request with the host's purge method purges: the tags of `Surrogate-Key` or `xkey`, else its path, and `/` all of the
/// host. Gone, or stale with `Fastly-Soft-Purge: 1`.
pub fn of_request(host: &Hostname, path: &str, headers: &HeaderMap) -> Result<Order, String> {
    let host = host.as_str().to_owned();
    let named = tags::of(&[], headers);
    let is_by_tag = tags::FIELDS.iter().any(|name| headers.contains_key(name));
    let scopes = if is_by_tag {
        if named.left_out > 0 || named.kept.is_empty() {
            return refuse("its tags are none, too many, or too long");
        }
        named.kept.into_iter().map(|tag| PurgeScope::Tag { host: host.clone(), tag }).collect()
    } else if path == "/" {
        vec![PurgeScope::Host { host }]
    } else {
        vec![PurgeScope::Path { host, path: path.to_owned() }]
    };
    let soft = headers.get("fastly-soft-purge").is_some_and(|value| value == "1");
    Ok(Order { scopes, action: if soft { Action::Soft } else { Action::Hard }, dry_run: false })
}

fn refuse<T>(why: &str) -> Result<T, String> {
    Err(why.to_owned())
}

fn hostname(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return refuse("is a name as clients ask for it, not a pattern: entries are kept by that name");
    }
    match Authority::parse(text) {
        Ok(authority) => Ok(authority.host.as_str().to_owned()),
        Err(error) => Err(format!("is no host: {error}")),
    }
}

/// Decodes a path. `rest` stands behind it for the while: the beginning of a path may end in what would be a dot segment if it
/// were whole (`/a/.` of `/a/.well-known`).
fn decoded(text: &str, rest: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return refuse("must begin with a slash");
    }
    if text.contains(['?', '#']) {
        return refuse("has no query: a path is purged with all its queries");
    }
    let target = Target::parse(&format!("{text}{rest}")).map_err(|error| format!("is no path: {error}"))?;
    let path = target.path();
    Ok(path.strip_suffix(rest).unwrap_or(path).to_owned())
}

#[cfg(test)]
mod tests;
