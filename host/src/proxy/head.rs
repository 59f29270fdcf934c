//! HEAD for which something is kept that may not be used as it is: asked as HEAD, since all that the client wants is a head.
//!
//! What comes back updates what is kept, or tells that it is no longer true (RFC 9111 section 4.3.5). Nobody waits for it: a
//! GET that comes meanwhile wants the body too.

use http::{Method, StatusCode};

use super::ask::{Answer, Ask};
use super::decide;
use super::fill::{Come, Fill};
use super::outcome::{Forward, Outcome};
use super::pass::{Judged, judge, passed_on};
use super::steps::Early;
use crate::cache::validation;
use crate::policy::Phase;
use crate::semantics::date;

impl Fill {
    /// Asks for the head, and gives the answer.
    pub async fn ask_head(mut self) -> Early {
        let sequence = self.carried.proxy.cache.sequence();
        self.carried.exchange.response = None;
        if self.carried.policies.exports(Phase::OnOriginRequest) {
            self.carried = match decide::run(self.carried, Phase::OnOriginRequest).await {
                Ok(carried) => carried,
                Err(early) => return early,
            };
        }
        let ask = Ask::of(&self.carried, true);
        let mut conditions = self.stale.as_ref().and_then(|stale| {
            let fields = validation::conditions(stale.entry.head.as_sent().1)?;
            Some((fields, stale.entry.head.origin_path.clone()))
        });
        loop {
            let request_at = self.carried.proxy.clock.now();
            let for_path = |path: &str| {
                let (fields, of) = conditions.as_ref()?;
                of.as_deref().is_none_or(|of| of == path).then(|| fields.clone())
            };
            let Answer { mut response, path } = match ask.send(&Method::HEAD, None, for_path).await {
                Ok(answer) => answer,
                Err(error) => return self.origin_failed(&error),
            };
            let response_at = self.carried.proxy.clock.now();
            date::ensure_date(&mut response.headers, response_at);
            let come = Come { response, path, request_at, response_at, sequence };
            let (status, headers) = (come.response.status, &come.response.headers);
            let Some(stale) = &self.stale else { return self.pass_on(come).await };
            let stored = stale.entry.head.as_sent().1;
            match status {
                StatusCode::NOT_MODIFIED if validation::selects(stored, headers) => {
                    return self.still_good(come).await;
                }
                // It speaks of another response than ours.
                StatusCode::NOT_MODIFIED if conditions.is_some() => conditions = None,
                StatusCode::OK => match validation::agrees(stored, stale.entry.head.size, headers) {
                    Some(true) => return self.still_good(come).await,
                    // Stale is what it is already, and the next GET asks anew.
                    None if stale.why == Forward::Stale => return self.pass_on(come).await,
                    Some(false) | None => return self.no_longer_true(come).await,
                },
                status if self.stale_for(status) => return self.serve_stale("origin-error", Some(status)),
                StatusCode::NOT_FOUND | StatusCode::GONE => return self.no_longer_true(come).await,
                // Origins refuse HEAD that do not refuse GET.
                _ => return self.pass_on(come).await,
            }
        }
    }

    async fn no_longer_true(self, come: Come) -> Early {
        if let Some(stale) = &self.stale {
            self.carried.proxy.cache.remove(&stale.entry);
        }
        self.pass_on(come).await
    }

    async fn pass_on(self, come: Come) -> Early {
        let why = self.stale.as_ref().map_or(self.carried.lacking, |stale| stale.why);
        let Come { response, path, .. } = come;
        let outcome = Outcome { forward_status: Some(response.status), ..Outcome::forwarded(why) };
        match judge(self.carried, response, &path, outcome.word()).await {
            Ok(Judged { carried, response, .. }) => passed_on(carried, response, path, outcome, true),
            Err(early) => early,
        }
    }
}
