//! Plays: the built program between real parts, one story each, named as a sentence about its behaviour.
//!
//! Every play has its own folder and its own ports, so that they run side by side; how many at a time is for
//! `RUST_TEST_THREADS`, by default one a core. `cargo test --workspace` builds the program first; the policies of `policies/`
//! are built by `cargo xtask policies`.

mod access_log;
mod acme;
mod admin;
mod bad_targets;
mod budgets;
mod caching;
mod capability;
mod compression;
mod conditional;
mod config_errors;
mod connections;
mod crash;
mod decompression;
mod digests;
mod dir_origin;
mod disk;
mod floods;
mod framing;
mod freshness;
mod garage;
mod hit_and_miss;
mod host_settings;
mod http3;
mod http_origin;
mod http_side;
mod interim;
mod loops;
mod mirror;
mod parts;
mod pins;
mod policy;
mod policy_failures;
mod policy_files;
mod purge;
mod purge_modes;
mod range;
mod reload;
mod s3;
mod service_manager;
mod signed_url;
mod stale;
mod static_site;
mod time;
mod tls;
mod under_load;
mod upgrade;
mod vary;
mod warm;
mod websocket;
