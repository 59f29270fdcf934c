//! Builds the rooms in order, runs, reloads, drains. The only place that knows all of them.

mod certificates;
mod control;
mod generation;
mod reload;
mod service_manager;
mod services;
mod upgrade;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt;
use http::HeaderValue;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::certificates::{Certificates, secure};
use self::services::{AdminService, ProxyService};
use self::upgrade::{Predecessor, Program};
use crate::admin::{self, Admin};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{self, Mistakes, Resolved};
use crate::listener::admission::Admission;
use crate::listener::{self, Address, Http3, Listening, Workers};
use crate::policy::Policies;
use crate::proxy::Proxy;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::tls::Tls;
use crate::{policy, telemetry};

/// How long requests in flight may take once the program was told to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// Between two looks at whether the admin token lies where the command line finds it.
const TOKEN_LOOK: Duration = Duration::from_secs(5);

/// Why the program did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the user can mend: exit code 2.
    #[error("{0}")]
    Configuration(#[from] Mistakes),
    /// Likewise, where hosts.json is right and the machine is not: a cache folder of others, an address in use.
    #[error("{0}")]
    Machine(String),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Serves until it is told to stop: SIGTERM and SIGINT drain, SIGHUP reloads, SIGUSR2 upgrades.
pub async fn run(file: PathBuf) -> Result<(), StartError> {
    let predecessor = Predecessor::find().context("the program before this one cannot be reached")?;
    let outcome = serve(file, predecessor.clone()).await;
    if let (Err(error), Some(predecessor)) = (&outcome, predecessor) {
        predecessor.failed(error.to_string()).await;
    }
    outcome
}

async fn serve(file: PathBuf, predecessor: Option<Predecessor>) -> Result<(), StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    // Before anything answers, so that no signal finds the program without a handler.
    let handler = |kind: SignalKind| signal(kind).context("signals cannot be handled");
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut hangup = handler(SignalKind::hangup())?;
    let mut upgrade = handler(SignalKind::user_defined2())?;
    let program = Program::of_this_process().context("this program's own file cannot be found")?;
    let resolved = config::load(&file)?;
    let (metrics, registry) = Metrics::new();
    let stderr = telemetry::tracing::init(&metrics).context("stderr cannot be used")?;
    crate::open_files::raise();
    for line in resolved.summary() {
        // Nobody may be there to read it.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    let log = AccessLog::start(Arc::clone(&metrics));
    let (wishes, mut wished) = mpsc::channel(1);
    let succession = Succession { wishes: Some(wishes), predecessor };
    let started = App::start_after(resolved, Clock::System, log.clone(), metrics, registry, succession).await;
    let app = match started {
        Ok(app) => app,
        Err(error) => {
            stderr.flush();
            return Err(error);
        }
    };
    service_manager::ready();
    let _watchdog = service_manager::watchdog();
    let successor = loop {
        let wish: Wish = tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => {
                // The outcome is logged there; a bad file leaves the old configuration in force.
                let _ = app.reload().await;
                continue;
            }
            _ = upgrade.recv() => oneshot::channel().0,
            Some(wish) = wished.recv() => wish,
        };
        app.inner.upgrading.store(true, Ordering::Release);
        let outcome = tokio::select! {
            biased;
            // Whoever wants an end wants no new beginning.
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            outcome = app.upgrade(&program) => outcome,
        };
        if outcome.is_err() {
            app.inner.upgrading.store(false, Ordering::Release);
        }
        let _ = wish.send(outcome.clone());
        match outcome {
            Ok(pid) => {
                // Who asked for a reload meanwhile means the program that serves.
                if hangup.recv().now_or_never().flatten().is_some() {
                    upgrade::hang_up(pid);
                }
                break Some(pid);
            }
            Err(reason) => tracing::error!(reason, "not upgraded, this program goes on"),
        }
    };
    // One that came in between is told at once.
    wished.close();
    while wished.try_recv().is_ok() {}
    match successor {
        Some(pid) => {
            service_manager::succeeded_by(pid);
            tracing::info!(pid, "the new program serves, draining");
            app.finish(DRAIN).await;
        }
        None => {
            tracing::info!("draining");
            service_manager::stopping();
            app.stop(DRAIN).await;
        }
    }
    tracing::info!("stopped");
    log.flush();
    stderr.flush();
    Ok(())
}

/// Somebody wants an upgrade, and to know what became of it.
type Wish = oneshot::Sender<Result<u32, String>>;

/// Whom this program takes over from, and how somebody takes over from it.
#[derive(Default)]
struct Succession {
    wishes: Option<mpsc::Sender<Wish>>,
    predecessor: Option<Predecessor>,
}

/// Puts a token that was made here back where the command line finds it, should somebody empty the cache folder.
async fn keep_token(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TOKEN_LOOK) => {}
            () = inner.residents.cancelled() => return,
        }
        let resolved = inner.in_force.lock().await;
        if resolved.admin_token.is_some() {
            continue;
        }
        let (token, dir) = (inner.token.clone(), resolved.cache.dir.clone());
        drop(resolved);
        let _ = tokio::task::spawn_blocking(move || token.keep_again(&dir)).await;
    }
}

/// Looks at what hosts.json cannot say: whether its policies, and those that lie in their folder, load and take their
/// configuration. Ok: lines for a person; Err: mistakes. Leaves nothing behind.
pub fn check(resolved: &Resolved) -> Result<Vec<String>, Vec<String>> {
    let settings = policy::Settings { read_only: true, ..resolved.policies.clone() };
    let policies = Policies::start(settings, Metrics::new().0).map_err(|error| vec![error.to_string()])?;
    let mut mistakes = Vec::new();
    if let Err(error) = Cache::check_folder(&resolved.cache.dir) {
        mistakes.push(error.to_string());
    }
    let mut lines = resolved.summary();
    let mut chains = Vec::new();
    for host in &resolved.hosts {
        chains.push(policies.chain(&host.chain, &resolved.capabilities).0);
    }
    policies.domains(&chains);
    policies.put_in_force(&chains);
    if let Err(error) = secure(resolved).map(|(_, problems)| mistakes.extend(problems)) {
        mistakes.push(error);
    }
    for chain in chains.iter().flat_map(generation::with_domains) {
        let host = &chain.settings().host;
        mistakes.extend(generation::problems(&chain));
        let serving = chain.in_service();
        lines.extend(serving.iter().map(|file| format!("policy {} of {host} loads", file.display())));
    }
    lines.extend(policies.unused());
    if mistakes.is_empty() { Ok(lines) } else { Err(mistakes) }
}

/// The running program.
pub struct App {
    inner: Arc<Inner>,
    admin: Listening,
    workers: Arc<Workers>,
}

struct Inner {
    file: PathBuf,
    /// Where wishes for an upgrade go.
    wishes: Option<mpsc::Sender<Wish>>,
    proxy: Arc<Proxy>,
    http: Listening,
    https: Listening,
    http3: Http3,
    tls: Arc<Tls>,
    certificates: Certificates,
    admission: Arc<Admission>,
    token: admin::Token,
    cache: Cache,
    policies: Arc<Policies>,
    metrics: Arc<Metrics>,
    registry: Registry,
    clock: Clock,
    /// What the last reload that worked had read; one reload at a time.
    in_force: tokio::sync::Mutex<Resolved>,
    /// Why the last reload failed, until one works.
    failed_reload: Mutex<Option<Vec<String>>>,
    started_ms: u64,
    /// From the wish for an upgrade on, and for good when it has worked.
    upgrading: AtomicBool,
    draining: AtomicBool,
    /// Ends mirrors and the care of pins.
    residents: CancellationToken,
}

impl App {
    /// Builds the rooms and serves.
    pub async fn start(
        resolved: Resolved,
        clock: Clock,
        log: AccessLog,
        metrics: Arc<Metrics>,
        registry: Registry,
    ) -> Result<Self, StartError> {
        Self::start_after(resolved, clock, log, metrics, registry, Succession::default()).await
    }

    async fn start_after(
        resolved: Resolved,
        clock: Clock,
        log: AccessLog,
        metrics: Arc<Metrics>,
        registry: Registry,
        succession: Succession,
    ) -> Result<Self, StartError> {
        let Succession { wishes, predecessor } = succession;
        let open = || {
            Cache::open(resolved.cache.clone(), clock.clone(), Arc::clone(&metrics))
                .map_err(|error| StartError::Machine(error.to_string()))
        };
        // A folder of others is refused before anything is written there. One that another program has comes last.
        let cache = if predecessor.is_none() { Some(open()?) } else { None };
        let policies =
            Policies::start(resolved.policies.clone(), Arc::clone(&metrics)).context("policies cannot run")?;
        let unmade = |lines: Vec<String>| StartError::Machine(lines.join("; "));
        let (tls, problems) = secure(&resolved).map_err(StartError::Machine)?;
        if !problems.is_empty() {
            return Err(unmade(problems));
        }
        let certificates = Certificates::start(Arc::clone(&tls), Arc::clone(&metrics), clock.clone());
        let automatic = certificates.prepare(resolved.acme.as_ref()).await.map_err(StartError::Machine)?;
        let origins = generation::origins(&resolved, &metrics).await.map_err(unmade)?;
        let (generation, chains) =
            generation::build(&resolved, origins, &policies, &metrics, None, &mut Vec::new()).await.map_err(unmade)?;
        let of_policies = Arc::clone(&policies);
        let looked = tokio::task::spawn_blocking(move || of_policies.put_in_force(&chains)).await;
        looked.context("policies cannot be looked at")?;
        if let Err(error) = policies.watch() {
            tracing::warn!(%error, "the policies folder is not watched; a reload still looks at it");
        }
        let cache = match (cache, &predecessor) {
            (None, Some(predecessor)) => {
                predecessor.take_over().await.context("the program before this one does not give way")?;
                open()?
            }
            (cache, _) => cache.map_or_else(open, Ok)?,
        };
        let proxy = Proxy::new(generation, cache.clone(), log, Arc::clone(&metrics), clock.clone(), Arc::clone(&tls));
        let token = admin::auth::token_for(resolved.admin_token.as_ref().map(|token| &*token.0), &resolved.cache.dir)
            .context("the admin token cannot be made")?;
        let token = admin::Token::from(token);
        let admin_at = resolved.admin;
        let region = cache.region().cloned();
        let admin_addresses = [Address::Ip(admin_at)];
        listener::inherited::deal(&[("http", &resolved.http), ("https", &resolved.https), ("admin", &admin_addresses)]);
        let workers = Arc::new(Workers::start().context("workers cannot be started")?);
        let admission = Admission::new(connections(&resolved));
        let settings = listener::Settings {
            region,
            admission: Some(Arc::clone(&admission)),
            workers: Some(workers.clone()),
            ..listener::Settings::at("http", resolved.http.clone())
        };
        let http = Listening::bind(settings, Arc::new(ProxyService(Arc::clone(&proxy))), Arc::clone(&metrics))
            .await
            .map_err(|error| StartError::Machine(format!("the http listener cannot start: {error}")))?;
        let settings = listener::Settings {
            tls: Some(Arc::clone(&tls)),
            admission: Some(Arc::clone(&admission)),
            workers: Some(workers.clone()),
            ..listener::Settings::at("https", resolved.https.clone())
        };
        let over_udp = settings.clone();
        let https = Listening::bind(settings, Arc::new(ProxyService(Arc::clone(&proxy))), Arc::clone(&metrics))
            .await
            .map_err(|error| StartError::Machine(format!("the https listener cannot start: {error}")))?;
        // The same ports: where any is asked for, the one that TCP was given.
        let addresses = if resolved.http3 { https.addresses() } else { Vec::new() };
        let later = predecessor.as_ref().map(|_| addresses.clone()).unwrap_or_default();
        let addresses = if predecessor.is_some() { Vec::new() } else { addresses };
        let settings = listener::Settings { addresses, ..over_udp };
        let http3 = Http3::bind(settings, Arc::new(ProxyService(Arc::clone(&proxy))), Arc::clone(&metrics))
            .await
            .map_err(|error| StartError::Machine(format!("the http/3 listener cannot start: {error}")))?;
        proxy.serve_https_at(port_of(&https));
        proxy.serve_http3_at(alternatives(&http3));
        if let Some(predecessor) = &predecessor {
            predecessor.share_purges(&cache);
        }
        let inner = Arc::new(Inner {
            wishes,
            file: resolved.file.clone(),
            proxy,
            http,
            https,
            http3,
            tls,
            certificates,
            admission,
            token: token.clone(),
            cache,
            policies,
            metrics: Arc::clone(&metrics),
            registry,
            started_ms: clock.now().as_millis(),
            upgrading: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            residents: CancellationToken::new(),
            clock,
            in_force: tokio::sync::Mutex::new(resolved),
            failed_reload: Mutex::new(None),
        });
        let settings = admin::Settings { address: admin_at, token };
        let service = Arc::new(AdminService(Arc::new(Admin::new(&settings, Arc::clone(&inner)))));
        let admin = Listening::bind(listener::Settings::at("admin", admin_addresses.to_vec()), service, metrics)
            .await
            .map_err(|error| StartError::Machine(format!("the admin listener cannot start: {error}")))?;
        let app = Self { inner, admin, workers };
        if let Some(predecessor) = predecessor {
            predecessor.serving().await;
            if !later.is_empty() {
                tokio::spawn(serve_http3_later(Arc::clone(&app.inner), later));
            }
        }
        // Whoever validates finds the listeners open.
        app.inner.certificates.order(automatic).await;
        let residents = &app.inner.residents;
        tokio::spawn(Arc::clone(&app.inner.proxy).keep_mirrors(residents.clone()));
        tokio::spawn(Arc::clone(&app.inner.proxy).keep_pins(residents.clone()));
        tokio::spawn(keep_token(Arc::clone(&app.inner)));
        let texts: Vec<String> = app.http_addresses().iter().map(ToString::to_string).collect();
        let secured: Vec<String> = app.inner.https.addresses().iter().map(ToString::to_string).collect();
        for address in listener::inherited::close_unused() {
            tracing::warn!(%address, "a socket was handed over that hosts.json does not name");
        }
        tracing::info!(http = ?texts, https = ?secured, admin = %app.admin_address(), "listening");
        Ok(app)
    }

    /// Where it serves.
    pub fn http_addresses(&self) -> Vec<Address> {
        self.inner.http.addresses()
    }

    /// Where it is administered.
    pub fn admin_address(&self) -> SocketAddr {
        // One address was bound, or starting had failed.
        self.admin.addresses().first().and_then(Address::ip).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Reads hosts.json again: all or nothing.
    pub async fn reload(&self) -> Result<Vec<String>, Vec<String>> {
        self.inner.reload_now().await
    }

    /// Stops accepting, lets requests finish for at most this long, and closes the cache.
    pub async fn stop(self, at_most: Duration) {
        let Self { inner, admin, workers } = self;
        // Load balancers learn it from /readyz while requests in flight finish.
        inner.draining.store(true, Ordering::Release);
        inner.residents.cancel();
        tokio::join!(inner.http.drain(at_most), inner.https.drain(at_most), inner.http3.drain(at_most));
        inner.proxy.end_warm_ups();
        admin.drain(Duration::from_secs(1)).await;
        inner.cache.close().await;
        // What fills and policies have under way ends here.
        drop(workers);
    }
}

/// The ports of HTTP/3 are free when the program before this one has ended its connections.
async fn serve_http3_later(inner: Arc<Inner>, addresses: Vec<Address>) {
    let addresses: Vec<SocketAddr> = addresses.iter().filter_map(Address::ip).collect();
    let deadline = tokio::time::Instant::now() + DRAIN * 2;
    loop {
        let in_force = inner.in_force.lock().await;
        // A reload has settled it meanwhile.
        if !in_force.http3 || !inner.http3.addresses().is_empty() {
            return;
        }
        match inner.http3.prepare(&addresses).await {
            Ok(change) => {
                inner.http3.apply(change);
                return inner.proxy.serve_http3_at(alternatives(&inner.http3));
            }
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return tracing::error!(%error, "HTTP/3 is not served");
            }
            Err(_) => {}
        }
        drop(in_force);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How many connections may be open.
fn connections(resolved: &Resolved) -> listener::admission::Limits {
    let (all, per_address) = resolved.max_connections;
    let proxies = resolved.proxy_protocol.clone();
    listener::admission::Limits::new(all, per_address, proxies, crate::open_files::limit())
}

/// Addresses as HTTP/3 has them: with port 0, the one that is bound at the same IP address.
fn bound(addresses: &[Address], https: &Listening) -> Vec<SocketAddr> {
    let all: Vec<SocketAddr> = https.addresses().iter().filter_map(Address::ip).collect();
    let of = |asked: SocketAddr| match asked.port() {
        0 => all.iter().find(|bound| bound.ip() == asked.ip()).copied().unwrap_or(asked),
        _ => asked,
    };
    addresses.iter().filter_map(Address::ip).map(of).collect()
}

/// Ports of HTTP/3, and how clients are told of each.
fn alternatives(http3: &Http3) -> Vec<(u16, HeaderValue)> {
    let of = |address: SocketAddr| (address.port(), listener::http3::alt_svc(address.port()));
    http3.addresses().into_iter().map(of).collect()
}

/// The port for redirects to https.
fn port_of(https: &Listening) -> Option<u16> {
    let ports: Vec<u16> = https.addresses().iter().filter_map(Address::ip).map(|address| address.port()).collect();
    ports.iter().find(|port| **port == 443).or(ports.first()).copied()
}
