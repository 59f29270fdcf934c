//! How many connections there may be, and what becomes of those beyond (issue 4, line 7).

use std::path::Path;

use harness::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn asked(host: &Host) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect(host.address()).await.ok()?;
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.ok()?;
    // All of it: the next answer comes behind it.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nx") && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {}
    (!answer.is_empty()).then(|| (stream, String::from_utf8_lossy(&answer).into_owned()))
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_the_others_go_on() {
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=60")).await;
    for (limit, label) in [("max_connections", "connections"), ("max_connections_per_address", "address")] {
        let setup = setup().vhost(vhost("a.test").origin(&origin)).config(json!({ "listen": { limit: 2 } }));
        let mut host = setup.start().await;
        let first = asked(&host).await.expect("the first is served");
        let second = asked(&host).await.expect("the second is served");
        assert!(asked(&host).await.is_none(), "the third is not");
        let metrics = host.metrics().await;
        let refused = format!("proxyhost_listener_connections_refused_total{{limit=\"{label}\"}} 1");
        assert!(metrics.contains(&refused), "{metrics}");
        drop(first);
        for _ in 0..100 {
            if asked(&host).await.is_some() {
                break;
            }
            tokio::time::sleep(millis(20)).await;
        }
        // A reload raises it.
        host.rewrite(json!({ "listen": { limit: 3 } }));
        host.reload().await.status(200);
        let third = asked(&host).await.expect("there is room again");
        assert!(third.1.starts_with("HTTP/1.1 200 ") && second.1.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_load_balancer_tells_by_the_proxy_protocol_whom_it_speaks_for() {
    let origin = Origin::answering(|request| ok(request.header("x-forwarded-for").to_owned())).await;
    let setup = setup().vhost(vhost("a.test").origin(&origin).set("methods", "all"));
    let host = setup.config(json!({ "listen": { "proxy_protocol": ["127.0.0.0/8"] } })).start().await;
    let request = "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let first = host.raw(format!("PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n{request}")).await;
    assert!(first.text().ends_with("198.51.100.7"), "{}", first.text());
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x08\xc0\0\x02\x01\x12\x67\0\x50".to_vec();
    second.extend_from_slice(request.as_bytes());
    assert!(host.raw(second).await.text().ends_with("198.51.100.8"));
    host.stdout_line("198.51.100.7 ").await;
    // Whoever has to say it and does not is not guessed at.
    for bad in [request.to_owned(), format!("PROXY TCP4 1.2.3.4\r\n{request}"), format!("PROXY  UNKNOWN\r\n{request}")]
    {
        let refused = host.raw(bad).await;
        assert!(refused.closed && refused.bytes.is_empty(), "{}", refused.text());
    }
    // Those it speaks for are counted each by its own address.
    let mut counted = host;
    counted.rewrite(json!({ "listen": { "max_connections_per_address": 2 } }));
    counted.reload().await.status(200);
    let mut kept = Vec::new();
    for (address, served) in
        [("198.51.100.7", true), ("198.51.100.7", true), ("198.51.100.7", false), ("198.51.100.8", true)]
    {
        let mut stream = TcpStream::connect(counted.address()).await.unwrap();
        let request = format!("PROXY TCP4 {address} 192.0.2.1 4711 80\r\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = [0; 512];
        let read = stream.read(&mut bytes).await.unwrap_or(0);
        assert_eq!(bytes[..read].starts_with(b"HTTP/1.1 200 "), served, "{address}");
        kept.push(stream);
    }
    // From others it is no header but nonsense.
    let plain = Host::with(vhost("a.test").origin(&origin)).await;
    let answer = plain.raw(format!("PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n{request}")).await;
    assert_eq!(answer.status(), 400, "{}", answer.text());
}

#[tokio::test]
async fn when_open_files_run_out_newcomers_are_turned_away_and_the_others_are_served() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=60")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    // So that an answer comes in one piece.
    host.get("/x").await.status(200);
    let (mut first, _) = asked(&host).await.expect("it is served");
    let pid = Pid::from_raw(i32::try_from(host.pid()).unwrap());
    let open = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap();
    let number = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
    // Those of the program itself: what it inherited may have any number.
    let own = open.flatten().filter(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target == Path::new("/dev/null") || target.to_string_lossy().starts_with("socket:")
    });
    let highest = own.filter_map(|entry| number(&entry)).max().unwrap();
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = |files| Rlimit { current: Some(files), maximum };
    let before = prlimit(pid, Resource::Nofile, limit(highest + 1)).unwrap();
    // There are gaps below the limit.
    let mut others = Vec::new();
    while let Some(other) = asked(&host).await {
        others.push(other);
        assert!(others.len() < 200, "the limit is of no use");
    }
    host.stderr_line("cannot accept connections").await;
    // Something may have been closed meanwhile, and then it is served; but nobody waits.
    let told = tokio::time::timeout(secs(10), asked(&host)).await.expect("it is told at once and does not wait");
    others.extend(told);
    first.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut bytes = [0; 1024];
    let read = first.read(&mut bytes).await.unwrap();
    assert!(bytes[..read].starts_with(b"HTTP/1.1 200 "), "who is in is served");
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert!(asked(&host).await.is_some(), "there is room again");
    assert!(host.metrics().await.contains("proxyhost_listener_connections_refused_total{limit=\"files\"}"));
}

#[tokio::test]
async fn a_unix_socket_serves_and_goes_with_the_program() {
    let origin = Origin::answering(|request| ok(request.header("x-forwarded-for").to_owned())).await;
    let listen = json!({ "listen": { "http": ["127.0.0.1:0", "unix:run/proxy.sock"] } });
    let setup = setup().vhost(vhost("a.test").origin(&origin)).config(listen).file("run/.keep", "");
    let mut host = setup.config(json!({ "trusted_proxies": ["127.0.0.1"] })).start().await;
    let socket = host.path("run/proxy.sock");
    let ask = async |fields: &str| {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let request = format!("GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    // Whoever comes this way is of this machine, and may be trusted like that.
    let answer = ask("").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("127.0.0.1"), "{answer}");
    let answer = ask("X-Forwarded-For: 198.51.100.7\r\n").await;
    assert!(answer.ends_with("198.51.100.7, 127.0.0.1") || answer.ends_with("198.51.100.7"), "{answer}");
    // After a crash the socket of nobody is taken over.
    host.crash_and_restart().await;
    assert!(ask("").await.starts_with("HTTP/1.1 200 "));
    host.signal(libc::SIGTERM);
    assert_eq!(host.ended().await, 0);
    assert!(!socket.exists());
}
