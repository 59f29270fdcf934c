//! What the plays are made of: the built program, the parts around it (an S3 server, scripted origins, certificates,
//! policies), and a client whose answers can be held against expectations in a sentence.
//!
//! ```no_run
//! # use harness::prelude::*;
//! # async fn play() {
//! let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60")).await;
//! let host = Host::with(vhost("a.test").origin(&origin)).await;
//! host.get("/a").await.expect(200, "hello").cache("miss");
//! host.get("/a").await.expect(200, "hello").cache("hit");
//! assert_eq!(origin.requests(), 1);
//! # }
//! ```
//!
//! Every part listens on a port of the system's choice, lives in a folder of its own, and ends when it is dropped.

pub mod certs;
pub mod client;
pub mod content;
pub mod garage;
pub mod host;
pub mod mount;
pub mod origin;
pub mod pebble;
pub mod policies;
mod process;
pub mod python;
pub mod s3;
pub mod setup;
pub mod sign;
pub mod timed;
pub mod tls;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What nearly every play uses.
pub mod prelude {
    pub use std::time::Duration;

    pub use bytes::Bytes;
    pub use serde_json::{Value, json};

    pub use crate::certs::Certificate;
    pub use crate::client::{Answer, Call, RawAnswer};
    pub use crate::content::{Content, generated, pattern};
    pub use crate::host::Host;
    pub use crate::origin::{Gate, Origin, Reply, hang, ok, raw, redirect, reply};
    pub use crate::s3::{Fault, Object, S3Server, object};
    pub use crate::setup::{AsOrigin, Refusal, Setup, VirtualHost, setup, vhost};
    pub use crate::tls::Secure;
    pub use crate::{eventually, millis, secs};
}

/// So many seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many milliseconds.
pub const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A number of tries, not of seconds: a busy machine must not fail a play that waits for what will come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until it is so, or panics after twenty seconds.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(millis(10)).await;
    }
}

/// A new folder that goes when it is dropped.
pub fn temp_dir(purpose: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("proxyhost-{purpose}-"))
        .tempdir()
        .expect("the system's folder is writable")
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder into which cargo built this program (`target/debug`).
pub fn profile_dir() -> PathBuf {
    let program = std::env::current_exe().expect("the system knows the path of its programs");
    let folder = program.parent().expect("a program lies in a folder");
    // Test programs lie in `deps`, the others one level up.
    if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_owned() } else { folder.to_owned() }
}

/// The built program: `PROXYHOST_BIN`, or what cargo built beside this one (`cargo test --workspace` builds both).
///
/// # Panics
///
/// When it is not there, with the command that builds it.
pub fn program() -> PathBuf {
    let program = std::env::var_os("PROXYHOST_BIN").map_or_else(|| profile_dir().join("proxyhost"), PathBuf::from);
    assert!(program.is_file(), "{} is not built: run `cargo build -p proxyhost` first", program.display());
    program
}
