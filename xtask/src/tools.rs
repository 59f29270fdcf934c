//! Programs that the tests start and cargo or pip can install: once, into the user's cache, so that a fresh clone finds them there.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::cargo::{self, Workspace};

/// A real S3 server, for the tier of plays that does not trust our own.
const GARAGE: &str = "2.5.0";

/// An HTTP/3 client that shares no code with ours.
const AIOQUIC: &str = "1.7.2";

/// Installs what is missing. The first time takes minutes.
pub fn install(workspace: &Workspace) -> Result<()> {
    aioquic()?;
    garage(workspace)
}

fn garage(workspace: &Workspace) -> Result<()> {
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

/// A Python environment of our own with the client in it.
fn aioquic() -> Result<()> {
    if std::env::var_os("PROXYHOST_PYTHON").is_some() {
        return Ok(());
    }
    let folder = cargo::cache_folder()?.join("python");
    let python = folder.join("bin/python");
    let imports = Command::new(&python).args(["-c", "import aioquic"]).stderr(Stdio::null()).status();
    if imports.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    eprintln!("xtask: installing aioquic {AIOQUIC}, an HTTP/3 client for the tests");
    let quietly = |command: &mut Command| cargo::succeed(command.stdin(Stdio::null()).stdout(std::io::stderr()));
    quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", &format!("aioquic=={AIOQUIC}")]))
}
