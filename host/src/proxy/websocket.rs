//! WebSocket (RFC 6455) through to http origins: the policy decides like for any request, the origin answers the handshake, and
//! from then on bytes go both ways until one side ends or both are silent for long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::ask::{Answer, Ask};
use super::decide;
use super::deliver::{Deliverable, Source};
use super::outcome::{Forward, Outcome};
use super::pass::{Judged, failed, judge, passed_on};
use super::steps::{Decided, Early};
use crate::clock::monotonic_ms;
use crate::policy::Phase;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADES: HeaderValue = HeaderValue::from_static("upgrade");

/// A tunnel in which nothing moves is closed after this. Most applications send a ping each minute or so.
const IDLE: Duration = Duration::from_secs(3600);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// What is read at once.
const BUFFER_BYTES: usize = 16 << 10;

/// The client's side of a connection that it wants to speak WebSocket on.
pub struct Wanted(OnUpgrade);

impl Wanted {
    /// What a request asks for, if it asks for this (RFC 6455 section 4.1).
    pub fn of(parts: &mut http::request::Parts) -> Option<Self> {
        if parts.version != Version::HTTP_11 || parts.method != Method::GET {
            return None;
        }
        let has = |name, token: &str| {
            parts
                .headers
                .get_all(name)
                .iter()
                .filter_map(|value: &HeaderValue| value.to_str().ok())
                .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
        };
        if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
            return None;
        }
        parts.extensions.remove::<OnUpgrade>().map(Self)
    }
}

/// Asks the origin, and joins the two sides when it agrees.
pub async fn pass(decided: Decided, wanted: Wanted) -> Early {
    let Decided { mut carried, .. } = decided;
    carried.exchange.response = None;
    if carried.policies.exports(Phase::OnOriginRequest) {
        carried = match decide::run(carried, Phase::OnOriginRequest).await {
            Ok(carried) => carried,
            Err(early) => return early,
        };
    }
    let outcome = Outcome::forwarded(Forward::Bypass);
    let ask = Ask::of(&carried, false).upgrading();
    let Answer { mut response, path } = match ask.send(&Method::GET, None, |_| None).await {
        Ok(answer) => answer,
        Err(error) => return failed(carried, outcome, &error),
    };
    let mut outcome = outcome;
    outcome.forward_status = Some(response.status);
    let origin = response.upgraded.take();
    match judge(carried, response, &path, outcome.word()).await {
        Ok(Judged { carried, response, .. }) => {
            let (true, Some(origin)) = (response.status == StatusCode::SWITCHING_PROTOCOLS, origin) else {
                return passed_on(carried, response, path, outcome, false);
            };
            let mut headers: HeaderMap = response.headers;
            headers.insert(CONNECTION, UPGRADES);
            headers.insert(UPGRADE, WEBSOCKET);
            tokio::spawn(join(wanted, origin));
            let (status, source) = (StatusCode::SWITCHING_PROTOCOLS, Source::Nothing);
            let origin_path = Some(path.into());
            Box::new(Deliverable { carried, status, headers, source, outcome, origin_path, negotiate: false })
        }
        Err(early) => early,
    }
}

async fn join(wanted: Wanted, origin: OnUpgrade) {
    let (client, origin) = match tokio::try_join!(wanted.0, origin) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "a connection was not given over to WebSocket");
            return;
        }
    };
    if let Err(error) = tunnel(client, origin).await {
        tracing::debug!(%error, "WebSocket ended");
    }
}

async fn tunnel(client: Upgraded, origin: Upgraded) -> io::Result<()> {
    let moved = Arc::new(AtomicU64::new(monotonic_ms()));
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_origin, to_origin) = tokio::io::split(TokioIo::new(origin));
    let both = async { tokio::try_join!(copy(from_client, to_origin, &moved), copy(from_origin, to_client, &moved)) };
    tokio::select! {
        done = both => done.map(|_| ()),
        () = silence(&moved) => Ok(()),
    }
}

async fn copy<A, B>(mut from: ReadHalf<A>, mut to: WriteHalf<B>, moved: &AtomicU64) -> io::Result<()>
where
    A: AsyncRead,
    B: AsyncWrite,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        moved.store(monotonic_ms(), Ordering::Relaxed);
    }
}

/// Ends when nothing has moved for long.
async fn silence(moved: &AtomicU64) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let silent = monotonic_ms().saturating_sub(moved.load(Ordering::Relaxed));
        if u128::from(silent) > IDLE.as_millis() {
            return;
        }
    }
}
