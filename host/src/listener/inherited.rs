//! Listening sockets that were open before we were. systemd opens them (socket activation, sd_listen_fds(3)), so that ports below
//! 1024 need no privilege and no connection is lost over a restart; or the program that this one takes over from has them. One
//! is used where its address is one to listen at.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use parking_lot::Mutex;
use socket2::Socket;

use super::Address;

/// The first of systemd's (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// More than anybody passes.
const MOST: RawFd = 1024;

/// A listening socket that is handed from one program to another.
#[derive(Debug)]
pub struct Handed {
    /// The listener that it belongs to; none: to whichever listens at its address.
    pub listener: Option<String>,
    /// The address as hosts.json has it: port 0 is any.
    pub asked: Address,
    /// An IPv6 address that leaves IPv4 to another one beside it.
    pub beside: bool,
    /// The socket.
    pub socket: OwnedFd,
}

static SOCKETS: OnceLock<Mutex<Vec<Handed>>> = OnceLock::new();

fn all() -> &'static Mutex<Vec<Handed>> {
    SOCKETS.get_or_init(|| Mutex::new(of_systemd()))
}

/// Takes in what the program before this one has handed over.
pub fn accept(sockets: Vec<Handed>) {
    all().lock().extend(sockets);
}

/// The socket that listens at `address` already, once.
pub(super) fn take(listener: &str, address: &Address, beside: bool) -> Option<Socket> {
    let mut sockets = all().lock();
    let at = sockets.iter().position(|handed| {
        &handed.asked == address
            && match &handed.listener {
                None => true,
                Some(own) => own == listener && handed.beside == beside,
            }
    })?;
    Some(Socket::from(sockets.swap_remove(at).socket))
}

/// Closes sockets that nobody has taken, and tells their addresses: hosts.json does not name them.
pub fn close_unused() -> Vec<Address> {
    all().lock().drain(..).map(|handed| handed.asked).collect()
}

fn of_systemd() -> Vec<Handed> {
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
        match address_of(&socket) {
            Some(asked) if socket.is_listener().unwrap_or(false) => {
                Some(Handed { listener: None, asked, beside: false, socket: socket.into() })
            }
            _ => {
                tracing::warn!(descriptor, "a socket that was handed over does not listen for connections");
                None
            }
        }
    });
    found.collect()
}

fn address_of(socket: &Socket) -> Option<Address> {
    let address = socket.local_addr().ok()?;
    let unix = || address.as_pathname().map(|path| Address::Unix(PathBuf::from(path)));
    address.as_socket().map(Address::Ip).or_else(unix)
}
