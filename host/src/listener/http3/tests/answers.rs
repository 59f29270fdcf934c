//! What well-behaved clients get.

use super::*;

#[tokio::test]
async fn requests_of_all_shapes_are_answered() {
    let play = Play::start().await;
    let mut requests = play.requests().await;
    let got = ask(&mut requests, get("/hello"), &[]).await.expect("an answer");
    assert_eq!((got.head.status().as_u16(), &got.body[..]), (200, &b"hello"[..]));
    assert_eq!(got.head.headers()["content-length"], "5");
    assert!(got.head.headers().contains_key("date"));

    let got = ask(&mut requests, get("/info"), &[]).await.expect("an answer");
    assert_eq!(
        String::from_utf8(got.body).expect("text"),
        "127.0.0.1 127.0.0.1 https 1.3 Some(\"h3\") Some(\"a.test\") HTTP/3.0 https://a.test/info true"
    );

    let head = Request::head("https://a.test/hello").body(()).expect("a request");
    let got = ask(&mut requests, head, &[]).await.expect("an answer");
    assert_eq!((got.head.headers()["content-length"].as_bytes(), got.body.len()), (&b"5"[..], 0));
    let got = ask(&mut requests, get("/none"), &[]).await.expect("an answer");
    assert_eq!((got.head.status().as_u16(), got.body.len()), (204, 0));
    assert!(!got.head.headers().contains_key("content-length"));

    let got = ask(&mut requests, get("/trailers"), &[]).await.expect("an answer");
    assert_eq!(got.trailers.expect("trailers")["x-sum"], "42");
    assert!(!got.head.headers().contains_key("connection"));

    let post = || Request::post("https://a.test/echo").body(()).expect("a request");
    let pieces: Vec<Bytes> = (0..50).map(|n| Bytes::from(vec![n; 20_000])).collect();
    let got = ask(&mut requests, post(), &pieces).await.expect("an answer");
    assert!(got.body == pieces.concat());
    // An empty piece in the middle: h3 alone takes it for the end.
    let got = ask(&mut requests, post(), &[Bytes::from("a"), Bytes::new(), Bytes::from("b")]).await;
    assert_eq!(got.expect("an answer").body, b"ab");

    let cookies = Request::get("https://a.test/cookies").header("cookie", "a=1").header("cookie", "b=2").body(());
    let got = ask(&mut requests, cookies.expect("a request"), &[]).await.expect("an answer");
    // The service joins them.
    assert_eq!(got.body, br#"["a=1", "b=2"]"#);

    // An answer that breaks off is no whole one.
    let error = ask(&mut requests, get("/broken"), &[]).await.err().expect("no end");
    assert!(error.to_string().contains("H3_INTERNAL_ERROR"), "{error}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_when_the_body_is_wanted() {
    let play = Play::start().await;
    let mut requests = play.requests().await;
    for (path, statuses) in [("count", &[100, 200][..]), ("refuse", &[413])] {
        let request = Request::post(format!("https://a.test/{path}")).header("expect", "100-continue");
        let mut stream = requests.send_request(request.body(()).expect("a request")).await.expect("a stream");
        let mut found = Vec::new();
        loop {
            let status = timeout(PATIENCE, stream.recv_response()).await.expect("in time").expect("a head").status();
            found.push(status.as_u16());
            if status != 100 {
                break;
            }
            stream.send_data(Bytes::from("abc")).await.expect("room");
            stream.finish().await.expect("an end");
        }
        assert_eq!(found, statuses);
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says() {
    let play = Play::start().await;
    let mut requests = play.requests().await;
    let post = |length| {
        let request = Request::post("https://a.test/count").header("content-length", length);
        request.body(()).expect("a request")
    };
    let got = ask(&mut requests, post("3"), &[Bytes::from("abc")]).await.expect("an answer");
    assert_eq!(got.body, b"3 0");
    for (length, body) in [("4", "abc"), ("2", "abc"), ("1", "")] {
        let got = ask(&mut requests, post(length), &[Bytes::from(body)]).await;
        assert!(got.is_err() || got.is_ok_and(|got| got.head.status() == 400), "{length} {body}");
    }
    let post = || Request::post("https://a.test/refuse").body(()).expect("a request");
    let got = ask(&mut requests, post(), &[Bytes::from(vec![0; 100_000])]).await.expect("an answer, body or not");
    assert_eq!(got.head.status(), 413);
}

#[tokio::test]
async fn a_hundred_requests_at_once() {
    let play =
        Play::with(|settings| settings.workers = Some(Arc::new(crate::listener::Workers::start().expect("threads"))));
    let play = play.await;
    let requests = play.requests().await;
    let all = (0..300).map(|_| {
        let mut requests = requests.clone();
        tokio::spawn(async move { ask(&mut requests, get("/slow?50"), &[]).await.expect("an answer").body })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.expect("no panic"), b"slow");
    }
}

#[test]
fn the_other_service_is_told_of() {
    assert_eq!(alt_svc(8443), "h3=\":8443\"; ma=86400");
}
