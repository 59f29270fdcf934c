//! The listener as h3 and quinn see it as clients. Bare quinn where a client has to misbehave.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

use super::*;
use crate::telemetry::metrics::TimeoutLabels;
use demo::{DemoService, settings, tls};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(15);

mod answers;
mod demo;
mod ends;
mod misbehaviour;

type SendRequest = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

struct Play {
    http3: Http3,
    service: DemoService,
    metrics: Arc<Metrics>,
    client: Endpoint,
}

impl Play {
    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let (tls, certificate) = tls();
        let mut settings = settings(tls);
        change(&mut settings);
        let (service, metrics) = (DemoService::default(), Arc::<Metrics>::default());
        let http3 = Http3::bind(settings, Arc::new(service.clone()), Arc::clone(&metrics)).await.expect("a socket");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let tls = QuicClientConfig::try_from(tls).expect("fit for QUIC");
        let mut client = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
        client.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        Self { http3, service, metrics, client }
    }

    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn connect_to(&self, name: &str) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.client.connect(self.http3.addresses()[0], name).expect("well formed").await
    }

    async fn connect(&self) -> quinn::Connection {
        self.connect_to("a.test").await.expect("a handshake")
    }

    async fn h3(&self) -> (h3::client::Connection<h3_quinn::Connection, Bytes>, SendRequest) {
        h3::client::new(h3_quinn::Connection::new(self.connect().await)).await.expect("HTTP/3")
    }

    /// A client whose connection is looked after.
    async fn requests(&self) -> SendRequest {
        let (mut driver, requests) = self.h3().await;
        tokio::spawn(async move { poll_fn(|cx| driver.poll_close(cx)).await });
        requests
    }

    fn timeouts(&self, limit: &'static str) -> u64 {
        self.metrics.connection_timeouts.get_or_create(&TimeoutLabels { limit }).get()
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        timeout(PATIENCE, async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("in time");
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://a.test{path}")).body(()).expect("a request")
}

struct Got {
    head: Response<()>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

async fn ask(requests: &mut SendRequest, request: Request<()>, body: &[Bytes]) -> Result<Got, h3::error::StreamError> {
    timeout(PATIENCE, async {
        let mut stream = requests.send_request(request).await?;
        for piece in body {
            stream.send_data(piece.clone()).await?;
        }
        stream.finish().await?;
        let mut head = stream.recv_response().await?;
        while head.status().is_informational() {
            head = stream.recv_response().await?;
        }
        let mut got = Vec::new();
        while let Some(mut data) = stream.recv_data().await? {
            got.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        Ok(Got { head, body: got, trailers: stream.recv_trailers().await? })
    })
    .await
    .expect("in time")
}

/// Sends bytes on a stream of their own, and gives what comes back, or the code that the stream or the connection was
/// ended with.
async fn raw(connection: &quinn::Connection, bytes: &[u8], finish: bool) -> Result<Vec<u8>, u64> {
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    // The answer may be quicker.
    let _ = send.write_all(bytes).await;
    if finish {
        let _ = send.finish();
    }
    let read = timeout(PATIENCE, receive.read_to_end(1 << 20)).await.expect("in time");
    read.map_err(|error| match error {
        quinn::ReadToEndError::Read(quinn::ReadError::Reset(code)) => code.into_inner(),
        quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error)) => closed(&error),
        other => panic!("{other}"),
    })
}

fn closed(error: &quinn::ConnectionError) -> u64 {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

/// HEADERS of lines that are encoded already.
fn headers(lines: &[&[u8]]) -> Vec<u8> {
    let block = [&[0, 0][..], &lines.concat()].concat();
    [&[1, block.len() as u8][..], &block].concat()
}

const METHOD: &[u8] = b"\xd1";
const SCHEME: &[u8] = b"\xd7";
const AUTHORITY: &[u8] = b"\x50\x06a.test";
const PATH: &[u8] = b"\x51\x06/hello";
