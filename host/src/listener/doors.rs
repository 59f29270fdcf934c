//! Sockets that listen: opened at an address, or taken over.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::Address;
use super::address::{LOCAL, canonical};
use super::inherited;

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// Who may connect to a unix socket: everybody who may reach it, as with nginx. Its folder says who that is.
const UNIX_MODE: u32 = 0o666;

/// How often the lock of a folder is tried, and the pause in between. Another program of this kind holds it for less than a
/// millisecond; this is half a second.
const TURN_TRIES: u32 = 50;
const TURN_PAUSE: Duration = Duration::from_millis(10);

/// Which file it is, whatever its path leads to by now: device and inode.
pub type FileId = (u64, u64);

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// The next connection, and who it is from. A unix socket is read and written by the same calls as one of TCP, so the
    /// rest of the program knows one kind only.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| (stream, canonical(peer))),
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let stream = std::net::TcpStream::from(OwnedFd::from(stream.into_std()?));
                Ok((TcpStream::from_std(stream)?, LOCAL))
            }
        }
    }

    /// The next of those that wait to be accepted, whatever the runtime knows of them. None: nobody, or an error.
    pub(super) fn accept_waiting(&self) -> Option<(TcpStream, SocketAddr)> {
        let (socket, address) = match self {
            Self::Tcp(listener) => SockRef::from(listener).accept().ok()?,
            Self::Unix(listener) => SockRef::from(listener).accept().ok()?,
        };
        socket.set_nonblocking(true).ok()?;
        let stream = TcpStream::from_std(socket.into()).ok()?;
        Some((stream, address.as_socket().map_or(LOCAL, canonical)))
    }

    /// Where it listens: of a TCP socket as it was bound.
    pub(super) fn bound(&self, asked: &Address) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Ip),
            Self::Unix(_) => Ok(asked.clone()),
        }
    }

    /// Shares its port no more, where a program that did not come up has made it share.
    pub(super) fn share_no_more(&self) {
        if let Self::Tcp(listener) = self
            && let Err(error) = SockRef::from(listener).set_reuse_port(false)
        {
            tracing::warn!(%error, "a port stays shared");
        }
    }

    /// A duplicate, for another program.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }
}

/// Whether an IPv6 address leaves IPv4 to another one of these.
pub(super) fn is_beside(address: SocketAddr, all: impl IntoIterator<Item = SocketAddr>) -> bool {
    let is = |other: SocketAddr| other.is_ipv4() && other.port() == address.port() && other.port() != 0;
    address.is_ipv6() && all.into_iter().any(is)
}

/// The same for any address.
pub(super) fn leaves_ipv4(address: &Address, all: &[Address]) -> bool {
    address.ip().is_some_and(|address| is_beside(address, all.iter().filter_map(Address::ip)))
}

/// A socket that listens at `address` for `listener`: one that was handed over, or a new one. `all` are the addresses of the
/// listener: an IPv6 wildcard takes IPv4 clients too, unless an IPv4 address at the same port is asked for beside it.
pub(super) fn listen(listener: &str, address: &Address, all: &[Address]) -> io::Result<(Listener, Option<FileId>)> {
    let open = || {
        let beside = leaves_ipv4(address, all);
        let mut file = None;
        let socket = match (inherited::take(listener, address, beside), address) {
            (Some((socket, known)), _) => {
                socket.set_cloexec(true)?;
                file = known.or_else(|| file_of(address));
                socket
            }
            (None, Address::Ip(ip)) => {
                let socket = Socket::new(Domain::for_address(*ip), Type::STREAM, Some(Protocol::TCP))?;
                if ip.is_ipv6() {
                    socket.set_only_v6(beside)?;
                }
                // So that a restart needs not wait for old connections in TIME_WAIT.
                socket.set_reuse_address(true)?;
                let shares = inherited::shares(ip.port());
                if shares {
                    socket.set_reuse_port(true)?;
                }
                socket.bind(&(*ip).into())?;
                socket.listen(BACKLOG)?;
                if shares {
                    socket.set_reuse_port(false)?;
                }
                socket
            }
            (None, Address::Unix(path)) => {
                let socket = open_unix(path)?;
                file = file_of(address);
                socket
            }
        };
        Ok((over(socket, address)?, file))
    };
    open().map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// A socket that listens at `address` already.
pub(super) fn over(socket: Socket, address: &Address) -> io::Result<Listener> {
    socket.set_nonblocking(true)?;
    match address {
        Address::Ip(_) => TcpListener::from_std(socket.into()).map(Listener::Tcp),
        Address::Unix(_) => UnixListener::from_std(OwnedFd::from(socket).into()).map(Listener::Unix),
    }
}

/// A socket whose program is gone is replaced; anything else that stands there stays.
fn open_unix(path: &Path) -> io::Result<Socket> {
    // Two programs that find the same socket of nobody would both remove what is there: the second one that of the first.
    let _turn = turn(path);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket is there"));
        }
        // Without waiting: the queue of a program that hangs may be full.
        Ok(_) => match probe(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        },
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(UNIX_MODE))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The lock of the socket's folder, as this program takes it before it looks at a socket and until it listens. Whoever else locks
/// the folder, or lets nobody read it, keeps none from listening.
fn turn(path: &Path) -> Option<fs::File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::File::open(folder).ok()?;
    for _ in 0..TURN_TRIES {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(TURN_PAUSE),
            Err(fs::TryLockError::Error(_)) => return None,
        }
    }
    tracing::warn!(path = %path.display(), "the folder stays locked; going on without the lock");
    None
}

/// Whether somebody listens there.
fn probe(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// Which file a unix socket is, so that nobody else's is removed.
pub(super) fn file_of(address: &Address) -> Option<FileId> {
    let meta = fs::symlink_metadata(address.path()?).ok().filter(|meta| meta.file_type().is_socket())?;
    Some((meta.dev(), meta.ino()))
}

/// Removes the file of a unix socket that nobody listens at any more.
pub(super) fn remove_file(address: &Address, file: Option<FileId>) {
    if let Some(path) = address.path()
        && file.is_some()
        && file_of(address) == file
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(%error, %address, "the socket cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let any = Address::parse("127.0.0.1:0").expect("an address");
        let (first, _) = listen("test", &any, &[]).expect("a free port");
        let taken = first.bound(&any).expect("bound");
        let error = listen("test", &taken, &[]).expect_err("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
    }

    #[tokio::test]
    async fn who_waits_is_accepted_without_asking_the_runtime() {
        let any = Address::parse("127.0.0.1:0").unwrap();
        let (listener, _) = listen("test", &any, &[]).unwrap();
        let Address::Ip(address) = listener.bound(&any).unwrap() else { panic!("an IP address was asked for") };
        let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for client in &clients {
            let (_, peer) = listener.accept_waiting().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
        assert!(listener.accept_waiting().is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_that_find_a_socket_of_nobody_one_listens() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..300 {
            let address = Address::Unix(folder.path().join(round.to_string()));
            drop(listen("test", &address, &[]).unwrap());
            let mut all = tokio::task::JoinSet::new();
            let start = std::sync::Arc::new(tokio::sync::Barrier::new(4));
            for _ in 0..4 {
                let (address, start) = (address.clone(), start.clone());
                all.spawn(async move {
                    start.wait().await;
                    listen("test", &address, &[])
                });
            }
            let listeners: Vec<_> = all.join_all().await.into_iter().filter_map(Result::ok).collect();
            assert_eq!(listeners.len(), 1, "round {round}");
            assert_eq!(file_of(&address), listeners[0].1);
        }
    }

    #[tokio::test]
    async fn a_socket_of_nobody_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("s"));
        let first = listen("test", &address, &[]).unwrap();
        assert_eq!(listen("test", &address, &[]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let (second, file) = listen("test", &address, &[]).unwrap();
        assert!(file.is_some());
        drop(second);
        remove_file(&address, file);
        assert!(!folder.path().join("s").exists());
        fs::write(folder.path().join("s"), "of others").unwrap();
        assert_eq!(listen("test", &address, &[]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        remove_file(&address, file);
        assert_eq!(fs::read(folder.path().join("s")).unwrap(), b"of others");
    }
}
