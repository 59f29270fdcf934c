//! What is settled at the door, before policy and cache: whether a request came by a connection that is good for its host, and
//! whether it is sent elsewhere (RFC 9110 sections 7.4 and 15.5.20).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::body::{Body, Logged};
use super::site::{Generation, Site};
use super::{Peer, Proxy, deliver, failure};
use crate::local::Local;
use crate::policy::exchange::RequestView;
use crate::semantics::authority::Hostname;
use crate::tls::{Identity, Source};

/// Where the answers to challenges of ACME servers are (RFC 8555 section 8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// What becomes of a request at the door.
pub enum Door {
    /// It goes on.
    In,
    /// It is not for this connection: 421, with the reason.
    Misdirected(&'static str),
    /// It is sent there.
    Redirect(StatusCode, HeaderValue),
    /// It is an ACME server's, and this is the key authorization it asks for.
    Challenge(String),
    /// There is nothing here for it.
    NotFound,
}

/// Decides. `site`: of the request's host.
pub fn pass(
    proxy: &Proxy,
    generation: &Generation,
    site: Option<&Arc<Site>>,
    by: Peer<'_>,
    request: &RequestView,
) -> Door {
    let challenged = by.tls.is_none() && request.path().starts_with(CHALLENGE_PATH);
    if challenged && let Some(answer) = proxy.tls.challenges().http_01(&request.path()[CHALLENGE_PATH.len()..]) {
        return Door::Challenge(answer);
    }
    let Some(site) = site else { return Door::Misdirected("no such host here") };
    let https = &site.host.settings.https;
    if let Some(session) = by.tls
        && let Some(sni) = &session.sni
        // Whoever named one host in the handshake was shown its certificate, and had to prove what it asks for.
        && *sni != request.host
        && !generation.route(sni).is_some_and(|other| Arc::ptr_eq(other, site))
    {
        return Door::Misdirected("the connection was made for another host");
    }
    if by.tls.is_some() && https.source == Source::Off {
        return Door::Misdirected("this host is not served over https");
    }
    let elsewhere = || elsewhere(proxy, site, by, request, challenged);
    // Over http, where there is no certificate to ask for, such a host only sends away.
    if by.tls.is_none()
        && let Some(door) = elsewhere()
    {
        return door;
    }
    if let Some(ca) = &https.client_ca {
        let now = proxy.clock.now();
        let verified = by.tls.is_some_and(|session| {
            // Looked at for each request: a connection, and what is resumed of it, may outlive the certificate.
            let is_good = |identity: &Identity| identity.not_after > now;
            let client = session.client.as_ref();
            session.sni.is_some() && client.is_some_and(|(who, verified)| *verified == ca.id() && is_good(who))
        });
        match (verified, by.tls) {
            (true, _) => {}
            (false, None) if challenged => return Door::NotFound,
            (false, _) => return Door::Misdirected("this host is for clients with a certificate"),
        }
    }
    elsewhere().unwrap_or(Door::In)
}

/// Redirects: to https, and to the name that the host goes by.
fn elsewhere(proxy: &Proxy, site: &Site, by: Peer<'_>, request: &RequestView, challenged: bool) -> Option<Door> {
    let https = &site.host.settings.https;
    let canonical = https.canonical.as_ref().filter(|name| **name != request.host);
    let port = proxy.https_port.load(Ordering::Relaxed);
    let host = canonical.unwrap_or(&request.host);
    let secured =
        request.scheme == "http" && https.redirect && port != 0 && !challenged && proxy.tls.has_certificate(host);
    if !secured && canonical.is_none() {
        return None;
    }
    if challenged || request.path() == "*" {
        return None;
    }
    let (scheme, port) = match secured {
        true => ("https", public_port(port, by.port, request.port)),
        false => (request.scheme, request.port),
    };
    let status = match request.method {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        // RFC 9110 section 15.4.9: the method stays what it is.
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    Some(Door::Redirect(status, location(scheme, host, port, request)?))
}

/// The port of https as clients know it. When they came to the port that we listen at, the ports are our own, else somebody maps
/// them (a container's, mostly), and https is where everybody expects it.
fn public_port(https: u16, ours: u16, asked: Option<u16>) -> Option<u16> {
    (https != 443 && asked.unwrap_or(80) == ours).then_some(https)
}

fn location(scheme: &str, host: &Hostname, port: Option<u16>, request: &RequestView) -> Option<HeaderValue> {
    let target = request.target.raw();
    let text = match port {
        Some(port) => format!("{scheme}://{host}:{port}{target}"),
        None => format!("{scheme}://{host}{target}"),
    };
    HeaderValue::try_from(text).ok()
}

impl Door {
    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::In | Self::Challenge(_) => StatusCode::OK,
            Self::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Redirect(status, _) => *status,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }

    /// The answer. `hsts`: what the host says of https, where it was asked over it (RFC 6797 section 7.1: with redirects too).
    pub fn answer(self, proxy: Local<Proxy>, logged: Logged, hsts: Option<HeaderValue>) -> Response<Body> {
        let mut response = self.page(proxy, logged);
        if let Some(hsts) = hsts {
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts);
        }
        response
    }

    fn page(self, proxy: Local<Proxy>, logged: Logged) -> Response<Body> {
        match self {
            Self::In | Self::NotFound => deliver::plain(proxy, "", logged),
            Self::Misdirected(why) => deliver::plain(proxy, why, logged),
            Self::Redirect(status, location) => {
                let (mut headers, page) = failure::page(status, "");
                headers.remove(CACHE_CONTROL);
                headers.insert(LOCATION, location);
                deliver::local(proxy, logged, headers, page)
            }
            Self::Challenge(answer) => {
                let mut headers = HeaderMap::new();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(answer.len()));
                deliver::local(proxy, logged, headers, answer.into())
            }
        }
    }
}
