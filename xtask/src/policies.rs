//! Builds `policies/*` to core modules with a `component-type` section, which the host turns into components at load.
//!
//! With rustup's target `wasm32-unknown-unknown` that is an ordinary build. Where it can't be had, Debian's packages
//! rustc-web, cargo-web and rust-web-src do it: a compiler that knows the target, and the sources of its standard library,
//! which cargo builds along (`-Zbuild-std`) with rustup's own rust-lld as linker, since theirs comes without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Workspace};

/// Tells the tests and the demo where the built policies lie.
pub const FOLDER_VARIABLE: &str = "PROXYHOST_POLICIES_DIR";

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "policy";

/// Builds what changed and returns the folder with one `<name>.wasm` for each.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    // One compiler's standard library is not the other's, so each has a folder.
    let target = workspace.target.join("policies-build").join(toolchain.folder());
    let folder = workspace.target.join("policies");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let names = names(&workspace.root.join("policies"))?;
    for name in &names {
        let mut command = toolchain.cargo(workspace);
        // As a cdylib alone: beside an rlib, for the tests, cargo would leave out link-time optimisation.
        command.args(["rustc", "--quiet", "--lib", "--crate-type", "cdylib", "--profile", PROFILE, "--target", TARGET]);
        command.args(toolchain.build_std()).args(["-p", name]);
        cargo::succeed(command.current_dir(&workspace.root).env("CARGO_TARGET_DIR", &target))?;
        let built = target.join(TARGET).join(PROFILE).join(format!("{}.wasm", name.replace('-', "_")));
        put(&built, &folder.join(format!("{name}.wasm")))?;
    }
    remove_others(&folder, &names)?;
    Ok(folder)
}

/// Whether rustup's toolchain can build for WebAssembly by itself.
pub fn installed_wasm_target() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (output.status.success() && folder.is_dir()).then_some(folder)
}

/// What builds policies.
enum Toolchain {
    /// The one that runs us.
    Installed,
    /// Debian's, with the linker of the one that runs us.
    Debian { linker: PathBuf },
}

impl Toolchain {
    /// Looks for one.
    fn find() -> Result<Self> {
        if installed_wasm_target().is_some() {
            return Ok(Self::Installed);
        }
        let sources = Path::new("/usr/lib/rustlib/src/rust/library/std/Cargo.toml");
        if !sources.exists() || !Path::new("/usr/bin/cargo").exists() {
            bail!(
                "nothing here builds Rust for WebAssembly: `rustup target add {TARGET}`, \
                 or on Debian `cargo xtask setup` for the packages rustc-web, cargo-web and rust-web-src"
            );
        }
        Ok(Self::Debian { linker: rust_lld()? })
    }

    /// A folder name for what it builds.
    fn folder(&self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Debian { .. } => "debian",
        }
    }

    /// Its cargo.
    fn cargo(&self, workspace: &Workspace) -> Command {
        match self {
            Self::Installed => {
                let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                command.current_dir(&workspace.root);
                command
            }
            Self::Debian { linker } => {
                let mut command = Command::new("/usr/bin/cargo");
                // The sources are of a stable release, whose compiler takes -Z only when told that it builds itself.
                command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                // Without these the shims of rustup, or what its cargo has set for us, would bring in its own compiler.
                let path = std::env::var_os("PATH").unwrap_or_default();
                let folders = std::iter::once(PathBuf::from("/usr/bin")).chain(std::env::split_paths(&path));
                if let Ok(path) = std::env::join_paths(folders) {
                    command.env("PATH", path);
                }
                for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "LD_LIBRARY_PATH"] {
                    command.env_remove(variable);
                }
                command
            }
        }
    }

    /// Arguments that build the standard library along.
    fn build_std(&self) -> &'static [&'static str] {
        match self {
            Self::Installed => &[],
            Self::Debian { .. } => &["-Zbuild-std=std,panic_abort"],
        }
    }
}

/// The linker that comes with rustup's compiler.
fn rust_lld() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "target-libdir"]).stderr(Stdio::inherit()).output();
    let output = output.context("could not start rustc")?;
    // .../lib/rustlib/<host>/lib, and beside it .../bin
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let linker = libraries.with_file_name("bin").join("rust-lld");
    if linker.exists() {
        return Ok(linker);
    }
    // Debian's lld reads the file name to know which linker it should be.
    let packaged = PathBuf::from("/usr/bin/wasm-ld");
    if packaged.exists() {
        return Ok(packaged);
    }
    bail!("neither {} nor {} is there to link policies with", linker.display(), packaged.display())
}

/// The policies there are: folders with a Cargo.toml, which is named as they are.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Copies a built module, unless it is there already: a host that watches the folder reloads what is touched.
fn put(built: &Path, place: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("could not read {}", built.display()))?;
    if fs::read(place).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let partial = place.with_extension("partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, place))
        .with_context(|| format!("could not write {}", place.display()))
}

/// Removes modules of policies that are no more.
fn remove_others(folder: &Path, names: &[String]) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "wasm") && !names.contains(&stem) {
            fs::remove_file(&path).with_context(|| format!("could not remove {}", path.display()))?;
        }
    }
    Ok(())
}
