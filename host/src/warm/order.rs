//! From the JSON body of `POST /warm` to what is fetched.
//!
//! `{"host": "a.example", "paths": ["/a", "/b?x=1"], "sitemaps": ["/sitemap.xml"], "prefixes": ["/img/"]}`. Without `host`, all of
//! them are URLs. `prefixes` are asked of the origin, which has to be a bucket or a folder: `/` is all of it. `headers` are those of
//! each request, so that a variant can be fetched; `jobs` is how many are fetched at once.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use crate::semantics::authority::Authority;
use crate::semantics::target::Target;

/// Things of one request: more come in several.
pub const WANTED_MOST: usize = 10_000;
/// Fetched at once, unless the request says otherwise: enough to fill a line, and few beside what clients ask for.
pub const JOBS: usize = 4;
/// ... and at most.
pub const JOBS_MOST: usize = 64;
/// Fields of each request.
const HEADERS_MOST: usize = 32;

/// What is to be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// One by one.
    pub wanted: Vec<Wanted>,
    /// Sitemaps, whose URLs are fetched.
    pub sitemaps: Vec<Wanted>,
    /// What an origin has below these.
    pub prefixes: Vec<Wanted>,
    /// Fields of each request.
    pub headers: HeaderMap,
    /// Fetched at once.
    pub jobs: usize,
}

/// A URL of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `http` or `https`; none: as the host's clients come.
    pub scheme: Option<&'static str>,
    /// Host and port.
    pub authority: String,
    /// Path and query, encoded.
    pub target: String,
}

impl Wanted {
    /// As a URL.
    pub fn url(&self) -> String {
        match self.scheme {
            Some(scheme) => format!("{scheme}://{}{}", self.authority, self.target),
            None => format!("{}{}", self.authority, self.target),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object such as {\"host\": \"a.example\", \"paths\": [\"/a\"]}")]
struct Body {
    host: Option<String>,
    paths: Vec<String>,
    sitemaps: Vec<String>,
    prefixes: Vec<String>,
    headers: std::collections::BTreeMap<String, String>,
    jobs: usize,
}

impl Default for Body {
    fn default() -> Self {
        let (paths, sitemaps, prefixes) = Default::default();
        Self { host: None, paths, sitemaps, prefixes, headers: Default::default(), jobs: JOBS }
    }
}

/// Reads the body of `POST /warm`. The error says in words why it is refused with 400, and of a list where.
pub fn parse_request(body: &[u8]) -> Result<Order, String> {
    // Derived code would also take a list of values in the order of the fields.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err("the body must be a JSON object such as {\"host\": \"a.example\", \"paths\": [\"/a\"]}".to_owned());
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("the body of a warm-up: {error}"))?;
    if body.jobs == 0 || body.jobs > JOBS_MOST {
        return Err(format!("\"jobs\" must be 1 to {JOBS_MOST}"));
    }
    let host = body.host.as_deref();
    if let Some(host) = host {
        authority(host).map_err(|error| format!("\"host\" {error}"))?;
    }
    let count = body.paths.len() + body.sitemaps.len() + body.prefixes.len();
    if count == 0 {
        return Err("nothing is named: \"paths\", \"sitemaps\" or \"prefixes\" is missing".to_owned());
    }
    if count > WANTED_MOST {
        return Err(format!(
            "more than {WANTED_MOST} things at once: send them in parts, as `proxyhost warm --from FILE` does"
        ));
    }
    let all = |name: &str, texts: &[String]| -> Result<Vec<Wanted>, String> {
        let one = |(at, text): (usize, &String)| item(host, text).map_err(|error| format!("\"{name}[{at}]\" {error}"));
        texts.iter().enumerate().map(one).collect()
    };
    let prefixes = all("prefixes", &body.prefixes)?;
    if let Some(at) = prefixes.iter().position(|prefix| prefix.target.contains('?')) {
        return Err(format!("\"prefixes[{at}]\" has a query, which no file has"));
    }
    Ok(Order {
        wanted: all("paths", &body.paths)?,
        sitemaps: all("sitemaps", &body.sitemaps)?,
        prefixes,
        headers: headers(&body.headers)?,
        jobs: body.jobs,
    })
}

fn headers(written: &std::collections::BTreeMap<String, String>) -> Result<HeaderMap, String> {
    if written.len() > HEADERS_MOST {
        return Err(format!("\"headers\" has more than {HEADERS_MOST}"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let wrong = |why: &str| format!("\"headers.{name}\" {why}");
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("is no field name"))?;
        // What is kept is whole, and says nothing of what this request has of it.
        let ours =
            ["host", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
        if ours.contains(&parsed.as_str()) || parsed == "content-length" || parsed == "transfer-encoding" {
            return Err(wrong("is not for a warm-up to say"));
        }
        headers.insert(parsed, HeaderValue::from_str(value).map_err(|_| wrong("has a value that cannot be sent"))?);
    }
    Ok(headers)
}

/// Reads one item. `host` is that of the list; an item that is a URL names its own. The error begins with a verb.
pub fn item(host: Option<&str>, text: &str) -> Result<Wanted, String> {
    let text = text.split('#').next().unwrap_or_default();
    let (scheme, named, target) = match (host, text.starts_with('/')) {
        (Some(host), true) => (None, host, text),
        (None, true) => return Err("is not a URL, and there is no \"host\"".to_owned()),
        (Some(_), false) if text.find("://").is_none_or(|at| text[..at].contains(['/', '?'])) => {
            return Err("begins with neither a slash nor a scheme".to_owned());
        }
        _ => {
            let (scheme, rest) = match text.split_once("://") {
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some("https"), rest),
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some("http"), rest),
                Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    return Err("is not a URL of http or https".to_owned());
                }
                _ => (None, text),
            };
            let (named, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (scheme, named, target)
        }
    };
    authority(named)?;
    let slash = if target.starts_with('/') { "" } else { "/" };
    // Lists are written by people, and by programs that leave to others what has to be encoded.
    let encode = |character: char| !character.is_ascii_graphic();
    let mut encoded = String::with_capacity(target.len() + 1);
    encoded.push_str(slash);
    for character in target.chars() {
        match encode(character) {
            true => {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).as_bytes();
                bytes.iter().for_each(|byte| encoded.push_str(&format!("%{byte:02X}")));
            }
            false => encoded.push(character),
        }
    }
    Target::parse(&encoded).map_err(|error| format!("is no path: {error}"))?;
    encoded.parse::<Uri>().map_err(|error| format!("is no path: {error}"))?;
    Ok(Wanted { scheme, authority: named.to_owned(), target: encoded })
}

fn authority(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err("is a name as clients ask for it, not a pattern".to_owned());
    }
    Authority::parse(text).map(|_| ()).map_err(|error| format!("is no host: {error}"))
}

#[cfg(test)]
mod tests;
