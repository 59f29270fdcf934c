//! Response headers by path: set, added, removed; how long browsers keep; the usual security headers.
//!
//! Everything happens as a response is delivered, so what the cache keeps stays as the origin sent it, and a changed
//! configuration shows at once, on hits too. A rule applies to every path that fits one of its patterns; rules go in
//! order, later ones over earlier ones, and the security headers come before all of them.

use proxyhost_policy::prelude::*;

/// The policy, configured.
pub struct Headers {
    security: Vec<(String, String)>,
    rules: Vec<Rule>,
}

/// The configuration as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    security: Option<Security>,
    rules: Vec<WrittenRule>,
}

/// The usual security headers. Each has a default that breaks nothing on a site of its own; `false` leaves one out.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Security {
    /// Strict-Transport-Security: off by default, since it can't be taken back.
    hsts: Choice,
    /// X-Content-Type-Options: nosniff.
    nosniff: bool,
    /// X-Frame-Options.
    frame: Choice,
    /// Referrer-Policy.
    referrer: Choice,
    /// Content-Security-Policy: off by default, since no two sites have the same.
    csp: Choice,
    /// Permissions-Policy: off by default.
    permissions: Choice,
}

/// A text, or `false` for none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Choice {
    Text(String),
    Off(Off),
}

/// `false` alone: `true` would not say which text.
struct Off;

impl<'de> Deserialize<'de> for Off {
    fn deserialize<D: proxyhost_policy::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match bool::deserialize(deserializer)? {
            false => Ok(Self),
            true => Err(proxyhost_policy::serde::de::Error::custom("a text or false")),
        }
    }
}

impl Default for Security {
    fn default() -> Self {
        Self {
            hsts: Choice::Off(Off),
            nosniff: true,
            frame: Choice::Text("SAMEORIGIN".to_owned()),
            referrer: Choice::Text("strict-origin-when-cross-origin".to_owned()),
            csp: Choice::Off(Off),
            permissions: Choice::Off(Off),
        }
    }
}

impl Security {
    fn resolve(self) -> Vec<(String, String)> {
        let nosniff = if self.nosniff { Choice::Text("nosniff".to_owned()) } else { Choice::Off(Off) };
        let all = [
            ("strict-transport-security", self.hsts),
            ("x-content-type-options", nosniff),
            ("x-frame-options", self.frame),
            ("referrer-policy", self.referrer),
            ("content-security-policy", self.csp),
            ("permissions-policy", self.permissions),
        ];
        let written = all.into_iter().filter_map(|(name, choice)| match choice {
            Choice::Text(text) => Some((name.to_owned(), text)),
            Choice::Off(Off) => None,
        });
        written.collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    /// Patterns of paths; all by default.
    #[serde(default)]
    paths: Option<Vec<String>>,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    set: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    add: std::collections::BTreeMap<String, String>,
    /// "5m" or seconds.
    #[serde(default)]
    browser_ttl: Option<Ttl>,
    /// With `browser_ttl`: the file will never change under this name.
    #[serde(default)]
    immutable: bool,
}

/// A length of time as written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ttl {
    Seconds(u64),
    Text(String),
}

impl Ttl {
    fn seconds(&self) -> Result<u64, String> {
        let text = match self {
            Self::Seconds(seconds) => return Ok(*seconds),
            Self::Text(text) => text,
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            "y" => 31_536_000,
            _ => return Err(format!("{text:?} is not a length of time such as 90, \"5m\" or \"1y\"")),
        };
        let count: Option<u64> = if digits.starts_with('+') { None } else { digits.parse().ok() };
        let seconds = count.and_then(|count| count.checked_mul(unit));
        seconds.ok_or_else(|| format!("{text:?} is not a length of time such as 90, \"5m\" or \"1y\""))
    }
}

/// A rule as used.
struct Rule {
    paths: Option<Vec<String>>,
    remove: Vec<String>,
    set: Vec<(String, String)>,
    add: Vec<(String, String)>,
    browser_ttl: Option<BrowserTtl>,
}

struct BrowserTtl {
    seconds: u64,
    immutable: bool,
}

impl Rule {
    fn resolve(written: WrittenRule) -> Result<Self, String> {
        let browser_ttl = match written.browser_ttl {
            Some(ttl) => Some(BrowserTtl { seconds: ttl.seconds()?, immutable: written.immutable }),
            None if written.immutable => return Err("immutable stands there without browser_ttl".to_owned()),
            None => None,
        };
        for name in written.remove.iter().chain(written.set.keys()).chain(written.add.keys()) {
            check_name(name)?;
        }
        for value in written.set.values().chain(written.add.values()) {
            check_value(value)?;
        }
        Ok(Self {
            paths: written.paths,
            remove: written.remove,
            set: written.set.into_iter().collect(),
            add: written.add.into_iter().collect(),
            browser_ttl,
        })
    }

    fn fits(&self, path: &str) -> bool {
        self.paths.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| text::glob(pattern, path)))
    }

    fn apply(&self) {
        for name in &self.remove {
            response::remove_header(name);
        }
        for (name, value) in &self.set {
            response::set_header(name, value);
        }
        for (name, value) in &self.add {
            response::append_header(name, value);
        }
        if let Some(ttl) = &self.browser_ttl {
            ttl.apply();
        }
    }
}

impl BrowserTtl {
    /// Errors are left alone, and so is what the origin wants nobody to keep or only one client.
    fn apply(&self) {
        if response::status() >= 400 {
            return;
        }
        let control = response::header("cache-control").unwrap_or_default().to_ascii_lowercase();
        if control
            .split(',')
            .any(|directive| matches!(directive.split('=').next().map(str::trim), Some("no-store" | "private")))
        {
            return;
        }
        // A browser takes Age off max-age, and an entry may be older than the life meant for the browser: so that it
        // has all of it from now on, the Age goes on top (RFC 9111 section 4.2).
        let age: u64 = response::header("age").and_then(|age| age.trim().parse().ok()).unwrap_or(0);
        let immutable = if self.immutable { ", immutable" } else { "" };
        response::set_header("cache-control", &format!("max-age={}{immutable}", self.seconds.saturating_add(age)));
        response::remove_header("expires");
    }
}

/// RFC 9110 section 5.6.2, and not a field that frames the message.
fn check_name(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("{name:?} is not the name of a header"));
    }
    let framing = ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    if framing.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(format!("{name:?} belongs to the connection, not to the response"));
    }
    Ok(())
}

/// RFC 9110 section 5.5.
fn check_value(value: &str) -> Result<(), String> {
    if value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
        return Err(format!("{value:?} can't stand in a header"));
    }
    Ok(())
}

impl Policy for Headers {
    fn configure() -> Result<Self, String> {
        let written: Written = config::parsed()?;
        let security = written.security.map(Security::resolve).unwrap_or_default();
        for (name, value) in &security {
            check_value(value).map_err(|error| format!("config: security: {name}: {error}"))?;
        }
        let rules = written.rules.into_iter().enumerate();
        let rules = rules.map(|(n, rule)| Rule::resolve(rule).map_err(|error| format!("config: rules[{n}]: {error}")));
        Ok(Self { security, rules: rules.collect::<Result<_, _>>()? })
    }

    fn on_deliver(&self) -> Result<(), String> {
        for (name, value) in &self.security {
            response::set_header(name, value);
        }
        let path = request::path();
        for rule in self.rules.iter().filter(|rule| rule.fits(&path)) {
            rule.apply();
        }
        Ok(())
    }
}

proxyhost_policy::export!(Headers: on_deliver);
