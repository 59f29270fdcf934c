//! What a policy costs on the direct lane: each phase, each kind of host call (ten of them in one phase call, so subtract
//! `on-request next` and divide), and a policy with seven host calls and an HMAC, the shape of a signed link. With
//! `PROXYHOST_BENCH_POLICY=signed-url.wasm` that file is measured too, as it answers the same request.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

#[allow(dead_code, reason = "shared with the unit tests, which use all of it")]
#[path = "../src/policy/tests/fixture.rs"]
mod fixture;

/// The program's.
#[path = "../src/allocator.rs"]
mod allocator;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use fixture::{DONE, Fixture, NEXT, deny};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, Method, StatusCode};
use proxyhost::clock::Timestamp;
use proxyhost::policy::exchange::{ClientView, RequestView, ResponseView};
use proxyhost::policy::settings::{ChainSource, Isolation, Secret};
use proxyhost::policy::{
    Capabilities, Chain, ChainSettings, Decision, Exchange, Limits, OnFailure, Phase, Policies, PolicySettings,
    Settings,
};
use proxyhost::semantics::authority::Hostname;
use proxyhost::semantics::interest::Interest;
use proxyhost::semantics::target::Target;
use proxyhost::telemetry::metrics::Metrics;
use sha2::Sha256;

/// The key of the links.
const KEY: &[u8] = b"SecurityKey";

/// Of the link that is measured, in the scheme of policies/signed-url/README.md.
fn signature() -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).expect("a key of any length");
    mac.update(b"proxyhost-1\nGET\ndownloads.example.com\n/some/folder/of/files/file.ext\n\n1893456000\n\n");
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

fn exchange() -> Box<Exchange> {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "downloads.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"),
        ("accept", "*/*"),
        ("accept-language", "de-DE,de;q=0.9"),
        ("referer", "https://example.com/"),
    ] {
        headers.insert(name, value.parse().expect("a good value"));
    }
    let request = RequestView {
        method: Method::GET,
        scheme: "http",
        host: Hostname::parse("downloads.example.com").expect("a name"),
        authority: "downloads.example.com".into(),
        port: None,
        target: Target::parse(&format!("/some/folder/of/files/file.ext?expires=1893456000&sig={}", signature()))
            .expect("a target"),
        interest: Interest::of(&headers),
        headers: headers.clone(),
        received_at: Timestamp::from_millis(1_800_000_000_000),
    };
    let client =
        ClientView { ip: "192.0.2.7".parse().expect("an address"), attributes: Default::default(), connection: None };
    let mut exchange = Exchange::new(request, client);
    exchange.response = Some(ResponseView {
        status: StatusCode::OK,
        headers,
        cache_status: "hit",
        origin_path: Some("/some/folder/of/files/file.ext".into()),
    });
    exchange
}

struct World {
    folder: tempfile::TempDir,
    policies: Arc<Policies>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings {
            folder: folder.path().to_owned(),
            state: folder.path().join("state"),
            read_only: false,
            memory_max_bytes: 256 << 20,
        };
        let policies = Policies::start(settings, Metrics::new().0).expect("the engine starts");
        Self { folder, policies }
    }

    fn chain(&self, file: PathBuf, isolation: Isolation) -> Arc<Chain> {
        let secret = Secret(Arc::from(KEY));
        let settings = PolicySettings {
            file,
            config: serde_json::Map::new(),
            secrets: ["sign", "key"].into_iter().map(|name| (name.to_owned(), secret.clone())).collect(),
            grants: Vec::new(),
            limits: Limits::default(),
            on_failure: OnFailure::Closed,
            isolation,
        };
        let settings = ChainSettings { host: "a.test".to_owned(), source: ChainSource::Named(vec![settings]) };
        self.policies.chain(&settings, &Arc::new(Capabilities::default())).0
    }

    fn fixture(&self, name: &str, fixture: &Fixture, isolation: Isolation) -> Arc<Chain> {
        let file = self.folder.path().join(format!("{}.wasm", name.replace([' ', '/'], "-")));
        std::fs::write(&file, fixture.component()).expect("the folder is ours");
        self.chain(file, isolation)
    }
}

/// Polls once: on the direct lane that is all there is.
fn run(chain: &Chain, phase: Phase, exchange: Box<Exchange>) -> (Box<Exchange>, Decision) {
    let lease = chain.lease("bench.test");
    let mut future = pin!(lease.run(phase, exchange));
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("a call on the direct lane has no await in it"),
    }
}

fn measure(criterion: &mut Criterion, name: &str, chain: &Chain, phase: Phase) {
    let (first, decision) = run(chain, phase, exchange());
    assert!(!matches!(decision, Decision::Failed(_)), "{name}: {decision:?}");
    let mut exchange = Some(first);
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            let mut own = exchange.take().expect("it comes back from every call");
            own.lookup.parts.clear();
            let (back, decision) = run(chain, phase, own);
            exchange = Some(back);
            decision
        });
    });
}

fn phases(criterion: &mut Criterion) {
    let world = World::new();
    let fixture = || Fixture::on_request(NEXT).phase("on-origin-request", NEXT).phase("on-origin-response", NEXT);
    let chain = world.fixture("phases", &fixture().phase("on-deliver", DONE), Isolation::Reuse);
    for phase in Phase::ALL {
        measure(criterion, &format!("phase/{} next", phase.as_str()), &chain, phase);
    }
    let chain = world.fixture("deny", &Fixture::on_request(&deny(403)), Isolation::Reuse);
    measure(criterion, "phase/on-request deny", &chain, Phase::OnRequest);
    let chain = world.fixture("fresh", &Fixture::on_request(NEXT), Isolation::Request);
    measure(criterion, "phase/on-request next, fresh instance", &chain, Phase::OnRequest);
}

/// A policy that makes one host call ten times.
fn ten(interface: &str, function: &str, signature: &str, drop: bool, arguments: &[&str], tail: &str) -> Fixture {
    let mut fixture = Fixture::default();
    let arguments: String = arguments.iter().map(|text| fixture.text(text) + " ").collect();
    let (before, after) = if drop { ("(drop ", ")") } else { ("", "") };
    let call = format!("{before}(call ${function} {arguments} {tail}){after}").repeat(10);
    fixture.import(interface, function, signature).phase("on-request", &format!("{call} {NEXT}"))
}

fn host_calls(criterion: &mut Criterion) {
    let world = World::new();
    let at = "(i32.const 64)";
    let cases = [
        ("received-at-ms", ten("request", "received-at-ms", "(result i64)", true, &[], "")),
        ("path", ten("request", "path", "(param i32)", false, &[], at)),
        ("header", ten("request", "header", "(param i32 i32 i32)", false, &["user-agent"], at)),
        ("query-param", ten("request", "query-param", "(param i32 i32 i32)", false, &["sig"], at)),
        ("client.ip", ten("client", "ip", "(param i32)", false, &[], at)),
        ("add-key", ten("cache-lookup", "add-key", "(param i32 i32 i32 i32)", false, &["lang", "de"], "")),
        ("vars.set", ten("vars", "set", "(param i32 i32 i32 i32)", false, &["user", "ann"], "")),
        (
            "crypto.mac",
            ten(
                "crypto",
                "mac",
                "(param i32 i32 i32 i32 i32 i32 i32 i32 i32)",
                false,
                &["hmac-sha256", "key", "GET\ndownloads.example.com\n/some/folder/of/files/file.ext", "base64url"],
                at,
            ),
        ),
    ];
    for (name, fixture) in cases {
        let chain = world.fixture(name, &fixture, Isolation::Reuse);
        measure(criterion, &format!("ten calls/{name}"), &chain, Phase::OnRequest);
    }
}

/// Seven host calls and an HMAC among them, as a signed link needs them.
fn signed(world: &World) -> Arc<Chain> {
    let mut fixture = Fixture::default();
    let (expires, sig, language) = (fixture.text("expires"), fixture.text("sig"), fixture.text("accept-language"));
    let (part, value) = (fixture.text("lang"), fixture.text("de"));
    let (algorithm, secret, encoding) = (fixture.text("hmac-sha256"), fixture.text("key"), fixture.text("base64url"));
    let code = format!(
        "(call $path (i32.const 64))
         (call $query-param {expires} (i32.const 72))
         (call $query-param {sig} (i32.const 84))
         (drop (call $received-at-ms))
         (call $header {language} (i32.const 96))
         (call $verify-mac {algorithm} {secret} (i32.load (i32.const 64)) (i32.load (i32.const 68)) {encoding}
             (i32.load (i32.const 88)) (i32.load (i32.const 92)) (i32.const 108))
         (call $add-key {part} {value}) {NEXT}"
    );
    let fixture = fixture
        .import("request", "path", "(param i32)")
        .import("request", "query-param", "(param i32 i32 i32)")
        .import("request", "received-at-ms", "(result i64)")
        .import("request", "header", "(param i32 i32 i32)")
        .import("crypto", "verify-mac", "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)")
        .import("cache-lookup", "add-key", "(param i32 i32 i32 i32)")
        .phase("on-request", &code);
    world.fixture("signed", &fixture, Isolation::Reuse)
}

fn policies(criterion: &mut Criterion) {
    let world = World::new();
    measure(criterion, "policy/seven calls and an HMAC", &signed(&world), Phase::OnRequest);
    if let Some(file) = std::env::var_os("PROXYHOST_BENCH_POLICY").map(PathBuf::from).filter(|file| file.exists()) {
        let name = Path::new(&file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let chain = world.chain(std::path::absolute(&file).unwrap_or(file), Isolation::Reuse);
        // A refusal would be cheaper than what is claimed to be measured.
        let (_, decision) = run(&chain, Phase::OnRequest, exchange());
        assert!(matches!(decision, Decision::Next), "{name} does not let the link through: {decision:?}");
        measure(criterion, &format!("policy/{name}"), &chain, Phase::OnRequest);
    }
}

criterion_group!(benches, phases, host_calls, policies);
criterion_main!(benches);
