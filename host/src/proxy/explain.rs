//! What the program would do with a URL: host, policy decision, key, entry and freshness. Nothing is fetched and nothing is
//! kept; a policy's `rate` counts as it does for a request.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use serde_json::{Value, json};
use smallvec::smallvec;

use super::decide;
use super::request::{clean, port_of};
use super::steps::{Carried, directives, method_allowed, seconds};
use super::{Peer, Proxy, outcome::Forward};
use crate::cache::freshness::{self, Freshness};
use crate::cache::{Asked, Tier};
use crate::local::Local;
use crate::policy::exchange::{ClientView, RequestView};
use crate::policy::{Exchange, Phase};
use crate::semantics::authority::Authority;
use crate::semantics::interest::Interest;
use crate::semantics::target::Target;
use crate::vhost::CacheUse;

/// A request as a person describes it.
pub struct Question {
    /// Method; GET for most.
    pub method: String,
    /// Absolute URL, or `host/path`.
    pub url: String,
    /// Fields.
    pub headers: Vec<(String, String)>,
    /// Who asks.
    pub client: std::net::IpAddr,
}

/// Tells; the error says what of the question cannot be read.
pub async fn explain(proxy: Local<Proxy>, question: Question) -> Result<Value, String> {
    let url = if question.url.contains("://") { question.url.clone() } else { format!("http://{}", question.url) };
    let uri: Uri = url.parse().map_err(|error| format!("the URL {url:?} cannot be read: {error}"))?;
    let scheme = if uri.scheme_str() == Some("https") { "https" } else { "http" };
    let text = uri.authority().ok_or("the URL has no host")?.as_str();
    let authority = Authority::parse(text).map_err(|error| error.to_string())?;
    let raw = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let target = match Target::parse(raw) {
        Ok(target) => target,
        Err(error) => return Ok(json!({ "url": url, "answer": 400, "because": error.to_string() })),
    };
    let method = Method::from_bytes(question.method.as_bytes()).map_err(|_| "the method cannot be read".to_owned())?;
    let mut headers = HeaderMap::new();
    for (name, value) in &question.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no field name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("{name} has a value that cannot be sent"))?;
        headers.append(name, value);
    }
    let generation = proxy.generation_here();
    let Some(site) = generation.route(&authority.host).map(Local::of) else {
        return Ok(json!({ "url": url, "answer": 421, "because": "no such host here" }));
    };
    let mut told = json!({
        "url": url,
        "host": site.host.settings.name,
        "origin": site.host.settings.origin,
        "path": target.path(),
    });
    if !method_allowed(&site, &method) {
        told["answer"] = json!(405);
        told["because"] = json!("the host does not take this method");
        return Ok(told);
    }
    let mut request = RequestView {
        method,
        scheme,
        port: port_of(&authority, scheme),
        host: authority.host,
        authority: text.into(),
        target,
        interest: Interest::of(&headers),
        headers,
        received_at: proxy.clock.now(),
    };
    clean(&mut request, false);
    let client = ClientView {
        ip: question.client,
        attributes: smallvec![("conn.protocol", "HTTP/1.1".into())],
        connection: None,
    };
    let host = &site.host.settings;
    let rule = host.rule_for(request.path());
    if let Some((number, rule)) = rule.and_then(|number| Some((number, host.rules.get(number)?))) {
        told["rule"] = json!({ "number": number + 1, "path": rule.show_paths() });
    }
    told["settings"] = host.caching_by(rule).show().into();
    let exchange = Exchange::new(request, client);
    let version = Version::HTTP_11;
    let by = Peer { address: SocketAddr::new(question.client, 0), port: 0, scheme, tls: None, interim: None };
    let mut carried = Carried::begin(proxy.clone(), generation, site, exchange, version, by, false);
    if carried.policies.exports(Phase::OnRequest) {
        let (exchange, decision) = carried.policies.run(Phase::OnRequest, carried.exchange).await;
        carried.exchange = exchange;
        told["policy"] = json!({
            "files": carried.policies.names(),
            "decision": format!("{decision:?}"),
            "vars": carried.exchange.vars,
            "failed_open": carried.exchange.failed_open,
        });
        if let Some((status, ..)) = decide::answer(&decision) {
            told["answer"] = json!(status.as_u16());
            told["because"] = json!("the policy says so");
            return Ok(told);
        }
    }
    if !carried.is_read() {
        told["cache"] = json!({ "forward": format!("{:?}", Forward::Method) });
        return Ok(told);
    }
    if decide::is_query_refused(&carried) {
        told["answer"] = json!(400);
        told["because"] = json!("the query has a parameter that is not taken here");
        return Ok(told);
    }
    if carried.caching().cache == CacheUse::Off {
        told["cache"] = json!({ "forward": "Bypass", "because": "the host says \"cache\": \"off\"" });
        return Ok(told);
    }
    if carried.exchange.lookup.bypass {
        told["cache"] = json!({ "forward": format!("{:?}", Forward::Bypass) });
        return Ok(told);
    }
    let Ok(key) = decide::key(&carried) else {
        told["cache"] = json!({ "forward": "Bypass", "because": "the key would be longer than 8 KiB" });
        return Ok(told);
    };
    told["key"] = json!(key.display());
    let request = &carried.exchange.request;
    let asked = Asked { key: &key, headers: &request.headers, request_path: request.path() };
    let found = match proxy.cache.lookup_memory(&asked) {
        Some(found) => Some(found),
        None => proxy.cache.lookup_disk(&asked).await,
    };
    let Some(found) = found else {
        told["cache"] = json!({ "forward": "UriMiss", "because": "nothing is kept for the key" });
        return Ok(told);
    };
    let now = proxy.clock.now();
    let stored = &found.entry.head;
    let fresh = freshness::decide(
        &stored.retention,
        &stored.timing,
        &directives(&carried),
        carried.exchange.lookup.max_age,
        now,
    );
    told["cache"] = json!({
        "tier": match found.tier { Tier::Memory => "memory", Tier::Disk => "disk", Tier::Filling => "filling" },
        "entry": found.entry.id,
        "status": stored.status.as_u16(),
        "size": stored.size,
        "age_s": stored.timing.age(now).as_secs(),
        "lifetime_s": stored.retention.lifetime.as_secs(),
        "tags": stored.tags,
        "varies_by": stored.vary.0.iter().map(HeaderName::as_str).collect::<Vec<_>>(),
        "origin_path": stored.origin_path.as_deref(),
        "etag": stored.headers.get(http::header::ETAG).and_then(|value| value.to_str().ok()),
        "purge_sequence": stored.sequence.0,
        "freshness": match fresh {
            Freshness::Fresh(left) => json!({ "fresh_for_s": seconds(left) }),
            Freshness::Unwanted { if_error } => json!({
                "fresh_but_the_client_wants_better": true,
                "served_if_the_origin_fails": if_error,
            }),
            Freshness::Accepted { since } => json!({ "stale_since_s": seconds(since), "the_client_takes_it": true }),
            Freshness::Stale { since, while_revalidate, if_error } => json!({
                "stale_since_s": seconds(since),
                "served_while_revalidating": while_revalidate,
                "served_if_the_origin_fails": if_error,
            }),
        },
    });
    Ok(told)
}
