//! The steps of a request in their order, as types: each takes the previous step's value.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version};

use super::body::Logged;
use super::decide;
use super::deliver::{self, Deliverable};
use super::door::{self, Door};
use super::fetch;
use super::gap::{self, Begun};
use super::outcome::{Forward, Outcome, Word};
use super::request::{self, Brought};
use super::site::{Generation, Site};
use super::websocket::{self, Wanted};
use super::{Body, Peer, Proxy, compression, failure, parts, pass};
use crate::cache::control::RequestDirectives;
use crate::cache::entry::{Entry, EntryBody};
use crate::cache::freshness::{self, Freshness};
use crate::cache::key::CacheKey;
use crate::cache::{Absent, Asked};
use crate::local::Local;
use crate::policy::{ChainLease, Exchange};
use crate::semantics::content_coding::Accepted;
use crate::semantics::interest::Interest;
use crate::semantics::interim::Interim;
use crate::vhost::{CacheUse, Caching, ClientCacheControl, Methods};

/// What is carried along from routing to the end. Boxed wherever it goes: it is large, and each step moves it.
pub struct Carried {
    pub proxy: Local<Proxy>,
    pub generation: Local<Generation>,
    pub site: Local<Site>,
    /// The host's rule for the path, by its place.
    pub rule: Option<usize>,
    pub policies: ChainLease,
    pub exchange: Box<Exchange>,
    pub version: Version,
    pub peer: IpAddr,
    /// Our port that it came to.
    pub port: u16,
    pub peer_trusted: bool,
    /// The way for interim responses.
    pub interim: Option<Interim>,
    /// on-origin-request has run.
    pub asked_origin: bool,
    /// It is asked for by who runs the program, and not by a client.
    pub by_operator: bool,
    /// Content codings that the client takes, where its host compresses.
    pub accepted: Accepted,
    /// What the cache lacks, where it has nothing that could be served.
    pub lacking: Forward,
}

impl Carried {
    /// Of a request whose site is known.
    pub fn begin(
        proxy: Local<Proxy>,
        generation: Local<Generation>,
        site: Local<Site>,
        exchange: Box<Exchange>,
        version: Version,
        by: Peer<'_>,
        peer_trusted: bool,
    ) -> Box<Self> {
        let policies = site.host.chain.lease(exchange.request.host.as_str());
        let rule = site.host.settings.rule_for(exchange.request.path());
        let (peer, port) = (by.address.ip(), by.port);
        // RFC 9110 section 15.2: older clients do not know them.
        let interim = by.interim.filter(|_| version == Version::HTTP_11).map(Interim::to);
        Box::new(Self {
            proxy,
            generation,
            site,
            rule,
            policies,
            exchange,
            version,
            peer,
            port,
            peer_trusted,
            interim,
            asked_origin: false,
            by_operator: false,
            accepted: Accepted::default(),
            lacking: Forward::UriMiss,
        })
    }

    /// What the host says of caching, for this path.
    pub fn caching(&self) -> &Caching {
        self.site.host.settings.caching_by(self.rule)
    }

    /// GET or HEAD.
    pub fn is_read(&self) -> bool {
        matches!(self.exchange.request.method, Method::GET | Method::HEAD)
    }

    /// HEAD.
    pub fn is_head(&self) -> bool {
        self.exchange.request.method == Method::HEAD
    }

    /// A copy for work in the background, which outlives the request.
    pub fn fork(&self) -> Box<Self> {
        Box::new(Self {
            proxy: self.proxy.clone(),
            generation: self.generation.clone(),
            site: self.site.clone(),
            rule: self.rule,
            policies: self.policies.clone(),
            exchange: self.exchange.clone(),
            version: self.version,
            peer: self.peer,
            port: self.port,
            peer_trusted: self.peer_trusted,
            interim: None,
            asked_origin: self.asked_origin,
            by_operator: self.by_operator,
            accepted: self.accepted,
            lacking: self.lacking,
        })
    }
}

/// The body that a request brought, not yet read.
pub struct Upload {
    pub body: Option<request::Upload>,
    pub brought: Brought,
    pub websocket: Option<Wanted>,
}

impl Upload {
    /// Whether there is a body is known with its first piece, where the head does not tell: a request of HTTP/2 may end with a
    /// frame of its own (RFC 9113 section 8.1).
    pub async fn settled(mut self) -> Self {
        self.body = match self.body {
            Some(body) => body.begun().await,
            None => None,
        };
        if self.body.is_none() {
            self.brought = Brought::Nothing;
        }
        self
    }
}

/// A step that ends the request early.
pub type Early = Box<Deliverable>;

/// Checked: one reading of authority, path and body.
pub struct Received {
    request: request::Readable,
    proxy: Local<Proxy>,
    generation: Local<Generation>,
}

/// The site is known.
pub struct Routed {
    pub carried: Box<Carried>,
    pub upload: Upload,
}

/// The policy let it through.
pub struct Decided {
    pub carried: Box<Carried>,
    pub upload: Upload,
}

/// The cache may be asked.
pub struct Keyed {
    pub carried: Box<Carried>,
    pub key: CacheKey,
}

/// What the cache said.
pub enum LookedUp {
    /// Serve this.
    Fresh(Hit),
    /// Ask the origin.
    Wanting(Wanting),
}

/// An entry that may be served as it is.
pub struct Hit {
    pub carried: Box<Carried>,
    pub key: CacheKey,
    pub entry: Arc<Entry>,
    pub outcome: Outcome,
}

impl Hit {
    /// Nothing of it needs to be fetched, as far as that is known without asking the body.
    fn is_at_hand(&self) -> bool {
        matches!(self.entry.body, EntryBody::Inline(_)) || self.carried.is_head()
    }
}

/// Nothing kept, or nothing that may be served as it is.
pub struct Wanting {
    pub carried: Box<Carried>,
    pub key: CacheKey,
    pub stale: Option<StaleEntry>,
}

/// An entry that needs a word of the origin: stale, or not what the client asked for.
#[derive(Clone)]
pub struct StaleEntry {
    pub entry: Arc<Entry>,
    /// It may be served if the origin fails.
    pub if_error: bool,
    /// Why it is not served as it is.
    pub why: Forward,
}

/// Runs the steps. What came in is read at once, before there is a future that it would have to be moved into and out of.
pub fn serve(
    proxy: Local<Proxy>,
    peer: Peer<'_>,
    request: Request<Option<request::Upload>>,
) -> impl Future<Output = Response<Body>> + Send + use<> {
    let routed = Received::read(proxy, peer, request).and_then(|received| received.route(peer));
    async move {
        match routed {
            Ok(routed) => match run(routed).await {
                Ok(answer) | Err(answer) => deliver::deliver(answer).await,
            },
            Err(response) => *response,
        }
    }
}

async fn run(routed: Routed) -> Result<Early, Early> {
    let mut decided = decide::decide(routed).await?;
    if let Some(wanted) = decided.upload.websocket.take() {
        return Ok(Box::pin(websocket::pass(decided, wanted)).await);
    }
    let keyed = match decided.key() {
        Ok(keyed) => keyed,
        // What the cache has no part in; boxed, since it is rare and its future is large.
        Err((decided, why)) => return Ok(Box::pin(pass::pass(decided, why)).await),
    };
    let directives = directives(&keyed.carried);
    match keyed.look_up(directives).await? {
        LookedUp::Fresh(hit) if hit.is_at_hand() => Ok(Deliverable::entry(hit)),
        LookedUp::Fresh(hit) => match Box::pin(gap::begin(hit)).await {
            Ok(hit) => Ok(Deliverable::entry(hit)),
            Err(Begun::Answered(early)) => Err(early),
            Err(Begun::Changed(wanting)) => Ok(Box::pin(fetch::fetch(*wanting)).await),
        },
        LookedUp::Wanting(wanting) => Ok(Box::pin(fetch::fetch(wanting)).await),
    }
}

/// Asks again for what is kept under `key`, where this request leads there; with `min_fresh` also for what is still fresh, but not
/// for so long. None where it doesn't, or is refused.
pub(super) async fn again(routed: Routed, key: &CacheKey, min_fresh: Option<Duration>) -> Option<Early> {
    let decided = decide::decide(routed).await.ok()?;
    let keyed = decided.key().ok().filter(|keyed| keyed.key == *key)?;
    let directives = RequestDirectives { min_fresh, ..directives(&keyed.carried) };
    match keyed.look_up(directives).await.ok()? {
        // It is being refreshed, or was.
        LookedUp::Fresh(hit) => Some(Deliverable::entry(hit)),
        LookedUp::Wanting(wanting) => Some(fetch::fetch(wanting).await),
    }
}

impl Received {
    /// Reads and checks what came in.
    fn read(
        proxy: Local<Proxy>,
        peer: Peer<'_>,
        request: Request<Option<request::Upload>>,
    ) -> Result<Self, Box<Response<Body>>> {
        let generation = proxy.generation_here();
        match request::read(peer, request, &generation.trusted_proxies, proxy.clock.now()) {
            Ok(request) => Ok(Self { request, proxy, generation }),
            Err(refusal) => {
                let (refused, parts) = *refusal;
                let (client, ..) = request::client_of(peer, &parts.headers, &generation.trusted_proxies);
                // What is refused is logged as it came, whatever is wrong with it.
                let target = parts.uri.path_and_query().map_or("-", http::uri::PathAndQuery::as_str).to_owned();
                let logged = Logged {
                    client,
                    method: parts.method,
                    target,
                    version: parts.version,
                    status: refused.status,
                    referer: parts.headers.get(http::header::REFERER).cloned(),
                    user_agent: parts.headers.get(http::header::USER_AGENT).cloned(),
                };
                Err(Box::new(deliver::plain(proxy, &refused.why, logged)))
            }
        }
    }

    /// Finds the site. An unknown host is misdirected: 421 (RFC 9110 section 15.5.20).
    fn route(self, by: Peer<'_>) -> Result<Routed, Box<Response<Body>>> {
        let Self { request, proxy, generation } = self;
        let request::Readable { exchange, version, brought, upload, websocket, peer_trusted } = request;
        let site = generation.route(&exchange.request.host);
        let sent_away = match door::pass(&proxy, &generation, site, by, &exchange.request) {
            Door::In => None,
            door => Some(door),
        };
        let hsts = site.and_then(|site| site.host.settings.https.hsts.as_ref());
        let secured = exchange.request.scheme == "https" && !matches!(sent_away, Some(Door::Misdirected(_)));
        let hsts = hsts.filter(|_| sent_away.is_some() && secured).cloned();
        let site = site.map(Local::of).filter(|_| sent_away.is_none());
        let Some(site) = site else {
            let request = exchange.request;
            let logged = Logged {
                client: exchange.client.ip,
                method: request.method,
                target: request.target.raw().to_owned(),
                version,
                status: sent_away.as_ref().map_or(StatusCode::MISDIRECTED_REQUEST, Door::status),
                referer: request.headers.get(http::header::REFERER).cloned(),
                user_agent: request.headers.get(http::header::USER_AGENT).cloned(),
            };
            let away = sent_away.unwrap_or(Door::Misdirected("no such host here"));
            return Err(Box::new(away.answer(proxy, logged, hsts)));
        };
        let carried = Carried::begin(proxy, generation, site, exchange, version, by, peer_trusted);
        Ok(Routed { carried, upload: Upload { body: upload, brought, websocket } })
    }
}

impl Decided {
    /// Makes the cache key, or tells why the cache has no part in this request.
    pub(super) fn key(mut self) -> Result<Keyed, (Self, Forward)> {
        if !self.carried.is_read() {
            return Err((self, Forward::Method));
        }
        if self.carried.caching().cache == CacheUse::Off {
            return Err((self, Forward::Bypass));
        }
        // A read that brings a body is not answered from the cache: what the body says is not in the key.
        if self.carried.exchange.lookup.bypass || self.upload.brought != Brought::Nothing {
            return Err((self, Forward::Bypass));
        }
        match decide::key(&self.carried) {
            Ok(key) => {
                if self.carried.caching().compress.is_some() {
                    compression::note_accepted(&mut self.carried);
                }
                Ok(Keyed { carried: self.carried, key })
            }
            Err(_) => Err((self, Forward::Bypass)),
        }
    }
}

impl Keyed {
    /// Asks the cache: memory first, then the disk.
    pub(super) async fn look_up(self, directives: RequestDirectives) -> Result<LookedUp, Early> {
        let Self { carried, key } = self;
        let cache = &carried.proxy.cache;
        let request = &carried.exchange.request;
        let asked = Asked { key: &key, headers: &request.headers, request_path: request.path() };
        let found = match cache.lookup_memory(&asked) {
            Some(found) => Ok(found),
            // Boxed, so that the hits from memory do not carry its room along.
            None => Box::pin(cache.find_on_disk(&asked)).await,
        };
        let now = carried.proxy.clock.now();
        let found = match found {
            Ok(found) => found,
            Err(absent) => {
                let mut carried = match Box::pin(parts::look_up(carried, &directives)).await {
                    Ok(hit) => return Ok(LookedUp::Fresh(hit)),
                    Err(carried) => carried,
                };
                if directives.only_if_cached {
                    return Err(only_if_cached(carried));
                }
                carried.lacking = match absent {
                    Absent::Key => Forward::UriMiss,
                    Absent::Variant => Forward::VaryMiss,
                    Absent::Unknown => Forward::Miss,
                };
                return Ok(LookedUp::Wanting(Wanting { carried, key, stale: None }));
            }
        };
        let entry = found.entry;
        let max_age = carried.exchange.lookup.max_age;
        let freshness = freshness::decide(&entry.head.retention, &entry.head.timing, &directives, max_age, now);
        match freshness {
            Freshness::Fresh(left) => {
                // A body that is still coming counts as kept: this request is not forwarded and waits for no other.
                let outcome = Outcome::hit(seconds(left));
                Ok(LookedUp::Fresh(Hit { carried, key, entry, outcome }))
            }
            Freshness::Stale { since, while_revalidate: true, .. } => {
                fetch::refresh(&carried, &key, &entry);
                let outcome = Outcome::hit(-seconds(since).max(1));
                Ok(LookedUp::Fresh(Hit { carried, key, entry, outcome }))
            }
            Freshness::Accepted { since } => {
                let outcome = Outcome::hit(-seconds(since).max(1));
                Ok(LookedUp::Fresh(Hit { carried, key, entry, outcome }))
            }
            Freshness::Unwanted { if_error } | Freshness::Stale { if_error, .. } => {
                if directives.only_if_cached {
                    return Err(only_if_cached(carried));
                }
                let why = if matches!(freshness, Freshness::Stale { .. }) { Forward::Stale } else { Forward::Request };
                let stale = Some(StaleEntry { entry, if_error, why });
                Ok(LookedUp::Wanting(Wanting { carried, key, stale }))
            }
        }
    }
}

/// The directives of a request that count on its host, without work for the many that have none.
pub fn directives(carried: &Carried) -> RequestDirectives {
    let request = &carried.exchange.request;
    if !request.interest.has(Interest::DIRECTIVES) {
        return RequestDirectives::default();
    }
    let said = RequestDirectives::parse(&request.headers);
    match carried.caching().client_cache_control {
        ClientCacheControl::Honor => said,
        ClientCacheControl::Ignore => said.without_wishes(),
    }
}

/// Whole seconds of a duration for Cache-Status.
pub fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// RFC 9111 section 5.2.1.7: nothing usable is kept.
pub fn only_if_cached(carried: Box<Carried>) -> Early {
    let (headers, body) = failure::page(StatusCode::GATEWAY_TIMEOUT, "not in the cache");
    let outcome = Outcome { detail: Some("only-if-cached"), ..Outcome::local(Word::Error) };
    Deliverable::local(carried, StatusCode::GATEWAY_TIMEOUT, headers, body, outcome)
}

/// Whether the host takes this method.
pub fn method_allowed(site: &Site, method: &Method) -> bool {
    match site.host.settings.methods {
        Methods::Read => matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
        Methods::All => true,
    }
}
