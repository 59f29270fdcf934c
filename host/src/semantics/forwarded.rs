//! Who asks, and through whom (RFC 7239, X-Forwarded-For, Via of RFC 9110 section 7.6.3).
//!
//! Only what trusted proxies wrote counts, and each of them vouches for the hop before it alone: so the list is read from
//! its right end, as long as the addresses are trusted. What cannot be read ends the walk at the last address known.
//!
//! When a request has X-Forwarded-For and Forwarded, the former counts. A proxy writes one of the two and hands the other
//! on as the client sent it; nearly all of them write X-Forwarded-For, so beside it a Forwarded is more likely a forgery
//! than news.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{FORWARDED, HeaderName, VIA};
use http::{HeaderMap, HeaderValue, Version};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What strangers may not tell an origin about themselves: whole names, beside all that begin as `FAMILIES` do. Servers and
/// frameworks go by these fields, and since they are no part of the cache key, what they lead to would be what others get.
const CLAIMS: [&str; 16] = [
    "forwarded",
    "forwarded-for",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-host",
    "x-url-scheme",
    "x-scheme",
    "x-https",
    "front-end-https",
    "x-arr-ssl",
];
const FAMILIES: [&str; 3] = ["x-forwarded-", "x-original-", "x-rewrite-"];

/// Fields by which frameworks take one method for another.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// The client's address: the peer's, unless it is trusted; then the right-most address of X-Forwarded-For, or else of
/// Forwarded, that is not trusted. IPv4 in IPv6's clothes (`::ffff:192.0.2.1`) is IPv4.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) { peer } else { walk(peer, &hops(headers), trusted).0 }
}

/// The client's scheme ("http" or "https"): of a trusted peer's X-Forwarded-Proto or Forwarded `proto`, else `own`.
pub fn client_scheme(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet], own: &'static str) -> &'static str {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return own;
    }
    walk(peer, &hops(headers), trusted).1.unwrap_or(own)
}

/// Whether an address is in one of the nets, in whichever clothes it comes.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

/// What one proxy wrote of the hop before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hop {
    address: Option<IpAddr>,
    scheme: Option<&'static str>,
}

/// The client's address and scheme, from the right end of the list.
fn walk(peer: IpAddr, hops: &[Hop], trusted: &[IpNet]) -> (IpAddr, Option<&'static str>) {
    let (mut address, mut scheme) = (peer, None);
    for hop in hops.iter().rev() {
        scheme = hop.scheme.or(scheme);
        let Some(before) = hop.address else { break };
        address = before;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    (address, scheme)
}

fn hops(headers: &HeaderMap) -> Vec<Hop> {
    let addresses: Vec<&str> = list(headers, &X_FORWARDED_FOR);
    let schemes: Vec<&str> = list(headers, &X_FORWARDED_PROTO);
    if addresses.is_empty() {
        let mut hops = parse_forwarded(headers).unwrap_or_default();
        if let Some(scheme) = schemes.last() {
            match hops.last_mut() {
                Some(last) => last.scheme = known_scheme(scheme).or(last.scheme),
                None => hops.push(Hop { address: None, scheme: known_scheme(scheme) }),
            }
        }
        return hops;
    }
    let count = addresses.len();
    addresses
        .into_iter()
        .enumerate()
        .map(|(at, text)| {
            // Most proxies replace the scheme and leave one word for the whole chain; some append as with addresses.
            let scheme =
                if schemes.len() == count { schemes.get(at) } else { schemes.last().filter(|_| at + 1 == count) };
            Hop { address: parse_node(text), scheme: scheme.and_then(|scheme| known_scheme(scheme)) }
        })
        .collect()
}

/// The elements of a comma-separated field without quotes. A line that is not ASCII counts as one that cannot be read.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers.get_all(name).iter().flat_map(|line| line.to_str().unwrap_or("unknown").split(',').map(str::trim)).collect()
}

fn known_scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known))
}

/// An address with or without port: `192.0.2.1:80`, `[2001:db8::1]:80`, and `2001:db8::1` as X-Forwarded-For has it. None
/// for `unknown` and names beginning with an underscore.
fn parse_node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return (behind.is_empty() || behind.starts_with(':')).then_some(IpAddr::V6(address).to_canonical());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, _port) = text.split_once(':')?;
    address.parse().ok().map(IpAddr::V4)
}

/// All elements of Forwarded (RFC 7239 section 4); none if any of it is malformed: half a list proves nothing.
fn parse_forwarded(headers: &HeaderMap) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    for line in headers.get_all(FORWARDED) {
        let mut rest = line.to_str().ok()?;
        loop {
            let (hop, behind) = parse_element(rest)?;
            hops.push(hop);
            match behind.strip_prefix(',') {
                Some(next) => rest = next,
                None if behind.is_empty() => break,
                None => return None,
            }
        }
    }
    Some(hops)
}

/// One element, and what stands behind it: nothing, or a comma and more.
fn parse_element(text: &str) -> Option<(Hop, &str)> {
    let mut hop = Hop::default();
    let mut rest = text.trim_start();
    loop {
        if rest.is_empty() || rest.starts_with(',') {
            return Some((hop, rest));
        }
        if let Some(behind) = rest.strip_prefix(';') {
            rest = behind.trim_start();
            continue;
        }
        let (name, behind) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return None;
        }
        let (value, behind) = parse_value(behind)?;
        if name.eq_ignore_ascii_case("for") {
            hop.address = parse_node(&value);
        } else if name.eq_ignore_ascii_case("proto") {
            hop.scheme = known_scheme(&value);
        }
        rest = behind.trim_start();
        if !(rest.is_empty() || rest.starts_with([',', ';'])) {
            return None;
        }
    }
}

/// A token or a quoted string, and what stands behind it. Bare IPv6 and ports, which need quotes, are taken as meant.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t', '"']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Removes what an untrusted peer says of itself (Forwarded, X-Real-IP and their like), and every field with an underscore in
/// its name, which servers behind CGI and WSGI read as the one with a hyphen.
pub fn remove_claims(headers: &mut HeaderMap) {
    // Most requests make no claim.
    if !headers.keys().any(|name| is_claim(name.as_str())) {
        return;
    }
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Removes what would make another method of a read, whose answer others get.
pub fn remove_overrides(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().starts_with("x-") && OVERRIDES.contains(name)) {
        for name in &OVERRIDES {
            headers.remove(name);
        }
    }
}

fn is_claim(name: &str) -> bool {
    name.contains('_') || FAMILIES.iter().any(|family| name.starts_with(family)) || CLAIMS.contains(&name)
}

/// Says by which version of HTTP a message came in that is passed on (RFC 9110 section 7.6.3). HTTP/2 and HTTP/3 have no minor
/// version, for which 0 stands (section 2.5).
pub fn add_via(headers: &mut HeaderMap, version: Version) {
    let value = match version {
        Version::HTTP_3 => "3.0 proxyhost",
        Version::HTTP_2 => "2.0 proxyhost",
        Version::HTTP_10 => "1.0 proxyhost",
        _ => "1.1 proxyhost",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

/// Sets what an http origin is told: X-Forwarded-For (appended when the peer is trusted, else replaced), X-Forwarded-Proto,
/// X-Forwarded-Host. What an untrusted peer says of itself (Forwarded, X-Real-IP and their like) is removed.
///
/// `address` is the connection's peer. The client's own address may stand for it: behind a trusted peer it is in the list
/// already, and is not put there twice. `client` is the client's, as it was found.
pub fn tell_origin(
    headers: &mut HeaderMap,
    address: IpAddr,
    client: IpAddr,
    peer_trusted: bool,
    scheme: &str,
    authority: &str,
) {
    if !peer_trusted {
        remove_claims(headers);
    }
    let address = address.to_canonical();
    // One story: what a trusted peer told by Forwarded alone is told on by the field that more servers read, and Forwarded,
    // which nothing is appended to here, would end a hop too early.
    let by_forwarded = client.to_canonical().to_string();
    let mut told: Vec<&str> = list(headers, &X_FORWARDED_FOR);
    if peer_trusted && told.is_empty() && headers.contains_key(FORWARDED) {
        told.push(&by_forwarded);
    }
    if !told.iter().any(|known| parse_node(known) == Some(address)) {
        let own = address.to_string();
        told.push(&own);
        let joined = told.join(", ");
        set(headers, X_FORWARDED_FOR, &joined);
    }
    headers.remove(FORWARDED);
    set(headers, X_FORWARDED_PROTO, scheme);
    // Whoever the peer is: the key has this host, and no other may decide what is kept under it.
    set(headers, X_FORWARDED_HOST, authority);
}

/// Sets a field, or leaves it out where the text cannot be sent.
fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    match HeaderValue::from_str(text) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: &str = "10.0.0.1";

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "2001:db8:1::/48"].map(|net| net.parse().expect("a net")).to_vec()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[track_caller]
    fn client(peer: &str, fields: &[(&'static str, &'static str)], expected: &str) {
        assert_eq!(client_address(ip(peer), &map(fields), &trusted()), ip(expected), "{fields:?}");
    }

    #[test]
    fn a_stranger_is_not_believed() {
        client("192.0.2.9", &[("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.2")], "192.0.2.9");
        client("::ffff:192.0.2.9", &[("x-forwarded-for", "198.51.100.1")], "192.0.2.9");
        client("2001:db8:2::1", &[("x-forwarded-for", "198.51.100.1")], "2001:db8:2::1");
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_counts() {
        let list = |text| [("x-forwarded-for", text)];
        client(OWN, &[], OWN);
        client(OWN, &list("198.51.100.1"), "198.51.100.1");
        client("::ffff:10.0.0.1", &list("198.51.100.1"), "198.51.100.1");
        client(OWN, &list("6.6.6.6, 198.51.100.1, 10.1.1.1"), "198.51.100.1");
        client(OWN, &list("10.2.2.2, 10.1.1.1"), "10.2.2.2");
        client(OWN, &list("198.51.100.1:4711"), "198.51.100.1");
        client(OWN, &list("[2001:db8:2::1]:4711"), "2001:db8:2::1");
        client(OWN, &list("2001:db8:2::1"), "2001:db8:2::1");
        client(OWN, &list("::ffff:198.51.100.1"), "198.51.100.1");
        client(OWN, &list("6.6.6.6, ::ffff:10.1.1.1"), "6.6.6.6");
        client(OWN, &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
    }

    #[test]
    fn what_cannot_be_read_ends_the_walk() {
        let list = |text| [("x-forwarded-for", text)];
        client(OWN, &list("6.6.6.6, unknown"), OWN);
        client(OWN, &list("6.6.6.6, garbage, 10.1.1.1"), "10.1.1.1");
        client(OWN, &list(""), OWN);
        client(OWN, &list("6.6.6.6,"), OWN);
    }

    #[test]
    fn forwarded_is_read_with_quotes_and_ports() {
        let field = |text| [("forwarded", text)];
        client(OWN, &field("for=198.51.100.1"), "198.51.100.1");
        client(OWN, &field("For=\"198.51.100.1:4711\";proto=http;by=203.0.113.43"), "198.51.100.1");
        client(OWN, &field("for=\"[2001:db8:2::17]:4711\""), "2001:db8:2::17");
        client(OWN, &field("for=\"[2001:db8:2::17]\" , for=10.1.1.1"), "2001:db8:2::17");
        client(OWN, &field("host=\"a,b;for=6.6.6.6\"; for=198.51.100.1"), "198.51.100.1");
        client(OWN, &field("for=\"198\\.51.100.1\""), "198.51.100.1");
        client(OWN, &[("forwarded", "for=6.6.6.6"), ("forwarded", "for=198.51.100.1")], "198.51.100.1");
        for text in [
            "for=unknown",
            "for=_hidden, for=_port",
            "for=\"unfinished",
            "for",
            "=",
            "for=1.1.1.1 x",
            "proto=https",
            "",
        ] {
            client(OWN, &field(text), OWN);
        }
    }

    #[test]
    fn beside_x_forwarded_for_a_forwarded_does_not_count() {
        client(OWN, &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
    }

    #[test]
    fn the_scheme_is_that_of_the_hop_that_counts() {
        let scheme = |peer: &str, fields: &[(&'static str, &'static str)]| {
            client_scheme(ip(peer), &map(fields), &trusted(), "http")
        };
        assert_eq!(scheme("192.0.2.9", &[("x-forwarded-proto", "https")]), "http");
        assert_eq!(scheme(OWN, &[]), "http");
        assert_eq!(scheme(OWN, &[("x-forwarded-proto", "HTTPS")]), "https");
        assert_eq!(scheme(OWN, &[("x-forwarded-proto", "gopher")]), "http");
        assert_eq!(
            scheme(OWN, &[("x-forwarded-for", "198.51.100.1, 10.1.1.1"), ("x-forwarded-proto", "https")]),
            "https"
        );
        let both = [("x-forwarded-for", "198.51.100.1, 10.1.1.1"), ("x-forwarded-proto", "https, http")];
        assert_eq!(scheme(OWN, &both), "https");
        assert_eq!(scheme(OWN, &[("forwarded", "for=198.51.100.1;proto=https")]), "https");
        assert_eq!(scheme(OWN, &[("forwarded", "for=6.6.6.6;proto=https, for=198.51.100.1;proto=http")]), "http");
    }

    #[test]
    fn an_origin_is_told_who_asks() {
        let mut headers =
            map(&[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("x-real-ip", "6.6.6.6")]);
        tell_origin(&mut headers, ip("192.0.2.9"), ip("192.0.2.9"), false, "https", "a.test:8443");
        assert_eq!(
            headers,
            map(&[
                ("x-forwarded-for", "192.0.2.9"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "a.test:8443"),
            ])
        );

        let mut headers = map(&[("x-forwarded-for", "198.51.100.1"), ("via", "2 cdn"), ("x-forwarded-host", "b.test")]);
        tell_origin(&mut headers, ip(OWN), ip(OWN), true, "http", "a.test");
        assert_eq!(
            headers,
            map(&[
                ("x-forwarded-for", "198.51.100.1, 10.0.0.1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "a.test"),
                ("via", "2 cdn"),
            ])
        );

        // A proxy that speaks Forwarded only: the origin is told the same client, once.
        let mut headers = map(&[("forwarded", "for=\"[2001:db8::1]:123\";proto=https")]);
        tell_origin(&mut headers, ip(OWN), ip("2001:db8::1"), true, "https", "a.test");
        assert_eq!(headers.get("x-forwarded-for").map(HeaderValue::as_bytes), Some(&b"2001:db8::1, 10.0.0.1"[..]));
        assert!(!headers.contains_key(FORWARDED));

        let mut headers = map(&[("x-forwarded-for", "198.51.100.1")]);
        tell_origin(&mut headers, ip("198.51.100.1"), ip("198.51.100.1"), true, "http", "a\nb");
        assert_eq!(headers.get("x-forwarded-for").map(HeaderValue::as_bytes), Some(&b"198.51.100.1"[..]));
        assert!(!headers.contains_key("x-forwarded-host"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_passed_over(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            text in "(for|proto|by)?[=;, \"\\\\\\[\\]:.0-9a]{0,40}",
        ) {
            for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&text)].into_iter().flatten() {
                let headers = HeaderMap::from_iter([(FORWARDED, value.clone())]);
                let _ = client_address(ip(OWN), &headers, &trusted());
                let mut headers = HeaderMap::from_iter([(X_FORWARDED_FOR, value.clone()), (X_FORWARDED_PROTO, value)]);
                let _ = client_address(ip(OWN), &headers, &trusted());
                let _ = client_scheme(ip(OWN), &headers, &trusted(), "http");
                tell_origin(&mut headers, ip(OWN), ip(OWN), true, "http", "a.test");
            }
        }

        #[test]
        fn what_a_stranger_puts_in_front_changes_nothing(front in "[ -~]{0,40}") {
            let list = format!("{front}, 198.51.100.1, 10.1.1.1");
            let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_str(&list).expect("ASCII"))]);
            prop_assert_eq!(client_address(ip(OWN), &headers, &trusted()), ip("198.51.100.1"));
        }
    }
}
