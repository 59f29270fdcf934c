//! Address sets: sorted, merged ranges, so that a list of a hundred thousand networks costs a binary search.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of both families. An IPv4 address in IPv6 form counts as IPv4.
#[derive(Debug)]
pub(crate) struct AddressSet {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl AddressSet {
    /// From networks in any order.
    pub(crate) fn new(nets: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(net) => {
                    v4.push((u128::from(u32::from(net.network())), u128::from(u32::from(net.broadcast()))))
                }
                IpNet::V6(net) => {
                    let (first, last) = (net.network(), net.broadcast());
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) => {
                            v4.push((u128::from(u32::from(first)), u128::from(u32::from(last))));
                        }
                        _ => v6.push((u128::from(first), u128::from(last))),
                    }
                }
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// Whether the address is in the set.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, u128::from(u32::from(address))),
            IpAddr::V6(address) => within(&self.v6, u128::from(address)),
        }
    }
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut out: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

fn within(ranges: &[(u128, u128)], address: u128) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_families_and_mapped_addresses_are_found() {
        let nets: Vec<IpNet> =
            ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"].iter().map(|net| net.parse().unwrap()).collect();
        let set = AddressSet::new(&nets);
        for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.1", "2001:db8::1", "::ffff:10.1.2.3"] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.2", "2001:db9::1", "::10.0.0.1"] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!AddressSet::new(&[]).contains("10.0.0.1".parse().unwrap()));
        assert!(AddressSet::new(&["::/0".parse().unwrap()]).contains("::1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn a_set_holds_what_its_networks_hold(nets in prop::collection::vec((any::<u32>(), 0u8..=32), 0..20), probe in any::<u32>()) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(address, length)| IpNet::V4(ipnet::Ipv4Net::new(Ipv4Addr::from(address), length).unwrap()))
                .collect();
            let probe = IpAddr::V4(Ipv4Addr::from(probe));
            prop_assert_eq!(AddressSet::new(&nets).contains(probe), nets.iter().any(|net| net.contains(&probe)));
        }
    }
}
