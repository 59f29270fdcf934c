//! A miss or a stale entry: who asks the origin, and who waits for another's answer.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, PRAGMA, RANGE};
use http::{Method, StatusCode};

use super::deliver::Deliverable;
use super::failure;
use super::fill::{Fill, asked_of, ttl_s};
use super::gap::{self, Begun};
use super::outcome::{Forward, Outcome, Word};
use super::parts;
use super::pass::head_only;
use super::steps::{Carried, Early, Hit, StaleEntry, Wanting, directives};
use crate::cache::entry::Entry;
use crate::cache::fill::{Followed, Join};
use crate::cache::key::CacheKey;

/// How often a request waits for a leader who vanishes before it asks for itself.
const MAX_JOINS: usize = 4;

/// Asks the origin for what the cache wants, alone or with others.
pub async fn fetch(wanting: Wanting) -> Early {
    let Wanting { mut carried, mut key, mut stale } = wanting;
    if carried.is_head() {
        return match stale {
            None => head_only(carried).await,
            stale => Fill { carried, key, lead: None, stale }.ask_head().await,
        };
    }
    for _ in 0..MAX_JOINS {
        let joined = {
            let asked = asked_of(&carried, &key);
            carried.proxy.cache.join_since(&asked, stale.as_ref().map(|stale| &stale.entry))
        };
        match joined {
            // On a task of its own, so that the fetch goes on when its client leaves.
            Join::Lead(lead) => return detached(Fill { carried, key, lead: Some(lead), stale }).await,
            Join::Uncoalesced => {
                // A part of what is not kept anyway is asked for as it is.
                return Fill { carried, key, lead: None, stale }.ask_for_this().await;
            }
            Join::Follow(follow) => match follow.wait().await {
                // The origin failed the leader, who may have what is stale; this request may not.
                Followed::Entry(entry) if is_unwanted(stale.as_ref(), &entry) => break,
                Followed::Entry(entry) => match followed(carried, key, entry, stale.as_ref()).await {
                    Ok(hit) => return Deliverable::entry(hit),
                    Err(Begun::Answered(early)) => return early,
                    // What the leader got is of an object that is no more.
                    Err(Begun::Changed(again)) => Wanting { carried, key, stale } = *again,
                },
                Followed::Released => break,
                Followed::Again => {}
            },
        }
    }
    // What could not be kept as a whole may be there as a part.
    if stale.is_none() {
        let wishes = directives(&carried);
        match Box::pin(parts::look_up(carried, &wishes)).await {
            Ok(hit) => return Deliverable::entry(hit),
            Err(back) => carried = back,
        }
    }
    Fill { carried, key, lead: None, stale }.ask().await
}

/// Asks again for an entry that may be served meanwhile: one refresh per key.
pub fn refresh(carried: &Carried, key: &CacheKey, entry: &Arc<Entry>) {
    let joined = carried.proxy.cache.join_since(&asked_of(carried, key), Some(entry));
    if let Join::Lead(lead) = joined {
        let stale = Some(StaleEntry { entry: Arc::clone(entry), if_error: true, why: Forward::Stale });
        let mut forked = carried.fork();
        forked.exchange.request.method = Method::GET;
        // What this client would take is not what the cache wants.
        for name in [RANGE, CACHE_CONTROL, PRAGMA] {
            forked.exchange.request.headers.remove(name);
        }
        let fill = Fill { carried: forked, key: key.clone(), lead: Some(lead), stale };
        tokio::spawn(fill.ask());
    }
}

/// Whether this is what the request had found itself, as it was, and may not be answered with.
fn is_unwanted(stale: Option<&StaleEntry>, entry: &Entry) -> bool {
    stale.is_some_and(|stale| !stale.if_error && is_as_it_was(&stale.entry, entry))
}

fn is_as_it_was(had: &Entry, entry: &Entry) -> bool {
    had.id == entry.id && had.head.timing.response_at == entry.head.timing.response_at
}

/// The leader may have fetched another part than this request wants: that part has to be of the same object.
async fn followed(
    carried: Box<Carried>,
    key: CacheKey,
    entry: Arc<Entry>,
    stale: Option<&StaleEntry>,
) -> Result<Hit, Begun> {
    let left = ttl_s(&entry.head.retention, &entry.head.timing, carried.proxy.clock.now());
    let why = stale.map_or(carried.lacking, |stale| stale.why);
    let mut outcome = Outcome { collapsed: true, stored: true, ttl_s: Some(left), ..Outcome::forwarded(why) };
    if let Some(had) = stale.map(|stale| &stale.entry).filter(|had| had.id == entry.id) {
        if is_as_it_was(had, &entry) {
            // The origin failed the leader.
            outcome = Outcome { stored: false, detail: Some("origin-error"), word: Some(Word::Stale), ..outcome };
        } else {
            outcome.forward_status = Some(StatusCode::NOT_MODIFIED);
        }
    }
    let hit = gap::begin(Hit { carried, key, entry, outcome: outcome.clone() }).await?;
    Ok(Hit { outcome, ..hit })
}

async fn detached(fill: Fill) -> Early {
    let spare = fill.carried.fork();
    match tokio::spawn(fill.ask()).await {
        Ok(early) => early,
        // A panic or a shutdown; the lead was dropped with the task.
        Err(_) => {
            let (headers, body) = failure::page(StatusCode::INTERNAL_SERVER_ERROR, "");
            Deliverable::local(spare, StatusCode::INTERNAL_SERVER_ERROR, headers, body, Outcome::local(Word::Error))
        }
    }
}
