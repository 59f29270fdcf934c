//! What goes to the origin: paths, query and fields, with the policy's edits, the conditions of the cache and its ranges.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_LENGTH, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, PRAGMA, RANGE,
};
use http::{HeaderMap, Method, StatusCode};

use super::decide::counted_query;
use super::steps::Carried;
use crate::origin::{Origin, OriginError, OriginKind, OriginRequest, OriginResponse, RequestBody};
use crate::semantics::interim::Interim;
use crate::semantics::{forwarded, hop_by_hop, target};
use crate::vhost::ClientCacheControl;

/// A request to an origin that can be made more than once: for each path to try, and for each gap of a body.
#[derive(Clone)]
pub struct Ask {
    origin: Arc<dyn Origin>,
    prefix: String,
    /// Paths to try in order, as the policy knows them: without the host's prefix.
    pub paths: Vec<String>,
    query: Option<String>,
    /// End-to-end fields without conditions and ranges.
    pub headers: HeaderMap,
    authority: String,
    interim: Option<Interim>,
    upgrade: bool,
}

/// What an origin answered, and for which path.
pub struct Answer {
    /// The answer.
    pub response: OriginResponse,
    /// The path, without the host's prefix.
    pub path: String,
}

impl Ask {
    /// Of a request as the policy edited it. With `cached`, the client's conditions and ranges are left out: the cache
    /// asks for what it needs and answers them itself.
    pub fn of(carried: &Carried, cached: bool) -> Self {
        let exchange = &carried.exchange;
        let upstream = &exchange.upstream;
        let other = upstream.origin.as_ref().and_then(|name| carried.generation.origins.get(name));
        let (origin, prefix) = match other {
            // A prefix is a place in the host's own origin and says nothing about another.
            Some(service) => (Arc::clone(&service.origin), String::new()),
            None => (Arc::clone(&carried.site.host.origin), carried.site.host.settings.prefix.clone()),
        };
        // In the spelling of the key: neither case nor a last dot of a client's ends up in what others get.
        let authority = match exchange.request.port {
            Some(port) => format!("{}:{port}", carried.exchange.request.host),
            None => carried.exchange.request.host.to_string(),
        };
        let mut headers = exchange.request.headers.clone();
        hop_by_hop::strip(&mut headers);
        for name in [HOST, EXPECT, CONTENT_LENGTH] {
            headers.remove(name);
        }
        if cached {
            for name in [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
                headers.remove(name);
            }
            // RFC 9111 section 5.2 has directives passed on; where clients steer nothing here, they steer no cache behind us.
            if carried.caching().client_cache_control == ClientCacheControl::Ignore {
                headers.remove(CACHE_CONTROL);
                headers.remove(PRAGMA);
            }
        }
        if origin.kind() == OriginKind::Http {
            forwarded::tell_origin(
                &mut headers,
                carried.peer,
                exchange.client.ip,
                carried.peer_trusted,
                exchange.request.scheme,
                &authority,
            );
            forwarded::add_via(&mut headers, carried.version);
        } else {
            headers.remove(ACCEPT_ENCODING);
        }
        upstream.apply(&mut headers);
        if origin.kind() == OriginKind::Http {
            let host = exchange.request.host.as_str();
            carried.proxy.instance.mark(host, &exchange.request.headers, &mut headers);
        }
        // What is not a read is sent once: a body cannot be sent again, and a 404 may come after an effect.
        let paths = if upstream.try_paths.is_empty() || !carried.is_read() {
            vec![upstream.path.clone().unwrap_or_else(|| exchange.request.path().to_owned())]
        } else {
            upstream.try_paths.clone()
        };
        let of_client = || {
            // What is not in the key must make no difference to what is kept under it.
            let query = if cached { counted_query(carried) } else { exchange.request.query().map(Cow::Borrowed) };
            query.map(Cow::into_owned)
        };
        let query = upstream.query.clone().unwrap_or_else(of_client);
        Self { origin, prefix, paths, query, headers, authority, interim: carried.interim.clone(), upgrade: false }
    }

    /// Name of the origin in hosts.json.
    pub fn origin_name(&self) -> &str {
        self.origin.name()
    }

    /// Kind of the origin.
    pub fn kind(&self) -> OriginKind {
        self.origin.kind()
    }

    /// The same, to speak WebSocket.
    pub fn upgrading(self) -> Self {
        Self { upgrade: true, ..self }
    }

    /// The same, for one path only.
    pub fn only(&self, path: &str) -> Self {
        Self { paths: vec![path.to_owned()], ..self.clone() }
    }

    /// Asks for each path in turn until one is not 404. `extra` gives the fields to add for a path.
    pub async fn send(
        &self,
        method: &Method,
        mut body: Option<RequestBody>,
        extra: impl Fn(&str) -> Option<HeaderMap>,
    ) -> Result<Answer, OriginError> {
        let last = self.paths.len().saturating_sub(1);
        for (number, path) in self.paths.iter().enumerate() {
            let mut headers = self.headers.clone();
            if let Some(fields) = extra(path) {
                headers.extend(fields);
            }
            let (conditional, ranged) = (is_conditional(&headers), headers.contains_key(RANGE));
            let request = OriginRequest {
                method: method.clone(),
                path: target::join_prefix(&self.prefix, path),
                query: self.query.clone(),
                headers,
                authority: self.authority.clone(),
                body: body.take(),
                retry: false,
                interim: self.interim.clone(),
                upgrade: self.upgrade,
            };
            let response = self.origin.fetch(request).await?;
            let unasked = match response.status {
                StatusCode::NOT_MODIFIED => !conditional,
                StatusCode::PARTIAL_CONTENT => !ranged,
                _ => false,
            };
            if unasked {
                return Err(OriginError::Broken {
                    origin: self.origin.name().to_owned(),
                    reason: format!("{} to a request that did not ask for it", response.status.as_u16()),
                });
            }
            if response.status != StatusCode::NOT_FOUND || number == last {
                return Ok(Answer { response, path: path.clone() });
            }
        }
        Err(OriginError::Configuration {
            origin: self.origin.name().to_owned(),
            reason: "the policy gave no path to try".to_owned(),
        })
    }
}

/// Whether a request may be answered with 304 (RFC 9110 section 13).
fn is_conditional(headers: &HeaderMap) -> bool {
    [IF_NONE_MATCH, IF_MODIFIED_SINCE].iter().any(|name| headers.contains_key(name))
}
