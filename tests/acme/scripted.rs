//! A server that says what the script wants: a directory that sends clients on to pebble, but for renewal information and,
//! when the script says so, for new orders.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use harness::pebble::Pebble;

/// The answer to a new order for a name: the part after `urn:ietf:params:acme:error:` and the detail.
pub type Refusal = fn(&str) -> (&'static str, String);

/// What the server says.
#[derive(Default)]
pub struct Script {
    port: u16,
    pebble: Mutex<Value>,
    /// The suggested window: start and end, as text. Without one: 404.
    pub window: Mutex<Option<(String, String)>>,
    /// What every new order is answered with.
    pub refuse: Mutex<Option<Refusal>>,
    /// The names that orders were asked for, where `refuse` was set.
    pub refused: Mutex<Vec<String>>,
    /// The certificates that renewal information was asked for.
    pub asked: Mutex<Vec<String>>,
}

impl Script {
    /// Starts to listen.
    pub async fn start(pebble: &Pebble) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let directory = json!({
            "newNonce": pebble.url("nonce-plz"),
            "newAccount": pebble.url("sign-me-up"),
            "newOrder": pebble.url("order-plz"),
            "renewalInfo": format!("http://127.0.0.1:{port}/renewal"),
        });
        let script = Arc::new(Self { port, pebble: Mutex::new(directory), ..Self::default() });
        let of = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let of = Arc::clone(&of);
                tokio::spawn(async move { of.serve(stream).await });
            }
        });
        script
    }

    /// The directory URL.
    pub fn directory(&self) -> String {
        format!("http://127.0.0.1:{}/directory", self.port)
    }

    /// Answers new orders from now on.
    pub fn refuse(&self, with: Refusal) {
        *self.refuse.lock() = Some(with);
        self.pebble.lock()["newOrder"] = format!("http://127.0.0.1:{}/order", self.port).into();
    }

    /// Suggests to renew from so many seconds after now, for so long.
    pub fn suggest(&self, now: jiff::Timestamp, from_s: i64, to_s: i64) {
        let moment = |s: i64| (now + jiff::SignedDuration::from_secs(s)).to_string();
        *self.window.lock() = Some((moment(from_s), moment(to_s)));
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let path = head.split(' ').nth(1)?;
        let (status, answer) = self.answer(path, &body)?;
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nRetry-After: 21600\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all((head + &answer).as_bytes()).await.ok()
    }

    fn answer(&self, path: &str, body: &[u8]) -> Option<(u16, Value)> {
        if path == "/directory" {
            return Some((200, self.pebble.lock().clone()));
        }
        if let Some(certificate) = path.strip_prefix("/renewal/") {
            self.asked.lock().push(certificate.to_owned());
            return Some(match &*self.window.lock() {
                Some((start, end)) => (200, json!({"suggestedWindow": {"start": start, "end": end}})),
                None => (404, json!({"type": "urn:ietf:params:acme:error:malformed"})),
            });
        }
        let refuse = (*self.refuse.lock())?;
        let request: Value = serde_json::from_slice(body).ok()?;
        let payload: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(request["payload"].as_str()?).ok()?).ok()?;
        let name = payload["identifiers"][0]["value"].as_str()?.to_owned();
        let (kind, detail) = refuse(&name);
        self.refused.lock().push(name);
        let status = if kind == "rateLimited" { 429 } else { 400 };
        Some((status, json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail})))
    }
}
