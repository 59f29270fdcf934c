//! A client that asks one question over a connection of its own, and answers that know what is expected of them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::tls::Secure;

/// No play waits longer for one answer.
const AT_MOST: Duration = Duration::from_secs(60);

/// A request in the making.
#[must_use = "a call does nothing until it is sent"]
#[derive(Clone, Debug)]
pub struct Call {
    address: SocketAddr,
    method: Method,
    target: String,
    host: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    version: Version,
    secure: Option<Secure>,
}

impl Call {
    /// A request to a server at this address.
    #[track_caller]
    pub fn new(address: SocketAddr, method: &str, target: &str, host: &str) -> Self {
        Self {
            address,
            method: method.parse().expect("the play names a method"),
            target: target.to_owned(),
            host: host.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            version: Version::HTTP_11,
            secure: None,
        }
    }

    /// Asks another virtual host.
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// Adds a field line.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = name.parse().expect("the play names a field");
        self.headers.push((name, HeaderValue::from_bytes(value.as_bytes()).expect("the play gives a field value")));
        self
    }

    /// Asks for a range of bytes: what stands behind `bytes=`.
    pub fn range(self, range: &str) -> Self {
        self.header("range", &format!("bytes={range}"))
    }

    /// Brings a body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Goes over TLS.
    pub fn secure(mut self, secure: &Secure) -> Self {
        self.secure = Some(secure.clone());
        self
    }

    /// Speaks HTTP/2: with prior knowledge, or as agreed on over TLS.
    pub fn http2(mut self) -> Self {
        self.version = Version::HTTP_2;
        self
    }

    /// Sends it and takes the whole answer.
    ///
    /// # Panics
    ///
    /// When there is none, or not a whole one: see [`Self::attempt`].
    pub async fn send(self) -> Answer {
        let what = format!("{} {} {}", self.method, self.host, self.target);
        match self.attempt().await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: no whole answer: {error:#}"),
        }
    }

    /// Sends it and takes the whole answer, or tells how the connection failed.
    pub async fn attempt(self) -> anyhow::Result<Answer> {
        let request = format!("{} {} {}", self.method, self.host, self.target);
        tokio::time::timeout(AT_MOST, async {
            let mut stream = self.open().await?;
            let mut body = BytesMut::new();
            while let Some(piece) = stream.next().await? {
                body.extend_from_slice(&piece);
            }
            Ok(Answer {
                request,
                status: stream.status,
                version: stream.version,
                headers: stream.headers.clone(),
                body: body.freeze(),
                trailers: stream.trailers.take(),
            })
        })
        .await
        .map_err(|_| anyhow::anyhow!("not answered in {AT_MOST:?}"))?
    }

    /// Sends it and hands the answer over as soon as its head is there.
    pub async fn open(self) -> anyhow::Result<Streaming> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match self.secure.clone() {
            None => self.open_on(stream, "http").await,
            Some(secure) => {
                let protocol: &[u8] = if self.version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
                let stream = secure.connect(stream, &[protocol]).await?;
                anyhow::ensure!(stream.get_ref().1.alpn_protocol() == Some(protocol), "another protocol was agreed on");
                self.open_on(stream, "https").await
            }
        }
    }

    async fn open_on<IO>(self, stream: IO, scheme: &str) -> anyhow::Result<Streaming>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let mut request = Request::builder().method(self.method.clone());
        let response;
        let connection;
        if self.version == Version::HTTP_2 {
            let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            connection = tokio::spawn(async move {
                let _ = driver.await;
            });
            let uri = if self.target.starts_with('/') {
                format!("{scheme}://{}{}", self.host, self.target)
            } else {
                self.target.clone()
            };
            request = request.uri(uri);
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            response = sender.send_request(request.body(Full::new(self.body))?).await?;
            // The sender may go: the stream that is under way keeps the connection.
        } else {
            let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
            connection = tokio::spawn(async move {
                let _ = driver.await;
            });
            request = request.uri(&self.target);
            if !self.headers.iter().any(|(name, _)| name == "host") {
                request = request.header("host", &self.host);
            }
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            response = sender.send_request(request.body(Full::new(self.body))?).await?;
        }
        let (head, body) = response.into_parts();
        Ok(Streaming {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body,
            trailers: None,
            _connection: Aborting(connection),
        })
    }
}

struct Aborting(tokio::task::JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still on its way. Dropping it cuts the connection.
pub struct Streaming {
    /// Status.
    pub status: StatusCode,
    /// Version.
    pub version: Version,
    /// Field lines.
    pub headers: HeaderMap,
    body: Incoming,
    trailers: Option<HeaderMap>,
    _connection: Aborting,
}

impl Streaming {
    /// The next piece of the body, or none at its end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            match frame?.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
        Ok(None)
    }

    /// Reads until there are at least so many bytes, or the end.
    pub async fn read(&mut self, at_least: usize) -> anyhow::Result<Bytes> {
        let mut body = BytesMut::new();
        while body.len() < at_least {
            match tokio::time::timeout(AT_MOST, self.next()).await?? {
                Some(piece) => body.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(body.freeze())
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was asked, for messages.
    pub request: String,
    /// Status.
    pub status: StatusCode,
    /// Version.
    pub version: Version,
    /// Field lines.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Trailer fields, if any.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Holds status and body against these.
    #[track_caller]
    pub fn expect(&self, status: u16, body: impl AsRef<[u8]>) -> &Self {
        self.status(status);
        let body = body.as_ref();
        if self.body != body {
            let at = self.body.iter().zip(body).position(|(a, b)| a != b).unwrap_or(self.body.len().min(body.len()));
            panic!(
                "{}: the body of {} bytes differs from the expected {} bytes at {at}: {:?} instead of {:?}",
                self.request,
                self.body.len(),
                body.len(),
                excerpt(&self.body, at),
                excerpt(body, at),
            );
        }
        self
    }

    /// Holds the status against this.
    #[track_caller]
    pub fn status(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}: status; {}", self.request, self.show());
        self
    }

    /// Holds a field against this value.
    #[track_caller]
    pub fn header(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.field(name), value, "{}: field {name}; {}", self.request, self.show());
        self
    }

    /// The field must not be there.
    #[track_caller]
    pub fn no_header(&self, name: &str) -> &Self {
        assert!(!self.headers.contains_key(name), "{}: has a field {name}; {}", self.request, self.show());
        self
    }

    /// Holds Cache-Status (RFC 9211) against a word: `hit` (fresh, from the cache), `stale` (from the cache though it was
    /// stale, whether or not the origin was asked), `miss` (nothing usable was there), `revalidated` (the origin said 304),
    /// `expired` (fetched anew in place of what was stale), `bypass`, `collapsed` (read along with another request's fetch), or a parameter of the field itself
    /// (`fwd=uri-miss`, `stored`).
    #[track_caller]
    pub fn cache(&self, word: &str) -> &Self {
        let said = self.cache_status();
        let has = |parameter: &str| said.iter().any(|p| p == parameter);
        let ttl = said.iter().find_map(|p| p.strip_prefix("ttl=")?.parse::<i64>().ok());
        let so = match word {
            "hit" => has("hit") && ttl.is_none_or(|ttl| ttl >= 0),
            "stale" => (has("hit") || (has("fwd=stale") && !has("stored"))) && ttl.is_some_and(|ttl| ttl < 0),
            "miss" => ["fwd=uri-miss", "fwd=vary-miss", "fwd=miss", "fwd=partial"].iter().any(|p| has(p)),
            "revalidated" => has("fwd-status=304") && (has("fwd=stale") || has("fwd=request")),
            "expired" => has("fwd=stale") && !has("fwd-status=304"),
            "bypass" => has("fwd=bypass"),
            parameter => has(parameter),
        };
        assert!(so, "{}: not {word:?} by Cache-Status; {}", self.request, self.show());
        self
    }

    /// The parameters of our own member of Cache-Status.
    pub fn cache_status(&self) -> Vec<String> {
        let all = self.headers.get_all("cache-status").iter().filter_map(|value| value.to_str().ok());
        let all: Vec<&str> = all.flat_map(|line| line.split(',')).map(str::trim).collect();
        let ours = all.iter().rev().find(|member| member.starts_with("proxyhost"));
        ours.map(|member| member.split(';').skip(1).map(|p| p.trim().to_owned()).collect()).unwrap_or_default()
    }

    /// The value of a field (lines joined with a comma), or the empty string.
    pub fn field(&self, name: &str) -> String {
        let lines = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        lines.collect::<Vec<_>>().join(", ")
    }

    /// The number in a field.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or_else(|_| panic!("{}: no number in {name}; {}", self.request, self.show()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}; {}", self.request, self.show()))
    }

    /// The parts of a multipart/byteranges body: the value of Content-Range and the bytes of each.
    #[track_caller]
    pub fn parts(&self) -> Vec<(String, Bytes)> {
        let kind = self.field("content-type");
        let boundary = kind.split("boundary=").nth(1).unwrap_or_else(|| panic!("no boundary; {}", self.show()));
        let delimiter = format!("--{}", boundary.trim_matches('"'));
        let mut parts = Vec::new();
        let mut rest = &self.body[..];
        while let Some(start) = find(rest, delimiter.as_bytes()) {
            rest = &rest[start + delimiter.len()..];
            if rest.starts_with(b"--") {
                break;
            }
            let head = find(rest, b"\r\n\r\n").unwrap_or_else(|| panic!("a part without an end of its head"));
            let fields = String::from_utf8_lossy(&rest[..head]).to_ascii_lowercase();
            let range = fields.lines().find_map(|line| line.strip_prefix("content-range:")).unwrap_or_default();
            let body = &rest[head + 4..];
            let end = find(body, format!("\r\n{delimiter}").as_bytes()).unwrap_or(body.len());
            parts.push((range.trim().to_owned(), Bytes::copy_from_slice(&body[..end])));
            rest = &body[end..];
        }
        parts
    }

    /// Everything, for messages.
    fn show(&self) -> String {
        format!("{} {:?}, body {:?}", self.status, self.headers, excerpt(&self.body, 0))
    }
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

fn excerpt(body: &[u8], at: usize) -> String {
    let piece = &body[at.min(body.len())..(at + 300).min(body.len())];
    String::from_utf8_lossy(piece).into_owned()
}

/// What came back for bytes that were sent as they are.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// All bytes.
    pub bytes: Bytes,
    /// Whether the server closed the connection within the time.
    pub closed: bool,
}

impl RawAnswer {
    /// The status of the first answer, or 0 when there is none.
    pub fn status(&self) -> u16 {
        self.statuses().first().copied().unwrap_or(0)
    }

    /// The statuses of all answers, interim ones included, as far as a search for status lines finds them.
    pub fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
    }

    /// The bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Sends bytes as they are and reads until the server closes or says nothing for `patience`.
pub async fn send_raw(address: SocketAddr, bytes: &[u8], patience: Duration) -> RawAnswer {
    let mut stream = TcpStream::connect(address).await.expect("the proxy takes connections");
    // The server may have closed before it has read all: what it answered still counts.
    let (mut read, mut write) = stream.split();
    let mut received = BytesMut::new();
    let mut closed = false;
    let sending = async {
        let _ = write.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let receiving = async {
        loop {
            match tokio::time::timeout(patience, read.read_buf(&mut received)).await {
                Ok(Ok(0) | Err(_)) => {
                    closed = true;
                    break;
                }
                Ok(Ok(_)) => {}
                Err(_) => break,
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
    RawAnswer { bytes: received.freeze(), closed }
}
