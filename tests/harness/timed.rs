//! The library's `app` in the test's own process, with a clock that is turned by hand: for plays that last days.
//!
//! Origins of such plays send no Date: theirs would be of a clock that does not turn along.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proxyhost::app::App;
use proxyhost::clock::{Clock, ManualClock, Timestamp};
use proxyhost::config;
use proxyhost::telemetry::access_log::AccessLog;
use proxyhost::telemetry::metrics::Metrics;
use tempfile::TempDir;

use crate::client::{Answer, Call};
use crate::setup::Setup;

/// A running proxy whose clock is ours.
pub struct TimedHost {
    folder: TempDir,
    name: String,
    clock: ManualClock,
    app: Option<App>,
}

impl TimedHost {
    /// Starts one with one virtual host, or a whole setup.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn with(setup: impl Into<Setup>) -> Self {
        let setup = setup.into();
        let now = SystemTime::now();
        let clock = ManualClock::at(Timestamp::from_system(now));
        let mut host = Self { folder: setup.lay_out(), name: setup.first(), clock, app: None };
        host.start().await;
        host
    }

    async fn start(&mut self) {
        let file = self.path("hosts.json");
        let resolved = config::load(&file).unwrap_or_else(|mistakes| panic!("hosts.json: {mistakes}"));
        let (metrics, registry) = Metrics::new();
        let log = AccessLog::onto(std::io::sink(), &metrics);
        let app = App::start(resolved, Clock::Manual(self.clock.clone()), log, metrics, registry).await;
        self.app = Some(app.unwrap_or_else(|error| panic!("the app does not start: {error}")));
    }

    /// Stops and starts again on the same folder; the clock stands meanwhile.
    pub async fn restart(&mut self) {
        if let Some(app) = self.app.take() {
            app.stop(Duration::from_secs(5)).await;
        }
        self.start().await;
    }

    /// Turns the clock on.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// A file or folder beside hosts.json.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> SocketAddr {
        let app = self.app.as_ref().expect("it runs but for a moment within restart");
        app.http_addresses()[0].ip().expect("it listens at an address")
    }

    /// A request to its first virtual host.
    #[track_caller]
    pub fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.address(), method, target, &self.name)
    }

    /// GET from its first virtual host.
    pub async fn get(&self, target: &str) -> Answer {
        self.call("GET", target).send().await
    }
}
