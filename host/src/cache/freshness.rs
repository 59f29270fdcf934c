//! How old, how fresh, and what may be served stale (RFC 9111 section 4.2, RFC 5861). Pure.
//!
//! Windows are half open: a response that lives for 60 seconds is fresh at an age of 59.999 and stale at 60, and a window
//! of 30 behind it is over at 90.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, DATE};

use super::control::RequestDirectives;
use crate::clock::Timestamp;
use crate::semantics::{date, list};

/// How long a stale response is served when the origin fails and nobody said anything about it: a site outlives a day's
/// outage, and no longer, so that nobody finds last year's page by accident.
pub const DEFAULT_STALE_IF_ERROR: Duration = Duration::from_secs(24 * 60 * 60);

/// A response that came later than now was kept before the clock went back: how old it is nobody can tell. So small a step is none:
/// clocks are set right all the time.
const CLOCK_STEP: Duration = Duration::from_secs(10);

/// What counts for an Age that is too large (section 1.2.2).
const MAX_AGE_SECONDS: u64 = 1 << 31;

/// What was decided about an entry's life when it was kept or freshened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Freshness lifetime; zero: revalidate at each use.
    pub lifetime: Duration,
    /// `no-cache`: revalidate at each use, never stale.
    pub no_cache: bool,
    /// must-revalidate, proxy-revalidate or s-maxage: never stale.
    pub must_revalidate: bool,
    /// s-maxage was given: no client's `max-stale` reaches past it (RFC 9111 section 5.2.2.10), whatever windows are named.
    pub s_maxage: bool,
    /// RFC 5861.
    pub stale_while_revalidate: Option<Duration>,
    /// RFC 5861; none: a day when the origin cannot be reached.
    pub stale_if_error: Option<Duration>,
}

/// When a response was asked for and came, and how old it was then (section 4.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// When the request went out.
    pub request_at: Timestamp,
    /// When the head came in.
    pub response_at: Timestamp,
    /// corrected_initial_age.
    pub initial_age: Duration,
}

impl Timing {
    /// Computes corrected_initial_age from Age and Date.
    pub fn of(response: &HeaderMap, request_at: Timestamp, response_at: Timestamp) -> Self {
        // Date has whole seconds, so the present is cut to them too: else most responses would be born half a second old.
        let apparent = date::of(response, &DATE).map_or(0, |made| response_at.as_secs().saturating_sub(made.as_secs()));
        let corrected = Duration::from_secs(age_value(response)).saturating_add(response_at.since(request_at));
        Self { request_at, response_at, initial_age: corrected.max(Duration::from_secs(apparent)) }
    }

    /// Whether the clock went back since the response came.
    pub fn is_ahead_of(&self, now: Timestamp) -> bool {
        self.response_at.since(now) > CLOCK_STEP
    }

    /// current_age.
    pub fn age(&self, now: Timestamp) -> Duration {
        self.initial_age.saturating_add(now.since(self.response_at))
    }
}

/// The Age field: the first value where there are several, nothing where it is no number (section 5.1). Empty members of a list
/// are none (RFC 9110 section 5.6.1.2).
fn age_value(response: &HeaderMap) -> u64 {
    let Some(first) = list::of(response, &AGE).next() else { return 0 };
    if !first.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    std::str::from_utf8(first)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(MAX_AGE_SECONDS)
        .min(MAX_AGE_SECONDS)
}

/// Whether an entry may be used as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As it is, for this long more.
    Fresh(Duration),
    /// Fresh, but the client asked for better: not without asking.
    Unwanted {
        /// It may be served if the origin fails.
        if_error: bool,
    },
    /// Stale for so long, and the client takes it so.
    Accepted {
        /// For how long.
        since: Duration,
    },
    /// Not without asking; it has been stale for this long.
    Stale {
        /// For how long.
        since: Duration,
        /// It may be served now while it is fetched again.
        while_revalidate: bool,
        /// It may be served if the origin fails.
        if_error: bool,
    },
}

/// Decides for one request. `max_age` is the policy's cap: an entry for which the origin was last asked longer ago than that
/// counts as missing, and may not be served stale either. It is measured by our own clock from when we asked, not by Age,
/// since asking again would not make what another cache gave us any younger. `request` has those of the client's directives that
/// the host honours; `only-if-cached` and `no-store` are for the caller.
pub fn decide(
    retention: &Retention,
    timing: &Timing,
    request: &RequestDirectives,
    max_age: Option<Duration>,
    now: Timestamp,
) -> Freshness {
    // Of unknown age counts as just stale.
    let age = if timing.is_ahead_of(now) { retention.lifetime } else { timing.age(now) };
    let since = age.saturating_sub(retention.lifetime);
    let cap_left = match max_age {
        None => Duration::MAX,
        Some(cap) => match cap.checked_sub(now.since(timing.request_at)) {
            Some(left) => left,
            None => return Freshness::Stale { since, while_revalidate: false, if_error: false },
        },
    };
    if !retention.no_cache && age < retention.lifetime {
        let left = retention.lifetime - age;
        if request.refuse_fresh(age, left) {
            // It is fresh: rather that than an error, unless the client wants nothing unchecked.
            return Freshness::Unwanted { if_error: !request.no_cache };
        }
        return Freshness::Fresh(left.min(cap_left));
    }
    let may_be_stale = !retention.no_cache && !retention.must_revalidate;
    let within = |window: Duration| may_be_stale && since < window;
    // The client's own window is shorter than the origin's, or stands where the origin named none: never past the origin's word.
    let if_error = match (retention.stale_if_error, request.stale_if_error) {
        (Some(origin), Some(client)) => origin.min(client),
        (origin, client) => origin.or(client).unwrap_or(DEFAULT_STALE_IF_ERROR),
    };
    let refused = request.refuse_stale(age, since);
    let while_revalidate = !refused && within(retention.stale_while_revalidate.unwrap_or_default());
    if may_be_stale && !retention.s_maxage && !refused && !while_revalidate && request.max_stale.is_some() {
        return Freshness::Accepted { since };
    }
    Freshness::Stale { since, while_revalidate, if_error: !request.no_cache && within(if_error) }
}

#[cfg(test)]
mod tests;
