//! The path of one request; only here are policy, cache and origin called together.
//!
//! ```text
//! Received -- route --> Routed -- decide --> Decided -- key --> Keyed -- look up --> Found or Missing
//!     |                    |                     |                |                      |
//!     +--------------------+---------------------+----------------+----------------------+--> Deliverable --> Response
//! ```
//!
//! Each step takes the previous step's value (`steps.rs`), so that one in the wrong order does not compile. A step that ends
//! the request early gives a `Deliverable`, and that is the one way to a response.

mod ask;
mod body;
mod browser;
mod compression;
mod decide;
mod deliver;
mod digest;
mod door;
pub mod explain;
mod failure;
mod fetch;
mod fill;
mod gap;
mod head;
mod invalidate;
mod keeping;
mod mirror;
mod multipart;
mod names;
mod outcome;
mod parts;
mod pass;
mod pins;
mod plan;
mod pump;
mod refetch;
mod request;
mod site;
mod steps;
mod warm;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response};

pub use body::Body;
pub use mirror::Applied;
pub use refetch::Place as PlaceToRefetch;
pub use request::Upload;
pub use site::{Generation, Service, Site};

use crate::cache::Cache;
use crate::clock::Clock;
use crate::local::{self, Local};
use crate::semantics::cdn_loop::Instance;
use crate::semantics::interim::InterimWriter;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Session, Tls};

/// What is known of the connection that a request came by.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The other side's address.
    pub address: SocketAddr,
    /// Our port that it came to.
    pub port: u16,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What is known of its TLS.
    pub tls: Option<&'a Arc<Session>>,
    /// Writes interim responses to the client.
    pub interim: Option<&'a Arc<dyn InterimWriter>>,
}

/// Everything that requests share. The configuration in force is swapped as a whole at a reload; a request keeps the one that
/// it began with.
pub struct Proxy {
    generation: ArcSwap<Generation>,
    cache: Cache,
    log: AccessLog,
    metrics: Arc<Metrics>,
    clock: Clock,
    orphans: pump::Orphans,
    /// What requests bear that went through here.
    instance: Instance,
    refetching: refetch::Refetching,
    warming: warm::Jobs,
    mirrors: mirror::Mirrors,
    pins: pins::Pins,
    compression: Arc<compression::Compression>,
    tls: Arc<Tls>,
    /// Where https is served, for redirects; 0 if it is not.
    https_port: AtomicU16,
    /// Ports at which HTTP/3 is served too, and how clients that came there over TCP are told (RFC 7838).
    alt_svc: ArcSwap<Vec<(u16, HeaderValue)>>,
}

impl Proxy {
    /// A proxy with a first configuration.
    pub fn new(
        generation: Generation,
        cache: Cache,
        log: AccessLog,
        metrics: Arc<Metrics>,
        clock: Clock,
        tls: Arc<Tls>,
    ) -> Arc<Self> {
        let proxy = Arc::new(Self {
            generation: ArcSwap::from_pointee(generation),
            cache,
            log,
            metrics,
            clock,
            orphans: pump::Orphans::default(),
            instance: Instance::draw(),
            refetching: refetch::Refetching::default(),
            warming: warm::Jobs::default(),
            mirrors: mirror::Mirrors::default(),
            pins: pins::Pins::default(),
            compression: Arc::default(),
            tls,
            https_port: AtomicU16::new(0),
            alt_svc: ArcSwap::default(),
        });
        proxy.tell_pins();
        proxy
    }

    /// Puts another configuration in force; requests in flight finish on the old one.
    pub fn replace(&self, generation: Generation) {
        self.generation.store(Arc::new(generation));
        local::forget();
        self.tell_pins();
    }

    /// Says at which port https is served; none: not at all.
    pub fn serve_https_at(&self, port: Option<u16>) {
        self.https_port.store(port.unwrap_or(0), Ordering::Relaxed);
    }

    /// Says at which ports of https HTTP/3 is served too, each with its Alt-Svc.
    pub fn serve_http3_at(&self, ports: Vec<(u16, HeaderValue)>) {
        self.alt_svc.store(Arc::new(ports));
    }

    /// The configuration in force.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// The same as this thread's own handle.
    fn generation_here(&self) -> Local<Generation> {
        Local::of(&self.generation.load())
    }

    /// Logs what could not be read as a request: without method and target, as other servers do.
    pub fn log_unreadable(&self, peer: std::net::IpAddr, status: http::StatusCode) {
        self.log.write_unreadable(peer.to_canonical(), self.clock.now(), status);
    }

    /// Answers one request.
    pub fn serve(
        own: Local<Self>,
        peer: Peer<'_>,
        request: Request<Option<Upload>>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        steps::serve(own, peer, request)
    }
}
