//! WebAssembly policies and the fences around them: a head in, a decision out, in our own words. A policy does not know that
//! there is a cache or an origin; it leaves its edits in the `Exchange`.
//!
//! ```text
//! registry, remembered, status  what is loaded, what requests go by, which hosts had a policy
//!   look, folder, watch         files: found, changed, kept when they go bad or vanish; whose they are
//!   chain                       the policies of one host in order; the lease of one request
//!     generation, quarantine    one version of one policy in service
//!       component, cwasm        from a file to something that can be called
//!       pool                    instances, and the calls on them
//!         state, limits         what a store carries; time, memory, calls
//!         bindings, convert     generated code alone; the one file that speaks both tongues
//!         checks, query         what a policy gives is checked like a client's input
//!         capability            keys, codes, rates, tables, address sets
//!         wasi, console         nothing granted; stdout and stderr become lines of the log
//! ```

mod bindings;
mod capability;
mod chain;
mod chains;
mod checks;
mod component;
mod console;
mod convert;
mod cwasm;
pub mod decision;
mod engine;
mod error;
pub mod exchange;
mod folder;
mod generation;
mod limits;
mod look;
mod pool;
mod quarantine;
mod query;
mod registry;
mod remembered;
pub mod settings;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod ticker;
mod wasi;
mod watch;

use http::StatusCode;

pub use chain::{Chain, ChainLease};
pub use component::{Inspection, Kind, Lane};
pub use decision::{Decision, FailureKind, PolicyFailure, Reply};
pub use error::{LoadError, PolicyError};
pub use exchange::Exchange;
pub use folder::dropped_file;
pub use registry::{Policies, had_named_policy};
pub use settings::{Capabilities, ChainSettings, Limits, OnFailure, PolicySettings, Settings};

/// The phases of wit/policy.wit that run for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Every request, before the cache.
    OnRequest,
    /// A miss, before the origin is asked.
    OnOriginRequest,
    /// A response of the origin, before it is kept.
    OnOriginResponse,
    /// Every response, before it is sent.
    OnDeliver,
}

impl Phase {
    /// All, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::OnRequest, Self::OnOriginRequest, Self::OnOriginResponse, Self::OnDeliver];

    /// As in wit/policy.wit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnRequest => "on-request",
            Self::OnOriginRequest => "on-origin-request",
            Self::OnOriginResponse => "on-origin-response",
            Self::OnDeliver => "on-deliver",
        }
    }

    /// Chains run in order on the way in and in reverse on the way out.
    const fn is_way_in(self) -> bool {
        matches!(self, Self::OnRequest | Self::OnOriginRequest)
    }

    const fn index(self) -> usize {
        match self {
            Self::OnRequest => 0,
            Self::OnOriginRequest => 1,
            Self::OnOriginResponse => 2,
            Self::OnDeliver => 3,
        }
    }

    /// What a client gets when a policy fails here: on-deliver may have been about to strip a header, so what there is must
    /// not be sent, and asking again at once may not help.
    pub const fn failure_status(self) -> StatusCode {
        match self {
            Self::OnDeliver => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
