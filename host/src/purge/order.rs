//! What somebody asks to have purged, by `POST /purge`, by a request with a host's purge method or on the command line, and how it is
//! carried out.

use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::cache::Cache;
use crate::cache::error::CacheError;
use crate::cache::purges::{PurgeMode, PurgeScope, PurgeSequence};
use crate::cache::survey::Count;
use crate::clock::Clock;

/// Things purged by one request: more come in several.
pub const SCOPES_MOST: usize = 10_000;
/// Of them patterns: what can wait to be applied.
pub const GLOBS_MOST: usize = 256;
/// Time for counting what paths hit, before they are purged.
const COUNTING_PATHS: Duration = Duration::from_secs(5);
/// Time for counting in a dry run, which may read all of the index.
const COUNTING_DRY: Duration = Duration::from_secs(10);
/// Where a folder's page is kept too, or instead.
const INDEX: &str = "index.html";

/// What becomes of what is purged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is gone.
    #[default]
    Hard,
    /// It is stale.
    Soft,
    /// It is stale, and asked for again at once.
    Refresh,
}

/// A purge as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// What; at least one and at most `SCOPES_MOST`.
    pub scopes: Vec<PurgeScope>,
    /// How.
    pub action: Action,
    /// Only tell what would be hit.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The purge's number, or in a dry run that of the newest.
    pub sequence: PurgeSequence,
    /// What is hit on disk: of each scope in a dry run; of all together where only paths are purged; else nothing is counted.
    pub counts: Vec<Count>,
    /// Hosts that are named and not served here: a slip of the pen, or hosts that were.
    pub unknown: Vec<String>,
}

impl Order {
    /// Of these, gone.
    pub fn hard(scopes: Vec<PurgeScope>) -> Self {
        Self { scopes, ..Self::default() }
    }

    /// Carries it out: in force when this returns, or counted.
    pub async fn carry_out(&self, cache: &Cache, clock: &Clock) -> Result<Done, CacheError> {
        if self.dry_run {
            let deadline = Instant::now() + COUNTING_DRY;
            let mut counts = Vec::with_capacity(self.scopes.len());
            for scope in &self.scopes {
                counts.push(count(cache, scope, deadline).await);
            }
            return Ok(Done { sequence: cache.sequence(), counts, unknown: Vec::new() });
        }
        let only_paths = self.scopes.iter().all(|scope| matches!(scope, PurgeScope::Path { .. }));
        let mut counts = Vec::new();
        if only_paths {
            let deadline = Instant::now() + COUNTING_PATHS;
            let mut all = Count { entries: 0, complete: true };
            for scope in &self.scopes {
                let of_scope = count(cache, scope, deadline).await;
                all.entries += of_scope.entries;
                all.complete &= of_scope.complete;
            }
            counts.push(all);
        }
        let sequence = self.carry_out_uncounted(cache, clock).await?;
        Ok(Done { sequence, counts, unknown: Vec::new() })
    }

    /// The same without a count, which takes time: in force when this returns.
    pub async fn carry_out_uncounted(&self, cache: &Cache, clock: &Clock) -> Result<PurgeSequence, CacheError> {
        let mode = match self.action {
            Action::Hard => PurgeMode::Hard,
            Action::Soft | Action::Refresh => PurgeMode::soft(clock.now()),
        };
        let scopes = self.scopes.iter().flat_map(|scope| std::iter::once(scope.clone()).chain(alias(scope))).collect();
        cache.purge_all(scopes, mode).await
    }
}

impl Done {
    /// The answer to whoever asked.
    pub fn json(&self, order: &Order) -> Value {
        let mut answer = json!({ "sequence": self.sequence, "mode": order.action });
        if let [first, rest @ ..] = self.counts.as_slice() {
            let all = rest.iter().fold(*first, |all, count| Count {
                entries: all.entries + count.entries,
                complete: all.complete && count.complete,
            });
            answer["entries"] = all.entries.into();
            answer["complete"] = all.complete.into();
        }
        if order.dry_run {
            let of_scope = |(scope, count): (&PurgeScope, &Count)| json!({ "scope": scope, "entries": count.entries, "complete": count.complete });
            answer["dry_run"] = true.into();
            answer["purged"] = 0.into();
            answer["scopes"] = order.scopes.iter().zip(&self.counts).map(of_scope).collect();
        } else {
            answer["purged"] = order.scopes.len().into();
        }
        if !self.unknown.is_empty() {
            answer["unknown_hosts"] = self.unknown.iter().map(String::as_str).collect();
        }
        answer
    }
}

async fn count(cache: &Cache, scope: &PurgeScope, deadline: Instant) -> Count {
    if Instant::now() >= deadline {
        return Count::default();
    }
    let mut all = cache.count(scope, deadline).await;
    if let Some(alias) = alias(scope) {
        let more = cache.count(&alias, deadline).await;
        all.entries += more.entries;
        all.complete &= more.complete;
    }
    all
}

/// The other path under which a page is kept: `/a/` and `/a/index.html` are one.
pub fn alias(scope: &PurgeScope) -> Option<PurgeScope> {
    let PurgeScope::Path { host, path } = scope else { return None };
    let other = match path.strip_suffix(INDEX) {
        Some(folder) if folder.ends_with('/') => folder.to_owned(),
        _ if path.ends_with('/') => format!("{path}{INDEX}"),
        _ => return None,
    };
    Some(PurgeScope::Path { host: host.clone(), path: other })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_its_index_are_one() {
        let of = |path: &str| {
            let scope = PurgeScope::Path { host: "a".into(), path: path.into() };
            alias(&scope).map(|alias| match alias {
                PurgeScope::Path { path, .. } => path,
                other => format!("{other:?}"),
            })
        };
        assert_eq!(of("/").as_deref(), Some("/index.html"));
        assert_eq!(of("/a/index.html").as_deref(), Some("/a/"));
        assert_eq!(of("/a/").as_deref(), Some("/a/index.html"));
        assert_eq!((of("/a"), of("/aindex.html")), (None, None));
        assert_eq!(alias(&PurgeScope::All), None);
    }
}
