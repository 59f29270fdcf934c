//! A service for tests, and settings with a certificate that was made for them.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;

use crate::listener::{Address, Connection, RequestBody, Service, Settings};
use crate::semantics::authority::HostPattern;
use crate::tls::{self, CertificateFiles, ClientCa, HostSettings, Source, Tls};

/// Answers by path, and counts.
#[derive(Debug, Default)]
pub struct Demo {
    /// Bytes of `/big` that were asked for.
    pub produced: AtomicUsize,
    /// Requests to `/slow` that began.
    pub slow_begun: AtomicUsize,
    /// Of them: dropped before their end.
    pub slow_dropped: AtomicUsize,
    /// Statuses of what was unreadable.
    pub unreadable: Mutex<Vec<u16>>,
    /// Errors of bodies.
    pub body_errors: Mutex<Vec<String>>,
}

type Boxed = UnsyncBoxBody<Bytes, io::Error>;

fn full(text: impl Into<Bytes>) -> Boxed {
    http_body_util::Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

struct Big(Arc<Demo>, usize);

impl Body for Big {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        const PIECE: usize = 256 << 10;
        let size = self.1.min(PIECE);
        if size == 0 {
            return Poll::Ready(None);
        }
        self.1 -= size;
        self.0.produced.fetch_add(size, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; size])))))
    }
}

struct Dropped(Arc<Demo>, bool);

impl Drop for Dropped {
    fn drop(&mut self) {
        if !self.1 {
            self.0.slow_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Demo {
    async fn answer(self: Arc<Self>, connection: Arc<Connection>, request: Request<RequestBody>) -> Response<Boxed> {
        let path = request.uri().path().to_owned();
        let number = || request.uri().query().and_then(|query| query.parse::<usize>().ok()).unwrap_or(0);
        match path.as_str() {
            "/hello" => Response::new(full("hello")),
            "/info" => {
                let tls = connection.tls.as_ref().expect("over TLS");
                let (sni, peer) = (tls.sni.as_ref().map(|name| name.as_str()), connection.peer.ip());
                let text = format!(
                    "{peer} {} {} {} {:?} {sni:?} {:?} {:?} {}",
                    connection.local.ip(),
                    connection.scheme,
                    tls.version,
                    tls.alpn,
                    request.version(),
                    request.uri(),
                    request.body().is_end_stream()
                );
                Response::new(full(text))
            }
            "/cookies" => {
                Response::new(full(format!("{:?}", request.headers().get_all("cookie").iter().collect::<Vec<_>>())))
            }
            "/echo" => Response::new(request.into_body().boxed_unsync()),
            "/count" => match request.into_body().collect().await {
                Ok(collected) => {
                    let trailers = collected.trailers().map_or(0, HeaderMap::len);
                    Response::new(full(format!("{} {trailers}", collected.to_bytes().len())))
                }
                Err(error) => {
                    self.body_errors.lock().push(error.to_string());
                    let mut response = Response::new(full("bad body"));
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    response
                }
            },
            "/big" => Response::new(Big(Arc::clone(&self), number()).boxed_unsync()),
            "/slow" => {
                self.slow_begun.fetch_add(1, Ordering::Relaxed);
                let mut dropped = Dropped(Arc::clone(&self), false);
                tokio::time::sleep(Duration::from_millis(number() as u64)).await;
                dropped.1 = true;
                Response::new(full("slow"))
            }
            "/refuse" => {
                let mut response = Response::new(full("too much"));
                *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                response
            }
            "/none" => {
                let mut response = Response::new(full(""));
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            "/trailers" => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("42"));
                let body = full("text").with_trailers(async move { Some(Ok(trailers)) });
                let mut response = Response::new(body.boxed_unsync());
                response.headers_mut().insert("connection", HeaderValue::from_static("keep-alive"));
                response
            }
            "/broken" => {
                let pieces = futures_util::stream::iter([
                    Ok(Frame::data(Bytes::from_static(b"half"))),
                    Err(io::Error::other("the origin is gone")),
                ]);
                Response::new(http_body_util::StreamBody::new(pieces).boxed_unsync())
            }
            _ => {
                let mut response = Response::new(full("no such thing"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}

/// A demo as a service.
#[derive(Debug, Clone, Default)]
pub struct DemoService(pub Arc<Demo>);

impl Service for DemoService {
    type Body = Boxed;
    type Future = BoxFuture<'static, Result<Response<Boxed>, Infallible>>;

    fn call(&self, connection: &Arc<Connection>, request: Request<RequestBody>) -> Self::Future {
        let (demo, connection) = (Arc::clone(&self.0), Arc::clone(connection));
        Box::pin(async move { Ok(demo.answer(connection, request).await) })
    }

    fn unreadable(&self, _: &Connection, status: StatusCode) {
        self.0.unreadable.lock().push(status.as_u16());
    }
}

/// A certificate for `a.test`; hosts of that name, and `private.test`, which wants one of the client.
pub fn tls() -> (Arc<Tls>, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".into(), "private.test".into()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("a file");
        file
    };
    let cert = file("cert.pem", made.cert.pem());
    let key = file("key.pem", made.key_pair.serialize_pem());
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let of_ca = params.self_signed(&made.key_pair).expect("a certificate");
    let ca = Arc::new(ClientCa::read(&file("ca.pem", of_ca.pem())).expect("a certificate"));
    let host = |name: &str, client_ca| HostSettings {
        pattern: HostPattern::parse(name).expect("a name"),
        source: Source::Unsaid { auto: false },
        client_ca,
    };
    let settings = tls::Settings {
        certificates: vec![CertificateFiles { cert, key: Some(key) }],
        hosts: vec![host("a.test", None), host("private.test", Some(ca))],
    };
    let tls = Tls::new(Arc::default()).expect("TLS");
    tls.configure(&settings).expect("settings");
    assert!(tls.problems().is_empty(), "{:?}", tls.problems());
    (Arc::new(tls), certificate)
}

/// Settings at any port here, with short times.
pub fn settings(tls: Arc<Tls>) -> Settings {
    Settings {
        tls: Some(tls),
        head_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(3),
        stall_timeout: Duration::from_secs(2),
        ..Settings::at("test", vec![Address::parse("127.0.0.1:0").expect("an address")])
    }
}
