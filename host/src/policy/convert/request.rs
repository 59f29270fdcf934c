//! What policies read of the request and its client.

use std::net::IpAddr;

use http::header::COOKIE;

use super::{Host, joined, names, trap};
use crate::policy::bindings::proxyhost::policy as wit;
use crate::policy::checks;
use crate::policy::error::Fence;
use crate::policy::exchange::Exchange;
use crate::policy::query;
use crate::policy::state::{Moments, State};

/// A field that the policy reads and that is not UTF-8 is never shown half: the proxy answers 400 after a `next`.
fn readable(exchange: &mut Exchange, name: &str) -> Option<String> {
    joined(&exchange.request.headers, name).unwrap_or_else(|()| {
        exchange.unreadable_header = true;
        None
    })
}

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

    fn line(&mut self) -> Host<wit::request::RequestLine> {
        let request = &trap(self.exchange("line", Moments::PHASES))?.request;
        Ok(wit::request::RequestLine {
            method: request.method.as_str().to_owned(),
            host: request.host.as_str().to_owned(),
            path: request.path().to_owned(),
            query: request.query().map(str::to_owned),
        })
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
        let own = client.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| &**value);
        let found = own.or_else(|| client.connection.as_ref()?.attribute(&name));
        Ok(found.map(str::to_owned))
    }
}
