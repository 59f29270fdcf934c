//! A new program takes over from this one, without a connection lost.
//!
//! ```text
//! old                                       new
//! starts it                            ->   reads hosts.json, compiles policies, opens certificates
//!                                      <-   ready
//! no longer accepts, closes the index  ->   takes the sockets, opens the index, accepts
//!                                      <-   serving
//! finishes what it was asked, ends    <->   each tells of purges, until the old one is gone
//! ```
//!
//! Until the new program serves, whatever goes wrong leaves the old one serving: it takes back what it gave. Connections that come
//! in between wait in the kernel. Connections of QUIC are not carried over: those of HTTP/3 end with the old program, and the
//! new one opens the ports when they are free.

mod channel;
mod link;
mod predecessor;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use channel::{Channel, Message, Name, SOCKETS};
use link::Link;
pub(super) use predecessor::Predecessor;

use super::App;
use crate::cache::Cache;
use crate::listener::inherited::Handed;

/// Tells a new program that its standard input leads to the old one.
const VARIABLE: &str = "PROXYHOST_TAKES_OVER";

/// How long a new program may take until it could serve: policies are compiled in it, of which large ones take seconds each.
/// With the next, less than the command line waits for an answer.
const READY_WITHIN: Duration = Duration::from_secs(80);

/// How long it may take to open the index and the listeners. Connections wait meanwhile.
const SERVING_WITHIN: Duration = Duration::from_secs(10);

/// How long a program that was killed may take to be gone, or one that closed its end to say with which code.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// What is started at an upgrade: the file that this program was started from, as it is then, with the same arguments.
#[derive(Debug)]
pub(super) struct Program {
    file: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// As this process was started. A link in the path is followed when the program is started again, so that a link to
    /// another version is an upgrade.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let file = match find(Path::new(&name), std::env::split_paths(&folders)) {
            Some(file) => std::path::absolute(file)?,
            None => std::env::current_exe()?,
        };
        Ok(Self { file, arguments: arguments.collect() })
    }
}

/// The file that a shell would have started by this name.
fn find(name: &Path, mut folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Some(name.to_owned());
    }
    let runs = |file: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    folders.find_map(|folder| Some(folder.join(name)).filter(runs))
}

/// Makes a program that took over read its configuration again.
pub(super) fn hang_up(pid: u32) {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let sent = process.map(|process| rustix::process::kill_process(process, rustix::process::Signal::HUP));
    if !matches!(sent, Some(Ok(()))) {
        tracing::warn!(pid, "the new program cannot be told to reload");
    }
}

/// The new program. It is killed when this is dropped, unless it serves.
struct Successor {
    link: Arc<Link>,
    child: Option<Child>,
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Successor {
    fn start(program: &Program) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let mut command = Command::new(&program.file);
        command.args(&program.arguments).stdin(Stdio::from(theirs)).env(VARIABLE, "stdin");
        // They name this process, and sockets that it has taken.
        for name in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        Ok(Self { link: Arc::new(Link::over(channel)), child: Some(child) })
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Waits for a message, and says what came instead. It may purge before it says that it serves.
    async fn expect(
        &mut self,
        within: Duration,
        cache: &Cache,
        is_it: impl Fn(&Message) -> bool,
    ) -> Result<Message, String> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let received = match tokio::time::timeout_at(deadline, self.link.channel().receive()).await {
                Err(_) => return Err(format!("it did not come up within {} s", within.as_secs())),
                Ok(received) => received.map_err(|error| format!("it cannot be heard: {error}"))?,
            };
            match received {
                Some((Message::Failed { reason }, _)) => return Err(reason),
                Some((message, _)) if is_it(&message) => return Ok(message),
                Some((message @ Message::Purged { .. }, _)) => self.link.hear(cache, message),
                Some((message, _)) => {
                    return Err(format!("it said something else than was expected: {message:?}"));
                }
                None => {
                    return Err(match self.ended().await {
                        Some(status) => format!("it ended ({status}); its standard error says why"),
                        None => "it closed the connection to this program".to_owned(),
                    });
                }
            }
        }
    }

    async fn say(&mut self, cache: &Cache, message: &Message, sockets: &[Handed]) -> Result<(), String> {
        let sockets: Vec<_> = sockets.iter().map(|handed| handed.socket.as_fd()).collect();
        match self.link.channel().send(message, &sockets).await {
            Ok(()) => Ok(()),
            // It is gone, and may have said why.
            Err(error) => match self.expect(GONE_WITHIN, cache, |_| false).await {
                Err(reason) => Err(reason),
                Ok(_) => Err(format!("it cannot be told: {error}")),
            },
        }
    }

    /// How it ended, if it does in a moment.
    async fn ended(&mut self) -> Option<ExitStatus> {
        let deadline = tokio::time::Instant::now() + GONE_WITHIN;
        while tokio::time::Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.as_mut()?.try_wait() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// It goes on without us. As long as both are there each goes by the other's purges, which it records.
    fn serves(mut self, cache: &Cache) {
        // Nobody waits for it here any more: it outlives us.
        drop(self.child.take());
        tokio::spawn(Arc::clone(&self.link).listen(cache.clone()));
        let link = Arc::clone(&self.link);
        cache.purges_go_to(Box::new(move |purge, synced| {
            let link = Arc::clone(&link);
            Box::pin(async move { link.purge(purge, synced).await })
        }));
    }
}

impl App {
    /// Starts the new program and gives everything over to it; its process id. After that nothing is accepted here any more:
    /// `finish` is all that is left to do.
    ///
    /// # Errors
    ///
    /// Says why the new program does not serve. This one does, as before.
    pub(super) async fn upgrade(&self, program: &Program) -> Result<u32, String> {
        // No reload meanwhile.
        let _in_force = self.inner.in_force.lock().await;
        let mut successor =
            Successor::start(program).map_err(|error| format!("{}: {error}", program.file.display()))?;
        let pid = successor.pid();
        tracing::info!(file = %program.file.display(), pid, "upgrading");
        let ready = successor
            .expect(READY_WITHIN, &self.inner.cache, |message| matches!(message, Message::Ready { .. }))
            .await?;
        if let Message::Ready { version } = ready {
            tracing::info!(pid, version, "the new program could serve");
        }
        if let Err(reason) = self.give_way(&mut successor).await {
            // It has the index open, perhaps.
            drop(successor);
            self.take_back().await;
            return Err(reason);
        }
        // Before a reload that waits gets its turn.
        self.inner.draining.store(true, Ordering::Release);
        successor.serves(&self.inner.cache);
        Ok(pid)
    }

    async fn give_way(&self, successor: &mut Successor) -> Result<(), String> {
        let inner = &self.inner;
        let mut sockets = Vec::new();
        for listening in [&inner.http, &inner.https, &self.admin] {
            sockets.extend(listening.hand_over().map_err(|error| format!("sockets cannot be handed over: {error}"))?);
        }
        inner.certificates.rest(true).await;
        inner.cache.hand_over().await?;
        for some in sockets.chunks(SOCKETS) {
            let name = |handed: &Handed| Name {
                listener: handed.listener.clone().unwrap_or_default(),
                asked: handed.asked.to_string(),
                beside: handed.beside,
                file: handed.file,
            };
            successor.say(&inner.cache, &Message::Sockets(some.iter().map(name).collect()), some).await?;
        }
        successor.say(&inner.cache, &Message::Released, &[]).await?;
        successor.expect(SERVING_WITHIN, &inner.cache, |message| *message == Message::Serving).await?;
        Ok(())
    }

    /// Goes on as if nothing had been given over.
    async fn take_back(&self) {
        self.inner.cache.take_back().await;
        self.inner.certificates.rest(false).await;
        for listening in [&self.inner.http, &self.inner.https, &self.admin] {
            listening.take_back();
        }
    }

    /// Finishes what was under way when the new program took over, for at most this long.
    pub(super) async fn finish(self, at_most: Duration) {
        let Self { inner, admin, workers } = self;
        // The new program has its own.
        inner.residents.cancel();
        let admin = admin.drain_handed_over(Duration::from_secs(1));
        let http = inner.http.drain_handed_over(at_most);
        let https = inner.https.drain_handed_over(at_most);
        tokio::join!(admin, http, https, inner.http3.drain(at_most));
        inner.cache.close().await;
        drop(workers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = || [folder.path().to_owned(), other.path().to_owned()].into_iter();
        std::fs::write(folder.path().join("p"), "not to be run").unwrap();
        assert_eq!(find(Path::new("p"), folders()), None);
        let program = other.path().join("p");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find(Path::new("p"), folders()), Some(program));
        assert_eq!(find(Path::new("./p"), folders()), Some(PathBuf::from("./p")));
    }
}
