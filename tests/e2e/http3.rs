//! HTTP/3 through the real binary (issue 4, line 5), with a client that shares no code with it: aioquic.

use harness::prelude::*;

/// Asks for paths over one connection and prints a line for each: status, length, version header.
const CLIENT: &str = r#"
import asyncio, ssl, sys
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answers = {}

    def quic_event_received(self, event):
        for told in self.http.handle_event(event):
            future, heads, body = self.answers[told.stream_id]
            if isinstance(told, HeadersReceived):
                heads.extend(told.headers)
            if isinstance(told, DataReceived):
                body.append(told.data)
            if told.stream_ended and not future.done():
                future.set_result((dict(heads), b"".join(body)))

    async def get(self, authority, path):
        stream = self._quic.get_next_available_stream_id()
        future = asyncio.get_event_loop().create_future()
        self.answers[stream] = (future, [], [])
        head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", authority), (b":path", path)]
        self.http.send_headers(stream, head, end_stream=True)
        self.transmit()
        return await asyncio.wait_for(future, 20)

async def main(port, name, paths):
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, server_name=name)
    # The leaf and its authority bear one name here, which OpenSSL takes for self-signed; other plays verify certificates.
    configuration.verify_mode = ssl.CERT_NONE
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as client:
        asked = [client.get(name.encode(), path.encode()) for path in paths]
        for head, body in await asyncio.gather(*asked):
            print(head[b":status"].decode(), len(body), head.get(b"cache-status", b"").decode())
        head, body = await client.get(b"b.test", b"/x")
        print(head[b":status"].decode())

asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
"#;

/// Asks a.test over one connection, and b.test at the end, with what the client says and complains of.
async fn ask(port: u16, paths: &[&str]) -> (String, String) {
    let mut client = tokio::process::Command::new(harness::python::program());
    client.args(["-c", CLIENT, &port.to_string(), "a.test"]).args(paths);
    let output = tokio::time::timeout(secs(60), client.output()).await.expect("it ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn http3_is_served_on_the_same_port_and_advertised() {
    let origin = Origin::answering(|request| {
        let size = if request.target == "/big" { 3_000_000 } else { 10 };
        ok(generated(1, size)).cache_control("max-age=60")
    })
    .await;
    let certificate = Certificate::for_names(&["a.test", "b.test"]);
    let listen = json!({ "listen": { "https": ["127.0.0.1:0"], "http3": true }, "tls": { "certificates": [certificate.files()] } });
    let setup = setup().vhost(vhost("a.test").origin(&origin)).vhost(vhost("b.test").origin(&origin)).config(listen);
    let host = setup.start().await;
    let port = host.tls_address().port();
    let told = format!("h3=\":{port}\"; ma=86400");
    let secure = Secure::trusting(&certificate, "a.test");
    host.tls(&secure, "a.test", "/x").send().await.status(200).header("alt-svc", &told);
    host.get("/.well-known/acme-challenge/x").await.no_header("alt-svc");
    let (said, wrong) = ask(port, &["/x", "/big", "/y", "/big"]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}{wrong}");
    assert!(lines[0].starts_with("200 10 ") && lines[0].contains("hit"), "{said}");
    assert!(lines[1].starts_with("200 3000000 ") && lines[3].starts_with("200 3000000 "), "{said}");
    assert_eq!(lines[4], "421", "a connection is good for the host that it named");
    host.stdout_line("\"GET /big HTTP/3.0\" 200").await;
}

#[tokio::test]
async fn a_reload_switches_http3_off_and_on() {
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=60")).await;
    let certificate = Certificate::for_names(&["a.test"]);
    let listen = json!({ "listen": { "https": ["127.0.0.1:0"] }, "tls": { "certificates": [certificate.files()] } });
    let mut host = Setup::from(vhost("a.test").origin(&origin)).config(listen).start().await;
    let port = host.tls_address().port();
    let secure = Secure::trusting(&certificate, "a.test");
    host.tls(&secure, "a.test", "/x").send().await.status(200).no_header("alt-svc");
    // Twice, since the port has to be free again.
    for _ in 0..2 {
        host.rewrite(json!({ "listen": { "http3": true } }));
        host.reload().await.status(200);
        let told = format!("h3=\":{port}\"; ma=86400");
        host.tls(&secure, "a.test", "/x").send().await.status(200).header("alt-svc", &told);
        let (said, wrong) = ask(port, &["/x"]).await;
        assert!(said.starts_with("200 1 "), "{said}{wrong}");
        host.rewrite(json!({ "listen": { "http3": false } }));
        host.reload().await.status(200);
        host.tls(&secure, "a.test", "/x").send().await.status(200).no_header("alt-svc");
        // Nobody answers there any more, and the port is free.
        let start = std::time::Instant::now();
        while tokio::net::UdpSocket::bind(("127.0.0.1", port)).await.is_err() {
            assert!(start.elapsed() < secs(20), "the port is still taken");
            tokio::time::sleep(millis(50)).await;
        }
    }
}
