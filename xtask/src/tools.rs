//! Programs that the tests start and cargo can install: once, into the user's cache, so that a fresh clone finds them there.

use std::process::Stdio;

use anyhow::Result;

use crate::cargo::{self, Workspace};

/// A real S3 server, for the tier of plays that does not trust our own.
const GARAGE: &str = "2.5.0";

/// Installs what is missing. The first time takes minutes.
pub fn install(workspace: &Workspace) -> Result<()> {
    // Where the plays look unless they are told of another.
    if std::env::var_os("PROXYHOST_GARAGE").is_some() {
        return Ok(());
    }
    let folder = cargo::cache_folder()?;
    if folder.join("bin/garage").is_file() {
        return Ok(());
    }
    eprintln!("xtask: installing garage {GARAGE}, an S3 server for the tests");
    let mut command = workspace.cargo("install");
    command.args(["garage", "--version", GARAGE, "--locked", "--debug"]);
    // Without what needs further system packages.
    command.args(["--no-default-features", "--features", "bundled-libs,lmdb"]);
    command.arg("--root").arg(&folder);
    // Its dependencies are of other versions than ours: together they would only crowd each other out.
    command.env("CARGO_TARGET_DIR", folder.join("tools/target"));
    cargo::succeed(command.stdin(Stdio::null()).stdout(std::io::stderr()))
}
