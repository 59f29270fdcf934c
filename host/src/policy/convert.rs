//! The one file that speaks both tongues: what the generated traits ask, answered from the exchange, and what a phase returns,
//! turned into a `Decision`.
//!
//! Every function counts as a host call and says in which phases it may be made; in another one it ends the policy's call with
//! words to that effect, because an edit that does nothing would be found much later.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::bindings::proxyhost::policy as wit;
use super::capability::crypto::{self, Encoding};
use super::checks;
use super::console::Level;
use super::decision::{Decision, Reply};
use super::error::Fence;
use super::exchange::{Exchange, HeaderEdit};
use super::limits::{
    HEADER_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, KEY_PARTS_MAX, QUERY_NAMES_MAX, TAG_BYTES_MAX, TAGS_MAX,
    TRY_PATHS_MAX, VAR_BYTES_MAX, VARS_MAX,
};
use super::query;
use super::state::{Moments, State};

type Host<T> = wasmtime::Result<T>;

/// What a phase with a decision returns.
pub(crate) type Returned = (Result<wit::types::Decision, String>,);
/// What configure and on-deliver return.
pub(crate) type ReturnedUnit = (Result<(), String>,);

/// Checks a decision like a client's input.
pub(crate) fn decision(decision: wit::types::Decision) -> Result<Decision, Fence> {
    match decision {
        wit::types::Decision::Next => Ok(Decision::Next),
        wit::types::Decision::Deny(status) => Ok(Decision::Deny(checks::deny_status(status)?)),
        wit::types::Decision::Redirect(redirect) => {
            Ok(Decision::Redirect(checks::redirect_status(redirect.status)?, checks::location(&redirect.location)?))
        }
        wit::types::Decision::Reply(reply) => {
            let body = match reply.body {
                wit::types::Body::None => Bytes::new(),
                wit::types::Body::Text(text) => Bytes::from(text),
                wit::types::Body::Bytes(bytes) => Bytes::from(bytes),
            };
            let status = checks::reply_status(reply.status)?;
            Ok(Decision::Reply(Box::new(Reply { status, headers: checks::headers(&reply.headers)?, body })))
        }
    }
}

fn trap<T>(result: Result<T, Fence>) -> Host<T> {
    result.map_err(wasmtime::Error::new)
}

/// Field lines joined with ", " (RFC 9110 section 5.3). `Err` when a line is not UTF-8.
fn joined(headers: &HeaderMap, name: &str) -> Result<Option<String>, ()> {
    // Names are compared in lower case; what is no name at all is in no message.
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let mut text = std::str::from_utf8(first.as_bytes()).map_err(|_| ())?.to_owned();
    for line in lines {
        text.push_str(", ");
        text.push_str(std::str::from_utf8(line.as_bytes()).map_err(|_| ())?);
    }
    Ok(Some(text))
}

fn names(headers: &HeaderMap) -> Vec<String> {
    headers.keys().map(|name| name.as_str().to_owned()).collect()
}

/// A field that the policy reads and that is not UTF-8 is never shown half: the proxy answers 400 after a `next`.
fn readable(exchange: &mut Exchange, name: &str) -> Option<String> {
    joined(&exchange.request.headers, name).unwrap_or_else(|()| {
        exchange.unreadable_header = true;
        None
    })
}

impl wit::types::Host for State {}

impl wit::request::Host for State {
    fn method(&mut self) -> Host<String> {
        Ok(trap(self.exchange("method", Moments::PHASES))?.request.method.as_str().to_owned())
    }

    fn scheme(&mut self) -> Host<String> {
        Ok(trap(self.exchange("scheme", Moments::PHASES))?.request.scheme.to_owned())
    }

    fn host(&mut self) -> Host<String> {
        Ok(trap(self.exchange("host", Moments::PHASES))?.request.host.as_str().to_owned())
    }

    fn authority(&mut self) -> Host<String> {
        Ok(trap(self.exchange("authority", Moments::PHASES))?.request.authority.as_str().to_owned())
    }

    fn path(&mut self) -> Host<String> {
        Ok(trap(self.exchange("path", Moments::PHASES))?.request.path().to_owned())
    }

    fn raw_target(&mut self) -> Host<String> {
        Ok(trap(self.exchange("raw-target", Moments::PHASES))?.request.target.raw().to_owned())
    }

    fn query(&mut self) -> Host<Option<String>> {
        Ok(trap(self.exchange("query", Moments::PHASES))?.request.query().map(str::to_owned))
    }

    fn query_param(&mut self, name: String) -> Host<Option<String>> {
        let exchange = trap(self.exchange("query-param", Moments::PHASES))?;
        let Some(query) = exchange.request.query() else { return Ok(None) };
        let mut values = query::values(query, &name);
        // A parameter given twice is how two readers of one URL are made to disagree.
        Ok(match (values.next(), values.next()) {
            (Some(value), None) => Some(value.into_owned()),
            _ => None,
        })
    }

    fn query_params(&mut self, name: String) -> Host<Vec<String>> {
        let exchange = trap(self.exchange("query-params", Moments::PHASES))?;
        let Some(query) = exchange.request.query() else { return Ok(Vec::new()) };
        Ok(query::values(query, &name).map(std::borrow::Cow::into_owned).collect())
    }

    fn header(&mut self, name: String) -> Host<Option<String>> {
        let exchange = trap(self.exchange("header", Moments::PHASES))?;
        Ok(readable(exchange, &name))
    }

    fn header_bytes(&mut self, name: String) -> Host<Vec<Vec<u8>>> {
        let exchange = trap(self.exchange("header-bytes", Moments::PHASES))?;
        Ok(exchange.request.headers.get_all(name.as_str()).iter().map(|value| value.as_bytes().to_vec()).collect())
    }

    fn header_names(&mut self) -> Host<Vec<String>> {
        Ok(names(&trap(self.exchange("header-names", Moments::PHASES))?.request.headers))
    }

    fn cookie(&mut self, name: String) -> Host<Option<String>> {
        let exchange = trap(self.exchange("cookie", Moments::PHASES))?;
        let mut unreadable = false;
        // The first wins: user agents send the one with the longest path first (RFC 6265 section 5.4).
        let found = exchange.request.headers.get_all(COOKIE).iter().find_map(|line| {
            let Ok(line) = std::str::from_utf8(line.as_bytes()) else {
                unreadable = true;
                return None;
            };
            line.split(';').find_map(|pair| {
                let (own, value) = pair.split_once('=')?;
                (own.trim() == name).then(|| value.trim().to_owned())
            })
        });
        if unreadable {
            exchange.unreadable_header = true;
            return Ok(None);
        }
        Ok(found)
    }

    fn head(&mut self) -> Host<wit::request::RequestHead> {
        let exchange = trap(self.exchange("head", Moments::PHASES))?;
        let request = &exchange.request;
        let mut unreadable = false;
        let headers = request
            .headers
            .iter()
            .filter_map(|(name, value)| match std::str::from_utf8(value.as_bytes()) {
                Ok(value) => Some((name.as_str().to_owned(), value.to_owned())),
                Err(_) => {
                    unreadable = true;
                    None
                }
            })
            .collect();
        let head = wit::request::RequestHead {
            method: request.method.as_str().to_owned(),
            host: request.host.as_str().to_owned(),
            path: request.path().to_owned(),
            query: request.query().map(str::to_owned),
            headers,
        };
        exchange.unreadable_header |= unreadable;
        Ok(head)
    }

    fn received_at_ms(&mut self) -> Host<u64> {
        Ok(trap(self.exchange("received-at-ms", Moments::PHASES))?.request.received_at.as_millis())
    }
}

impl wit::client::Host for State {
    fn ip(&mut self) -> Host<String> {
        let ip: IpAddr = trap(self.exchange("ip", Moments::PHASES))?.client.ip;
        Ok(ip.to_canonical().to_string())
    }

    fn ip_in(&mut self, set: String) -> Host<bool> {
        let ip = trap(self.exchange("ip-in", Moments::PHASES))?.client.ip;
        // "Not in it" for a set that does not exist would open what a deny list is to close.
        match self.surroundings.prepared.addresses(&set) {
            Some(addresses) => Ok(addresses.contains(ip)),
            None => trap(Err(Fence::Invalid(format!("there is no address set {} in hosts.json", checks::shown(&set))))),
        }
    }

    fn attribute(&mut self, name: String) -> Host<Option<String>> {
        let client = &trap(self.exchange("attribute", Moments::PHASES))?.client;
        Ok(client.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone().into_owned()))
    }
}

impl State {
    fn edit_upstream(&mut self, function: &'static str, edit: HeaderEdit, bytes: usize) -> Host<()> {
        let upstream = trap(self.upstream(function))?;
        let so_far: usize = upstream.headers.iter().map(edit_bytes).sum();
        if upstream.headers.len() >= HEADERS_MAX || so_far + bytes > HEADER_BYTES_MAX {
            return trap(Err(Fence::Calls(format!(
                "a request may be given {HEADERS_MAX} header edits of {HEADER_BYTES_MAX} bytes in all"
            ))));
        }
        upstream.headers.push(edit);
        Ok(())
    }

    /// Saves a header of the response, then edits it.
    fn edit_response(
        &mut self,
        function: &'static str,
        name: HeaderName,
        added: usize,
        edit: impl FnOnce(&mut HeaderMap, HeaderName),
    ) -> Host<()> {
        let response = trap(self.response(function))?;
        if added > 0 {
            let lines = response.headers.len();
            let bytes: usize = response.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            // What the origin sent may already be more than a policy may add to; then it may replace but not add.
            if lines >= HEADERS_MAX.max(256) || bytes + added > HEADER_BYTES_MAX.max(128 << 10) {
                return trap(Err(Fence::Calls("the response has too many header lines or bytes".to_owned())));
            }
        }
        let before: SmallVec<[_; 1]> = response.headers.get_all(&name).iter().cloned().collect();
        edit(&mut response.headers, name.clone());
        self.save_header(&name, before);
        Ok(())
    }
}

fn edit_bytes(edit: &HeaderEdit) -> usize {
    match edit {
        HeaderEdit::Set(name, value) | HeaderEdit::Append(name, value) => name.as_str().len() + value.len(),
        HeaderEdit::Remove(name) => name.as_str().len(),
    }
}

impl wit::upstream::Host for State {
    fn set_header(&mut self, name: String, value: String) -> Host<()> {
        let edit = HeaderEdit::Set(trap(checks::header_name(&name))?, trap(checks::header_value(&name, &value))?);
        self.edit_upstream("upstream.set-header", edit, name.len() + value.len())
    }

    fn append_header(&mut self, name: String, value: String) -> Host<()> {
        let edit = HeaderEdit::Append(trap(checks::header_name(&name))?, trap(checks::header_value(&name, &value))?);
        self.edit_upstream("upstream.append-header", edit, name.len() + value.len())
    }

    fn remove_header(&mut self, name: String) -> Host<()> {
        let edit = HeaderEdit::Remove(trap(checks::header_name(&name))?);
        self.edit_upstream("upstream.remove-header", edit, name.len())
    }

    fn set_path(&mut self, path: String) -> Host<()> {
        let upstream = trap(self.upstream("set-path"))?;
        upstream.path = Some(trap(checks::path(path))?);
        Ok(())
    }

    fn set_query(&mut self, query: Option<String>) -> Host<()> {
        let upstream = trap(self.upstream("set-query"))?;
        upstream.query = Some(trap(query.map(checks::query).transpose())?);
        Ok(())
    }

    fn try_paths(&mut self, paths: Vec<String>) -> Host<()> {
        let upstream = trap(self.upstream("try-paths"))?;
        if paths.len() > TRY_PATHS_MAX {
            return trap(Err(Fence::Calls(format!("at most {TRY_PATHS_MAX} paths can be tried, not {}", paths.len()))));
        }
        upstream.try_paths = trap(paths.into_iter().map(checks::path).collect::<Result<_, _>>())?;
        Ok(())
    }

    fn use_origin(&mut self, name: String) -> Host<Result<(), String>> {
        let known = self.surroundings.prepared.source.origins.contains(&name);
        let upstream = trap(self.upstream("use-origin"))?;
        if !known {
            return Ok(Err(format!("there is no origin {} in hosts.json", checks::shown(&name))));
        }
        upstream.origin = Some(name);
        Ok(Ok(()))
    }
}

impl wit::cache_lookup::Host for State {
    fn add_key(&mut self, name: String, value: String) -> Host<()> {
        let lookup = trap(self.lookup("add-key"))?;
        let so_far: usize = lookup.parts.iter().map(|(name, value)| name.len() + value.len()).sum();
        if lookup.parts.len() >= KEY_PARTS_MAX || so_far + name.len() + value.len() > KEY_BYTES_MAX {
            return trap(Err(Fence::Calls(format!(
                "a key may be given {KEY_PARTS_MAX} parts of {KEY_BYTES_MAX} bytes in all"
            ))));
        }
        lookup.parts.push((name, value));
        Ok(())
    }

    fn set_key(&mut self, key: String) -> Host<()> {
        let lookup = trap(self.lookup("set-key"))?;
        if key.len() > KEY_BYTES_MAX {
            return trap(Err(Fence::Calls(format!("a key may have {KEY_BYTES_MAX} bytes, not {}", key.len()))));
        }
        lookup.key = Some(key);
        Ok(())
    }

    fn key_query_only(&mut self, names: Vec<String>) -> Host<()> {
        let lookup = trap(self.lookup("key-query-only"))?;
        let bytes: usize = names.iter().map(String::len).sum();
        if names.len() > QUERY_NAMES_MAX || bytes > KEY_BYTES_MAX {
            return trap(Err(Fence::Calls(format!(
                "key-query-only takes {QUERY_NAMES_MAX} names of {KEY_BYTES_MAX} bytes in all"
            ))));
        }
        lookup.query_only = Some(names);
        Ok(())
    }

    fn bypass(&mut self) -> Host<()> {
        trap(self.lookup("bypass"))?.bypass = true;
        Ok(())
    }

    fn max_age_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.lookup("max-age-ms"))?.max_age = Some(Duration::from_millis(ms));
        Ok(())
    }
}

impl wit::cache_store::Host for State {
    fn ttl_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.store("ttl-ms"))?.ttl = Some(Duration::from_millis(ms));
        Ok(())
    }

    fn stale_while_revalidate_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.store("stale-while-revalidate-ms"))?.stale_while_revalidate = Some(Duration::from_millis(ms));
        Ok(())
    }

    fn stale_if_error_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.store("stale-if-error-ms"))?.stale_if_error = Some(Duration::from_millis(ms));
        Ok(())
    }

    fn tag(&mut self, tag: String) -> Host<()> {
        let store = trap(self.store("tag"))?;
        if tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.contains('\0') {
            return trap(Err(Fence::Invalid(format!(
                "a tag has 1 to {TAG_BYTES_MAX} bytes and no NUL, not {}",
                checks::shown(&tag)
            ))));
        }
        if store.tags.contains(&tag) {
            return Ok(());
        }
        if store.tags.len() >= TAGS_MAX {
            return trap(Err(Fence::Calls(format!("a response may have {TAGS_MAX} tags"))));
        }
        store.tags.push(tag);
        Ok(())
    }

    fn no_store(&mut self) -> Host<()> {
        trap(self.store("no-store"))?.no_store = true;
        Ok(())
    }

    fn hit_for_miss_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.store("hit-for-miss-ms"))?.hit_for_miss = Some(Duration::from_millis(ms));
        Ok(())
    }
}

impl wit::response::Host for State {
    fn status(&mut self) -> Host<u16> {
        Ok(trap(self.response("status"))?.status.as_u16())
    }

    fn set_status(&mut self, status: u16) -> Host<()> {
        let status = trap(checks::reply_status(status))?;
        let before = std::mem::replace(&mut trap(self.response("set-status"))?.status, status);
        self.save_status(before);
        Ok(())
    }

    fn header(&mut self, name: String) -> Host<Option<String>> {
        // What an origin sends in another encoding is not shown half; the client's request is none the worse for it.
        Ok(joined(&trap(self.response("response.header"))?.headers, &name).unwrap_or(None))
    }

    fn header_names(&mut self) -> Host<Vec<String>> {
        Ok(names(&trap(self.response("response.header-names"))?.headers))
    }

    fn set_header(&mut self, name: String, value: String) -> Host<()> {
        let (field, value) = (trap(checks::header_name(&name))?, trap(checks::header_value(&name, &value))?);
        let added = name.len() + value.len();
        self.edit_response("response.set-header", field, added, |headers, name| {
            headers.insert(name, value);
        })
    }

    fn append_header(&mut self, name: String, value: String) -> Host<()> {
        let (field, value) = (trap(checks::header_name(&name))?, trap(checks::header_value(&name, &value))?);
        let added = name.len() + value.len();
        self.edit_response("response.append-header", field, added, |headers, name| {
            headers.append(name, value);
        })
    }

    fn remove_header(&mut self, name: String) -> Host<()> {
        let field = trap(checks::header_name(&name))?;
        self.edit_response("response.remove-header", field, 0, |headers, name| {
            headers.remove(name);
        })
    }

    fn cache_status(&mut self) -> Host<String> {
        Ok(trap(self.response("cache-status"))?.cache_status.to_owned())
    }

    fn origin_path(&mut self) -> Host<Option<String>> {
        Ok(trap(self.response("origin-path"))?.origin_path.as_deref().map(str::to_owned))
    }
}

impl wit::vars::Host for State {
    fn get(&mut self, name: String) -> Host<Option<String>> {
        let exchange = trap(self.exchange("vars.get", Moments::PHASES))?;
        Ok(exchange.vars.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone()))
    }

    fn set(&mut self, name: String, value: String) -> Host<()> {
        let vars = trap(self.vars("vars.set"))?;
        let others: usize =
            vars.iter().filter(|(own, _)| *own != name).map(|(name, value)| name.len() + value.len()).sum();
        let known = vars.iter().position(|(own, _)| *own == name);
        if known.is_none() && vars.len() >= VARS_MAX || others + name.len() + value.len() > VAR_BYTES_MAX {
            return trap(Err(Fence::Calls(format!(
                "a request may have {VARS_MAX} variables of {VAR_BYTES_MAX} bytes in all"
            ))));
        }
        match known.and_then(|index| vars.get_mut(index)) {
            Some(var) => var.1 = value,
            None => vars.push((name, value)),
        }
        Ok(())
    }
}

impl wit::config::Host for State {
    fn get(&mut self, name: String) -> Host<Option<String>> {
        trap(self.enter("config.get", Moments::ALWAYS))?;
        Ok(self.surroundings.config.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone()))
    }

    fn json(&mut self) -> Host<String> {
        trap(self.enter("config.json", Moments::ALWAYS))?;
        Ok(self.surroundings.config_json.clone())
    }
}

impl From<wit::log::Level> for Level {
    fn from(level: wit::log::Level) -> Self {
        match level {
            wit::log::Level::Debug => Self::Debug,
            wit::log::Level::Info => Self::Info,
            wit::log::Level::Warn => Self::Warn,
            wit::log::Level::Error => Self::Error,
        }
    }
}

impl wit::log::Host for State {
    fn enabled(&mut self, level: wit::log::Level) -> Host<bool> {
        trap(self.enter("log.enabled", Moments::ALWAYS))?;
        Ok(Level::from(level).enabled())
    }

    fn write(&mut self, level: wit::log::Level, message: String) -> Host<()> {
        trap(self.enter("log.write", Moments::ALWAYS))?;
        self.surroundings.log.write(&self.surroundings.name, level.into(), &message);
        Ok(())
    }
}

impl State {
    fn digest(&self, algorithm: &str, parts: &[wit::crypto::Part]) -> Result<crypto::Output, String> {
        let secrets = &self.surroundings.secrets;
        let pieces: SmallVec<[&[u8]; 8]> = parts
            .iter()
            .map(|part| match part {
                wit::crypto::Part::Text(text) => Ok(text.as_bytes()),
                wit::crypto::Part::Bytes(bytes) => Ok(bytes.as_slice()),
                wit::crypto::Part::Secret(name) => secrets.bytes(name),
            })
            .collect::<Result<_, String>>()?;
        crypto::digest(algorithm, pieces.into_iter())
    }
}

impl wit::crypto::Host for State {
    fn digest(
        &mut self,
        algorithm: String,
        parts: Vec<wit::crypto::Part>,
        encoding: String,
    ) -> Host<Result<String, String>> {
        trap(self.enter("digest", Moments::ALWAYS))?;
        Ok(Encoding::parse(&encoding).and_then(|encoding| {
            State::digest(self, &algorithm, &parts).map(|output| encoding.encode(output.as_slice()))
        }))
    }

    fn verify_digest(
        &mut self,
        algorithm: String,
        parts: Vec<wit::crypto::Part>,
        encoding: String,
        expected: String,
    ) -> Host<Result<bool, String>> {
        trap(self.enter("verify-digest", Moments::ALWAYS))?;
        Ok(Encoding::parse(&encoding).and_then(|encoding| {
            State::digest(self, &algorithm, &parts).map(|output| encoding.matches(output.as_slice(), &expected))
        }))
    }

    fn mac(
        &mut self,
        algorithm: String,
        secret: String,
        data: Vec<u8>,
        encoding: String,
    ) -> Host<Result<String, String>> {
        trap(self.enter("mac", Moments::ALWAYS))?;
        let secrets = &self.surroundings.secrets;
        Ok(Encoding::parse(&encoding).and_then(|encoding| {
            secrets.mac(&algorithm, &secret, &data).map(|output| encoding.encode(output.as_slice()))
        }))
    }

    fn verify_mac(
        &mut self,
        algorithm: String,
        secret: String,
        data: Vec<u8>,
        encoding: String,
        expected: String,
    ) -> Host<Result<bool, String>> {
        trap(self.enter("verify-mac", Moments::ALWAYS))?;
        let secrets = &self.surroundings.secrets;
        Ok(Encoding::parse(&encoding).and_then(|encoding| {
            secrets.mac(&algorithm, &secret, &data).map(|output| encoding.matches(output.as_slice(), &expected))
        }))
    }

    fn verify_signature(
        &mut self,
        algorithm: String,
        key: String,
        data: Vec<u8>,
        signature: Vec<u8>,
    ) -> Host<Result<bool, String>> {
        trap(self.enter("verify-signature", Moments::ALWAYS))?;
        Ok(self.surroundings.prepared.key(&key).and_then(|key| key.verify(&algorithm, &data, &signature)))
    }

    fn verify_jwt(&mut self, key: String, token: String) -> Host<Result<String, String>> {
        let now = trap(self.exchange("verify-jwt", Moments::PHASES))?.request.received_at;
        Ok(self.surroundings.prepared.key(&key).and_then(|key| key.verify_jwt(&token, now)))
    }
}

impl wit::rate::Host for State {
    fn take(&mut self, bucket: String, key: String, cost: u32) -> Host<Result<u32, u32>> {
        let now = trap(self.exchange("rate.take", Moments::PHASES))?.request.received_at;
        match self.surroundings.prepared.source.rates.get(&bucket) {
            Some(rate) => Ok(self.surroundings.rates.take(&bucket, rate, &key, cost, now)),
            None => trap(Err(Fence::Invalid(format!("there is no rate {} in hosts.json", checks::shown(&bucket))))),
        }
    }
}

impl wit::tables::Host for State {
    fn lookup(&mut self, table: String, key: String) -> Host<Option<String>> {
        trap(self.enter("tables.lookup", Moments::ALWAYS))?;
        match self.surroundings.prepared.source.tables.get(&table) {
            Some(table) => Ok(table.get(&key).cloned()),
            None => trap(Err(Fence::Invalid(format!("there is no table {} in hosts.json", checks::shown(&table))))),
        }
    }
}

impl wit::secrets::Host for State {
    fn get(&mut self, name: String) -> Host<Option<String>> {
        trap(self.enter("secrets.get", Moments::ALWAYS))?;
        let Ok(bytes) = self.surroundings.secrets.bytes(&name) else { return Ok(None) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => trap(Err(Fence::Invalid(format!("the secret {} is not UTF-8", checks::shown(&name))))),
        }
    }
}
