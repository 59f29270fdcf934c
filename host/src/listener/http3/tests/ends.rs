//! How connections and listeners begin and end.

use super::*;

#[tokio::test]
async fn idle_connections_are_closed_even_if_they_say_something_now_and_then() {
    let play = Play::start().await;
    let connection = play.connect().await;
    let pings = async {
        // One-way streams of types that nobody knows.
        while let Ok(mut stream) = connection.open_uni().await {
            let _ = stream.write_all(&[0x21]).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    timeout(PATIENCE, pings).await.expect("an end");
    assert_eq!(closed(&connection.closed().await), 0x100);
    assert_eq!(play.timeouts("idle"), 1);
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_turns_others_away() {
    let play = Play::start().await;
    let (mut driver, mut requests) = play.h3().await;
    let mut later = requests.clone();
    let asked = tokio::spawn(async move { ask(&mut requests, get("/slow?700"), &[]).await.map(|got| got.body) });
    let connection = play.connect().await;
    let up = crate::telemetry::metrics::HandshakeLabels { outcome: "full" };
    play.until(|play| play.service.0.slow_begun.load(Ordering::Relaxed) == 1).await;
    play.until(|play| play.metrics.handshakes.get_or_create(&up).get() == 2).await;
    let begun = std::time::Instant::now();
    let drain = play.http3.drain(Duration::from_secs(10));
    let rest = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(play.connect_to("a.test").await.is_err(), "no new connections");
        assert!(later.send_request(get("/hello")).await.is_err(), "h3 has seen GOAWAY");
        // The other had nothing under way.
        assert_eq!(closed(&connection.closed().await), 0x100);
        asked.await.expect("no panic").expect("an answer")
    };
    let ended = poll_fn(|cx| driver.poll_close(cx));
    let (_, body, ended) = timeout(PATIENCE, async { tokio::join!(drain, rest, ended) }).await.expect("in time");
    assert_eq!(body, b"slow");
    assert!(ended.is_h3_no_error(), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_request_after_goaway_is_turned_away_by_name() {
    let play = Play::start().await;
    let connection = play.connect().await;
    let slow = headers(&[METHOD, SCHEME, AUTHORITY, b"\x51\x09/slow?500"]);
    let first = tokio::spawn({
        let connection = connection.clone();
        async move { raw(&connection, &slow, true).await }
    });
    play.until(|play| play.service.0.slow_begun.load(Ordering::Relaxed) == 1).await;
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw(&connection, &headers(&[METHOD, SCHEME, AUTHORITY, PATH]), true).await
    };
    let ((), late) = tokio::join!(play.http3.drain(Duration::from_secs(5)), late);
    assert_eq!(late, Err(0x10b));
    assert!(first.await.expect("no panic").is_ok_and(|answer| answer.ends_with(b"slow")));
}

#[tokio::test]
async fn the_end_of_the_time_and_a_drop_close_everything() {
    for drop_it in [false, true] {
        let play = Play::start().await;
        let mut requests = play.requests().await;
        let asked = tokio::spawn(async move { ask(&mut requests, get("/slow?60000"), &[]).await.map(|_| ()) });
        play.until(|play| play.service.0.slow_begun.load(Ordering::Relaxed) == 1).await;
        let Play { http3, service, .. } = play;
        if drop_it {
            drop(http3);
        } else {
            http3.drain(Duration::from_millis(200)).await;
        }
        assert!(timeout(Duration::from_secs(3), asked).await.expect("in time").expect("no panic").is_err());
        assert_eq!(service.0.slow_dropped.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn names_without_a_certificate_and_hosts_that_ask_for_one_are_refused() {
    let play = Play::start().await;
    for name in ["b.test", "private.test"] {
        assert!(play.connect_to(name).await.is_err(), "{name}");
    }
    let labels = crate::telemetry::metrics::HandshakeLabels { outcome: "unknown-name" };
    play.until(|play| play.metrics.handshakes.get_or_create(&labels).get() == 2).await;
}

#[tokio::test]
async fn many_handshakes_at_once_make_clients_show_where_they_are() {
    // With room for one, everyone has to.
    let play = Play::with(|settings| settings.handshakes = 1).await;
    let one = play.connect().await;
    assert!(one.close_reason().is_none());
    let labels = |outcome| crate::telemetry::metrics::HandshakeLabels { outcome };
    assert_eq!(play.metrics.handshakes.get_or_create(&labels("retry")).get(), 1);
    drop(one);
    let play = Play::with(|settings| settings.handshakes = 0).await;
    assert!(play.connect_to("a.test").await.is_err());
    assert_eq!(play.metrics.handshakes.get_or_create(&labels("refused")).get(), 1);
}

#[tokio::test]
async fn addresses_come_and_go_and_come_back() {
    let play = Play::start().await;
    let first = play.http3.addresses()[0];
    let connection = play.connect().await;
    let second: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    play.http3.apply(play.http3.prepare(&[second]).await.expect("a socket"));
    let now = play.http3.addresses();
    assert_eq!((now.len(), now[0].ip()), (1, second.ip()));
    assert!(play.client.connect(first, "a.test").expect("well formed").await.is_err());
    assert!(play.client.connect(now[0], "a.test").expect("well formed").await.is_ok());
    let answer = raw(&connection, &headers(&[METHOD, SCHEME, AUTHORITY, PATH]), true).await;
    assert!(answer.expect("connections go on").ends_with(b"hello"));
    // The socket is still in use, and comes back as it is.
    let asked: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    play.http3.apply(play.http3.prepare(&[asked]).await.expect("the same socket"));
    assert_eq!(play.http3.addresses(), [first]);
    assert!(play.connect_to("a.test").await.is_ok());
    let mistake = play.http3.prepare(&[first]).await.err().expect("that one is taken");
    assert!(mistake.to_string().contains(&first.to_string()), "{mistake}");
}

#[tokio::test]
async fn one_address_takes_no_more_than_its_share() {
    use crate::listener::admission::{Admission, Limits};
    use crate::telemetry::metrics::RefusedLabels;
    let limits = |proxies: Vec<ipnet::IpNet>| Limits::new(None, Some(1), proxies, 1024);
    let admission = Admission::new(limits(Vec::new()));
    let play = Play::with(|settings| settings.admission = Some(Arc::clone(&admission))).await;
    let _first = play.requests().await;
    let second = play.connect().await;
    assert_eq!(closed(&timeout(PATIENCE, second.closed()).await.expect("in time")), 0x107);
    assert_eq!(play.metrics.connections_refused.get_or_create(&RefusedLabels { limit: "address" }).get(), 1);
    admission.configure(limits(vec!["127.0.0.0/8".parse().expect("a network")]));
    assert!(play.connect_to("a.test").await.is_err(), "whoever speaks for others cannot say so here");
}
