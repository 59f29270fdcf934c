//! One URL, fetched into the cache.
//!
//! It is a GET from loopback, and leads to the key that clients' requests for the URL lead to. Policies see it, since they make
//! that key: a path that is rewritten, a part for the language. They do not refuse it: who runs the program may have what is his,
//! and what is kept of it goes to nobody whom they do not let through. So a policy that refuses is passed over, and the others of
//! its chain are asked as if it were not there (`ChainLease::run_without_refusals`). That gives the clients' key wherever a policy
//! that judges does not also make the key; where it does, a URL that it lets through (signed, for example) is what to ask for. A
//! policy that fails, redirects to elsewhere or answers itself has the last word, and on-origin-request has it too: nothing is
//! fetched. A redirect to another path of the host is followed: clean URLs are what clients ask for.
//!
//! A host's redirects (to https, to its canonical name) are not in the way of this request, but no client gets to what lies
//! behind them: http becomes https, and another name than the canonical one is an error.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};

use super::super::body::Pieces;
use super::super::deliver::{self, Deliverable, Source};
use super::super::outcome::{Forward, Word};
use super::super::request::{self, Upload};
use super::super::steps::{self, Carried, Routed};
use super::super::{Peer, Proxy, gap, refetch};
use super::step::{self, Expected, Warm};
use crate::cache::entry::{Entry, EntryBody};
use crate::local::Local;
use crate::semantics::authority::Authority;
use crate::semantics::reference::Base;
use crate::tls::Source as CertificateSource;
use crate::warm::{Kept, Wanted};

/// How often something is asked for that was purged on its way, or that a policy has under another path.
const TRIES: usize = 4;

/// Why something is not kept.
#[derive(Debug)]
pub(in crate::proxy) struct NotKept {
    /// In words.
    pub why: String,
    /// The origin or a setting says so of this version of it: to ask again would be in vain.
    pub lasting: bool,
}

impl NotKept {
    fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), lasting: true }
    }
}

impl From<String> for NotKept {
    fn from(why: String) -> Self {
        Self { why, lasting: false }
    }
}

/// Sees to it that a URL is kept, whole, and fresh for at least so long.
pub(in crate::proxy) async fn one(
    proxy: &Arc<Proxy>,
    wanted: &Wanted,
    headers: &HeaderMap,
    min_fresh: Duration,
    mut expected: Option<&Expected>,
) -> Result<Kept, NotKept> {
    let mut wanted = Cow::Borrowed(wanted);
    for _ in 0..TRIES {
        let routed = routed(proxy, &wanted, headers)?;
        let (mut answer, key) = match step::warm(routed, min_fresh, expected).await {
            Warm::Kept(answer, key) => (answer, key),
            Warm::Answered(answer) => match redirected(&answer, &wanted) {
                Some(elsewhere) => {
                    wanted = Cow::Owned(elsewhere);
                    // What is there may be another object.
                    expected = None;
                    continue;
                }
                None => return Err(said(&answer)),
            },
            Warm::NotKept(Forward::Bypass) => {
                return Err(NotKept::lasting("host or policy keep the cache out of it"));
            }
            Warm::NotKept(_) => return Err(NotKept::lasting("it is not for the cache")),
        };
        let purged = answer.outcome.detail == Some("purged");
        if purged {
            continue;
        }
        let outcome = &answer.outcome;
        let is_hit = outcome.forward.is_none() && outcome.detail.is_none();
        // What a listing has said costs no request.
        let is_listed = expected.is_some() && outcome.word == Some(Word::Revalidated);
        let fetched = !is_hit && !is_listed;
        let Source::Entry(entry) = &answer.source else { return Err(said(&answer)) };
        if !(outcome.stored || is_hit) || answer.status.is_client_error() || answer.status.is_server_error() {
            return Err(said(&answer));
        }
        let entry = Arc::clone(entry);
        let read = whole(&mut answer, &entry).await?;
        if expected.is_some() && !proxy.cache.keep_on_disk(&entry).await {
            if fetched || read {
                return Err("there is no room for it on the disk".to_owned().into());
            }
            // A large one that only memory has, in part perhaps.
            proxy.cache.remove(&entry);
            continue;
        }
        if refetch::is_kept(&answer.carried, &key, &entry).await {
            let bytes = entry_bytes(&entry);
            return Ok(Kept { fetched: fetched || read, bytes });
        }
    }
    Err("it did not stay: it was purged on its way each time, or there is no room for it".to_owned().into())
}

/// Bytes of a sitemap, or of anything else that a host answers with.
pub(super) async fn body(
    proxy: &Arc<Proxy>,
    wanted: &Wanted,
    headers: &HeaderMap,
    most: usize,
) -> Result<bytes::Bytes, String> {
    let mut wanted = Cow::Borrowed(wanted);
    let mut tries = 0;
    let mut answer = loop {
        let routed = routed(proxy, &wanted, headers)?;
        let answer = match step::warm(routed, Duration::ZERO, None).await {
            Warm::Kept(answer, _) | Warm::Answered(answer) => answer,
            Warm::NotKept(_) => return Err("it is not for the cache".to_owned()),
        };
        tries += 1;
        match redirected(&answer, &wanted) {
            _ if answer.status.is_success() => break answer,
            Some(elsewhere) if tries < TRIES => wanted = Cow::Owned(elsewhere),
            _ => return Err(said(&answer).why),
        }
    };
    let mut pieces: Pieces = match std::mem::replace(&mut answer.source, Source::Nothing) {
        Source::Nothing => return Ok(bytes::Bytes::new()),
        Source::Bytes(bytes) => return Ok(bytes),
        Source::Stream { pieces, .. } => pieces,
        Source::Entry(entry) => {
            let end = size_of(&entry);
            let refetch = deliver::refetch(&mut answer, &entry, 0, end).await;
            gap::read(&entry, 0, end, refetch)
        }
    };
    let mut all = bytes::BytesMut::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.map_err(|error| error.to_string())?);
        if all.len() > most {
            return Err(format!("it is longer than {most} bytes"));
        }
    }
    Ok(all.freeze())
}

/// Reads a body to its end, where any of it is missing or still coming: who reads keeps its fill going. Whether anything was.
async fn whole(answer: &mut Deliverable, entry: &Arc<Entry>) -> Result<bool, String> {
    let EntryBody::Sliced(body) = &entry.body else { return Ok(false) };
    let size = body.size();
    let slices = size.map(|size| size.div_ceil(crate::cache::entry::SLICE_BYTES));
    if slices.is_some_and(|slices| body.slices_on_disk() >= slices) && !body.is_filling() {
        return Ok(false);
    }
    let refetch = deliver::refetch(answer, entry, 0, size).await;
    let mut pieces = gap::read(entry, 0, size, refetch);
    while let Some(piece) = pieces.next().await {
        piece.map_err(|error| format!("it breaks off: {error}"))?;
    }
    drop(pieces);
    body.wait_for_fill().await;
    Ok(true)
}

fn size_of(entry: &Entry) -> Option<u64> {
    match &entry.body {
        EntryBody::Inline(bytes) => Some(bytes.len() as u64),
        EntryBody::Sliced(body) => body.size(),
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    size_of(entry).unwrap_or(0)
}

/// Where policy or origin have it instead, on the same host and by either scheme: `/about` for `/about.html`, `/a/` for `/a`.
fn redirected(answer: &Deliverable, wanted: &Wanted) -> Option<Wanted> {
    let location = answer.headers.get(header::LOCATION).filter(|_| answer.status.is_redirection())?.to_str().ok()?;
    let Authority { host, port } = Authority::parse(&wanted.authority).ok()?;
    let by = |(scheme, own)| {
        let port = port.filter(|port| *port != own);
        Base { scheme, host: &host, port, raw: &wanted.target }.same_origin(location)
    };
    let elsewhere = [("http", 80), ("https", 443)].into_iter().find_map(by)?;
    // What leads back to itself by another scheme is the host's own affair.
    (elsewhere.raw() != wanted.target).then(|| Wanted { target: elsewhere.raw().to_owned(), ..wanted.clone() })
}

/// Why something is not kept.
fn said(answer: &Deliverable) -> NotKept {
    let status = answer.status;
    if let Some(location) = answer.headers.get(header::LOCATION).filter(|_| status.is_redirection()) {
        return NotKept::lasting(format!("it is redirected to {}", String::from_utf8_lossy(location.as_bytes())));
    }
    // Stale in place of what the origin could not give.
    let is_stale =
        matches!(answer.source, Source::Entry(_)) && answer.outcome.forward_status != Some(StatusCode::NOT_MODIFIED);
    match answer.outcome.detail {
        Some(detail) if is_stale => format!("the origin failed, and what is kept is stale: {detail}").into(),
        _ if status.is_client_error() || status.is_server_error() => {
            format!("it is answered with {}", status.as_u16()).into()
        }
        Some(detail) => NotKept::lasting(format!("it is not kept: {detail}")),
        None => format!("it is answered with {}, and not by the origin", status.as_u16()).into(),
    }
}

/// The request that leads to it.
fn routed(proxy: &Arc<Proxy>, wanted: &Wanted, fields: &HeaderMap) -> Result<Routed, String> {
    let generation = proxy.generation_here();
    let mut request = Request::builder().method(Method::GET).version(Version::HTTP_11).uri(wanted.target.as_str());
    if let Some(headers) = request.headers_mut() {
        headers.extend(fields.clone());
    }
    let request = request.header(header::HOST, &wanted.authority).body(None::<Upload>);
    let request = request.map_err(|error| format!("it cannot be asked for: {error}"))?;
    let authority = Authority::parse(&wanted.authority).map_err(|error| error.to_string())?;
    let site = generation.route(&authority.host).map(Local::of).ok_or("there is no such host here")?;
    let https = &site.host.settings.https;
    if let Some(canonical) = https.canonical.as_ref().filter(|canonical| **canonical != authority.host) {
        return Err(format!("its host redirects to {canonical}"));
    }
    let served = proxy.https_port.load(Ordering::Relaxed) != 0 && https.source != CertificateSource::Off;
    let scheme = match wanted.scheme {
        Some("http") | None if served && https.redirect => "https",
        Some(scheme) => scheme,
        None if served && https.source != (CertificateSource::Unsaid { auto: false }) => "https",
        None => "http",
    };
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let by = Peer { address, port: 0, scheme, tls: None, interim: None };
    let readable = match request::read(by, request, &[], proxy.clock.now()) {
        Ok(readable) => readable,
        Err(refusal) => return Err(refusal.0.why.clone()),
    };
    let own = Local::of(proxy);
    let mut carried = Carried::begin(own, generation, site, readable.exchange, readable.version, by, false);
    carried.by_operator = true;
    Ok(Routed { carried, upload: steps::Upload { body: None, brought: readable.brought, websocket: None } })
}
