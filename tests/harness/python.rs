//! Python with what plays need of it: clients that share no code with the program.

use std::path::PathBuf;

/// The interpreter with aioquic: `PROXYHOST_PYTHON`, or the environment that `cargo xtask test` makes in the cache folder.
///
/// # Panics
///
/// When it is not there, with what installs it.
pub fn program() -> PathBuf {
    let places = [
        std::env::var_os("PROXYHOST_PYTHON").map(PathBuf::from),
        std::env::var_os("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("proxyhost/python/bin/python")),
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/proxyhost/python/bin/python")),
    ];
    let found = places.into_iter().flatten().find(|place| place.is_file());
    found
        .expect("aioquic is not installed: `cargo xtask test` does it, or set PROXYHOST_PYTHON to a Python that has it")
}
