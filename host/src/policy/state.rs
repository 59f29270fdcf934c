//! What a store carries: the exchange in hand for the length of one call, the budget, and how to take edits back.
//!
//! The exchange is moved in and out as a box, never copied. A failed call must leave no trace in it, and most calls succeed,
//! so nothing is saved beforehand: the first edit of each group in a call saves that group, and the response keeps an undo
//! list, since a copy of all its fields would cost more than the edits.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use super::Phase;
use super::capability::Prepared;
use super::capability::crypto::Secrets;
use super::capability::rate::RateLimiter;
use super::console::LogGate;
use super::error::Fence;
use super::exchange::{Exchange, LookupEdits, ResponseView, StoreEdits, UpstreamEdits};
use super::limits::{Budget, MemoryFence};
use super::settings::Limits;
use super::wasi::Wasi;

/// What stays the same for all instances of one policy generation.
pub(crate) struct Surroundings {
    /// Name of the file, for messages.
    pub(crate) name: Arc<str>,
    /// Whose it is.
    pub(crate) host: Arc<str>,
    /// Configuration as policies ask for it: strings as they are, the rest as JSON.
    pub(crate) config: Vec<(String, String)>,
    /// The whole configuration.
    pub(crate) config_json: String,
    /// Secrets by name.
    pub(crate) secrets: Secrets,
    /// Limits.
    pub(crate) limits: Limits,
    /// What hosts.json names.
    pub(crate) prepared: Arc<Prepared>,
    /// Buckets of the whole program.
    pub(crate) rates: Arc<RateLimiter>,
    /// Keeps a talkative policy from flooding the log.
    pub(crate) log: LogGate,
}

/// A set of moments at which a host function may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moments(u8);

impl Moments {
    /// While an instance is configured.
    pub(crate) const CONFIGURE: Self = Self(1);
    pub(crate) const ON_REQUEST: Self = Self(2);
    pub(crate) const ON_ORIGIN_REQUEST: Self = Self(4);
    pub(crate) const ON_ORIGIN_RESPONSE: Self = Self(8);
    pub(crate) const ON_DELIVER: Self = Self(16);
    /// All phases of a request.
    pub(crate) const PHASES: Self = Self(30);
    /// Any time.
    pub(crate) const ALWAYS: Self = Self(31);
    /// Before the origin is asked.
    pub(crate) const BEFORE_ORIGIN: Self = Self(6);
    /// When there is a response.
    pub(crate) const RESPONSE: Self = Self(24);

    fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }

    fn words(self) -> String {
        let names = [
            (Self::CONFIGURE, "configure"),
            (Self::ON_REQUEST, "on-request"),
            (Self::ON_ORIGIN_REQUEST, "on-origin-request"),
            (Self::ON_ORIGIN_RESPONSE, "on-origin-response"),
            (Self::ON_DELIVER, "on-deliver"),
        ];
        let names: Vec<&str> =
            names.into_iter().filter(|(moment, _)| self.has(*moment)).map(|(_, name)| name).collect();
        names.join(", ")
    }
}

impl From<Phase> for Moments {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::OnRequest => Self::ON_REQUEST,
            Phase::OnOriginRequest => Self::ON_ORIGIN_REQUEST,
            Phase::OnOriginResponse => Self::ON_ORIGIN_RESPONSE,
            Phase::OnDeliver => Self::ON_DELIVER,
        }
    }
}

/// The data of a store.
pub(crate) struct State {
    /// Where the instance lives.
    pub(crate) surroundings: Arc<Surroundings>,
    /// What is happening.
    pub(crate) moment: Moments,
    /// Time and calls.
    pub(crate) budget: Budget,
    /// Memory.
    pub(crate) memory: MemoryFence,
    /// For the lane of fibers.
    pub(crate) wasi: Option<Box<Wasi>>,
    /// Lines and bytes that this call has added to the response.
    pub(crate) added: (usize, usize),
    exchange: Option<Box<Exchange>>,
    undo: Undo,
}

#[derive(Default)]
struct Undo {
    upstream: Saved<UpstreamEdits>,
    lookup: Saved<LookupEdits>,
    store: Saved<StoreEdits>,
    vars: Saved<Vec<(String, String)>>,
    response: Vec<ResponseUndo>,
}

/// A group of edits as it was before the call.
#[derive(Default)]
enum Saved<T> {
    /// As it is.
    #[default]
    Untouched,
    /// It had no edits: most groups have none before the one call that edits them.
    Empty,
    Edits(Box<T>),
}

impl<T: Clone + Default + PartialEq> Saved<T> {
    fn save(&mut self, edits: &T) {
        if matches!(self, Self::Untouched) {
            *self = if *edits == T::default() { Self::Empty } else { Self::Edits(Box::new(edits.clone())) };
        }
    }

    fn restore(self, edits: &mut T) {
        match self {
            Self::Untouched => {}
            Self::Empty => *edits = T::default(),
            Self::Edits(before) => *edits = *before,
        }
    }
}

enum ResponseUndo {
    Status(StatusCode),
    Header(HeaderName, SmallVec<[HeaderValue; 1]>),
}

impl State {
    /// For a fresh instance.
    pub(crate) fn new(surroundings: Arc<Surroundings>, budget: Budget, wasi: Option<Box<Wasi>>) -> Self {
        let memory = MemoryFence::new((surroundings.limits.memory_mib as usize) << 20);
        Self {
            surroundings,
            moment: Moments::CONFIGURE,
            budget,
            memory,
            wasi,
            added: (0, 0),
            exchange: None,
            undo: Undo::default(),
        }
    }

    /// Takes the exchange for one call.
    pub(crate) fn put(&mut self, exchange: Box<Exchange>, phase: Phase) {
        self.exchange = Some(exchange);
        self.moment = phase.into();
        self.added = (0, 0);
        self.memory.begin();
    }

    /// Gives the exchange back with its edits.
    pub(crate) fn take(&mut self) -> Option<Box<Exchange>> {
        self.undo = Undo::default();
        self.exchange.take()
    }

    /// Takes the edits of this call back.
    pub(crate) fn roll_back(&mut self) {
        let Some(exchange) = self.exchange.as_deref_mut() else { return };
        let undo = std::mem::take(&mut self.undo);
        undo.upstream.restore(&mut exchange.upstream);
        undo.lookup.restore(&mut exchange.lookup);
        undo.store.restore(&mut exchange.store);
        undo.vars.restore(&mut exchange.vars);
        if let Some(response) = &mut exchange.response {
            for step in undo.response.into_iter().rev() {
                match step {
                    ResponseUndo::Status(status) => response.status = status,
                    ResponseUndo::Header(name, values) => {
                        response.headers.remove(&name);
                        for value in values {
                            response.headers.append(name.clone(), value);
                        }
                    }
                }
            }
        }
    }

    /// Every host call begins here: it is counted, and must belong to what is happening.
    #[inline]
    pub(crate) fn enter(&mut self, function: &'static str, moments: Moments) -> Result<(), Fence> {
        self.budget.call()?;
        if moments.has(self.moment) { Ok(()) } else { Err(wrong_phase(function, moments)) }
    }

    /// A host call that needs the exchange.
    #[inline]
    pub(crate) fn exchange(&mut self, function: &'static str, moments: Moments) -> Result<&mut Exchange, Fence> {
        self.enter(function, moments)?;
        self.exchange.as_deref_mut().ok_or_else(|| wrong_phase(function, Moments::PHASES))
    }

    /// A host call that edits what goes to the origin.
    pub(crate) fn upstream(&mut self, function: &'static str) -> Result<&mut UpstreamEdits, Fence> {
        self.exchange(function, Moments::BEFORE_ORIGIN)?;
        let Self { exchange: Some(exchange), undo, .. } = self else {
            return Err(wrong_phase(function, Moments::BEFORE_ORIGIN));
        };
        undo.upstream.save(&exchange.upstream);
        Ok(&mut exchange.upstream)
    }

    /// A host call that edits where to look.
    pub(crate) fn lookup(&mut self, function: &'static str) -> Result<&mut LookupEdits, Fence> {
        self.exchange(function, Moments::ON_REQUEST)?;
        let Self { exchange: Some(exchange), undo, .. } = self else {
            return Err(wrong_phase(function, Moments::ON_REQUEST));
        };
        undo.lookup.save(&exchange.lookup);
        Ok(&mut exchange.lookup)
    }

    /// A host call that edits how to keep the response.
    pub(crate) fn store(&mut self, function: &'static str) -> Result<&mut StoreEdits, Fence> {
        self.exchange(function, Moments::ON_ORIGIN_RESPONSE)?;
        let Self { exchange: Some(exchange), undo, .. } = self else {
            return Err(wrong_phase(function, Moments::ON_ORIGIN_RESPONSE));
        };
        undo.store.save(&exchange.store);
        Ok(&mut exchange.store)
    }

    /// A host call that sets a variable.
    pub(crate) fn vars(&mut self, function: &'static str) -> Result<&mut Vec<(String, String)>, Fence> {
        self.exchange(function, Moments::PHASES)?;
        let Self { exchange: Some(exchange), undo, .. } = self else {
            return Err(wrong_phase(function, Moments::PHASES));
        };
        undo.vars.save(&exchange.vars);
        Ok(&mut exchange.vars)
    }

    /// A host call that reads the response.
    pub(crate) fn response(&mut self, function: &'static str) -> Result<&mut ResponseView, Fence> {
        let exchange = self.exchange(function, Moments::RESPONSE)?;
        exchange.response.as_mut().ok_or_else(|| Fence::Invalid(format!("{function}: there is no response yet")))
    }

    /// Before the response's status changes.
    pub(crate) fn save_status(&mut self, status: StatusCode) {
        self.undo.response.push(ResponseUndo::Status(status));
    }

    /// Before a header of the response changes.
    pub(crate) fn save_header(&mut self, name: &HeaderName, values: SmallVec<[HeaderValue; 1]>) {
        self.undo.response.push(ResponseUndo::Header(name.clone(), values));
    }
}

#[cold]
fn wrong_phase(function: &'static str, moments: Moments) -> Fence {
    Fence::Phase { function, phases: moments.words() }
}
