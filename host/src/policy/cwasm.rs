//! Compiled code, kept on disk so that a restart need not compile: `<sha256 of the wasm>-<hash of engine and version>.cwasm`,
//! with a checksum beside it.
//!
//! Loading such a file means trusting it entirely, so the folder is ours alone (0700, our own user, checked each time), a
//! file whose checksum does not match is never loaded, and a user's precompiled file is never accepted. Whatever fails here
//! costs a compilation, nothing else.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::capability::crypto::Encoding;

/// Part of the name: a new version may turn the same module into another component.
const FORMAT: &str = concat!("1-", env!("CARGO_PKG_VERSION"));
/// Files kept; the oldest go first. A Python policy has 35 MB.
const FILES_MAX: usize = 64;

/// SHA-256 of a file.
pub(crate) type Hash256 = [u8; 32];

/// The hash of bytes.
pub(crate) fn hash(bytes: &[u8]) -> Hash256 {
    Sha256::digest(bytes).into()
}

/// A hash as text.
pub(crate) fn hex(hash: &[u8]) -> String {
    Encoding::Hex.encode(hash)
}

/// A folder of compiled code.
pub(crate) struct CodeCache {
    folder: PathBuf,
}

struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl CodeCache {
    /// The folder, made if need be. `None` (with a line in the log) when it cannot be trusted.
    pub(crate) fn open(folder: &Path) -> Option<Self> {
        match open(folder) {
            Ok(()) => Some(Self { folder: folder.to_owned() }),
            Err(reason) => {
                tracing::warn!(folder = %folder.display(), reason, "compiled policies are not kept on disk");
                None
            }
        }
    }

    fn file(&self, engine: &Engine, wasm: &Hash256) -> PathBuf {
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.update(FORMAT);
        let engine = hasher.0.finalize();
        self.folder.join(format!("{}-{}.cwasm", hex(wasm), hex(&engine[..8])))
    }

    /// Compiled code, if it is there and whole.
    pub(crate) fn load(&self, engine: &Engine, wasm: &Hash256) -> Option<Component> {
        let file = self.file(engine, wasm);
        let sum = fs::read_to_string(file.with_extension("sum")).ok()?;
        let bytes = fs::read(&file).ok()?;
        if sum.trim() != hex(&hash(&bytes)) {
            tracing::warn!(file = %file.display(), "compiled code has a wrong checksum and is made again");
            return None;
        }
        drop(bytes);
        #[expect(unsafe_code, reason = "wasmtime maps compiled code from a file that it has to trust")]
        // SAFETY: the file lies in a folder that only our own user can write to (checked in `open`), was written by `store`
        // from `Component::serialize`, and matches its checksum; files are replaced by rename, never changed in place.
        let component = unsafe { Component::deserialize_file(engine, &file) };
        component
            .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "compiled code is made again"))
            .ok()
    }

    /// Keeps compiled code.
    pub(crate) fn store(&self, engine: &Engine, wasm: &Hash256, component: &Component) {
        let kept = component.serialize().map_err(|error| error.to_string()).and_then(|bytes| {
            let file = self.file(engine, wasm);
            // The checksum goes first: code without one is never loaded, and an old one does not match.
            replace(&file.with_extension("sum"), hex(&hash(&bytes)).as_bytes())
                .and_then(|()| replace(&file, &bytes))
                .map_err(|error| error.to_string())
        });
        match kept {
            Ok(()) => self.prune(),
            Err(reason) => tracing::warn!(folder = %self.folder.display(), reason, "compiled code could not be kept"),
        }
    }

    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let is_code = path.extension().is_some_and(|extension| extension == "cwasm");
                is_code.then(|| fs::metadata(&path).and_then(|data| data.modified()).ok().map(|time| (time, path)))?
            })
            .collect();
        files.sort();
        let excess = files.len().saturating_sub(FILES_MAX);
        for (_, file) in files.into_iter().take(excess) {
            let _ = fs::remove_file(file.with_extension("sum"));
            let _ = fs::remove_file(file);
        }
    }
}

fn open(folder: &Path) -> Result<(), String> {
    if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        return Err(format!("the folder can't be made: {error}"));
    }
    let data = fs::symlink_metadata(folder).map_err(|error| error.to_string())?;
    #[expect(unsafe_code, reason = "the standard library does not tell our own user")]
    // SAFETY: geteuid takes nothing, changes nothing and cannot fail.
    let own = unsafe { libc::geteuid() };
    if !data.is_dir() || data.uid() != own {
        return Err("it is not a folder of our own user".to_owned());
    }
    if data.mode() & 0o077 != 0 {
        return Err(format!("others may use it (mode {:o}): it must be 700", data.mode() & 0o777));
    }
    Ok(())
}

/// Writes a file beside its place and renames it there.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = file.with_file_name(name);
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).and_then(
        |mut open| {
            open.write_all(bytes)?;
            open.sync_all()
        },
    );
    written.and_then(|()| fs::rename(&beside, file)).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}
