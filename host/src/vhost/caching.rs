//! What a host says of caching, for all of its paths and for some of them.
//!
//! The rules of a host are an ordered list, and the first whose pattern fits the path counts, as in Caddy and in nginx's list of
//! regular expressions. What a rule does not say is as the host says it; that was settled when the file was read, so that a
//! request needs one look for its rule and none for what is in it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::compress::Compress;
use crate::cache::storable;
use crate::semantics::path_pattern::{Matchable, PathPattern};
use crate::semantics::query_rule::{ParameterName, QueryRule, Select};
use crate::units::duration_text;

/// Statuses of an origin's answer in whose place stale is served within a window, where nobody names others (RFC 5861
/// section 4).
pub const STALE_STATUSES: [u16; 4] = [500, 502, 503, 504];

/// What is said of caching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caching {
    /// Whether the cache has a part in it.
    pub cache: CacheUse,
    /// Life of what the origin says nothing about; without a default: a guess by its Last-Modified.
    pub ttl: Lives,
    /// Life of what the origin gives a shorter one.
    pub ttl_min: Option<Duration>,
    /// Life of what the origin gives a longer one.
    pub ttl_max: Option<Duration>,
    /// Life whatever the origin says.
    pub ttl_override: Option<Lives>,
    /// How long clients keep what they got.
    pub browser_ttl: Option<Duration>,
    /// Window where the origin names none (RFC 5861 section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// Window where the origin names none (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
    /// Statuses that count as an error for it; none: `STALE_STATUSES`.
    pub stale_statuses: Option<Vec<u16>>,
    /// The largest body that is kept, in bytes.
    pub max_object_bytes: Option<u64>,
    /// Which parameters of the query count; none: all for http origins, none for others.
    pub query: Option<QueryRule>,
    /// What a client's Cache-Control can do.
    pub client_cache_control: ClientCacheControl,
    /// What is compressed, if anything is.
    pub compress: Option<Compress>,
}

/// Whether the cache has a part in what is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheUse {
    /// It has.
    #[default]
    On,
    /// Nothing is kept, looked up or waited for.
    Off,
}

/// What becomes of the wishes that a client has for a cache (RFC 9111 sections 5.2.1 and 5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCacheControl {
    /// Only `no-store` and `only-if-cached` count: strangers must not run up what the origin costs.
    #[default]
    Ignore,
    /// All count, and go on to an http origin.
    Honor,
}

/// Lives by status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lives {
    /// For statuses that are not named.
    pub default: Option<Duration>,
    /// For those that are, in the order they were written.
    pub named: Vec<(Statuses, Duration)>,
}

/// One status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// This one.
    One(u16),
    /// All from so many hundred on, but for those that say more of the one who asks than of what is asked for: 401, 403, 407.
    Class(u16),
}

impl Statuses {
    /// Reads `404` or `4xx`. None for what is no final status, and for those that are kept in no case.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(class) = text.strip_suffix("xx") {
            return class.parse().ok().filter(|class| (2..=5).contains(class) && text.len() == 3).map(Self::Class);
        }
        let plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let status = text.parse().ok().filter(|status| plain && (200..=599).contains(status))?;
        (!storable::is_never_kept(status)).then_some(Self::One(status))
    }

    /// Whether what is said of these is said of all of those.
    pub fn covers(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Class(class), Self::One(status)) if class == status / 100)
    }

    fn written(self) -> String {
        match self {
            Self::One(status) => status.to_string(),
            Self::Class(class) => format!("{class}xx"),
        }
    }
}

impl Lives {
    /// The life of a status that is named, itself before its class.
    pub fn of_named(&self, status: u16) -> Option<Duration> {
        let of = |wanted: Statuses| self.named.iter().find(|(named, _)| *named == wanted).map(|(_, life)| *life);
        let in_class = !matches!(status, 401 | 403 | 407);
        of(Statuses::One(status)).or_else(|| of(Statuses::Class(status / 100)).filter(|_| in_class))
    }

    fn show(&self) -> Option<Value> {
        if self.named.is_empty() {
            return self.default.map(|life| duration_text(life).into());
        }
        let default = self.default.map(|life| ("default".to_owned(), duration_text(life).into()));
        let named = self.named.iter().map(|(statuses, life)| (statuses.written(), duration_text(*life).into()));
        Some(default.into_iter().chain(named).collect::<Map<_, _>>().into())
    }
}

/// Caching for some paths of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which.
    pub paths: Vec<PathPattern>,
    /// What holds for them, whole.
    pub caching: Caching,
}

impl Rule {
    /// Which paths it is for, as written.
    pub fn show_paths(&self) -> Value {
        match self.paths.as_slice() {
            [one] => one.as_str().into(),
            many => many.iter().map(PathPattern::as_str).collect(),
        }
    }

    /// In the words of hosts.json, with what it has of the host.
    pub fn show(&self) -> Value {
        let mut shown = Map::from_iter([("path".to_owned(), self.show_paths())]);
        shown.extend(self.caching.show());
        shown.into()
    }
}

/// The first rule that fits a decoded path, by its place in the list.
pub fn rule_for(rules: &[Rule], path: &str) -> Option<usize> {
    if rules.is_empty() {
        return None;
    }
    let path = Matchable::of(path);
    rules.iter().position(|rule| rule.paths.iter().any(|pattern| pattern.matches(&path)))
}

impl Caching {
    /// The life that counts whatever the origin says. Errors have one where they are named: it is the life of what is there.
    pub fn life_in_any_case(&self, status: u16) -> Option<Duration> {
        let lives = self.ttl_override.as_ref()?;
        let by_default = status < 400 && storable::is_cacheable_by_default(status);
        lives.of_named(status).or(lives.default.filter(|_| by_default))
    }

    /// Whether stale is better than an answer of this status, within its window.
    pub fn is_error(&self, status: u16) -> bool {
        self.stale_statuses.as_deref().unwrap_or(&STALE_STATUSES).contains(&status)
    }

    /// In the words of hosts.json.
    pub fn show(&self) -> Map<String, Value> {
        let durations = [
            ("ttl_min", self.ttl_min),
            ("ttl_max", self.ttl_max),
            ("browser_ttl", self.browser_ttl),
            ("stale_while_revalidate", self.stale_while_revalidate),
        ];
        let stale_if_error = match &self.stale_statuses {
            None => self.stale_if_error.map(|window| duration_text(window).into()),
            Some(statuses) => {
                let mut shown = json!({ "statuses": statuses });
                if let Some(window) = self.stale_if_error {
                    shown["for"] = duration_text(window).into();
                }
                Some(shown)
            }
        };
        let others = [
            ("ttl", self.ttl.show()),
            ("ttl_override", self.ttl_override.as_ref().and_then(Lives::show)),
            ("stale_if_error", stale_if_error),
            ("max_object", self.max_object_bytes.map(Value::from)),
            ("query", self.query.as_ref().map(show_query)),
            ("cache", (self.cache == CacheUse::Off).then(|| "off".into())),
            // Said in any case: a rule may be without what the host has.
            ("compress", Some(self.compress.as_ref().map_or(false.into(), Compress::show))),
        ];
        let client = match self.client_cache_control {
            ClientCacheControl::Ignore => "ignore",
            ClientCacheControl::Honor => "honor",
        };
        durations
            .into_iter()
            .filter_map(|(name, duration)| Some((name, duration_text(duration?).into())))
            .chain(others.into_iter().filter_map(|(name, value)| Some((name, value?))))
            .chain([("client_cache_control", client.into())])
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

fn show_query(rule: &QueryRule) -> Value {
    let names = |names: &[ParameterName]| names.iter().map(ParameterName::written).collect::<Value>();
    let mut shown = match &rule.select {
        Select::All => return if rule.sort { "sort" } else { "keep" }.into(),
        Select::Nothing => return "ignore".into(),
        Select::Only(list) => json!({ "allow": names(list) }),
        Select::OnlyOrRefuse(list) => json!({ "allow": names(list), "unlisted": "reject" }),
        Select::Except(list) => json!({ "deny": names(list) }),
    };
    if rule.sort {
        shown["sort"] = true.into();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lives(default: Option<u64>, named: &[(&str, u64)]) -> Lives {
        let named = named.iter().map(|(text, seconds)| (Statuses::parse(text).expect("a status"), secs(*seconds)));
        Lives { default: default.map(secs), named: named.collect() }
    }

    #[test]
    fn a_status_counts_before_its_class() {
        let lives = lives(Some(60), &[("4xx", 10), ("404", 5), ("5xx", 1), ("301", 600)]);
        for (status, life) in
            [(404, Some(5)), (410, Some(10)), (500, Some(1)), (301, Some(600)), (302, None), (200, None)]
        {
            assert_eq!(lives.of_named(status), life.map(secs), "{status}");
        }
    }

    #[test]
    fn a_class_does_not_have_what_is_about_who_asks() {
        let class = lives(None, &[("4xx", 10)]);
        for status in [401, 403, 407] {
            assert_eq!(class.of_named(status), None, "{status}");
        }
        assert_eq!(lives(None, &[("403", 10)]).of_named(403), Some(secs(10)));
    }

    #[test]
    fn only_what_may_be_kept_has_a_name() {
        for bad in [
            "", "xx", "1xx", "6xx", "04xx", "4XX", "100", "600", "99", "0404", "+404", "206", "304", "407", "412",
            "416",
        ] {
            assert_eq!(Statuses::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_override_counts_for_errors_by_name_only() {
        let caching = Caching { ttl_override: Some(lives(Some(60), &[("404", 5)])), ..Caching::default() };
        for (status, life) in
            [(200, Some(60)), (301, Some(60)), (302, None), (404, Some(5)), (410, None), (403, None), (500, None)]
        {
            assert_eq!(caching.life_in_any_case(status), life.map(secs), "{status}");
        }
        assert_eq!(Caching::default().life_in_any_case(200), None);
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |patterns: &[&str]| Rule {
            paths: patterns.iter().map(|text| PathPattern::parse(text).expect("a pattern")).collect(),
            caching: Caching::default(),
        };
        let rules = [rule(&["/a/b", "*.jpg"]), rule(&["/a/*"]), rule(&["/a/b"])];
        for (path, place) in [("/a/b", Some(0)), ("/a/x.jpg", Some(0)), ("/a/c", Some(1)), ("/b", None)] {
            assert_eq!(rule_for(&rules, path), place, "{path}");
        }
        assert_eq!(rule_for(&[], "/a"), None);
    }
}
