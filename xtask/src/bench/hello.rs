//! Whether a server answers over TLS, and with whose certificate, without speaking TLS: a ClientHello (RFC 5246 §7.4.1.2) is sent
//! that offers no more than TLS 1.2, so that the certificate comes in the clear, and what comes is searched for the host's name.
//! Cheaper than a process of openssl for each look, and more than a connection, which the kernel takes for a server that is not
//! ready yet.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// How long the answer may take once the connection is taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than a first flight with one certificate.
const FLIGHT_MOST: usize = 16 << 10;

/// Whether a server at this port of this machine shows a certificate for `host`.
pub fn answers(port: u16, host: &str) -> bool {
    shown(port, host).unwrap_or(false)
}

fn shown(port: u16, host: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&client_hello(host))?;
    let mut flight = Vec::new();
    let mut buffer = [0; 4096];
    while flight.len() < FLIGHT_MOST {
        let read = stream.read(&mut buffer)?;
        flight.extend_from_slice(&buffer[..read]);
        if flight.windows(host.len()).any(|part| part == host.as_bytes()) {
            return Ok(true);
        }
        if read == 0 {
            break;
        }
    }
    Ok(false)
}

/// A record with a ClientHello that names `host`: TLS 1.2, ECDSA with P-256, AES-GCM.
fn client_hello(host: &str) -> Vec<u8> {
    let name = [&[0][..], &sized(host.as_bytes())].concat();
    let extensions = [
        extension(0, &sized(&name)),                      // server_name
        extension(10, &sized(&[0x00, 0x1d, 0x00, 0x17])), // supported_groups: x25519, secp256r1
        extension(11, &[1, 0]),                           // ec_point_formats: uncompressed
        extension(13, &sized(&[0x04, 0x03])),             // signature_algorithms: ecdsa_secp256r1_sha256
        extension(23, &[]),                               // extended_master_secret
    ];
    let hello = [
        &[0x03, 0x03][..],                 // TLS 1.2
        &[b'r'; 32],                       // random; nobody is to be kept from anything here
        &[0],                              // no session
        &sized(&[0xc0, 0x2b, 0xc0, 0x2c]), // ECDHE-ECDSA with AES-128-GCM and AES-256-GCM
        &[1, 0],                           // no compression
        &sized(&extensions.concat()),
    ];
    // Its length has three bytes, of which two are enough.
    let handshake = [&[1, 0][..], &sized(&hello.concat())].concat();
    [&[22, 0x03, 0x01][..], &sized(&handshake)].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(body)].concat()
}

/// With its length in front.
fn sized(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a hello is short");
    [&length.to_be_bytes()[..], body].concat()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that reads a hello and answers with this.
    fn served(answer: &'static [u8]) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut head = [0; 5];
            stream.read_exact(&mut head).expect("a record");
            let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            stream.read_exact(&mut body).expect("the whole record");
            stream.write_all(answer).expect("a client that reads");
            body
        });
        (port, thread)
    }

    #[test]
    fn the_host_is_named_and_its_certificate_looked_for() {
        let (port, server) = served(b"\x16\x03\x03 certificate of host7.test");
        assert!(answers(port, "host7.test"));
        let hello = server.join().expect("a hello");
        assert_eq!(hello.len(), 4 + usize::from(u16::from_be_bytes([hello[2], hello[3]])), "all lengths fit");
        assert!(hello.windows(10).any(|part| part == b"host7.test"));
        let (port, server) = served(b"\x15\x03\x03\x00\x02\x02\x50");
        assert!(!answers(port, "host7.test"), "an alert");
        server.join().expect("a hello");
    }

    #[test]
    fn nobody_there_is_no_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        assert!(!answers(port, "host7.test"));
    }
}
