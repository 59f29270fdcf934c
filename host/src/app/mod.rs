//! Builds the rooms in order, runs, reloads, drains. The only place that knows all of them.

mod certificates;
mod service_manager;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use self::certificates::{Certificates, secure};
use crate::admin::{self, Admin, Control};
use crate::cache::Cache;
use crate::cache::purges::PurgeScope;
use crate::clock::Clock;
use crate::config::{self, Mistakes, Resolved};
use crate::listener::admission::Admission;
use crate::listener::{self, Connection, Http3, Listening, RequestBody, Workers};
use crate::local::Local;
use crate::policy::{Chain, Policies};
use crate::proxy::explain::{self, Question};
use crate::proxy::{self, Generation, Peer, Proxy};
use crate::semantics::authority::HostPattern;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{self, Metrics};
use crate::tls::Tls;
use crate::vhost::{Table, VirtualHost};
use crate::{origin, policy, telemetry};

/// How long requests in flight may take once the program was told to stop.
const DRAIN: Duration = Duration::from_secs(30);

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

/// Serves until it is told to stop: SIGTERM and SIGINT drain, SIGHUP reloads.
pub async fn run(file: PathBuf) -> Result<(), StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    let resolved = config::load(&file)?;
    let (metrics, registry) = Metrics::new();
    let stderr = telemetry::tracing::init(&metrics).context("stderr cannot be used")?;
    crate::open_files::raise();
    for line in resolved.summary() {
        eprintln!("{line}");
    }
    let log = AccessLog::start(Arc::clone(&metrics));
    // Before anything answers, so that no signal finds the program without a handler.
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be handled")?;
    let mut hangup = signal(SignalKind::hangup()).context("signals cannot be handled")?;
    let started = App::start(resolved, Clock::System, log.clone(), metrics, registry).await;
    let app = match started {
        Ok(app) => app,
        Err(error) => {
            stderr.flush();
            return Err(error);
        }
    };
    service_manager::ready();
    let _watchdog = service_manager::watchdog();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                // The outcome is logged there; a bad file leaves the old configuration in force.
                let _ = app.reload().await;
            }
        }
    }
    tracing::info!("draining");
    service_manager::stopping();
    app.stop(DRAIN).await;
    tracing::info!("stopped");
    log.flush();
    stderr.flush();
    Ok(())
}

/// Looks at what hosts.json cannot say: whether its policies, and those that lie in their folder, load and take their
/// configuration. Ok: lines for a person; Err: mistakes. Leaves nothing behind.
pub fn check(resolved: &Resolved) -> Result<Vec<String>, Vec<String>> {
    let settings = policy::Settings { read_only: true, ..resolved.policies.clone() };
    let policies = Policies::start(settings, Metrics::new().0).map_err(|error| vec![error.to_string()])?;
    let mut mistakes = Vec::new();
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
    for chain in chains.iter().flat_map(with_domains) {
        let host = &chain.settings().host;
        mistakes.extend(problems(&chain));
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
    draining: AtomicBool,
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
        let cache = Cache::open(resolved.cache.clone(), clock.clone(), Arc::clone(&metrics))
            .map_err(|error| StartError::Machine(error.to_string()))?;
        let policies =
            Policies::start(resolved.policies.clone(), Arc::clone(&metrics)).context("policies cannot run")?;
        let unmade = |lines: Vec<String>| StartError::Machine(lines.join("; "));
        let (tls, problems) = secure(&resolved).map_err(StartError::Machine)?;
        if !problems.is_empty() {
            return Err(unmade(problems));
        }
        let certificates = Certificates::start(Arc::clone(&tls), Arc::clone(&metrics), clock.clone());
        let automatic = certificates.prepare(resolved.acme.as_ref()).await.map_err(StartError::Machine)?;
        let origins = origins(&resolved, &metrics).await.map_err(unmade)?;
        let (generation, chains) =
            generation(&resolved, origins, &policies, &metrics, None, &mut Vec::new()).await.map_err(unmade)?;
        let of_policies = Arc::clone(&policies);
        let looked = tokio::task::spawn_blocking(move || of_policies.put_in_force(&chains)).await;
        looked.context("policies cannot be looked at")?;
        if let Err(error) = policies.watch() {
            tracing::warn!(%error, "the policies folder is not watched; a reload still looks at it");
        }
        let proxy = Proxy::new(generation, cache.clone(), log, Arc::clone(&metrics), clock.clone(), Arc::clone(&tls));
        let token = admin::auth::token_for(resolved.admin_token.as_ref().map(|token| &*token.0), &resolved.cache.dir)
            .context("the admin token cannot be made")?;
        let token = admin::Token::from(token);
        let admin_at = resolved.admin;
        let region = cache.region().cloned();
        let workers = Arc::new(Workers::start().context("workers cannot be started")?);
        let admission = Admission::new(connections(&resolved));
        let settings = listener::Settings {
            region,
            admission: Some(Arc::clone(&admission)),
            workers: Some(workers.clone()),
            ..listener::Settings::at(resolved.http.clone())
        };
        let http = Listening::bind(settings, Arc::new(ProxyService(Arc::clone(&proxy))), Arc::clone(&metrics))
            .await
            .map_err(|error| StartError::Machine(format!("the http listener cannot start: {error}")))?;
        let settings = listener::Settings {
            tls: Some(Arc::clone(&tls)),
            admission: Some(Arc::clone(&admission)),
            workers: Some(workers.clone()),
            ..listener::Settings::at(resolved.https.clone())
        };
        let over_udp = settings.clone();
        let https = Listening::bind(settings, Arc::new(ProxyService(Arc::clone(&proxy))), Arc::clone(&metrics))
            .await
            .map_err(|error| StartError::Machine(format!("the https listener cannot start: {error}")))?;
        // The same ports: where any is asked for, the one that TCP was given.
        let addresses = if resolved.http3 { https.addresses() } else { Vec::new() };
        let settings = listener::Settings { addresses, ..over_udp };
        let http3 = Http3::bind(settings, Arc::new(ProxyService(Arc::clone(&proxy))), Arc::clone(&metrics))
            .await
            .map_err(|error| StartError::Machine(format!("the http/3 listener cannot start: {error}")))?;
        proxy.serve_https_at(port_of(&https));
        proxy.serve_http3_at(port_of(&https).filter(|_| resolved.http3));
        let inner = Arc::new(Inner {
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
            draining: AtomicBool::new(false),
            clock,
            in_force: tokio::sync::Mutex::new(resolved),
            failed_reload: Mutex::new(None),
        });
        let settings = admin::Settings { address: admin_at, token };
        let service = Arc::new(AdminService(Arc::new(Admin::new(&settings, Arc::clone(&inner)))));
        let admin = Listening::bind(listener::Settings::at(vec![admin_at]), service, metrics)
            .await
            .map_err(|error| StartError::Machine(format!("the admin listener cannot start: {error}")))?;
        let app = Self { inner, admin, workers };
        // Whoever validates finds the listeners open.
        app.inner.certificates.order(automatic).await;
        let texts: Vec<String> = app.http_addresses().iter().map(ToString::to_string).collect();
        let secured: Vec<String> = app.inner.https.addresses().iter().map(ToString::to_string).collect();
        for address in listener::inherited::unused() {
            tracing::warn!(%address, "a socket was handed over that hosts.json does not name");
        }
        tracing::info!(http = ?texts, https = ?secured, admin = %app.admin_address(), "listening");
        Ok(app)
    }

    /// Where it serves.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        self.inner.http.addresses()
    }

    /// Where it is administered.
    pub fn admin_address(&self) -> SocketAddr {
        // One address was bound, or starting had failed.
        self.admin.addresses().first().copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
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
        tokio::join!(inner.http.drain(at_most), inner.https.drain(at_most), inner.http3.drain(at_most));
        admin.drain(Duration::from_secs(1)).await;
        inner.cache.close().await;
        // What fills and policies have under way ends here.
        drop(workers);
    }
}

/// How many connections may be open.
fn connections(resolved: &Resolved) -> listener::admission::Limits {
    let (all, per_address) = resolved.max_connections;
    let proxies = resolved.proxy_protocol.clone();
    listener::admission::Limits::new(all, per_address, proxies, crate::open_files::limit())
}

/// Addresses as HTTP/3 has them: with port 0, the one that is bound at the same IP address.
fn bound(addresses: &[SocketAddr], https: &Listening) -> Vec<SocketAddr> {
    let all = https.addresses();
    let of = |asked: &SocketAddr| match asked.port() {
        0 => all.iter().find(|bound| bound.ip() == asked.ip()).copied().unwrap_or(*asked),
        _ => *asked,
    };
    addresses.iter().map(of).collect()
}

/// The port for redirects to https.
fn port_of(https: &Listening) -> Option<u16> {
    let ports: Vec<u16> = https.addresses().iter().map(SocketAddr::port).collect();
    ports.iter().find(|port| **port == 443).or(ports.first()).copied()
}

/// Builds the origins of a configuration. Touches nothing that is in service.
async fn origins(resolved: &Resolved, metrics: &Arc<Metrics>) -> Result<HashMap<String, proxy::Service>, Vec<String>> {
    let mut origins = HashMap::new();
    let mut mistakes = Vec::new();
    for settings in &resolved.origins {
        match origin::build(settings, Arc::clone(metrics)).await {
            Ok(origin) => {
                let identity = format!("{:08x}", crc32c::crc32c(format!("{:?}", settings.place).as_bytes()));
                origins.insert(settings.name.clone(), proxy::Service { origin, identity: identity.into() });
            }
            Err(error) => mistakes.push(format!("origins.{:?}: {error}", settings.name)),
        }
    }
    for host in resolved.hosts.iter().filter(|host| !resolved.origins.iter().any(|origin| origin.name == host.origin)) {
        mistakes.push(format!("hosts.{:?}.origin: {:?} is not in service", host.name, host.origin));
    }
    if mistakes.is_empty() { Ok(origins) } else { Err(mistakes) }
}

/// Builds what a request uses out of a configuration. At a reload (`before` is what is in force then) a policy that cannot be
/// put in service is a mistake, unless its host was without it already. `told` gets a line for each policy that changed.
async fn generation(
    resolved: &Resolved,
    origins: HashMap<String, proxy::Service>,
    policies: &Arc<Policies>,
    metrics: &Arc<Metrics>,
    before: Option<&Generation>,
    told: &mut Vec<String>,
) -> Result<(Generation, Vec<Arc<Chain>>), Vec<String>> {
    let (policies, capabilities) = (Arc::clone(policies), Arc::clone(&resolved.capabilities));
    let settings = resolved.hosts.clone();
    let chains: Vec<_> = settings.iter().map(|host| host.chain.clone()).collect();
    // Compiling takes seconds for large policies.
    let (chains, lines) = tokio::task::spawn_blocking(move || {
        let (chains, mut lines): (Vec<_>, Vec<_>) =
            chains.iter().map(|chain| policies.chain(chain, &capabilities)).collect();
        lines.push(policies.domains(&chains));
        (chains, lines)
    })
    .await
    .map_err(|error| vec![format!("policies: {error}")])?;
    told.extend(lines.into_iter().flatten());
    if let Some(before) = before {
        let all = chains.iter().flat_map(with_domains);
        let mistakes: Vec<String> = all.flat_map(|chain| refusals(&chain, before)).collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
    }
    let mut hosts = Vec::with_capacity(settings.len());
    for (settings, chain) in settings.into_iter().zip(chains.iter().cloned()) {
        // `origins` found it, or had failed.
        if let Some(service) = origins.get(&settings.origin) {
            let origin = Arc::clone(&service.origin);
            hosts.push(Arc::new(VirtualHost { settings, origin, chain }));
        }
    }
    Ok((Generation::new(Table::new(hosts), origins, resolved.trusted_proxies.clone(), metrics), chains))
}

/// What of a host's policies speaks against a reload.
fn refusals(chain: &Chain, before: &Generation) -> Vec<String> {
    let settings = chain.settings();
    let known = before.hosts().iter().flat_map(|host| with_domains(&host.chain));
    let known = known.into_iter().find(|known| known.settings().host == settings.host);
    let goes_on = match known {
        // It is as bad as it was: no reason to keep others from being reloaded.
        Some(known) => *known.settings() == *settings && !known.problems().is_empty(),
        // As at a start: the file may still come.
        None => settings.source == policy::settings::ChainSource::Dropped,
    };
    if goes_on {
        return Vec::new();
    }
    problems(chain)
}

/// What is wrong with a host's policies, in the words of hosts.json.
fn problems(chain: &Chain) -> Vec<String> {
    let host = &chain.settings().host;
    chain.problems().into_iter().map(|problem| format!("hosts.{host:?}.policy: {problem}")).collect()
}

/// A chain and those of the domains that it serves.
fn with_domains(chain: &Arc<Chain>) -> Vec<Arc<Chain>> {
    let mut all = chain.domains();
    all.push(Arc::clone(chain));
    all
}

impl Inner {
    async fn reload_now(&self) -> Result<Vec<String>, Vec<String>> {
        let mut in_force = self.in_force.lock().await;
        let outcome = self.try_reload(&in_force).await;
        match outcome {
            Ok((resolved, changes)) => {
                *in_force = resolved;
                *self.failed_reload.lock() = None;
                tracing::info!(?changes, "reloaded");
                Ok(changes)
            }
            Err(mistakes) => {
                tracing::error!(?mistakes, "not reloaded, the old configuration stays in force");
                *self.failed_reload.lock() = Some(mistakes.clone());
                Err(mistakes)
            }
        }
    }

    async fn try_reload(&self, old: &Resolved) -> Result<(Resolved, Vec<String>), Vec<String>> {
        let file = self.file.clone();
        let resolved = tokio::task::spawn_blocking(move || config::load(&file))
            .await
            .map_err(|error| vec![error.to_string()])?
            .map_err(|mistakes| mistakes.lines())?;
        let mut changes = Vec::new();
        let fixed = [("listen.admin", resolved.admin != old.admin), ("cache.dir", resolved.cache.dir != old.cache.dir)];
        let needs_restart: Vec<String> = fixed
            .into_iter()
            .filter(|(_, changed)| *changed)
            .map(|(name, _)| {
                format!("{name}: a change of this takes effect at a restart only; put it back, or restart")
            })
            .collect();
        if !needs_restart.is_empty() {
            return Err(needs_restart);
        }
        // What can fail comes first.
        let listen = (resolved.http != old.http).then(|| self.http.prepare(&resolved.http)).transpose();
        let listen = listen.map_err(|error| vec![format!("listen.http: {error}")])?;
        let listen_https = (resolved.https != old.https).then(|| self.https.prepare(&resolved.https)).transpose();
        let listen_https = listen_https.map_err(|error| vec![format!("listen.https: {error}")])?;
        // Addresses of any port are as they were bound.
        let over_udp = if resolved.http3 { bound(&resolved.https, &self.https) } else { Vec::new() };
        let listen_http3 = ((&resolved.https, resolved.http3) != (&old.https, old.http3))
            .then(|| self.http3.prepare(&over_udp))
            .transpose()
            .map_err(|error| vec![format!("listen.https: {error}")])?;
        let automatic = self.certificates.prepare(resolved.acme.as_ref()).await.map_err(|error| vec![error])?;
        let token = if resolved.admin_token == old.admin_token {
            None
        } else {
            let (configured, dir) = (resolved.admin_token.clone(), resolved.cache.dir.clone());
            let token = move || admin::auth::token_for(configured.as_ref().map(|token| &*token.0), &dir);
            let made = tokio::task::spawn_blocking(token).await.map_err(|error| vec![error.to_string()])?;
            Some(made.map_err(|error| vec![format!("admin.token: {error}")])?)
        };
        // Policies take note of a new configuration as soon as they are asked for.
        let origins = origins(&resolved, &self.metrics).await?;
        self.policies.configure(resolved.policies.clone());
        let before = self.proxy.generation();
        let (generation, chains) =
            match generation(&resolved, origins, &self.policies, &self.metrics, Some(&before), &mut changes).await {
                Ok(built) => built,
                Err(mistakes) => {
                    self.policies.configure(old.policies.clone());
                    return Err(mistakes);
                }
            };
        changes.extend(self.tls.configure(&resolved.tls()).map_err(|error| vec![error.to_string()])?);
        self.admission.configure(connections(&resolved));
        self.cache.configure(resolved.cache.disk_bytes, resolved.cache.memory_bytes);
        let names = |all: &[crate::vhost::Settings]| all.iter().map(|host| host.name.clone()).collect::<Vec<_>>();
        let (before, after) = (names(&old.hosts), names(&resolved.hosts));
        changes.extend(after.iter().filter(|name| !before.contains(name)).map(|name| format!("host {name} added")));
        changes.extend(before.iter().filter(|name| !after.contains(name)).map(|name| format!("host {name} removed")));
        self.proxy.replace(generation);
        self.certificates.order(automatic).await;
        // Only now: what is not wanted any more was, for the requests before.
        let policies = Arc::clone(&self.policies);
        match tokio::task::spawn_blocking(move || policies.put_in_force(&chains)).await {
            Ok(lines) => changes.extend(lines),
            Err(error) => tracing::error!(%error, "the folder of the policies was not looked at"),
        }
        if let Some(change) = listen {
            self.http.apply(change);
            changes.push(format!("listening at {:?}", self.http.addresses()));
        }
        if let Some(change) = listen_https {
            self.https.apply(change);
            self.proxy.serve_https_at(port_of(&self.https));
            changes.push(format!("listening over TLS at {:?}", self.https.addresses()));
        }
        if let Some(change) = listen_http3 {
            self.http3.apply(change);
            changes.push(format!("listening for HTTP/3 at {:?}", self.http3.addresses()));
        }
        self.proxy.serve_http3_at(port_of(&self.https).filter(|_| resolved.http3));
        if let Some(token) = token {
            self.token.set(token);
            changes.push("another admin token".to_owned());
        }
        Ok((resolved, changes))
    }
}

impl Control for Inner {
    fn purge(&self, scope: PurgeScope) -> BoxFuture<'_, Result<u64, String>> {
        Box::pin(async move {
            let sequence = self.cache.purge(scope).await.map_err(|error| error.to_string())?;
            Ok(sequence.0)
        })
    }

    fn reload(&self) -> BoxFuture<'_, Result<Vec<String>, Vec<String>>> {
        Box::pin(self.reload_now())
    }

    fn forget_policy(&self, host: String) -> BoxFuture<'_, bool> {
        let policies = Arc::clone(&self.policies);
        Box::pin(async move {
            // It writes to the disk what is remembered.
            let host = HostPattern::parse(&host).map_or(host, |pattern| pattern.to_string());
            tokio::task::spawn_blocking(move || policies.forget(&host)).await.unwrap_or(false)
        })
    }

    fn stats(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let generation = self.proxy.generation();
            let hosts: Vec<&str> = generation.hosts().iter().map(|host| host.settings.name.as_str()).collect();
            json!({
                "version": env!("CARGO_PKG_VERSION"),
                "uptime_s": self.clock.now().as_millis().saturating_sub(self.started_ms) / 1000,
                "hosts": hosts,
                "cache": self.cache.stats(),
                "policies": self.policies.status(),
                "certificates": self.certificates.status(),
                "failed_reload": *self.failed_reload.lock(),
            })
        })
    }

    fn metrics(&self) -> String {
        let stats = self.cache.stats();
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.cache_disk_bytes.set(gauge(stats.disk_bytes));
        self.metrics.cache_memory_bytes.set(gauge(stats.memory_bytes));
        self.metrics.cache_entries.set(gauge(stats.entries));
        metrics::render(&self.registry)
    }

    fn ready(&self) -> Result<Value, Value> {
        if self.draining.load(Ordering::Acquire) {
            return Err(json!({ "status": "draining" }));
        }
        let disk = self.cache.stats().disk_error.is_some();
        let reload = self.failed_reload.lock().is_some();
        // A broken disk or a refused file is worth a look, but requests are served. What is wrong with them names paths and
        // values of hosts.json, and this is told without a token: `/stats` has it.
        Ok(json!({ "status": "ok", "disk_error": disk, "failed_reload": reload }))
    }

    fn explain(
        &self,
        method: String,
        url: String,
        headers: Vec<(String, String)>,
    ) -> BoxFuture<'_, Result<Value, String>> {
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        Box::pin(explain::explain(Local::of(&self.proxy), Question { method, url, headers, client }))
    }
}

struct ProxyService(Arc<Proxy>);

impl listener::Service for ProxyService {
    type Body = proxy::Body;
    type Future = Answering;

    fn call(&self, connection: &Arc<Connection>, request: Request<RequestBody>) -> Answering {
        let peer = Peer { address: connection.peer, scheme: connection.scheme, tls: connection.tls.as_ref() };
        let request = request.map(|body| {
            // Most requests bring none: nothing to box.
            (!http_body::Body::is_end_stream(&body)).then(|| proxy::Upload::new(body))
        });
        Answering(Box::pin(Proxy::serve(Local::of(&self.0), peer, request)))
    }

    fn unreadable(&self, connection: &Connection, status: StatusCode) {
        self.0.log_unreadable(connection.peer.ip(), status);
    }
}

/// The future of one answer. Boxed: it is large, and hyper keeps it inline in the connection's state otherwise.
struct Answering(Pin<Box<dyn Future<Output = Response<proxy::Body>> + Send>>);

impl Future for Answering {
    type Output = Result<Response<proxy::Body>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

struct AdminService(Arc<Admin<Inner>>);

impl listener::Service for AdminService {
    type Body = http_body_util::combinators::MapErr<Full<Bytes>, fn(std::convert::Infallible) -> std::io::Error>;
    type Future = BoxFuture<'static, Result<Response<Self::Body>, std::convert::Infallible>>;

    fn call(&self, connection: &Arc<Connection>, request: Request<RequestBody>) -> Self::Future {
        use http_body_util::BodyExt;
        let (admin, peer) = (Arc::clone(&self.0), connection.peer);
        Box::pin(async move {
            let response = admin.answer(peer, request).await;
            Ok(response.map(|body| body.map_err((|never| match never {}) as fn(_) -> _)))
        })
    }
}
