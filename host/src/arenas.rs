//! The system's allocator, which C and C++ use.

/// Lets C and C++ (RocksDB) share a few of the system allocator's arenas, two for each core: workers and who writes in the background
/// seldom wait for each other. By itself it makes eight for each: what the block cache lets go of in one is no use to the others, and
/// megabytes lie idle (`xtask bench scale`). Who has set `MALLOC_ARENA_MAX` knows better.
pub fn share() {
    #[cfg(target_env = "gnu")]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let arenas = libc::c_int::try_from(2 * cores).unwrap_or(libc::c_int::MAX);
        #[expect(unsafe_code, reason = "a setting of the C library")]
        // SAFETY: it changes how blocks are given from now on, and no block that was given. 0 says that it had no effect.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}
