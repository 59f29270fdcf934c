//! Exact headers, and properties.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address"))
}

fn found(length: usize, source: &str, destination: &str) -> Parsed<'static> {
    let nameless = Header::nameless(length);
    Parsed::Found(Header { source: at(source), destination: at(destination), ..nameless })
}

const fn more(more: usize) -> Parsed<'static> {
    Parsed::Incomplete { more }
}

/// A block of version 2.
fn block(version_command: u8, family_transport: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = v2::SIGNATURE.to_vec();
    bytes.extend([version_command, family_transport]);
    bytes.extend(u16::try_from(body.len()).expect("a short one").to_be_bytes());
    bytes.extend(body);
    bytes
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u16::try_from(value.len()).expect("a short one").to_be_bytes());
    bytes.extend(value);
    bytes
}

/// From 192.0.2.7:56324 to 198.51.100.1:443, with fields.
fn tcp4(fields: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
    block(0x21, 0x11, &[&addresses, fields].concat())
}

/// Puts the checksum into its field, whose value are the last four bytes.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = !v2::crc32c(!0, &bytes);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn lines_of_version_1() {
    let cases: &[(&str, Parsed<'_>)] = &[
        // The example of the specification, and what follows it.
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n",
            found(47, "192.168.0.1:56324", "192.168.0.11:443"),
        ),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", found(44, "255.255.255.255:65535", "0.0.0.0:0")),
        ("PROXY TCP6 2001:DB8::7 ::1 1 2\r\n", found(32, "[2001:db8::7]:1", "[::1]:2")),
        ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", found(37, "192.0.2.7:1", "[::1]:2")),
        ("PROXY UNKNOWN\r\n", Parsed::Found(Header::nameless(15))),
        ("PROXY UNKNOWN whatever, 1 \0 2\r\nrest", Parsed::Found(Header::nameless(31))),
        // Not yet.
        ("", more(15)),
        ("PROX", more(11)),
        ("PROXY TCP4 19", more(2)),
        ("PROXY TCP4 192.0.2.7", more(2)),
        ("PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r", more(1)),
        // Never.
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Parsed::Bad("line ends without CR")),
        ("PROXY TCP4 1.2.3.4\r1.2.3.4 1 2\r\n", Parsed::Bad("CR within the line")),
        ("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", Parsed::Bad("unknown protocol")),
        ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", Parsed::Bad("unknown protocol")),
        ("PROXY UNKNOWNS\r\n", Parsed::Bad("unknown protocol")),
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Parsed::Bad("unknown protocol")),
        ("PROXY \r\n", Parsed::Bad("unknown protocol")),
        ("PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", Parsed::Bad("not an address of its family")),
        ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", Parsed::Bad("not an address of its family")),
        ("PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", Parsed::Bad("not an address of its family")),
        ("PROXY TCP4 1.2.3.4 1.2.3.256 1 2\r\n", Parsed::Bad("not an address of its family")),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Parsed::Bad("not an address of its family")),
        ("PROXY TCP6 1.2.3.4 ::1 1 2\r\n", Parsed::Bad("not an address of its family")),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Parsed::Bad("not an address of its family")),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", Parsed::Bad("not an address of its family")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Parsed::Bad("field missing")),
        ("PROXY TCP4\r\n", Parsed::Bad("field missing")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Parsed::Bad("one field too many")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Parsed::Bad("one field too many")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Parsed::Bad("not a port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 +2\r\n", Parsed::Bad("not a port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Parsed::Bad("not a port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", Parsed::Bad("not a port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 ２\r\n", Parsed::Bad("not a port")),
        // Something else.
        ("GET / HTTP/1.1\r\n", Parsed::Absent),
        ("PRI * HTTP/2.0\r\n", Parsed::Absent),
        ("PROXY\r\n", Parsed::Absent),
        ("proxy TCP4", Parsed::Absent),
        ("\x16\x03\x01", Parsed::Absent),
        ("\r\nGET", Parsed::Absent),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text.as_bytes()), *expected, "{text:?}");
    }
    assert_eq!(parse(b"PROXY TCP4 1.2.3.4 \xff 1 2\r\n"), Parsed::Bad("line is not ASCII"));
}

#[test]
fn a_line_has_107_bytes_at_most() {
    let line = |bytes: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(bytes - 16));
    assert_eq!(parse(line(107).as_bytes()), Parsed::Found(Header::nameless(107)));
    assert_eq!(parse(line(108).as_bytes()), Parsed::Bad("line too long"));
    assert_eq!(parse(&line(108).as_bytes()[..105]), more(2));
    assert_eq!(parse(&line(108).as_bytes()[..106]), Parsed::Bad("line too long"));
    assert_eq!(parse(&line(107).as_bytes()[..106]), more(1));
    let widest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {widest} {widest} 65535 65535\r\n");
    let end = format!("[{widest}]:65535");
    assert_eq!(parse(line.as_bytes()), found(104, &end, &end));
}

#[test]
fn blocks_of_version_2() {
    let plain = found(28, "192.0.2.7:56324", "198.51.100.1:443");
    assert_eq!(parse(&tcp4(&[])), plain);
    assert_eq!(parse(&[&tcp4(&[])[..], b"GET / HTTP/1.1\r\n"].concat()), plain, "what follows is the client's");
    let bytes = block(0x21, 0x12, &tcp4(&[])[16..]);
    assert_eq!(parse(&bytes), plain, "by UDP");

    let mut body = [0; 36];
    (body[0], body[1], body[15], body[31], body[33], body[34]) = (0x20, 0x01, 7, 1, 80, 1);
    assert_eq!(parse(&block(0x21, 0x21, &body)), found(52, "[2001::7]:80", "[::1]:256"));
    let nobody = |length| Parsed::Found(Header::nameless(length));
    assert_eq!(parse(&block(0x21, 0x31, &[b'/'; 216])), nobody(232), "a path is nobody's address");

    // What comes from the proxy itself, or from who knows where.
    assert_eq!(parse(&block(0x20, 0x00, &[])), nobody(16));
    assert_eq!(parse(&block(0x20, 0x11, &tcp4(&[])[16..])), nobody(28));
    assert_eq!(parse(&block(0x20, 0xff, &[1, 2, 3])), nobody(19), "the family is ignored");
    assert_eq!(parse(&block(0x21, 0x00, &[1, 2, 3])), nobody(19));
    assert_eq!(parse(&block(0x21, 0x10, &[0; 12])), nobody(28));
    assert_eq!(parse(&block(0x21, 0x02, &[])), nobody(16));

    let short = Parsed::Bad("block too short for what it says");
    assert_eq!(parse(&block(0x21, 0x11, &[0; 11])), short);
    assert_eq!(parse(&block(0x21, 0x21, &[0; 35])), short);
    assert_eq!(parse(&block(0x21, 0x31, &[0; 215])), short);
    for version_command in [0x00, 0x11, 0x22, 0x2f, 0x31] {
        let bytes = block(version_command, 0x11, &tcp4(&[])[16..]);
        assert_eq!(parse(&bytes), Parsed::Bad("unknown version or command"), "{version_command:#x}");
    }
    for family_transport in [0x03, 0x13, 0x30 | 0xf, 0x40, 0x41, 0xf1] {
        let bytes = block(0x21, family_transport, &[0; 216]);
        assert_eq!(parse(&bytes), Parsed::Bad("unknown family or transport"), "{family_transport:#x}");
    }
    let longest = LENGTH_MAX - 16;
    assert_eq!(parse(&block(0x20, 0, &vec![0; longest])), nobody(LENGTH_MAX));
    assert_eq!(
        parse(&block(0x20, 0, &vec![0; longest + 1])[..16]),
        Parsed::Bad("block too long"),
        "before it has come"
    );

    assert_eq!(parse(b"\r"), more(15));
    assert_eq!(parse(&tcp4(&[])[..15]), more(1));
    assert_eq!(parse(&tcp4(&[])[..16]), more(12));
    assert_eq!(parse(&tcp4(&[])[..20]), more(8));
    assert_eq!(parse(b"\r\n\r\n\0\r\nQUIT\r"), Parsed::Absent);
}

#[test]
fn fields_of_version_2() {
    let header = |length| match found(length, "192.0.2.7:56324", "198.51.100.1:443") {
        Parsed::Found(header) => header,
        other => panic!("{other:?}"),
    };
    let name = field(0x02, b"example.org");
    let tls = field(0x20, &[&[1, 0, 0, 0, 0][..], &field(0x21, b"TLSv1.3")].concat());
    let plain = field(0x20, &[0, 0, 0, 0, 1]);
    let other = [field(0x04, b""), field(0xe0, b"anything"), field(0x05, &[0; 128])].concat();
    let cases: &[(Vec<u8>, Option<&str>, bool)] = &[
        (name.clone(), Some("example.org"), false),
        (tls.clone(), None, true),
        (plain, None, false),
        (other.clone(), None, false),
        ([other, name.clone(), tls.clone()].concat(), Some("example.org"), true),
    ];
    for (fields, authority, secure) in cases {
        let expected = Header { authority: *authority, secure: *secure, ..header(28 + fields.len()) };
        assert_eq!(parse(&tcp4(fields)), Parsed::Found(expected), "{fields:x?}");
        let checked = sealed(tcp4(&[&fields[..], &field(0x03, &[0; 4])].concat()));
        let expected = Header { length: checked.len(), ..expected };
        assert_eq!(parse(&checked), Parsed::Found(expected), "with a checksum");
        for at in 16..checked.len() - 7 {
            let mut broken = checked.clone();
            broken[at] ^= 0x10;
            assert!(matches!(parse(&broken), Parsed::Bad(_)), "{at} of {checked:x?}");
        }
    }

    let short = "block too short for what it says";
    let bad: &[(Vec<u8>, &str)] = &[
        (vec![4], short),
        (vec![4, 0], short),
        (vec![4, 0, 1], short),
        ([name.clone(), vec![4, 0xff, 0xff, 0]].concat(), short),
        (field(0x20, &[1, 0, 0, 0]), short),
        (field(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 1]), short),
        (field(0x02, &[0xff]), "authority is not UTF-8"),
        ([name.clone(), name].concat(), "field twice"),
        ([tls.clone(), tls].concat(), "field twice"),
        (field(0x03, &[0; 4]), "checksum does not match"),
        (field(0x03, &[0; 3]), "checksum of another length"),
    ];
    for (fields, reason) in bad {
        assert_eq!(parse(&tcp4(fields)), Parsed::Bad(reason), "{fields:x?}");
    }
}

#[test]
fn the_checksum_is_crc_32c() {
    // The check value of the catalogues, and the vectors of RFC 3720 appendix B.4.
    assert_eq!(!v2::crc32c(!0, b"123456789"), 0xe306_9283);
    assert_eq!(!v2::crc32c(!0, &[0; 32]), 0x8a91_36aa);
    assert_eq!(!v2::crc32c(!0, &[0xff; 32]), 0x62a8_ab43);
    assert_eq!(v2::crc32c(v2::crc32c(!0, b"1234"), b"56789"), v2::crc32c(!0, b"123456789"));
}

fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let four = any::<(u32, u16)>().prop_map(|(ip, port)| address(Ipv4Addr::from(ip), port));
    let six = any::<(u128, u16)>().prop_map(|(ip, port)| {
        // Not one that stands for an IPv4 address.
        address(Ipv6Addr::from(ip | 1 << 127), port)
    });
    prop_oneof![(four.clone(), four), (six.clone(), six)]
}

/// A header as a proxy writes it.
fn written(version: u8, (source, destination): (SocketAddr, SocketAddr), name: Option<&str>, sums: bool) -> Vec<u8> {
    let family = if source.is_ipv4() { 4 } else { 6 };
    if version == 1 {
        let (from, to) = (source.ip(), destination.ip());
        return format!("PROXY TCP{family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes();
    }
    let mut body = Vec::new();
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
    }
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    body.extend(name.map(|name| field(0x02, name.as_bytes())).unwrap_or_default());
    let family = if family == 4 { 0x11 } else { 0x21 };
    if sums {
        body.extend(field(0x03, &[0; 4]));
        return sealed(block(0x21, family, &body));
    }
    block(0x21, family, &body)
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_no_byte_more(
        version in 1u8..=2,
        ends in ends(),
        name in prop::option::of("[a-z.]{0,60}"),
        sums in any::<bool>(),
        rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let header = written(version, ends, name.as_deref(), sums);
        let bytes = [&header[..], &rest].concat();
        let expected = Parsed::Found(Header {
            length: header.len(),
            source: Some(ends.0),
            destination: Some(ends.1),
            authority: name.as_deref().filter(|_| version == 2),
            secure: false,
        });
        prop_assert_eq!(parse(&bytes), expected);
        // A beginning is incomplete, and reading what is said to be missing ends at its last byte.
        for length in 0..header.len() {
            let Parsed::Incomplete { more } = parse(&bytes[..length]) else {
                return Err(TestCaseError::fail(format!("{length} of {header:x?}")));
            };
            prop_assert!((1..=header.len() - length).contains(&more), "{length} of {header:x?}: {more}");
        }
        let mut have = 0;
        while let Parsed::Incomplete { more } = parse(&bytes[..have]) {
            have += more;
        }
        prop_assert_eq!(have, header.len());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let text = [b"PROXY TCP4 ".as_slice(), &bytes, b"\r\n"].concat();
        let _ = parse(&text);
        for (version_command, family_transport) in [(0x21, 0x11), (0x21, 0x21), (0x21, 0x31)] {
            let _ = parse(&block(version_command, family_transport, &bytes));
        }
        prop_assert!(matches!(parse(&tcp4(&bytes)), Parsed::Found(_) | Parsed::Bad(_)), "it is there as a whole");
    }

    #[test]
    fn what_is_refused_stays_refused(bytes in prop::collection::vec(any::<u8>(), 0..120), cut in 0usize..130) {
        for whole in [[b"PROXY ".as_slice(), &bytes].concat(), tcp4(&bytes), bytes] {
            let beginning = parse(&whole[..cut.min(whole.len())]);
            if matches!(beginning, Parsed::Absent | Parsed::Bad(_) | Parsed::Found(_)) {
                prop_assert_eq!(beginning, parse(&whole));
            }
        }
    }
}
