//! The policy's configuration: what stands under `config` in hosts.json.

use serde::de::DeserializeOwned;

#[cfg(target_arch = "wasm32")]
pub use crate::bindings::proxyhost::policy::config::{get, json};
#[cfg(not(target_arch = "wasm32"))]
pub use crate::native::config::{get, json};

/// The whole configuration as a value; what is wrong with it in words. Nothing configured reads as `{}`.
///
/// Give the type `#[serde(deny_unknown_fields)]`, so that a misspelt name is an error at load and not a surprise later.
pub fn parsed<T: DeserializeOwned>() -> Result<T, String> {
    let json = json();
    let json = if json.trim().is_empty() { "{}" } else { &json };
    serde_json::from_str(json).map_err(|error| format!("config: {error}"))
}
