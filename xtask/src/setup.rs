//! System packages: RocksDB is compiled from C++ and bound with libclang, aws-lc with cmake, and the policies need a
//! standard library for WebAssembly.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::{cargo, policies};

/// What building needs, and the Debian package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("clang", "bindings to RocksDB"),
    ("libclang-dev", "bindings to RocksDB"),
    ("lld", "linking"),
    ("cmake", "building aws-lc"),
    ("pkg-config", "finding libraries"),
    ("make", "building C libraries"),
    ("g++", "building RocksDB"),
    ("pebble", "an ACME server, for the tests"),
    ("python3-venv", "an HTTP/3 client, for the tests"),
];

/// Rust's standard library for WebAssembly, where rustup has none: a compiler of its own with vendored sources.
const WASM_PACKAGES: &[(&str, &str)] = &[
    ("rustc-web", "compiling policies"),
    ("cargo-web", "compiling policies"),
    ("rust-web-src", "the standard library of policies"),
];

/// What the benchmarks run, beside us.
const BENCH_PACKAGES: &[(&str, &str)] = &[
    ("nginx", "the peer, and an origin"),
    ("wrk", "making load"),
    ("nghttp2-client", "making load by HTTP/2"),
    ("openssl", "certificates and handshakes"),
];

/// Installs what building needs and is missing, or fails with the line that would.
pub fn run() -> Result<()> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        return elsewhere();
    }
    let mut wanted = PACKAGES.to_vec();
    if policies::installed_wasm_target().is_none() {
        wanted.extend_from_slice(WASM_PACKAGES);
    }
    install(&wanted)
}

/// The same for the benchmarks.
pub fn for_benchmarks() -> Result<()> {
    // By the programs: nginx comes in several packages, and from others than Debian.
    let programs = [("wrk", "--version"), ("nginx", "-v"), ("h2load", "--version"), ("openssl", "version")];
    let started = |(program, argument): (&str, &str)| {
        let status = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        // wrk ends with 1 after it told its version.
        status.is_ok()
    };
    if programs.into_iter().all(started) {
        return Ok(());
    }
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!("the benchmarks run wrk, h2load (nghttp2), openssl and nginx: please install them");
    }
    install(BENCH_PACKAGES)
}

/// Installs packages that are missing, or fails with the line that would.
fn install(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted.iter().map(|(package, _)| *package).filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !is_root() {
        bail!("these packages are missing; please run\n    sudo {line}\n{}", without_rustup(&missing));
    }
    eprintln!("xtask: {line}");
    let apt = || {
        let mut command = Command::new("apt-get");
        // apt must not wait for answers, and its own output is not ours: what it says on stdout goes to stderr.
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(std::io::stderr());
        command
    };
    cargo::succeed(apt().args(["update", "-q"]))?;
    cargo::succeed(apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(&missing))
}

/// A hint beside the wasm packages, which not every Debian has.
fn without_rustup(missing: &[&str]) -> &'static str {
    if missing.contains(&"rustc-web") {
        "(instead of the three packages with -web: rustup target add wasm32-unknown-unknown)"
    } else {
        ""
    }
}

/// On a system whose packages we don't know: says what is missing, by looking for the programs.
fn elsewhere() -> Result<()> {
    let mut missing: Vec<&str> =
        ["clang", "cmake", "make", "c++"].into_iter().filter(|program| !runs(program)).collect();
    if policies::installed_wasm_target().is_none() {
        missing.push("the wasm target of Rust (rustup target add wasm32-unknown-unknown)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("please install what is missing, with libclang if clang came without it: {}", missing.join(", "))
}

/// Whether a Debian package is installed.
fn installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.stdout.ends_with(b" installed"))
}

/// Whether a program is there and answers.
fn runs(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Whether apt will let us.
fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
