//! Addresses and blocks of them (RFC 4632, RFC 4291), for policies that have them in their configuration. Large or
//! shared lists belong into `addresses` of hosts.json, where `client::ip_in` finds them by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of addresses: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
///
/// An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Parses a block. Bits behind the prefix must be zero: `10.1.0.0/8` is more likely a mistake than a meaning.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| format!("{text:?} is not an address or a block of them"))?;
        let longest = if written.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() => digits
                .parse()
                .ok()
                .filter(|&p: &u8| p <= longest)
                .ok_or_else(|| format!("{text:?} has too long a prefix"))?,
            Some(_) => return Err(format!("{text:?} has a prefix that is not a number")),
        };
        // A block of mapped addresses is a block of IPv4, and clients are compared as what they are.
        let (network, prefix) = match (written.to_canonical(), written) {
            (IpAddr::V4(v4), IpAddr::V6(_)) if prefix >= 96 => (IpAddr::V4(v4), prefix - 96),
            _ => (written, prefix),
        };
        if mask(network, prefix) != network {
            return Err(format!(
                "{text:?} has bits behind its prefix: did you mean {}/{prefix}?",
                mask(network, prefix)
            ));
        }
        Ok(Self { network, prefix })
    }

    /// Whether the address lies in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && mask(address, self.prefix) == self.network
    }
}

/// Keeps the first bits of an address.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & keep))
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & keep))
        }
    }
}

/// The client's address as the host gives it.
pub fn client_address() -> Result<IpAddr, String> {
    let ip = crate::client::ip();
    ip.parse().map(|ip: IpAddr| ip.to_canonical()).map_err(|_| format!("the client's address {ip:?} cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(block: &str, address: &str) -> bool {
        Cidr::parse(block).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_block_holds_its_addresses_and_no_others() {
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "203.0.113.9"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(holds("192.0.2.1", "192.0.2.1"));
        assert!(!holds("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(!holds("::/0", "::ffff:10.1.2.3"));
    }

    #[test]
    fn what_is_no_block_is_said_in_words() {
        for text in ["", "10.0.0.0/33", "10.1.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "::1/129", "a.test"] {
            assert!(Cidr::parse(text).is_err(), "{text}");
        }
    }
}
