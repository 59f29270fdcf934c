//! How many connections there may be, and what becomes of those beyond (issue 4, line 7).

use harness::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn asked(host: &Host) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect(host.address()).await.ok()?;
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.ok()?;
    let mut bytes = vec![0; 4096];
    let read = stream.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
    Some((stream, String::from_utf8_lossy(&bytes[..read]).into_owned()))
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
