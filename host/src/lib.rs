//! proxyhost: a caching proxy in front of an S3 bucket, an HTTP origin or a folder, with a WebAssembly policy per domain.
//!
//! The tree is the design; a folder is a *room*, and imports point down this list, never sideways or up
//! (`tests/layering.rs` holds the rows):
//!
//! ```text
//! 8  main.rs
//! 7  app/
//! 6  config/                                reads hosts.json, fills each room's Settings
//! 5  listener/    admin/       proxy/
//! 4  vhost/
//! 3  purge/      warm/
//! 2  policy/      cache/       origin/      tls/
//! 1  semantics/   telemetry/
//! 0  clock.rs     local.rs     open_files.rs  region/      units.rs
//! ```

pub mod clock;
pub mod local;
pub mod open_files;
pub mod region;
pub mod units;

pub mod semantics;
pub mod telemetry;

pub mod cache;
pub mod origin;
pub mod policy;
pub mod tls;

pub mod purge;
pub mod warm;

pub mod vhost;

pub mod admin;
pub mod listener;
pub mod proxy;

pub mod config;

pub mod app;
