//! Listening sockets that were open before we were: systemd opens them (socket activation, sd_listen_fds(3)), so that ports below
//! 1024 need no privilege and no connection is lost over a restart. One is used where its address is one to listen at.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use parking_lot::Mutex;
use socket2::Socket;

/// The first of them (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// More than anybody passes.
const MOST: RawFd = 1024;

static SOCKETS: OnceLock<Mutex<Vec<(SocketAddr, Socket)>>> = OnceLock::new();

/// The socket that listens at `address` already, once.
pub(super) fn take(address: SocketAddr) -> Option<Socket> {
    let mut sockets = SOCKETS.get_or_init(|| Mutex::new(sockets())).lock();
    let at = sockets.iter().position(|(own, _)| *own == address)?;
    Some(sockets.swap_remove(at).1)
}

/// Addresses of sockets that nobody has taken: hosts.json does not name them.
pub fn unused() -> Vec<SocketAddr> {
    SOCKETS.get().map(|sockets| sockets.lock().iter().map(|(address, _)| *address).collect()).unwrap_or_default()
}

fn sockets() -> Vec<(SocketAddr, Socket)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    // Meant for us, and not for a parent that handed its environment down.
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0).clamp(0, MOST);
    let found = (FIRST..FIRST + count).filter_map(|descriptor| {
        #[expect(unsafe_code, reason = "systemd hands descriptors over by their numbers")]
        // SAFETY: by the protocol of LISTEN_FDS these descriptors are open and ours alone; this runs once in the life of the
        // process, so that none gets two owners.
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        let address = socket.local_addr().ok()?.as_socket();
        match address {
            Some(address) if socket.is_listener().unwrap_or(false) => Some((address, socket)),
            _ => {
                tracing::warn!(descriptor, "a socket that was handed over does not listen for TCP connections");
                None
            }
        }
    });
    found.collect()
}
