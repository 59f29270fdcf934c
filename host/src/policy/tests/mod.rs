//! What policies may do, what becomes of those that misbehave, and what a change of their files does; with fixtures in
//! WebAssembly text.

mod calls;
mod failures;
mod fixture;
mod loading;
mod reload;

use std::path::PathBuf;
use std::sync::Arc;

use fixture::Fixture;
use http::{HeaderMap, Method, StatusCode};
use smallvec::smallvec;

use super::exchange::{ClientView, RequestView, ResponseView};
use super::settings::{ChainSource, Isolation};
use super::*;
use crate::clock::Timestamp;
use crate::semantics::authority::Hostname;
use crate::semantics::interest::Interest;
use crate::semantics::target::Target;
use crate::telemetry::metrics::Metrics;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A folder of policies and the program's side of it.
struct World {
    folder: tempfile::TempDir,
    policies: Arc<Policies>,
    metrics: Arc<Metrics>,
    capabilities: Arc<Capabilities>,
}

impl World {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: tempfile::TempDir) -> Self {
        let (metrics, _) = Metrics::new();
        let settings = Settings {
            folder: folder.path().join("policies"),
            state: folder.path().join("state"),
            read_only: false,
            memory_max_bytes: 64 << 20,
        };
        std::fs::create_dir_all(&settings.folder).unwrap();
        let policies = Policies::start(settings, metrics.clone()).unwrap();
        Self { folder, policies, metrics, capabilities: Arc::default() }
    }

    /// As after a restart.
    fn restart(self) -> Self {
        drop(self.policies);
        Self::in_folder(self.folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("policies").join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.file(name), bytes).unwrap();
    }

    fn named(&self, name: &str) -> PolicySettings {
        PolicySettings {
            file: self.file(name),
            config: serde_json::Map::new(),
            secrets: std::collections::BTreeMap::new(),
            grants: Vec::new(),
            limits: Limits::default(),
            on_failure: OnFailure::Closed,
            isolation: Isolation::Reuse,
        }
    }

    fn chain(&self, host: &str, source: ChainSource) -> Arc<Chain> {
        self.policies.chain(&ChainSettings { host: host.to_owned(), source }, &self.capabilities).0
    }

    /// A chain of this one fixture.
    fn only(&self, fixture: &Fixture) -> Arc<Chain> {
        self.with(fixture, |_| {})
    }

    /// A chain of this one fixture under these settings.
    fn with(&self, fixture: &Fixture, change: impl FnOnce(&mut PolicySettings)) -> Arc<Chain> {
        self.write("policy.wasm", &fixture.component());
        let mut settings = self.named("policy.wasm");
        change(&mut settings);
        self.chain("a.test", ChainSource::Named(vec![settings]))
    }

    fn problem(&self) -> String {
        let status = self.policies.status();
        status["hosts"][0]["policies"][0]["problem"].as_str().unwrap_or_default().to_owned()
    }
}

fn exchange() -> Box<Exchange> {
    let request = RequestView {
        method: Method::GET,
        scheme: "http",
        host: Hostname::parse("a.test").unwrap(),
        authority: "a.test:8080".into(),
        port: Some(8080),
        target: Target::parse("/a%20b?x=1&y=2&y=3").unwrap(),
        headers: HeaderMap::new(),
        interest: Interest::default(),
        received_at: NOW,
    };
    let attributes = smallvec![("conn.protocol", "h2".into())];
    Exchange::new(request, ClientView { ip: "192.0.2.7".parse().unwrap(), attributes, connection: None })
}

fn with_response() -> Box<Exchange> {
    let mut exchange = exchange();
    let mut headers = HeaderMap::new();
    headers.insert("x-old", "1".parse().unwrap());
    exchange.response =
        Some(ResponseView { status: StatusCode::OK, headers, cache_status: "miss", origin_path: Some("/a".into()) });
    exchange
}

async fn ask(chain: &Chain) -> Decision {
    chain.lease("a.test").run(Phase::OnRequest, exchange()).await.1
}

/// The failure, or a panic that says what came instead.
fn failure(decision: Decision) -> PolicyFailure {
    match decision {
        Decision::Failed(failure) => failure,
        other => panic!("no failure but {other:?}"),
    }
}

fn status(decision: &Decision) -> u16 {
    match decision {
        Decision::Next => 0,
        Decision::Deny(status) | Decision::Redirect(status, _) => status.as_u16(),
        Decision::Reply(reply) => reply.status.as_u16(),
        Decision::Failed(failure) => failure.status.as_u16(),
    }
}
