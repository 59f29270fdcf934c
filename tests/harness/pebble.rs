//! pebble, the ACME server for tests, and its DNS: started and ended.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::certs::Certificate;
use crate::client::Call;
use crate::tls::Secure;

/// How pebble is to behave.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Good nonces refused, in percent. Its own default is 5.
    pub nonce_reject: u8,
    /// Lifetime of certificates.
    pub validity_s: u64,
}

impl Default for Ways {
    fn default() -> Self {
        Self { nonce_reject: 5, validity_s: 90 * 24 * 3600 }
    }
}

/// A place for a pebble: ports, certificates and configuration; the process can come and go.
#[derive(Debug)]
pub struct Pebble {
    ways: Ways,
    /// Of its own HTTPS; its folder holds what else it needs.
    certificate: Certificate,
    listen: u16,
    management: u16,
    dns: u16,
    /// Where it looks for challenges.
    pub http_port: u16,
    /// Likewise, over TLS.
    pub tls_port: u16,
    processes: Vec<Child>,
}

impl Pebble {
    /// A place without a running server. The ports for challenges are given: a responder listens there already.
    pub fn place(ways: Ways, http_port: u16, tls_port: u16) -> Self {
        let certificate = Certificate::for_names(&["localhost", "127.0.0.1"]);
        let [listen, management] = free_tcp_ports();
        let dns = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("bound").port();
        Self { ways, certificate, listen, management, dns, http_port, tls_port, processes: Vec::new() }
    }

    /// Starts the server and its DNS and waits until it listens.
    pub fn start(&mut self) {
        let path = |name: &str| self.certificate.directory().join(name).to_string_lossy().into_owned();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.listen),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": path("cert.pem"),
            "privateKey": path("key.pem"),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": self.ways.validity_s,
        }});
        fs::write(path("pebble.json"), config.to_string()).expect("written");
        let log = |name: &str| {
            let file = fs::OpenOptions::new().create(true).append(true).open(path(name)).expect("a log");
            (Stdio::from(file.try_clone().expect("a log")), Stdio::from(file))
        };
        let dns = format!("127.0.0.1:{}", self.dns);
        let (out, err) = log("dns.log");
        let resolver = Command::new("pebble-challtestsrv")
            .args(["-dns01", &dns, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("pebble-challtestsrv of the Debian package pebble");
        self.processes.push(resolver);
        let (out, err) = log("pebble.log");
        let server = Command::new("pebble")
            .args(["-config", &path("pebble.json"), "-dnsserver", &dns])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", self.ways.nonce_reject.to_string())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("pebble of the Debian package pebble");
        self.processes.push(server);
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.listen)).is_err() {
            assert!(Instant::now() < until, "pebble does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the processes.
    pub fn stop(&mut self) {
        for mut process in self.processes.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// The directory URL.
    pub fn directory(&self) -> String {
        self.url("dir")
    }

    /// The URL of one of its endpoints: `order-plz` and the like.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.listen)
    }

    /// The CA of its own HTTPS.
    pub fn ca(&self) -> PathBuf {
        self.certificate.authority_file()
    }

    /// The authority that it signs certificates with. Another one after each start.
    pub async fn root(&self) -> CertificateDer<'static> {
        let address = (Ipv4Addr::LOCALHOST, self.management).into();
        let secure = Secure::trusting(&self.certificate, "localhost");
        let answer = Call::new(address, "GET", "/roots/0", "localhost").secure(&secure).send().await;
        CertificateDer::from_pem_slice(answer.status(200).text().as_bytes()).expect("pebble tells its root in PEM form")
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.certificate.directory().join("pebble.log")).unwrap_or_default()
    }

    /// How many accounts were made.
    pub fn accounts(&self) -> usize {
        self.log().matches(" accounts in memory").count()
    }

    /// How many orders were placed.
    pub fn orders(&self) -> usize {
        self.log().matches(" orders in the db").count()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ports that nobody listens at, for a moment at least.
pub fn free_tcp_ports<const N: usize>() -> [u16; N] {
    let held: Vec<_> = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")).collect();
    std::array::from_fn(|index| held[index].local_addr().expect("bound").port())
}
