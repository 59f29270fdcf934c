//! Runs a policy natively: what hosts.json would give it, a request, and then its phases one by one, with every edit to
//! look at. Nothing is sent anywhere.
//!
//! ```
//! use proxyhost_policy::prelude::*;
//! use proxyhost_policy::testing::{Host, Request, Response};
//!
//! struct Tagged;
//! impl Policy for Tagged {
//!     fn configure() -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!     fn on_request(&self) -> Result<Decision, String> {
//!         cache_lookup::add_key("country", &client::attribute("geo.country").unwrap_or_default());
//!         Ok(Decision::Next)
//!     }
//!     fn on_deliver(&self) -> Result<(), String> {
//!         response::set_header("x-cache", &response::cache_status());
//!         Ok(())
//!     }
//! }
//!
//! let mut play = Host::new().play::<Tagged>(Request::get("http://a.test/x").attribute("geo.country", "NZ"));
//! assert_eq!(play.on_request(), Ok(Decision::Next));
//! assert_eq!(play.edits().key_part("country"), Some("NZ"));
//! play.respond(Response::new(200).cache_status("hit"));
//! play.on_deliver().unwrap();
//! assert_eq!(play.response().headers.get("x-cache").as_deref(), Some("hit"));
//! ```
//!
//! What the host traps on, panics here: a function of another phase, a name that hosts.json does not have. A play
//! carries vars and edits from phase to phase as one request does, and each play configures the policy anew.

mod edits;
mod messages;

pub use edits::{Edits, HeaderEdit, HeaderEdits, Headers};
pub use messages::{Request, Response};

use crate::native::{self, Call, Setup, fetch::Fetched};
use crate::net::Cidr;
use crate::types::Decision;
use crate::{Policy, text};

/// A phase of `wit/policy.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Once per instance.
    Configure,
    /// Every request, before the cache.
    OnRequest,
    /// A miss, before the origin is asked.
    OnOriginRequest,
    /// An origin response, before it is kept.
    OnOriginResponse,
    /// Every response, before it is sent.
    OnDeliver,
}

impl Phase {
    /// As `wit/policy.wit` has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::OnRequest => "on-request",
            Self::OnOriginRequest => "on-origin-request",
            Self::OnOriginResponse => "on-origin-response",
            Self::OnDeliver => "on-deliver",
        }
    }
}

/// What hosts.json gives to the policy under test.
#[derive(Clone, Debug, Default)]
pub struct Host {
    setup: Setup,
}

impl Host {
    /// A policy without configuration, secrets or named things.
    #[must_use]
    pub fn new() -> Self {
        Self { setup: Setup { config: "{}".to_owned(), ..Setup::default() } }
    }

    /// The policy's configuration: JSON text, or a value made with `serde_json::json!`.
    #[must_use]
    pub fn config(mut self, json: impl ToString) -> Self {
        self.setup.config = json.to_string();
        self
    }

    /// A secret.
    #[must_use]
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.setup.secrets.insert(name.to_owned(), value.as_bytes().to_vec());
        self
    }

    /// A grant, such as `secrets`.
    #[must_use]
    pub fn grant(mut self, name: &str) -> Self {
        self.setup.grants.push(name.to_owned());
        self
    }

    /// A named address set.
    #[must_use]
    #[track_caller]
    pub fn addresses(mut self, name: &str, blocks: &[&str]) -> Self {
        let blocks = blocks.iter().map(|block| Cidr::parse(block).unwrap_or_else(|error| panic!("{error}")));
        self.setup.addresses.insert(name.to_owned(), blocks.collect());
        self
    }

    /// A named table.
    #[must_use]
    pub fn table(mut self, name: &str, rows: &[(&str, &str)]) -> Self {
        let rows = rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.setup.tables.insert(name.to_owned(), rows.collect());
        self
    }

    /// A named rate limit, of which this much is left for each key.
    #[must_use]
    pub fn rate(mut self, name: &str, left: u32) -> Self {
        self.setup.rates.insert(name.to_owned(), left);
        self
    }

    /// A named origin.
    #[must_use]
    pub fn origin(mut self, name: &str) -> Self {
        self.setup.origins.push(name.to_owned());
        self
    }

    /// A signature that `crypto::verify_signature` finds good; all others are bad.
    #[must_use]
    pub fn good_signature(mut self, key: &str, data: &[u8], signature: &[u8]) -> Self {
        self.setup.signatures.push((key.to_owned(), data.to_vec(), signature.to_vec()));
        self
    }

    /// A token that `crypto::verify_jwt` finds good, with its claims; all others are bad.
    #[must_use]
    pub fn good_token(mut self, key: &str, token: &str, claims: impl ToString) -> Self {
        self.setup.tokens.insert((key.to_owned(), token.to_owned()), claims.to_string());
        self
    }

    /// What `fetch::send` finds at a URL.
    #[must_use]
    pub fn fetched(mut self, url: &str, status: u16, body: &str) -> Self {
        let fetched = Fetched { status, headers: Vec::new(), body: body.as_bytes().to_vec() };
        self.setup.fetches.insert(url.to_owned(), fetched);
        self
    }

    /// Whether the policy can be configured so; what it said if not.
    pub fn configure<P: Policy>(&self) -> Result<P, String> {
        self.call(Phase::Configure, Request::get("http://load.invalid/"), P::configure).1
    }

    /// Begins a request with a policy that is configured for it.
    ///
    /// # Panics
    ///
    /// If the configuration is refused: what is wrong with one is asked with [`Host::configure`].
    #[track_caller]
    pub fn play<P: Policy>(&self, request: Request) -> Play<P> {
        let policy = self.configure().unwrap_or_else(|error| panic!("the policy refused its configuration: {error}"));
        Play { host: self.clone(), policy, request, response: None, edits: Edits::default() }
    }

    /// Runs something as a phase.
    fn call<T>(&self, phase: Phase, request: Request, run: impl FnOnce() -> T) -> (Call, T) {
        let call = Call { phase, setup: self.setup.clone(), request, response: None, edits: Edits::default() };
        native::run(call, run)
    }
}

/// One request on its way through a policy.
#[derive(Debug)]
pub struct Play<P> {
    host: Host,
    policy: P,
    request: Request,
    response: Option<Response>,
    edits: Edits,
}

impl<P: Policy> Play<P> {
    /// Every request, before the cache.
    pub fn on_request(&mut self) -> Result<Decision, String> {
        self.phase(Phase::OnRequest, P::on_request)
    }

    /// A miss, before the origin is asked.
    pub fn on_origin_request(&mut self) -> Result<Decision, String> {
        self.phase(Phase::OnOriginRequest, P::on_origin_request)
    }

    /// An origin response, before it is kept.
    pub fn on_origin_response(&mut self) -> Result<Decision, String> {
        self.phase(Phase::OnOriginResponse, P::on_origin_response)
    }

    /// Every response, before it is sent.
    pub fn on_deliver(&mut self) -> Result<(), String> {
        self.phase(Phase::OnDeliver, P::on_deliver)
    }

    /// Puts a response in hand for the phases that follow.
    pub fn respond(&mut self, response: Response) -> &mut Self {
        self.response = Some(response);
        self
    }

    /// The response as the phases have left it.
    ///
    /// # Panics
    ///
    /// If there was none.
    #[must_use]
    #[track_caller]
    pub fn response(&self) -> &Response {
        self.response.as_ref().expect("no response was given with Play::respond")
    }

    /// What the phases so far have edited, set and logged.
    #[must_use]
    pub fn edits(&self) -> &Edits {
        &self.edits
    }

    /// The query that the origin would get: the client's, unless the policy gave another.
    #[must_use]
    pub fn origin_query(&self) -> Option<String> {
        self.edits.query.clone().unwrap_or_else(|| self.request.query.clone())
    }

    /// The part of the origin's query that counts towards the key, as the host would find it.
    #[must_use]
    pub fn key_query(&self) -> Option<String> {
        let query = self.origin_query()?;
        let Some(only) = &self.edits.key_query_only else { return Some(query) };
        let counts = |name: &str| text::query_decode(name).is_some_and(|name| only.iter().any(|one| *one == name));
        let kept: Vec<_> = query.split('&').filter(|piece| counts(piece.split('=').next().unwrap_or(piece))).collect();
        if kept.is_empty() { None } else { Some(kept.join("&")) }
    }

    /// Runs one phase.
    fn phase<T>(&mut self, phase: Phase, run: impl FnOnce(&P) -> T) -> T {
        let call = Call {
            phase,
            setup: self.host.setup.clone(),
            request: self.request.clone(),
            response: self.response.take(),
            edits: std::mem::take(&mut self.edits),
        };
        let (call, value) = native::run(call, || run(&self.policy));
        self.response = call.response;
        self.edits = call.edits;
        value
    }
}
