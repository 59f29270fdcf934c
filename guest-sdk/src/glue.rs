//! Between the generated exports, which know no `self`, and a [`Policy`], which is configured once and then used.

use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::types::Decision;
use crate::{Policy, bindings};

/// Where an instance keeps its configured policy.
pub struct Slot<P>(OnceLock<P>);

impl<P> Slot<P> {
    /// Empty until `configure` has run.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }
}

/// A policy with a slot; `export!` writes this.
pub trait Exported: Policy {
    /// The slot.
    fn slot() -> &'static Slot<Self>;
}

/// Implements the generated traits of all phases; `export!` exports the ones it is given.
pub struct Exports<P>(PhantomData<P>);

/// A host that runs a phase before `configure` breaks the contract, and the request is refused.
fn configured<P: Exported>() -> Result<&'static P, String> {
    P::slot().0.get().ok_or_else(|| "the policy has not been configured".to_owned())
}

impl<P: Exported> bindings::configure::exports::proxyhost::policy::configure::Guest for Exports<P> {
    fn configure() -> Result<(), String> {
        P::slot().0.set(P::configure()?).map_err(|_| "the policy has been configured before".to_owned())
    }
}

impl<P: Exported> bindings::on_request::exports::proxyhost::policy::on_request::Guest for Exports<P> {
    fn handle() -> Result<Decision, String> {
        configured::<P>()?.on_request()
    }
}

impl<P: Exported> bindings::on_origin_request::exports::proxyhost::policy::on_origin_request::Guest for Exports<P> {
    fn handle() -> Result<Decision, String> {
        configured::<P>()?.on_origin_request()
    }
}

impl<P: Exported> bindings::on_origin_response::exports::proxyhost::policy::on_origin_response::Guest for Exports<P> {
    fn handle() -> Result<Decision, String> {
        configured::<P>()?.on_origin_response()
    }
}

impl<P: Exported> bindings::on_deliver::exports::proxyhost::policy::on_deliver::Guest for Exports<P> {
    fn handle() -> Result<(), String> {
        configured::<P>()?.on_deliver()
    }
}
