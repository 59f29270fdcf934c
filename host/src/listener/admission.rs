//! How many connections may be open: in all, and from one address. Whoever comes beyond that is closed at once, and told in
//! metrics; those who are in are not touched.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Open files that are left for others than clients: origins, the cache, logs.
const RESERVED_FILES: usize = 512;

/// The rules, and who is in. One for all listeners of clients.
#[derive(Debug)]
pub struct Admission {
    limits: ArcSwap<Limits>,
    open: AtomicUsize,
    by_address: Mutex<FxHashMap<IpAddr, usize>>,
}

/// How many may be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub connections: usize,
    /// From one address.
    pub per_address: Option<usize>,
    /// Peers that speak for others by the PROXY protocol: they are not counted by address.
    pub proxies: Vec<IpNet>,
}

impl Limits {
    /// As configured; by default as many in all as there are files to open, less some for others.
    pub fn new(connections: Option<usize>, per_address: Option<usize>, proxies: Vec<IpNet>, open_files: usize) -> Self {
        let default = open_files.saturating_sub(RESERVED_FILES.min(open_files / 4)).max(1);
        Self { connections: connections.unwrap_or(default), per_address, proxies }
    }
}

impl Limits {
    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&address))
    }
}

/// Why a connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Too many are open.
    Connections,
    /// Too many are open from its address.
    Address,
}

impl Full {
    /// The word for the metric's label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
        }
    }
}

/// The place of one connection, for as long as it lives.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    /// Held for its end.
    counted: Option<Counted>,
}

/// One connection of an address, for as long as it lives.
#[derive(Debug)]
pub struct Counted {
    admission: Arc<Admission>,
    place: IpAddr,
}

impl Admission {
    /// By these rules.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits: ArcSwap::from_pointee(limits),
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
        })
    }

    /// Puts other rules in force, for connections that come from now on.
    pub fn configure(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Whether a peer has to say whom it speaks for.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.limits.load().is_proxy(address)
    }

    /// A place for a connection from `address`; without one it counts among all alone.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Admitted, Full> {
        let limits = self.limits.load();
        if self.open.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Connections);
        }
        let mut admitted = Admitted { admission: Arc::clone(self), counted: None };
        admitted.counted = address.map(|address| self.count(address)).transpose()?.flatten();
        Ok(admitted)
    }

    /// Counts a connection for an address: its peer's, or the one that a proxy speaks for.
    pub fn count(self: &Arc<Self>, address: IpAddr) -> Result<Option<Counted>, Full> {
        let limits = self.limits.load();
        let Some(most) = limits.per_address.filter(|_| !limits.is_proxy(address)) else { return Ok(None) };
        let place = network(address);
        let mut by_address = self.by_address.lock();
        let open = by_address.entry(place).or_default();
        if *open >= most {
            return Err(Full::Address);
        }
        *open += 1;
        Ok(Some(Counted { admission: Arc::clone(self), place }))
    }
}

/// What counts as one address: of IPv6 the network of 64 bits that one client has at its command.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => IpAddr::V6((u128::from(six) >> 64 << 64).into()),
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_address = self.admission.by_address.lock();
        if let Some(open) = by_address.get_mut(&self.place) {
            *open -= 1;
            if *open == 0 {
                by_address.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn beyond_the_limit_nobody_comes_in_until_somebody_leaves() {
        let admission = Admission::new(Limits::new(Some(2), None, Vec::new(), 0));
        let first = admission.admit(Some(ip("192.0.2.1"))).unwrap();
        let _second = admission.admit(Some(ip("192.0.2.1"))).unwrap();
        assert_eq!(admission.admit(Some(ip("192.0.2.2"))).unwrap_err(), Full::Connections);
        drop(first);
        assert!(admission.admit(Some(ip("192.0.2.2"))).is_ok());
    }

    #[test]
    fn one_address_takes_no_more_than_its_share() {
        let admission = Admission::new(Limits::new(Some(10), Some(1), Vec::new(), 0));
        let six = admission.admit(Some(ip("2001:db8::1"))).unwrap();
        assert_eq!(admission.admit(Some(ip("2001:db8::2:3"))).unwrap_err(), Full::Address);
        assert!(admission.admit(Some(ip("2001:db8:0:1::1"))).is_ok());
        assert!(admission.admit(Some(ip("192.0.2.1"))).is_ok());
        drop(six);
        assert!(admission.admit(Some(ip("2001:db8::2:3"))).is_ok());
        assert!(admission.admit(None).is_ok() && admission.admit(None).is_ok());
        assert!(admission.by_address.lock().is_empty() && admission.open.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn by_default_some_files_are_left_for_others() {
        assert_eq!(Limits::new(None, None, Vec::new(), 1024).connections, 768);
        assert_eq!(Limits::new(None, None, Vec::new(), 65_536).connections, 65_024);
        assert_eq!(Limits::new(Some(5), None, Vec::new(), 1024).connections, 5);
    }
}
