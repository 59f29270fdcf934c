//! A client of the admin listener of the running program: one request, one bounded answer, bounded time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use proxyhost::config;
use serde_json::Value;

/// Time to connect.
const CONNECT_AT_MOST: Duration = Duration::from_secs(5);
/// Time for an answer: a reload compiles policies.
const ANSWER_AT_MOST: Duration = Duration::from_secs(120);
/// The longest answer.
const ANSWER_MOST_BYTES: usize = 64 << 20;

/// The longest line of one, which has a URL and what is wrong with it; and the longest refusal.
const LINE_MOST_BYTES: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum AdminError {
    /// The user can mend it: lines that say how.
    Refused(Vec<String>),
    /// The program is at something that has to end first.
    NotNow(String),
    /// The program does not run, or does not answer as it should.
    Unreachable(String),
}

/// Where the running program is asked, and with which token.
pub struct Admin {
    address: SocketAddr,
    token: String,
}

impl Admin {
    /// Finds address and token: what was given, else by the configuration.
    pub fn find(file: &Path, address: Option<SocketAddr>, token: Option<&str>) -> Result<Self, AdminError> {
        let refused = |mistakes: config::Mistakes| AdminError::Refused(mistakes.lines());
        let token = token.map(config::command_line_secret).transpose().map_err(refused)?;
        if let (Some(address), Some(token)) = (address, &token) {
            return Ok(Self { address: reachable(address), token: token.clone() });
        }
        let door = config::door(file).map_err(refused)?;
        let token = match token {
            Some(token) => token,
            None => door.token().map_err(|reason| AdminError::Refused(vec![format!("proxyhost: {reason}")]))?,
        };
        Ok(Self { address: reachable(address.unwrap_or(door.address)), token })
    }

    /// Asks and waits.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, AdminError> {
        let runtime = runtime()?;
        let (status, answer) = runtime.block_on(async {
            tokio::time::timeout(ANSWER_AT_MOST, self.exchange(method, path, body))
                .await
                .unwrap_or_else(|_| Err(self.unreachable("no answer in time")))
        })?;
        self.answered(status, &answer)
    }

    fn answered(&self, status: StatusCode, answer: &[u8]) -> Result<Value, AdminError> {
        let answer = serde_json::from_slice(answer)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(answer).trim().to_owned()));
        match status {
            status if status.is_success() => Ok(answer),
            // Nothing is wrong with what was asked: later it may go.
            StatusCode::CONFLICT => Err(AdminError::NotNow(complaints(&answer).join("; "))),
            StatusCode::UNAUTHORIZED => Err(AdminError::Refused(vec![format!(
                "proxyhost: the program at {} does not take this token",
                self.address
            )])),
            status if status.is_client_error() => Err(AdminError::Refused(complaints(&answer))),
            status => Err(AdminError::Unreachable(format!(
                "the program at {} answered {status}: {}",
                self.address,
                complaints(&answer).join("; ")
            ))),
        }
    }

    /// Asks for an answer in lines of JSON, and gives each of them away as it comes.
    pub fn ask_for_lines(&self, path: &str, body: &Value, mut each: impl FnMut(Value)) -> Result<(), AdminError> {
        let runtime = runtime()?;
        runtime.block_on(async {
            let sent = tokio::time::timeout(ANSWER_AT_MOST, self.send("POST", path, Some(body))).await;
            let response = sent.map_err(|_| self.unreachable("no answer in time"))??;
            let status = response.status();
            let mut body = response.into_body();
            let mut rest = Vec::new();
            loop {
                // A line comes at least every few seconds, however long each thing takes.
                let frame = tokio::time::timeout(ANSWER_AT_MOST, body.frame()).await;
                let frame = frame.map_err(|_| self.unreachable("no answer in time"))?;
                let Some(frame) = frame else { break };
                let frame = frame.map_err(|error| self.unreachable(&error.to_string()))?;
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                if status.is_success() {
                    let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                        let value = serde_json::from_slice(line);
                        each(value.map_err(|_| self.unreachable("the answer is not JSON"))?);
                    }
                    rest.drain(..end);
                }
                if rest.len() > LINE_MOST_BYTES {
                    return Err(self.unreachable("the answer is too long"));
                }
            }
            if status.is_success() {
                return Ok(());
            }
            self.answered(status, &rest).map(|_| ())
        })
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MOST_BYTES)
            .collect()
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        Ok((status, body.to_bytes()))
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response<Incoming>, AdminError> {
        let connecting = tokio::net::TcpStream::connect(self.address);
        let stream = match tokio::time::timeout(CONNECT_AT_MOST, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&error.to_string())),
            Err(_) => return Err(self.unreachable("no connection in time")),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        // Ends with the runtime at the latest; its error is the request's too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))
            .map_err(|error| AdminError::Refused(vec![format!("proxyhost: this cannot be asked: {error}")]))?;
        sender.send_request(request).await.map_err(|error| self.unreachable(&error.to_string()))
    }

    fn unreachable(&self, reason: &str) -> AdminError {
        AdminError::Unreachable(format!("the running program cannot be asked at {}: {reason}", self.address))
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, AdminError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| AdminError::Unreachable(format!("the runtime cannot start: {error}")))
}

/// A listener on every address is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

/// The lines of an answer that refuses: what stands under `error`, `errors` or `mistakes`, or all of it.
fn complaints(answer: &Value) -> Vec<String> {
    let inner = ["error", "errors", "mistakes"].iter().find_map(|key| answer.get(key)).unwrap_or(answer);
    let lines = super::print::readable(inner);
    if lines.is_empty() { vec!["proxyhost: refused without a reason".to_owned()] } else { lines }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (given, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(given.parse().map(reachable), asked.parse::<SocketAddr>());
        }
    }

    #[test]
    fn the_reason_of_a_refusal_is_found() {
        assert_eq!(complaints(&json!({ "error": "no" })), ["no"]);
        assert_eq!(complaints(&json!({ "mistakes": ["a", "b"] })), ["a", "b"]);
        assert_eq!(complaints(&json!("text")), ["text"]);
    }

    #[test]
    fn nobody_at_home_is_told_and_does_not_hang() {
        // Port 1 of loopback: nothing listens there.
        let admin = Admin { address: SocketAddr::from(([127, 0, 0, 1], 1)), token: "x".into() };
        assert!(matches!(admin.ask("GET", "/stats", None), Err(AdminError::Unreachable(_))));
    }
}
