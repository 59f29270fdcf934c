//! One listing of a mirrored host, page by page: each object is seen to be kept in the version that is listed, and what is kept
//! between the first and the last path of a page without being listed is gone.
//!
//! The ETag and the time of the last change tell versions apart. An object that has both as they were needs no request: that it is
//! listed so is what a 304 would say, and what is kept of it is fresh again. So what the origin is asked for is the list, and what
//! has changed. Pages that a policy made of other paths (an index document, `use-origin` not among them) are asked about one by one.

use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, StatusCode, header};
use rustc_hash::FxHasher;

use super::super::Proxy;
use super::super::compression::is_key_of_form;
use super::super::parts::is_key_of_part;
use super::super::warm::{self, Expected, NotKept, path_of};
use super::{Mirror, SHARE_PERCENT, name_of};
use crate::cache::purges::{PurgeMode, PurgeScope};
use crate::clock::Timestamp;
use crate::origin::{Listed, ListingPlace, OriginRequest};
use crate::semantics::target;
use crate::vhost::VirtualHost;
use crate::warm::Wanted;

/// Pages made of other paths that are asked about in one round.
const ELSEWHERE_MOST: usize = 10_000;

/// A page that was made of another path.
struct Page {
    /// Of what it was made.
    etag: Option<String>,
    /// As clients ask for it.
    path: String,
}

/// Pages without anything of use, one after the other, that are read of a list.
const EMPTY_PAGES_MOST: u32 = 1000;

/// What is counted while it goes on.
#[derive(Default)]
struct Sums {
    objects: u64,
    bytes: u64,
    /// Of those that are to be kept.
    wanted_bytes: u64,
    failed: u64,
    left_out: u64,
    /// Bytes for which there was no room.
    too_much: u64,
    first_failure: Option<String>,
}

pub(super) async fn round(proxy: &Arc<Proxy>, host: &Arc<VirtualHost>, mirror: &Mirror) -> Result<(), String> {
    let (Some(name), Some(settings)) = (name_of(host), host.settings.mirror) else { return Ok(()) };
    let began = proxy.clock.now();
    mirror.status.lock().listing = true;
    // What would go stale before the next listing is over.
    let min_fresh = settings.interval.saturating_mul(2);
    let for_all = (proxy.cache.stats().disk_budget_bytes / 100 * SHARE_PERCENT)
        .saturating_sub(proxy.mirrors.bytes_of_others(name));
    let own = host.settings.cache_disk_bytes.map(|bytes| bytes / 100 * SHARE_PERCENT);
    let room = own.map_or(for_all, |own| own.min(for_all));
    let mut empty_pages = 0;
    let mut sums = Sums::default();
    let mut elsewhere = BTreeMap::new();
    let mut last: Option<String> = None;
    let mut next = Some(ListingPlace::Start { prefix: target::join_prefix(&host.settings.prefix, "/") });
    while let Some(place) = next {
        let is_still_mirrored = proxy.generation().hosts().iter().any(|now| {
            name_of(now) == Some(name) && now.settings.mirror.is_some() && now.settings.origin == host.settings.origin
        });
        if !is_still_mirrored {
            return Ok(());
        }
        let (sequence, at) = (proxy.cache.sequence(), proxy.clock.now());
        let page = host.origin.list(place, false).await.map_err(|error| format!("the listing breaks off: {error}"))?;
        sums.left_out += page.left_out;
        let mut listed: Vec<(String, Listed)> = Vec::with_capacity(page.listed.len());
        let mut markers = Vec::new();
        for one in page.listed {
            let Some(path) = path_of(&host.settings.prefix, &one.path, one.size) else {
                // It stands for a folder. Nobody need have it, but it is there.
                markers.extend(path_of(&host.settings.prefix, &one.path, 1).map(str::to_owned));
                continue;
            };
            let before = listed.last().map(|(path, _)| path.as_str()).or(last.as_deref());
            if before.is_some_and(|before| before >= path) {
                return Err("the listing is not in the order of its keys: nothing can be held against it".to_owned());
            }
            listed.push((path.to_owned(), one));
        }
        sums.objects += listed.len() as u64;
        let mut wanted = Vec::with_capacity(listed.len());
        for (path, one) in &listed {
            sums.bytes = sums.bytes.saturating_add(one.size);
            if target::check_path(path).is_err() || mirror.is_unkept(version_of(path, one)) {
                sums.left_out += 1;
            } else if one.size > room.saturating_sub(sums.wanted_bytes) {
                // What is smaller may fit.
                sums.left_out += 1;
                sums.too_much = sums.too_much.saturating_add(one.size);
            } else {
                sums.wanted_bytes += one.size;
                wanted.push((path.clone(), one.clone()));
            }
        }
        let (host_name, sums_of_page) = (name, &mut sums);
        let mut kept = stream::iter(wanted)
            .map(|(path, one)| async move {
                let expected = Expected { etag: one.etag.clone(), modified: one.modified, at, sequence };
                let outcome = keep(proxy, host_name, &path, &expected, min_fresh).await;
                (path, one, outcome)
            })
            .buffer_unordered(settings.jobs);
        while let Some((path, one, outcome)) = kept.next().await {
            match outcome {
                Ok(fetched) => {
                    if fetched {
                        proxy.metrics.warmed.inc();
                        mirror.status.lock().fetched += 1;
                    }
                }
                Err(NotKept { why, lasting }) => {
                    proxy.metrics.not_warmed.inc();
                    if lasting {
                        mirror.note_unkept(version_of(&path, &one));
                        sums_of_page.left_out += 1;
                        sums_of_page.wanted_bytes -= one.size;
                    } else {
                        sums_of_page.failed += 1;
                        sums_of_page.first_failure.get_or_insert(format!("{path}: {why}"));
                    }
                }
            }
        }
        drop(kept);
        let end = page.next.as_ref().and(listed.last().map(|(path, _)| path.clone()));
        if page.next.is_some() && end.is_none() {
            // A page of nothing that is of use: the next one has the range.
            next = page.next;
            empty_pages += 1;
            if empty_pages > EMPTY_PAGES_MOST {
                return Err("the listing goes on and on without an object".to_owned());
            }
            continue;
        }
        empty_pages = 0;
        let is_empty = sums.objects == 0 && page.next.is_none();
        let stretch = Stretch {
            after: last.as_deref(),
            to: end.as_deref(),
            listed: listed.iter().map(|(path, _)| path).chain(&markers).map(String::as_str).collect(),
            is_empty,
            at,
        };
        remove_gone(proxy, name, stretch, &mut elsewhere, mirror).await?;
        tell(mirror, &sums);
        last = end;
        next = page.next;
    }
    ask_about(proxy, host, name, elsewhere, mirror).await?;
    // What only memory has is in no stretch; its next use asks.
    purge(
        proxy,
        name,
        proxy.cache.paths_in_memory_alone(name, began).await,
        PurgeMode::soft(proxy.clock.now()),
        mirror,
    )
    .await?;
    tell(mirror, &sums);
    mirror.status.lock().listed_at = Some(began.as_secs());
    match sums {
        Sums { too_much: 1.., .. } => Err(format!(
            "{} bytes are left out: they do not fit into {SHARE_PERCENT} % of the disk budget",
            sums.too_much
        )),
        Sums { failed: failed @ 1.., first_failure, .. } => {
            Err(format!("{failed} could not be fetched: {}", first_failure.unwrap_or_default()))
        }
        _ => Ok(()),
    }
}

fn tell(mirror: &Mirror, sums: &Sums) {
    let mut status = mirror.status.lock();
    (status.objects, status.bytes) = (sums.objects, sums.bytes);
    (status.failed, status.left_out) = (sums.failed, sums.left_out);
    drop(status);
    mirror.state.lock().wanted_bytes = sums.wanted_bytes;
}

/// Sees to one object. Whether it was fetched.
async fn keep(
    proxy: &Arc<Proxy>,
    name: &str,
    path: &str,
    expected: &Expected,
    min_fresh: Duration,
) -> Result<bool, NotKept> {
    let wanted = Wanted { scheme: None, authority: name.to_owned(), target: target::encode_path(path) };
    let kept = warm::one(proxy, &wanted, &HeaderMap::new(), min_fresh, Some(expected)).await?;
    Ok(kept.fetched)
}

fn version_of(path: &str, listed: &Listed) -> u64 {
    let mut hasher = FxHasher::default();
    (path, &listed.etag, listed.modified, listed.size).hash(&mut hasher);
    hasher.finish()
}

/// The part of a host's paths that one page of its listing tells of.
struct Stretch<'a> {
    /// It begins behind this path, or at the first.
    after: Option<&'a str>,
    /// It ends with this one, or with the last.
    to: Option<&'a str>,
    listed: HashSet<&'a str>,
    /// The whole listing has nothing.
    is_empty: bool,
    /// When the page was asked for.
    at: Timestamp,
}

/// Removes what is kept of a stretch and not listed; what is kept of other paths is noted.
async fn remove_gone(
    proxy: &Arc<Proxy>,
    name: &str,
    stretch: Stretch<'_>,
    elsewhere: &mut BTreeMap<String, Page>,
    mirror: &Mirror,
) -> Result<(), String> {
    let mut survey = proxy.cache.survey_paths(name, stretch.after, stretch.to);
    while let Some(page) = survey.next().await {
        let mut gone: Vec<String> = Vec::new();
        for kept in page {
            let is_other = kept.key.parts().any(|(name, _)| name == ":other");
            // What came after the listing was asked for is newer than what it says.
            if is_other || kept.status >= 400 || kept.response_at >= stretch.at {
                continue;
            }
            if is_key_of_form(&kept.key) || is_key_of_part(&kept.key) {
                continue;
            }
            let path = kept.key.path_text().into_owned();
            if let Some(origin_path) = kept.origin_path.as_deref().filter(|origin_path| *origin_path != path) {
                // Of more pages than are asked about each has its life.
                if elsewhere.len() < ELSEWHERE_MOST {
                    let page = Page { etag: kept.etag, path: kept.request_path };
                    elsewhere.insert(origin_path.to_owned(), page);
                }
            } else if !stretch.listed.contains(path.as_str()) && gone.last() != Some(&path) {
                gone.push(path);
            }
        }
        if stretch.is_empty && !gone.is_empty() {
            return Err("the listing is empty: what is kept stays, purge the host if that is meant".to_owned());
        }
        purge(proxy, name, gone, PurgeMode::Hard, mirror).await?;
    }
    Ok(())
}

/// Pages that were made of other paths: whether those are still what they were.
async fn ask_about(
    proxy: &Arc<Proxy>,
    host: &VirtualHost,
    name: &str,
    elsewhere: BTreeMap<String, Page>,
    mirror: &Mirror,
) -> Result<(), String> {
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    let mut again = Vec::new();
    for (path, page) in elsewhere {
        let request = OriginRequest {
            method: Method::HEAD,
            path: target::join_prefix(&host.settings.prefix, &path),
            query: None,
            headers: HeaderMap::new(),
            authority: name.to_owned(),
            body: None,
            retry: false,
            interim: None,
            upgrade: false,
        };
        match host.origin.fetch(request).await {
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => gone.push(path),
            Ok(answer) if answer.status.is_success() => {
                let now = answer.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
                if now != page.etag.as_deref() {
                    changed.push(path);
                    again.push(page.path);
                }
            }
            // Nothing is known: what is kept stays for its life.
            Ok(_) | Err(_) => {}
        }
    }
    purge(proxy, name, changed, PurgeMode::soft(proxy.clock.now()), mirror).await?;
    purge(proxy, name, gone, PurgeMode::Hard, mirror).await?;
    for path in again {
        let wanted = Wanted { scheme: None, authority: name.to_owned(), target: target::encode_path(&path) };
        // Else it is fetched when somebody asks.
        if warm::one(proxy, &wanted, &HeaderMap::new(), Duration::ZERO, None).await.is_ok() {
            mirror.status.lock().fetched += 1;
        }
    }
    Ok(())
}

async fn purge(
    proxy: &Arc<Proxy>,
    name: &str,
    paths: Vec<String>,
    mode: PurgeMode,
    mirror: &Mirror,
) -> Result<(), String> {
    if paths.is_empty() {
        return Ok(());
    }
    let count = paths.len() as u64;
    let scopes = paths.into_iter().map(|path| PurgeScope::Path { host: name.to_owned(), path }).collect();
    proxy.cache.purge_all(scopes, mode).await.map_err(|error| format!("what is gone cannot be purged: {error}"))?;
    if mode == PurgeMode::Hard {
        mirror.status.lock().purged += count;
    }
    Ok(())
}
