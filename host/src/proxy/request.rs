//! What came in, checked (RFC 9110 section 7.2, RFC 9112 section 3.2): one reading of authority, path and body, or a refusal.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use smallvec::smallvec;

use super::Peer;
use super::websocket::Wanted;
use crate::clock::Timestamp;
use crate::policy::Exchange;
use crate::policy::exchange::{Attributes, ClientView, RequestView};
use crate::semantics::authority::{Authority, AuthorityText};
use crate::semantics::interest::Interest;
use crate::semantics::target::{Target, TargetError};
use crate::semantics::{forwarded, hop_by_hop, versions};
use crate::tls::Session;

/// Field lines of a request: as many as HTTP/1.1 requests may have, whatever version it came by.
const FIELDS_MAX: usize = 100;

/// The longest method and the longest target, as for HTTP/1.x.
const METHOD_BYTES_MAX: usize = 32;
const TARGET_BYTES_MAX: usize = 16 << 10;

/// The body of a request, as it comes in.
pub struct Upload(UnsyncBoxBody<Bytes, BoxError>);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Upload {
    /// Of any body.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }

    /// The body once its first piece is there; none if it ends without one.
    pub async fn begun(self) -> Option<Self> {
        let mut rest = self.0;
        let first = loop {
            let frame = rest.frame().await?;
            if !frame.as_ref().is_ok_and(|frame| frame.data_ref().is_some_and(Bytes::is_empty)) {
                break frame;
            }
        };
        let whole = stream::once(std::future::ready(first)).chain(BodyStream::new(rest));
        Some(Self(StreamBody::new(whole).boxed_unsync()))
    }

    /// As the body behind it.
    pub fn into_body(self) -> UnsyncBoxBody<Bytes, BoxError> {
        self.0
    }
}

/// A request that can be read in one way only.
pub struct Readable {
    /// As policies will see it.
    pub exchange: Box<Exchange>,
    /// HTTP version.
    pub version: Version,
    /// Whether a body comes with it, and how long it is if that is known.
    pub brought: Brought,
    /// The body.
    pub upload: Option<Upload>,
    /// The connection is to speak WebSocket.
    pub websocket: Option<Wanted>,
    /// The other side of the connection is a trusted proxy.
    pub peer_trusted: bool,
}

/// The body that a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// None.
    Nothing,
    /// So many bytes.
    Bytes(u64),
    /// Chunked, or by frames.
    Unknown,
}

/// A request that is refused before it is anyone's.
#[derive(Debug)]
pub struct Refused {
    /// Status.
    pub status: StatusCode,
    /// Why, for the client.
    pub why: String,
}

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

/// Why a request is refused, and what there is of it for the log.
pub type Refusal = Box<(Refused, http::request::Parts)>;

/// Reads the head, and takes out of it what no origin and no policy is to see.
pub fn read(
    peer: Peer<'_>,
    request: Request<Option<Upload>>,
    trusted: &[ipnet::IpNet],
    received_at: Timestamp,
) -> Result<Readable, Refusal> {
    let (mut parts, upload) = request.into_parts();
    if parts.version >= Version::HTTP_2 {
        versions::join_cookies(&mut parts.headers);
    }
    let interest = Interest::of(&parts.headers);
    let (authority, text, target, brought) = match check(&parts, interest, upload.is_some(), peer, trusted) {
        Ok(checked) => checked,
        Err(refused) => return Err(Box::new((refused, parts))),
    };
    let websocket = if interest.has(Interest::CONNECTION) { Wanted::of(&mut parts) } else { None };
    let (ip, scheme, peer_trusted) = client_of(peer, &parts.headers, trusted);
    let protocol = match parts.version {
        Version::HTTP_3 => "HTTP/3",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    };
    let mut request = RequestView {
        method: parts.method,
        scheme,
        port: port_of(&authority, scheme),
        host: authority.host,
        authority: text,
        target,
        headers: parts.headers,
        interest,
        received_at,
    };
    clean(&mut request, peer_trusted);
    let connection = peer.tls.map(|session| Arc::clone(session) as Arc<dyn Attributes>);
    let client = ClientView { ip, attributes: smallvec![("conn.protocol", protocol.into())], connection };
    let exchange = Exchange::new(request, client);
    Ok(Readable { exchange, version: parts.version, brought, upload, websocket, peer_trusted })
}

impl Attributes for Session {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attribute(name)
    }
}

/// The port of an authority where it is not the scheme's own: the same port, said or not, is the same place.
pub fn port_of(authority: &Authority, scheme: &str) -> Option<u16> {
    let own = if scheme == "https" { 443 } else { 80 };
    authority.port.filter(|port| *port != own)
}

/// Takes fields out before the policy and the variant look: what the origin does not get can't be what its answer varies by.
pub fn clean(request: &mut RequestView, peer_trusted: bool) {
    let headers = &mut request.headers;
    if request.interest.has(Interest::CONNECTION) {
        hop_by_hop::strip(headers);
    }
    if !peer_trusted {
        forwarded::remove_claims(headers);
    }
    if matches!(request.method, Method::GET | Method::HEAD) {
        forwarded::remove_overrides(headers);
    }
}

type Checked = (Authority, AuthorityText, Target, Brought);

fn check(
    parts: &http::request::Parts,
    interest: Interest,
    body: bool,
    peer: Peer<'_>,
    trusted: &[ipnet::IpNet],
) -> Result<Checked, Refused> {
    if parts.method == Method::CONNECT {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy"));
    }
    if parts.headers.len() > FIELDS_MAX {
        let why = "the request has too many fields";
        return Err(Refused::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
    }
    if parts.version >= Version::HTTP_2 {
        framed(parts)?;
    }
    let text = authority_of(parts.version, &parts.uri, &parts.headers)?;
    let authority =
        Authority::parse(text.as_str()).map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let known_scheme = parts
        .uri
        .scheme_str()
        .is_none_or(|scheme| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"));
    let target = match parts.uri.path_and_query() {
        Some(target) if known_scheme => Target::of(target),
        // A scheme that nobody serves here, or the authority alone, which is for CONNECT (RFC 9112 section 3.2.3).
        _ => Err(TargetError::NoPath),
    };
    let target = target.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    // RFC 9110 section 7.4: who asks for https has to come by it, unless a trusted gateway vouches for that.
    let wants_https = parts.uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    if wants_https && peer.scheme != "https" && !forwarded::is_trusted(peer.address.ip(), trusted) {
        return Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, "https is not served by this connection"));
    }
    if target.path() == "*" && parts.method != Method::OPTIONS {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "the target * is only for OPTIONS"));
    }
    let brought = if interest.has(Interest::BODY) || body { body_of(&parts.headers, body)? } else { Brought::Nothing };
    Ok((authority, text, target, brought))
}

/// What the guard on the bytes of HTTP/1.x refuses, in a request that came in frames: what would be read in another way by an
/// origin (RFC 9113 section 8.2.1, RFC 9114 section 4.2).
fn framed(parts: &http::request::Parts) -> Result<(), Refused> {
    let bad = |why: &str| Err(Refused::new(StatusCode::BAD_REQUEST, why));
    if parts.method.as_str().len() > METHOD_BYTES_MAX {
        return Err(Refused::new(StatusCode::NOT_IMPLEMENTED, "a method longer than any that is known"));
    }
    if let Some(target) = parts.uri.path_and_query() {
        if target.as_str().len() > TARGET_BYTES_MAX {
            return Err(Refused::new(StatusCode::URI_TOO_LONG, "a target over the limit"));
        }
        if !target.as_str().bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
            return bad("bytes in the target that are not ASCII");
        }
    }
    for (name, value) in &parts.headers {
        if matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            return bad("whitespace around the value of a field");
        }
        let name = name.as_str();
        if matches!(name.len(), 14 | 17) && versions::is_framing_in_disguise(name) {
            return bad("a name that could be taken for Content-Length or Transfer-Encoding");
        }
    }
    Ok(())
}

/// The one authority of a request. The target's wins over Host in HTTP/1.1 (RFC 9112 section 3.2.2), and in HTTP/2 both must
/// agree (RFC 9113 section 8.3.1); two Host fields, or none in HTTP/1.1, are an error (RFC 9112 section 3.2).
fn authority_of(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<AuthorityText, Refused> {
    let bad = |why: &str| Refused::new(StatusCode::BAD_REQUEST, why);
    let mut lines = headers.get_all(HOST).iter();
    let first = lines.next();
    if lines.next().is_some() {
        return Err(bad("the request has several Host fields"));
    }
    let unreadable = || bad("the Host field is not readable");
    let host = first.map(|value| AuthorityText::of_field(value).ok_or_else(unreadable)).transpose()?;
    let target = uri.authority();
    match (target, host) {
        (Some(target), Some(host))
            if version >= Version::HTTP_2 && !target.as_str().eq_ignore_ascii_case(host.as_str()) =>
        {
            Err(bad(":authority and Host differ"))
        }
        (Some(_), None) if version == Version::HTTP_11 => Err(bad("the request has no Host field")),
        (Some(target), _) => Ok(AuthorityText::of_target(target)),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(bad("the request has no Host field")),
    }
}

fn body_of(headers: &HeaderMap, body: bool) -> Result<Brought, Refused> {
    let bad = |why: &str| Refused::new(StatusCode::BAD_REQUEST, why);
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = match codings.next() {
        None => false,
        // RFC 9112 section 6.1: what comes decoded of another coding would go on as a body that nobody sent.
        Some(coding) if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            return Err(Refused::new(StatusCode::NOT_IMPLEMENTED, "no transfer coding but chunked is known here"));
        }
        Some(_) => true,
    };
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = match lengths.next() {
        None => None,
        Some(value) => {
            let digits = value.to_str().map_err(|_| bad("Content-Length is not a number"))?;
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad("Content-Length is not a number"));
            }
            Some(digits.parse::<u64>().map_err(|_| bad("Content-Length is not a number"))?)
        }
    };
    if lengths.next().is_some() {
        return Err(bad("the request has several Content-Length fields"));
    }
    if chunked && length.is_some() {
        return Err(bad("the request has both Content-Length and Transfer-Encoding"));
    }
    Ok(match length {
        Some(0) => Brought::Nothing,
        Some(bytes) => Brought::Bytes(bytes),
        None if !body => Brought::Nothing,
        None => Brought::Unknown,
    })
}

/// The client behind trusted proxies, and its scheme.
pub fn client_of(peer: Peer<'_>, headers: &HeaderMap, trusted: &[ipnet::IpNet]) -> (IpAddr, &'static str, bool) {
    let address = peer.address.ip().to_canonical();
    if trusted.is_empty() {
        return (address, peer.scheme, false);
    }
    let believed = trusted.iter().any(|net| net.contains(&address));
    let client = forwarded::client_address(address, headers, trusted);
    let scheme = forwarded::client_scheme(address, headers, trusted, peer.scheme);
    (client, scheme, believed)
}
