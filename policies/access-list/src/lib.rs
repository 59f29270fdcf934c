//! Who may ask: by the client's address and by the site that a link was followed from.
//!
//! Deny is looked at before allow, and an allow list that stands there lets in only what it names. Addresses say who
//! asks, as far as anything does; a Referer is what a browser says of itself, so it keeps other sites from using one's
//! pictures and keeps out nobody who means to come in.

use std::net::IpAddr;

use proxyhost_policy::net::{self, Cidr};
use proxyhost_policy::prelude::*;

/// The policy, configured.
pub struct AccessList {
    paths: Vec<String>,
    status: u16,
    addresses: Lists<AddressRule>,
    referers: Lists<RefererRule>,
    empty_referer: EmptyReferer,
}

/// The configuration as written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    /// Patterns of paths that are guarded; all others are open.
    paths: Vec<String>,
    /// What the refused get.
    status: u16,
    addresses: WrittenLists,
    referers: WrittenLists,
    /// What becomes of requests without a Referer, when there is a list of them.
    empty_referer: Option<EmptyReferer>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            paths: vec!["*".to_owned()],
            status: 403,
            addresses: WrittenLists::default(),
            referers: WrittenLists::default(),
            empty_referer: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenLists {
    allow: Option<Vec<String>>,
    deny: Vec<String>,
}

/// Two lists as used. An allow list that is empty lets nobody in, one that is absent everybody.
struct Lists<R> {
    allow: Option<Vec<R>>,
    deny: Vec<R>,
}

impl<R> Lists<R> {
    fn resolve(written: WrittenLists, at: &str, rule: impl Fn(&str) -> Result<R, String>) -> Result<Self, String> {
        let all = |name: &str, texts: Vec<String>| -> Result<Vec<R>, String> {
            texts.iter().map(|text| rule(text).map_err(|error| format!("config: {at}.{name}: {error}"))).collect()
        };
        let allow = written.allow.map(|texts| all("allow", texts)).transpose()?;
        Ok(Self { allow, deny: all("deny", written.deny)? })
    }

    fn is_empty(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }

    /// Deny before allow.
    fn lets_in(&self, fits: impl Fn(&R) -> bool) -> bool {
        !self.deny.iter().any(&fits) && self.allow.as_ref().is_none_or(|allow| allow.iter().any(&fits))
    }
}

/// One line of an address list.
enum AddressRule {
    /// Written out.
    Block(Cidr),
    /// `@name`: a set of hosts.json.
    Set(String),
}

impl AddressRule {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix('@') {
            Some("") => Err("\"@\" names no set".to_owned()),
            Some(name) => Ok(Self::Set(name.to_owned())),
            None => Cidr::parse(text).map(Self::Block),
        }
    }

    fn fits(&self, address: IpAddr) -> bool {
        match self {
            Self::Block(block) => block.contains(address),
            Self::Set(name) => client::ip_in(name),
        }
    }
}

/// One line of a Referer list.
enum RefererRule {
    /// `example.com`: this host.
    Host(String),
    /// `*.example.com`: any host below it.
    Below(String),
}

impl RefererRule {
    fn parse(text: &str) -> Result<Self, String> {
        let (below, host) = text.strip_prefix("*.").map_or((false, text), |host| (true, host));
        let plain =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !plain || host.starts_with('.') || host.ends_with('.') {
            return Err(format!("{text:?} is neither a host (example.com) nor the hosts below one (*.example.com)"));
        }
        let host = host.to_ascii_lowercase();
        Ok(if below { Self::Below(format!(".{host}")) } else { Self::Host(host) })
    }

    fn fits(&self, referer: &str) -> bool {
        match self {
            Self::Host(host) => referer == host,
            Self::Below(suffix) => referer.len() > suffix.len() && referer.ends_with(suffix.as_str()),
        }
    }
}

/// What becomes of requests without a Referer.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum EmptyReferer {
    /// Typed addresses, bookmarks, and browsers that keep it to themselves come in.
    Allow,
    /// They don't.
    Deny,
}

impl Policy for AccessList {
    fn configure() -> Result<Self, String> {
        let written: Written = config::parsed()?;
        if !(400..600).contains(&written.status) {
            return Err(format!("config: status: {} does not refuse (400 to 599)", written.status));
        }
        let addresses = Lists::resolve(written.addresses, "addresses", AddressRule::parse)?;
        let referers = Lists::resolve(written.referers, "referers", RefererRule::parse)?;
        if referers.is_empty() && written.empty_referer.is_some() {
            return Err("config: empty_referer stands there without a list of referers".to_owned());
        }
        Ok(Self {
            paths: written.paths,
            status: written.status,
            addresses,
            referers,
            empty_referer: written.empty_referer.unwrap_or(EmptyReferer::Allow),
        })
    }

    fn on_request(&self) -> Result<Decision, String> {
        let path = request::path();
        if !self.paths.iter().any(|pattern| text::glob(pattern, &path)) {
            return Ok(Decision::Next);
        }
        let refused = if !self.address_is_let_in()? {
            "address"
        } else if !self.referer_is_let_in() {
            "referer"
        } else {
            return Ok(Decision::Next);
        };
        vars::set("access-list", refused);
        Ok(Decision::Deny(self.status))
    }
}

impl AccessList {
    fn address_is_let_in(&self) -> Result<bool, String> {
        if self.addresses.is_empty() {
            return Ok(true);
        }
        let address = net::client_address()?;
        Ok(self.addresses.lets_in(|rule| rule.fits(address)))
    }

    fn referer_is_let_in(&self) -> bool {
        if self.referers.is_empty() {
            return true;
        }
        let referer = request::header("referer").filter(|referer| !referer.trim().is_empty());
        match referer {
            None => self.empty_referer == EmptyReferer::Allow,
            Some(referer) => match text::url_host(&referer) {
                Some((host, _)) => self.referers.lets_in(|rule| rule.fits(&host)),
                // What can't be read fits no list: it isn't denied by name, and not allowed by name either.
                None => self.referers.allow.is_none(),
            },
        }
    }
}

proxyhost_policy::export!(AccessList: on_request);
