//! What a service manager (systemd) is told: that we are up, that we stop, and that we are alive (sd_notify(3)). Without one
//! nobody listens, and nothing is done. A manager that does not read holds nothing up: what it does not take is dropped.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

/// Requests are served from now on.
pub(super) fn ready() {
    tell("READY=1");
}

/// Another process serves from now on. The manager is to look after that one, and this one may end.
pub(super) fn succeeded_by(pid: u32) {
    tell(&format!("MAINPID={pid}"));
}

/// Nothing new is accepted from now on.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

/// Tells twice as often as it is asked to that the program is alive: as long as this runtime gets to it.
pub(super) fn watchdog() -> Option<AbortOnDropHandle<()>> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    let every = Duration::from_micros(number("WATCHDOG_USEC")? / 2).max(Duration::from_millis(10));
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tell("WATCHDOG=1");
            tokio::time::sleep(every).await;
        }
    })))
}

fn tell(state: &str) {
    if let Err(error) = send(state) {
        tracing::warn!(%error, state, "the service manager can't be told");
    }
}

fn send(state: &str) -> io::Result<()> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match place.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&place)?,
    };
    let socket = UnixDatagram::unbound()?;
    // Its queue is short, and a full one would hold the runtime.
    socket.set_nonblocking(true)?;
    match socket.send_to_addr(state.as_bytes(), &address) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        done => done.map(|_| ()),
    }
}
