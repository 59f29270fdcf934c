//! From the JSON body of `POST /purge`, or a request with a host's purge method, to what is purged.
//!
//! `{"host": "a.example", "path": "/a"}`, with `prefix` or `tag` in place of `path`, or `host` alone for all of the host, or
//! `{"all": true}`. Paths are given as in URLs and are decoded once, by the rules of request targets. What is not clear is
//! refused: a slip (a null, a misspelt name, a key twice) must not purge more than was meant.

use serde::{Deserialize, Deserializer};

use crate::cache::purges::PurgeScope;
use crate::semantics::authority::{Authority, Hostname};
use crate::semantics::target::Target;

/// The longest tag, in bytes; a longer one cannot have been kept.
const TAG_MOST_BYTES: usize = 1024;

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
    tag: Option<String>,
    #[serde(deserialize_with = "given")]
    all: Option<bool>,
}

fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads the body of `POST /purge`. The error says in words why it is refused with 400.
pub fn parse_request(body: &[u8]) -> Result<PurgeScope, String> {
    // Derived code would also take a list of values in the order of the fields.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return refuse("the body must be a JSON object such as {\"host\": \"a.example\", \"path\": \"/a\"}");
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("the body of a purge: {error}"))?;
    let narrow = [body.path.is_some(), body.prefix.is_some(), body.tag.is_some()];
    let narrowed = narrow.iter().filter(|given| **given).count();
    match (&body.host, body.all) {
        (None, Some(true)) if narrowed == 0 => return Ok(PurgeScope::All),
        (_, Some(true)) => return refuse("\"all\": true stands alone: it purges every host"),
        (_, Some(false)) => return refuse("\"all\" can only be true"),
        (None, None) => return refuse("\"host\" is missing (or \"all\": true, for every host)"),
        (Some(_), None) if narrowed > 1 => return refuse("only one of \"path\", \"prefix\" and \"tag\" at a time"),
        (Some(_), None) => {}
    }
    let host = hostname(&body.host.unwrap_or_default())?;
    if let Some(path) = body.path {
        return Ok(PurgeScope::Path { host, path: decoded("path", &path, "")? });
    }
    if let Some(prefix) = body.prefix {
        return Ok(PurgeScope::Prefix { host, prefix: decoded("prefix", &prefix, "x")? });
    }
    if let Some(tag) = body.tag {
        if tag.is_empty() || tag.len() > TAG_MOST_BYTES {
            return refuse(&format!("\"tag\" must have 1 to {TAG_MOST_BYTES} bytes"));
        }
        return Ok(PurgeScope::Tag { host, tag });
    }
    Ok(PurgeScope::Host { host })
}

/// What a request with the host's purge method purges: its path, and `/` all of the host.
pub fn of_request(host: &Hostname, path: &str) -> PurgeScope {
    let host = host.as_str().to_owned();
    if path == "/" { PurgeScope::Host { host } } else { PurgeScope::Path { host, path: path.to_owned() } }
}

fn refuse<T>(why: &str) -> Result<T, String> {
    Err(why.to_owned())
}

fn hostname(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return refuse("\"host\" is a name as clients ask for it, not a pattern: entries are kept by that name");
    }
    match Authority::parse(text) {
        Ok(authority) => Ok(authority.host.as_str().to_owned()),
        Err(error) => Err(format!("\"host\": {error}")),
    }
}

/// Decodes a path. `rest` stands behind it for the while: the beginning of a path may end in what would be a dot segment if it
/// were whole (`/a/.` of `/a/.well-known`).
fn decoded(name: &str, text: &str, rest: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return refuse(&format!("\"{name}\" must begin with a slash"));
    }
    if text.contains(['?', '#']) {
        return refuse(&format!("\"{name}\" has no query: a path is purged with all its queries"));
    }
    let target = Target::parse(&format!("{text}{rest}")).map_err(|error| format!("\"{name}\": {error}"))?;
    let path = target.path();
    Ok(path.strip_suffix(rest).unwrap_or(path).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host() -> String {
        "a.example".to_owned()
    }

    #[test]
    fn each_form_is_read() {
        let cases = [
            (r#"{"host":"A.Example.:8080"}"#, PurgeScope::Host { host: host() }),
            (r#" {"host":"a.example","path":"/a%20b"}"#, PurgeScope::Path { host: host(), path: "/a b".into() }),
            (r#"{"host":"a.example","prefix":"/a/."}"#, PurgeScope::Prefix { host: host(), prefix: "/a/.".into() }),
            (r#"{"host":"a.example","prefix":"/"}"#, PurgeScope::Prefix { host: host(), prefix: "/".into() }),
            (r#"{"tag":"news","host":"a.example"}"#, PurgeScope::Tag { host: host(), tag: "news".into() }),
            (r#"{"all":true}"#, PurgeScope::All),
        ];
        for (body, scope) in cases {
            assert_eq!(parse_request(body.as_bytes()), Ok(scope), "{body}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused_and_said() {
        let cases = [
            ("", "JSON object"),
            ("[]", "JSON object"),
            ("{", "EOF"),
            ("{}", "\"host\" is missing"),
            (r#"{"path":"/a"}"#, "\"host\" is missing"),
            (r#"{"host":"a.example","path":null}"#, "null"),
            (r#"{"host":"a.example","pth":"/a"}"#, "pth"),
            (r#"{"host":"a.example","host":"b.example"}"#, "duplicate"),
            (r#"{"host":"a.example","path":"/a","tag":"b"}"#, "only one"),
            (r#"{"host":"a.example","all":true}"#, "alone"),
            (r#"{"all":true,"tag":"x"}"#, "alone"),
            (r#"{"all":false}"#, "only be true"),
            (r#"{"host":"a.example","all":false}"#, "only be true"),
            (r#"{"host":"*.example"}"#, "pattern"),
            (r#"{"host":"a b"}"#, "\"host\""),
            (r#"{"host":"a.example","path":"a"}"#, "begin with a slash"),
            (r#"{"host":"a.example","path":"/a?b"}"#, "query"),
            (r#"{"host":"a.example","path":"/a/../b"}"#, "dot segment"),
            (r#"{"host":"a.example","path":"/a%2fb"}"#, "slash"),
            (r#"{"host":"a.example","prefix":"/a%2"}"#, "percent"),
            (r#"{"host":"a.example","tag":""}"#, "bytes"),
            (r#"{"all":true} x"#, "trailing"),
        ];
        for (body, part) in cases {
            let error = parse_request(body.as_bytes()).expect_err(body);
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn a_request_purges_its_path_and_the_root_purges_the_host() {
        let name = Hostname::parse("a.example").expect("a name");
        assert_eq!(of_request(&name, "/"), PurgeScope::Host { host: host() });
        assert_eq!(of_request(&name, "/a"), PurgeScope::Path { host: host(), path: "/a".into() });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64), path in ".{0,24}") {
            let _ = parse_request(&body);
            let _ = parse_request(serde_json::json!({ "host": "a", "prefix": format!("/{path}") }).to_string().as_bytes());
        }
    }
}
