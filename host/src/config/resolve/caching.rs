//! What a host says of caching, for all of its paths and by its rules.

use std::time::Duration;

use super::Resolver;
use crate::config::at::At;
use crate::config::error::quoted;
use crate::config::json::Json;
use crate::config::leaf;
use crate::origin::OriginKind;
use crate::semantics::path_pattern::PathPattern;
use crate::semantics::query_rule::{ParameterName, QueryRule, Select};
use crate::vhost::caching::{Lives, Statuses};
use crate::vhost::{CacheUse, Caching, ClientCacheControl, Rule};

/// Life of what an S3 origin says nothing about: buckets seldom say anything.
const S3_TTL: Duration = Duration::from_secs(300);
/// The same for what is not there: it spares the bucket a flood of requests for one name, and who uploads it need not wait.
const S3_ABSENT_TTL: Duration = Duration::from_secs(10);
const ABSENT: [u16; 2] = [404, 410];
/// With so many patterns of earlier rules a rule's are compared, so that a long list takes no longer than reading it.
const COMPARED: usize = 1000;

impl Resolver<'_> {
    /// What holds for all paths of a host.
    pub(super) fn caching(&mut self, host: &At<'_>, kind: Option<OriginKind>) -> Option<Caching> {
        let ttl = if kind == Some(OriginKind::S3) {
            let absent = ABSENT.map(|status| (Statuses::One(status), S3_ABSENT_TTL));
            Lives { default: Some(S3_TTL), named: absent.into() }
        } else {
            Lives::default()
        };
        self.caching_over(host, Caching { ttl, ..Caching::default() })
    }

    /// The rules of a host, each whole.
    pub(super) fn rules(&mut self, host: &At<'_>, base: &Caching) -> Option<Vec<Rule>> {
        let Some(rules) = host.given("rules") else { return Some(Vec::new()) };
        // All are looked at, so that the mistakes of all are found.
        let mut earlier: Vec<(usize, PathPattern)> = Vec::new();
        let list: Vec<Option<Rule>> = rules
            .items()
            .enumerate()
            .map(|(number, rule)| {
                let paths = self.paths(&rule, &earlier);
                let room = COMPARED.saturating_sub(earlier.len());
                earlier.extend(paths.iter().flatten().take(room).map(|path| (number, path.clone())));
                let caching = self.caching_over(&rule, base.clone());
                Some(Rule { paths: paths?, caching: caching? })
            })
            .collect();
        list.into_iter().collect()
    }

    /// The patterns of a rule. If all its paths fit patterns of `earlier` rules, each with its rule's number, it is a mistake: what
    /// it says never holds.
    fn paths(&mut self, rule: &At<'_>, earlier: &[(usize, PathPattern)]) -> Option<Vec<PathPattern>> {
        let path = rule.given("path")?;
        let written: Vec<At<'_>> = match path.json {
            Json::List(_) => path.items().collect(),
            _ => vec![path],
        };
        let paths = self.patterns(written.iter().cloned())?;
        let covered = |path: &PathPattern| {
            let examples = path.examples();
            earlier.iter().find(|(_, other)| other.covers(&examples))
        };
        // One of several that is in vain does no harm.
        let all: Option<Vec<_>> = paths.iter().map(covered).collect();
        for ((number, other), (path, at)) in all.into_iter().flatten().zip(paths.iter().zip(&written)) {
            let (path, other) = (quoted(path.as_str()), quoted(other.as_str()));
            let found = format!("{path}, all of which fits {other} of rules[{number}] already");
            let expected = "a path that the rules before it leave: of those that fit, the first counts";
            self.mistakes.add(&at.path, found, expected);
        }
        Some(paths)
    }

    /// Patterns of paths, as they are written.
    pub(super) fn patterns<'a>(&mut self, written: impl Iterator<Item = At<'a>>) -> Option<Vec<PathPattern>> {
        // All are looked at, so that the mistakes of all are found.
        let read: Vec<Option<PathPattern>> = written
            .map(|At { json, path: place, .. }| {
                let text = json.text()?;
                PathPattern::parse(text)
                    .map_err(|error| {
                        let expected = "a pattern of decoded paths such as \"/assets/*\" or \"*.jpg\"";
                        self.mistakes.add(&place, format!("{} ({error})", quoted(text)), expected);
                    })
                    .ok()
            })
            .collect();
        read.into_iter().collect()
    }

    /// What is written here over what holds without it.
    fn caching_over(&mut self, at: &At<'_>, base: Caching) -> Option<Caching> {
        let duration = |name: &str, base: Option<Duration>| match at.given(name) {
            Some(given) => leaf::duration(given.json).map(Some),
            None => Some(base),
        };
        let (ttl, in_any_case) = (self.lives(at, "ttl"), self.lives(at, "ttl_override"));
        let query = self.query(at);
        let compress = self.compress(at, base.compress.clone());
        let (window, statuses) = match at.given("stale_if_error").map(|given| given.json) {
            None => (base.stale_if_error, base.stale_statuses),
            Some(Json::Object(_)) => {
                let stale = at.object("stale_if_error");
                let window = match stale.given("for") {
                    Some(window) => Some(leaf::duration(window.json)?),
                    None => base.stale_if_error,
                };
                (window, stale.given("statuses").map(|list| counts(list.json)).or(base.stale_statuses))
            }
            Some(window) => (Some(leaf::duration(window)?), base.stale_statuses),
        };
        let caching = Caching {
            cache: match at.given("cache").and_then(|given| given.json.text()) {
                Some("off") => CacheUse::Off,
                Some(_) => CacheUse::On,
                None => base.cache,
            },
            ttl: match ttl {
                None => base.ttl,
                Some(ttl) => over(ttl?, base.ttl),
            },
            ttl_min: duration("ttl_min", base.ttl_min)?,
            ttl_max: duration("ttl_max", base.ttl_max)?,
            ttl_override: match in_any_case {
                None => base.ttl_override,
                Some(lives) => Some(lives?),
            },
            browser_ttl: duration("browser_ttl", base.browser_ttl)?,
            stale_while_revalidate: duration("stale_while_revalidate", base.stale_while_revalidate)?,
            stale_if_error: window,
            stale_statuses: statuses,
            max_object_bytes: match at.given("max_object") {
                Some(given) => Some(leaf::size(given.json)?),
                None => base.max_object_bytes,
            },
            query: match query {
                None => base.query,
                Some(query) => Some(query?),
            },
            client_cache_control: match at.given("client_cache_control").and_then(|given| given.json.text()) {
                Some("honor") => ClientCacheControl::Honor,
                Some(_) => ClientCacheControl::Ignore,
                None => base.client_cache_control,
            },
            compress: compress?,
        };
        if let (Some(least), Some(most)) = (caching.ttl_min, caching.ttl_max)
            && least > most
        {
            let name = if at.given("ttl_min").is_some() { "ttl_min" } else { "ttl_max" };
            self.mistakes.add(&at.path.key(name), "a ttl_min over ttl_max", "a ttl_min that is at most ttl_max");
            return None;
        }
        Some(caching)
    }

    /// Lives by status, if there are any; none in that where the walker or this named a mistake.
    fn lives(&mut self, at: &At<'_>, name: &str) -> Option<Option<Lives>> {
        let given = at.given(name)?;
        let Json::Object(members) = given.json else {
            return Some(leaf::duration(given.json).map(|life| Lives { default: Some(life), named: Vec::new() }));
        };
        let mut lives = Some(Lives::default());
        for (status, life) in members {
            let read = Statuses::parse(status);
            if status != "default" && read.is_none() {
                let expected = "\"default\", a status that can be kept such as \"404\", or a class such as \"5xx\"";
                self.mistakes.add(&given.path.key(status), quoted(status), expected);
                lives = None;
            }
            let Some((lives, life)) = lives.as_mut().zip(leaf::duration(life)) else { continue };
            match read {
                Some(statuses) => lives.named.push((statuses, life)),
                None => lives.default = Some(life),
            }
        }
        Some(lives)
    }

    fn query(&mut self, at: &At<'_>) -> Option<Option<QueryRule>> {
        let given = at.given("query")?;
        let rule = |select, sort| Some(Some(QueryRule { select, sort }));
        match given.json.text() {
            Some("keep") => return rule(Select::All, false),
            Some("sort") => return rule(Select::All, true),
            Some("ignore") => return rule(Select::Nothing, false),
            _ => {}
        }
        if !matches!(given.json, Json::Object(_)) {
            return Some(None);
        }
        let object = at.object("query");
        let (allow, deny) = (self.parameters(&object, "allow"), self.parameters(&object, "deny"));
        let rejects = object.text("unlisted").as_deref() == Some("reject");
        let select = match (allow, deny) {
            (Some(names), None) if rejects => Select::OnlyOrRefuse(names?),
            (Some(names), None) => Select::Only(names?),
            (None, Some(names)) if object.given("unlisted").is_none() => Select::Except(names?),
            (None, Some(_)) => {
                let expected = "allow beside it: with deny all others count";
                self.mistakes.add(&object.path.key("unlisted"), "unlisted with deny", expected);
                return Some(None);
            }
            (None, None) | (Some(_), Some(_)) => {
                let found = if object.given("allow").is_some() { "both" } else { "none of them" };
                self.mistakes.add(&object.path, found, "exactly one of allow and deny");
                return Some(None);
            }
        };
        rule(select, object.flag("sort"))
    }

    fn parameters(&mut self, query: &At<'_>, name: &str) -> Option<Option<Vec<ParameterName>>> {
        let list = query.given(name)?;
        let read: Vec<Option<ParameterName>> = list
            .items()
            .map(|item| {
                let text = item.json.text()?;
                let read = ParameterName::parse(text);
                if read.is_none() {
                    let expected = "the name of a parameter, decoded, or its beginning and a star";
                    self.mistakes.add(&item.path, quoted(text), expected);
                }
                read
            })
            .collect();
        Some(read.into_iter().collect())
    }
}

/// Lives as written over those without them: a duration is for all, and of an object what it does not name, by itself or by its class,
/// stays.
fn over(lives: Lives, base: Lives) -> Lives {
    if lives.named.is_empty() && lives.default.is_some() {
        return lives;
    }
    let Lives { default, named } = lives;
    let said = |statuses: Statuses| named.iter().any(|(written, _)| written.covers(statuses));
    let kept: Vec<_> = base.named.into_iter().filter(|(statuses, _)| !said(*statuses)).collect();
    Lives { default: default.or(base.default), named: named.into_iter().chain(kept).collect() }
}

fn counts(list: &Json) -> Vec<u16> {
    match list {
        Json::List(items) => {
            items.iter().filter_map(leaf::count).filter_map(|count| u16::try_from(count).ok()).collect()
        }
        _ => Vec::new(),
    }
}
