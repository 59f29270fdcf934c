//! Write a policy for proxyhost in Rust.
//!
//! ```
//! use proxyhost_policy::prelude::*;
//!
//! /// Lets in who knows the word.
//! #[derive(Deserialize)]
//! struct Word {
//!     word: String,
//! }
//!
//! impl Policy for Word {
//!     fn configure() -> Result<Self, String> {
//!         config::parsed()
//!     }
//!
//!     fn on_request(&self) -> Result<Decision, String> {
//!         Ok(if request::query_param("word") == Some(self.word.clone()) { Decision::Next } else { Decision::Deny(403) })
//!     }
//! }
//!
//! proxyhost_policy::export!(Word: on_request);
//!
//! // No host is needed to try it.
//! use proxyhost_policy::testing::{Host, Request};
//! let host = Host::new().config(r#"{"word": "please"}"#);
//! assert_eq!(host.play::<Word>(Request::get("http://a.test/?word=please")).on_request(), Ok(Decision::Next));
//! assert_eq!(host.play::<Word>(Request::get("http://a.test/")).on_request(), Ok(Decision::Deny(403)));
//! ```
//!
//! Built for `wasm32-unknown-unknown` as a `cdylib`, that is a whole policy. The value that [`Policy::configure`] makes
//! lives as long as the instance: parse the configuration there and not in each request. It must not be used to
//! remember requests: instances come and go, and one request's phases may run in different ones; [`vars`] is for that.
//!
//! The modules [`request`], [`client`], [`upstream`], [`cache_lookup`], [`cache_store`], [`response`], [`vars`],
//! [`config`], [`log`], [`crypto`], [`rate`], [`tables`], [`secrets`] and [`fetch`] are the interfaces of
//! `wit/policy.wit`. In a policy they call the host; natively they call a stand-in that the module `testing` sets up.
//! [`net`] and [`text`] hold what most policies need beside them.

#[cfg(target_arch = "wasm32")]
pub mod bindings;
pub mod config;
mod decision;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod glue;
#[cfg(not(target_arch = "wasm32"))]
mod native;
pub mod net;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod text;

#[cfg(target_arch = "wasm32")]
pub use bindings::proxyhost::policy::{
    cache_lookup, cache_store, client, crypto, fetch, log, rate, request, response, secrets, tables, types, upstream,
    vars,
};
#[cfg(not(target_arch = "wasm32"))]
pub use native::{
    cache_lookup, cache_store, client, crypto, fetch, log, rate, request, response, secrets, tables, types, upstream,
    vars,
};
#[doc(hidden)]
pub use {serde, serde_json};

/// A policy. Its phases are those of `wit/policy.wit`; only the ones named in [`export!`] are part of the component.
pub trait Policy: Sized + Send + Sync + 'static {
    /// Once per instance, and once when the policy is loaded, where an error keeps the previous policy in service.
    fn configure() -> Result<Self, String>;

    /// Every request, before the cache.
    fn on_request(&self) -> Result<types::Decision, String> {
        Ok(types::Decision::Next)
    }

    /// A miss, before the origin is asked.
    fn on_origin_request(&self) -> Result<types::Decision, String> {
        Ok(types::Decision::Next)
    }

    /// An origin response, before it is kept.
    fn on_origin_response(&self) -> Result<types::Decision, String> {
        Ok(types::Decision::Next)
    }

    /// Every response, before it is sent.
    fn on_deliver(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Exports the named phases of a policy, and `configure`: `export!(MyPolicy: on_request, on_deliver);`
///
/// A phase that is not named is not in the component and costs nothing. Outside of WebAssembly the macro only checks
/// that the type is a policy and the phases exist.
#[macro_export]
macro_rules! export {
    ($policy:ident: $($phase:ident),+ $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            impl $crate::glue::Exported for $policy {
                fn slot() -> &'static $crate::glue::Slot<Self> {
                    static SLOT: $crate::glue::Slot<$policy> = $crate::glue::Slot::new();
                    &SLOT
                }
            }
            type Exports = $crate::glue::Exports<$policy>;
            $crate::export_phase!(Exports: configure);
            $($crate::export_phase!(Exports: $phase);)+
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            fn _is_policy<P: $crate::Policy>() {}
            let _ = _is_policy::<$policy>;
            $(let _ = <$policy as $crate::Policy>::$phase;)+
        };
    };
}

/// One phase of [`export!`].
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
#[macro_export]
macro_rules! export_phase {
    ($exports:ident: configure) => {
        $crate::bindings::configure::__export_configure!($exports with_types_in $crate::bindings::configure);
    };
    ($exports:ident: on_request) => {
        $crate::bindings::on_request::__export_on_request!($exports with_types_in $crate::bindings::on_request);
    };
    ($exports:ident: on_origin_request) => {
        $crate::bindings::on_origin_request::__export_on_origin_request!($exports with_types_in $crate::bindings::on_origin_request);
    };
    ($exports:ident: on_origin_response) => {
        $crate::bindings::on_origin_response::__export_on_origin_response!($exports with_types_in $crate::bindings::on_origin_response);
    };
    ($exports:ident: on_deliver) => {
        $crate::bindings::on_deliver::__export_on_deliver!($exports with_types_in $crate::bindings::on_deliver);
    };
}

/// What a policy usually needs.
pub mod prelude {
    pub use crate::crypto::Part;
    pub use crate::log::Level;
    pub use crate::types::{Body, Decision, Redirect, Reply};
    pub use crate::{
        Policy, cache_lookup, cache_store, client, config, crypto, fetch, log, net, rate, request, response, secrets,
        tables, text, upstream, vars,
    };
    pub use serde::Deserialize;
}
