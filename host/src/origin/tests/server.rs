//! Servers for the tests, on a port that the system gives: one that behaves and one that does what it is told, byte by
//! byte.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::semantics::byte_range::{self, ByteRange, ContentRange, Resolved};
use crate::semantics::precondition::{self, Precondition};
use crate::semantics::target::Target;

/// A server with files that knows conditions and ranges.
pub(super) struct Good {
    pub(super) url: String,
}

/// How the server likes to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tongue {
    Http,
    S3,
}

impl Good {
    pub(super) async fn start(tongue: Tongue, files: BTreeMap<String, Bytes>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let files = Arc::new(files);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let files = Arc::clone(&files);
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(tongue, &files, &request);
                    async move { Ok::<_, std::convert::Infallible>(answer) }
                });
                let serving = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move {
                    let _ = serving.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url }
    }
}

fn answer(tongue: Tongue, files: &BTreeMap<String, Bytes>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut path = Target::parse(request.uri().path()).unwrap().path().to_owned();
    if tongue == Tongue::S3 {
        let signed =
            request.headers().get("authorization").is_some_and(|v| v.as_bytes().starts_with(b"AWS4-HMAC-SHA256"));
        if !signed {
            return plain(StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>");
        }
        path = path.strip_prefix("/bucket").unwrap_or("/elsewhere").to_owned();
    }
    let Some(file) = files.get(&path) else {
        return plain(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>");
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, HeaderValue::from_str(&format!("\"{:x}\"", crc32c::crc32c(file))).unwrap());
    headers.insert(header::LAST_MODIFIED, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
    let (status, body) = match precondition::evaluate(request.method(), request.headers(), &headers) {
        Precondition::Failed => (StatusCode::PRECONDITION_FAILED, Bytes::new()),
        Precondition::NotModified => (StatusCode::NOT_MODIFIED, Bytes::new()),
        Precondition::Proceed => {
            let length = file.len() as u64;
            let specs = byte_range::parse_range(request.headers()).unwrap_or_default();
            let resolved = if specs.is_empty() { Resolved::Whole } else { byte_range::resolve(&specs, length) };
            let part = |range: Option<ByteRange>| ContentRange { range, complete: Some(length) }.to_value();
            match resolved {
                Resolved::Single(range) => {
                    headers.insert(header::CONTENT_RANGE, part(Some(range)));
                    (StatusCode::PARTIAL_CONTENT, file.slice(range.start as usize..range.end as usize))
                }
                Resolved::Unsatisfiable => {
                    headers.insert(header::CONTENT_RANGE, part(None));
                    (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new())
                }
                _ => (StatusCode::OK, file.clone()),
            }
        }
    };
    if status.is_success() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let body = if request.method() == Method::HEAD { Bytes::new() } else { body };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// What a scripted server does after it has read a request's head.
#[derive(Clone)]
pub(super) enum Act {
    /// Writes this and waits for the next request.
    Say(&'static str),
    /// Writes this and closes.
    SayAndClose(&'static str),
    /// Writes one, waits, writes the other.
    SayLater(&'static str, Duration, &'static str),
    /// Reads this many bytes of a body, then writes.
    ReadThenSay(usize, &'static str),
}

/// A server that follows a script, one act a request, whatever the connection; the last act is repeated.
pub(super) struct Scripted {
    pub(super) url: String,
    /// What was read of each request: head, and body if an act reads one.
    pub(super) requests: Arc<Mutex<Vec<String>>>,
    pub(super) connections: Arc<AtomicUsize>,
}

impl Scripted {
    pub(super) async fn start(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let server = Self { url, requests: Arc::clone(&requests), connections: Arc::clone(&connections) };
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(stream, Arc::clone(&script), Arc::clone(&requests)));
            }
        });
        server
    }

    pub(super) fn asked(&self) -> usize {
        self.requests.lock().len()
    }

    pub(super) fn connected(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn play(mut stream: TcpStream, script: Arc<Vec<Act>>, requests: Arc<Mutex<Vec<String>>>) {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let mut body = read.split_off(end);
        let act = {
            let mut requests = requests.lock();
            requests.push(String::from_utf8_lossy(&read).into_owned());
            script[(requests.len() - 1).min(script.len() - 1)].clone()
        };
        read.clear();
        match act {
            Act::Say(text) => drop(stream.write_all(text.as_bytes()).await),
            Act::SayAndClose(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                return;
            }
            Act::SayLater(first, pause, then) => {
                let _ = stream.write_all(first.as_bytes()).await;
                tokio::time::sleep(pause).await;
                let _ = stream.write_all(then.as_bytes()).await;
            }
            Act::ReadThenSay(length, text) => {
                while body.len() < length {
                    if stream.read_buf(&mut body).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                if let Some(last) = requests.lock().last_mut() {
                    last.push_str(&String::from_utf8_lossy(&body));
                }
                let _ = stream.write_all(text.as_bytes()).await;
            }
        }
    }
}
