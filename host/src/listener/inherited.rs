//! Listening sockets that were open before we were. systemd opens them (socket activation, sd_listen_fds(3)), so that ports below
//! 1024 need no privilege and no connection is lost over a restart; or the program that this one takes over from has them. One
//! is used where its address is one to listen at.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use parking_lot::Mutex;
use socket2::{SockRef, Socket};

use super::Address;
use super::doors::{FileId, leaves_ipv4, remove_file};

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
    /// The file of a unix socket.
    pub file: Option<FileId>,
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

/// Deals what the program before this one has handed over to the listeners of this one, each with its addresses: what asks for
/// the same keeps its socket, and where hosts.json has addresses change places between listeners their sockets go with them.
///
/// The program before still holds what is left over, and listens there again if this one fails. So that new sockets can be bound
/// beside it, at `0.0.0.0:80` where it was `127.0.0.1:80`, it shares its port meanwhile (SO_REUSEPORT, with this user's
/// processes alone).
pub fn deal(listeners: &[(&str, &[Address])]) {
    let mut sockets = all().lock();
    let mut wanted: Vec<Wanted<'_>> = Vec::new();
    for (listener, addresses) in listeners {
        let each = |address| Wanted { listener, address, beside: leaves_ipv4(address, addresses) };
        wanted.extend(addresses.iter().map(each));
    }
    let mut left = Vec::new();
    for handed in sockets.iter_mut() {
        match wanted.iter().position(|wanted| handed.is_for(wanted)) {
            Some(at) => drop(wanted.swap_remove(at)),
            None if handed.listener.is_some() => left.push(handed),
            None => {}
        }
    }
    for handed in left {
        let Some(bound) = handed.bound() else { continue };
        let moved = wanted.iter().position(|wanted| *wanted.address == bound && wanted.beside == handed.beside);
        if let Some(at) = moved {
            let wanted = wanted.swap_remove(at);
            (handed.listener, handed.asked) = (Some(wanted.listener.to_owned()), bound);
            continue;
        }
        let port = |address: &Address| address.ip().map(|ip| ip.port());
        let beside_new = port(&bound).is_some() && wanted.iter().any(|wanted| port(wanted.address) == port(&bound));
        if beside_new && let Err(error) = SockRef::from(&handed.socket).set_reuse_port(true) {
            tracing::warn!(%error, address = %bound, "a port cannot be shared with the program before this one");
        }
    }
}

/// What a listener is to listen at.
struct Wanted<'a> {
    listener: &'a str,
    address: &'a Address,
    beside: bool,
}

/// Whether a socket at this port was handed over that shares it, until it is closed.
pub(super) fn shares(port: u16) -> bool {
    all().lock().iter().any(|handed| handed.shares() == Some(port))
}

/// Takes the sockets that share a port with one of these addresses and whose clients these serve now, all or some: who connects to
/// them in the time until the program before this one closes them is not lost. The flag: all.
pub(super) fn take_covered(addresses: &[Address]) -> Vec<(Socket, Address, bool)> {
    let mut sockets = all().lock();
    let all_ip = || addresses.iter().filter_map(Address::ip);
    let bound = |handed: &Handed| handed.shares().and_then(|_| handed.bound()?.ip());
    let is_all = |handed: &Handed| bound(handed).is_some_and(|bound| all_ip().any(|address| covers(address, bound)));
    let is_some = |handed: &Handed| bound(handed).is_some_and(|bound| all_ip().any(|address| covers(bound, address)));
    let covered = sockets.extract_if(.., |handed| is_all(handed) || is_some(handed));
    let with_flag = covered.map(|handed| (is_all(&handed), handed));
    with_flag.map(|(all, handed)| (Socket::from(handed.socket), handed.asked, all)).collect()
}

fn covers(address: SocketAddr, other: SocketAddr) -> bool {
    let all = address.ip().is_unspecified() && (address.is_ipv6() || other.is_ipv4());
    address.port() == other.port() && (all || address.ip() == other.ip())
}

impl Handed {
    /// Whether it is what is asked for, as it was asked for.
    fn is_for(&self, wanted: &Wanted<'_>) -> bool {
        let of_listener = |own: &str| own == wanted.listener && self.beside == wanted.beside;
        self.asked == *wanted.address && self.listener.as_deref().is_none_or(of_listener)
    }

    /// Where the socket listens.
    fn bound(&self) -> Option<Address> {
        address_of(&SockRef::from(&self.socket))
    }

    /// The port that it shares.
    fn shares(&self) -> Option<u16> {
        let shares = self.listener.is_some() && SockRef::from(&self.socket).reuse_port().unwrap_or(false);
        self.bound().filter(|_| shares)?.ip().map(|ip| ip.port())
    }
}

/// The socket that listens at `address` already, once, and the file of a unix socket where that is known.
pub(super) fn take(listener: &str, address: &Address, beside: bool) -> Option<(Socket, Option<FileId>)> {
    let mut sockets = all().lock();
    let wanted = Wanted { listener, address, beside };
    let at = sockets.iter().position(|handed| handed.is_for(&wanted))?;
    let Handed { socket, file, .. } = sockets.swap_remove(at);
    Some((Socket::from(socket), file))
}

/// Closes sockets that nobody has taken, and tells their addresses: hosts.json does not name them. The files of unix sockets go,
/// unless they are others' by now.
pub fn close_unused() -> Vec<Address> {
    let sockets = std::mem::take(&mut *all().lock());
    let close = |handed: Handed| {
        remove_file(&handed.asked, handed.file);
        handed.asked
    };
    sockets.into_iter().map(close).collect()
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
                Some(Handed { listener: None, asked, beside: false, file: None, socket: socket.into() })
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
