//! Answers challenges as the program's listeners would: TLS on one port, HTTP on another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use proxyhost::tls::acme::{ACME_TLS_ALPN, Challenges};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

/// A responder; its ports are served as long as the test's runtime lives.
#[derive(Default)]
pub struct Responder {
    pub challenges: Arc<Challenges>,
    tls_off: AtomicBool,
    http_off: AtomicBool,
    pause_ms: AtomicU64,
    tls_asked: AtomicUsize,
    http_asked: AtomicUsize,
}

#[derive(Debug)]
struct This(Arc<CertifiedKey>);

impl ResolvesServerCert for This {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl Responder {
    /// Starts to listen. Returns the ports of HTTP and TLS too.
    pub async fn start() -> (Arc<Self>, u16, u16) {
        let responder = Arc::new(Self::default());
        let (http, tls) = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await);
        let (http, tls) = (http.expect("a port"), tls.expect("a port"));
        let ports = (http.local_addr().expect("bound").port(), tls.local_addr().expect("bound").port());
        let of = Arc::clone(&responder);
        tokio::spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                let of = Arc::clone(&of);
                tokio::spawn(async move { of.http(stream).await });
            }
        });
        let of = Arc::clone(&responder);
        tokio::spawn(async move {
            while let Ok((stream, _)) = tls.accept().await {
                let of = Arc::clone(&of);
                tokio::spawn(async move { of.tls(stream).await });
            }
        });
        (responder, ports.0, ports.1)
    }

    /// Which challenges are answered.
    pub fn answer(&self, tls: bool, http: bool) {
        self.tls_off.store(!tls, Ordering::SeqCst);
        self.http_off.store(!http, Ordering::SeqCst);
    }

    /// How long an answer takes.
    pub fn take(&self, pause: Duration) {
        self.pause_ms.store(u64::try_from(pause.as_millis()).expect("short"), Ordering::SeqCst);
    }

    /// How many handshakes and requests came. Pebble looks up to three times for one challenge.
    pub fn asked(&self) -> (usize, usize) {
        (self.tls_asked.load(Ordering::SeqCst), self.http_asked.load(Ordering::SeqCst))
    }

    async fn http(&self, mut stream: TcpStream) -> Option<()> {
        self.http_asked.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(self.pause_ms.load(Ordering::SeqCst))).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let token = head.strip_prefix("GET /.well-known/acme-challenge/")?.split(' ').next()?;
        let answer = match self.challenges.http_01(token).filter(|_| !self.http_off.load(Ordering::SeqCst)) {
            Some(text) => {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
            }
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await.ok()
    }

    async fn tls(&self, stream: TcpStream) -> Option<()> {
        self.tls_asked.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(self.pause_ms.load(Ordering::SeqCst))).await;
        if self.tls_off.load(Ordering::SeqCst) {
            return None;
        }
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.ok()?;
        let hello = start.client_hello();
        assert!(hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME_TLS_ALPN)));
        let certificate = self.challenges.tls_alpn_01(hello.server_name()?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(This(certificate)));
        config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
        let mut stream = start.into_stream(Arc::new(config)).await.ok()?;
        stream.shutdown().await.ok()
    }
}
