//! The interfaces of `wit/policy.wit` where there is no host: each function answers from the call that `testing` has
//! set up on this thread. Names and types are those that wit-bindgen generates for WebAssembly; that both sides fit is
//! seen by building the reference policies for both.

mod api;
mod crypto_impl;
pub mod types;

use std::cell::RefCell;
use std::collections::HashMap;

pub use api::{
    cache_lookup, cache_store, client, config, crypto, fetch, log, rate, request, response, secrets, tables, upstream,
    vars,
};

use crate::net::Cidr;
use crate::testing::{Edits, Phase, Request, Response};

/// What hosts.json gives to the policy.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub config: String,
    pub secrets: HashMap<String, Vec<u8>>,
    pub grants: Vec<String>,
    pub addresses: HashMap<String, Vec<Cidr>>,
    pub tables: HashMap<String, HashMap<String, String>>,
    pub rates: HashMap<String, u32>,
    pub origins: Vec<String>,
    pub signatures: Vec<(String, Vec<u8>, Vec<u8>)>,
    pub tokens: HashMap<(String, String), String>,
    pub fetches: HashMap<String, fetch::Fetched>,
}

/// One phase call in progress.
#[derive(Debug)]
pub struct Call {
    pub phase: Phase,
    pub setup: Setup,
    pub request: Request,
    pub response: Option<Response>,
    pub edits: Edits,
}

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Runs a phase with this call set up, and gives it back as the phase left it.
pub fn run<T>(call: Call, phase: impl FnOnce() -> T) -> (Call, T) {
    /// Clears the thread's call when a failing assertion in a policy unwinds.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            CALL.with(|slot| slot.take());
        }
    }
    let before = CALL.with(|slot| slot.replace(Some(call)));
    assert!(before.is_none(), "a phase is already running on this thread");
    let clear = Clear;
    let value = phase();
    let call = CALL.with(|slot| slot.take()).expect("only run takes a call away, and it refuses to be nested");
    drop(clear);
    (call, value)
}

/// The call in progress.
fn with<T>(use_call: impl FnOnce(&mut Call) -> T) -> T {
    CALL.with(|slot| {
        use_call(
            slot.borrow_mut().as_mut().expect("the host is asked outside of a phase: run it with testing::Host::play"),
        )
    })
}

/// The call in progress, for a function that only these phases may call: the host traps on others, and so does this.
#[track_caller]
fn only_in<T>(phases: &[Phase], name: &str, use_call: impl FnOnce(&mut Call) -> T) -> T {
    let phase = with(|call| call.phase);
    let allowed: Vec<_> = phases.iter().map(Phase::name).collect();
    assert!(phases.contains(&phase), "{name} is only for {}, not {}", allowed.join(" and "), phase.name());
    with(use_call)
}

/// The call in progress, for a function that is about a request: there is none while a policy is configured.
#[track_caller]
fn in_request<T>(use_call: impl FnOnce(&mut Call) -> T) -> T {
    assert!(with(|call| call.phase) != Phase::Configure, "there is no request while the policy is configured");
    with(use_call)
}
