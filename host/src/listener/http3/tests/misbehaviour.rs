//! What clients get who break the rules, or leave us waiting.

use super::*;

#[tokio::test]
async fn malformed_heads_are_refused_and_the_connection_goes_on() {
    const MESSAGE_ERROR: u64 = 0x10e;
    let play = Play::start().await;
    let connection = play.connect().await;
    let field = b"\x23abc\x03def";
    for (lines, what) in [
        (vec![METHOD, SCHEME, AUTHORITY], "no :path"),
        (vec![SCHEME, AUTHORITY, PATH], "no :method"),
        (vec![METHOD, AUTHORITY, PATH], "no :scheme"),
        (vec![METHOD, AUTHORITY], "neither"),
        (vec![METHOD, SCHEME, PATH], "no authority"),
        (vec![METHOD, SCHEME, AUTHORITY, b"\x51\x00"], "empty :path"),
        (vec![METHOD, SCHEME, AUTHORITY, b"\x51\x01x"], "no slash"),
        (vec![METHOD, SCHEME, b"\x50\x00", PATH], "empty :authority"),
        (vec![METHOD, SCHEME, b"\x50\x08u@a.test", PATH], "userinfo"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, PATH], ":path twice"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, AUTHORITY], ":authority twice"),
        (vec![METHOD, SCHEME, AUTHORITY, field, PATH], ":path after others"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\xd9"], ":status"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x24:foo\x01a"], ":foo"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x27\x02:protocol\x01a"], ":protocol"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x23Abc\x01a"], "upper case"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x27\x03connection\x05close"], "connection"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x27\x0atransfer-encoding\x07chunked"], "transfer-encoding"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x22te\x04gzip"], "te"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x24host\x06b.test"], "another host"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x23abc\x03a\nb"], "a line feed in a value"),
        (vec![METHOD, SCHEME, AUTHORITY, PATH, b"\x54\x015"], "a length without a body"),
        (vec![b"\xcf", SCHEME, AUTHORITY, PATH], "CONNECT with a path"),
    ] {
        assert_eq!(raw(&connection, &headers(&lines), true).await, Err(MESSAGE_ERROR), "{what}");
    }
    let answer = raw(&connection, &headers(&[METHOD, SCHEME, AUTHORITY, PATH]), true).await.expect("an answer");
    assert!(answer.ends_with(b"hello"));
    let statuses = play.service.0.unreadable.lock().clone();
    assert!(statuses.len() >= 22 && statuses.iter().all(|status| *status == 400), "{statuses:?}");
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection() {
    let play = Play::start().await;
    for (bytes, code, what) in [
        (b"\x00\x02hi".to_vec(), 0x105, "DATA first"),
        (b"\x04\x00".to_vec(), 0x105, "SETTINGS on a stream for requests"),
        ([&headers(&[METHOD, SCHEME, AUTHORITY, PATH])[..], b"\x00\x05hi"].concat(), 0x106, "DATA cut short"),
        (b"\x01\x05\x00\x00".to_vec(), 0x106, "HEADERS cut short"),
        (headers(&[b"\x80"]), 0x200, "the dynamic table"),
        (headers(&[b"\x23abc\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x7f"]), 0x200, "an endless string"),
    ] {
        let connection = play.connect().await;
        let read = raw(&connection, &bytes, true).await;
        let closed = timeout(PATIENCE, connection.closed()).await.map(|error| closed(&error)).expect(what);
        assert_eq!(closed, code, "{what}: {read:?}");
    }
    let connection = play.connect().await;
    let mut control = connection.open_uni().await.expect("a stream");
    control.write_all(b"\x00\x04\x80\x10\x00\x00").await.expect("room");
    let error = timeout(PATIENCE, connection.closed()).await.expect("SETTINGS of a megabyte");
    assert_eq!(closed(&error), 0x107);
    // Nothing of that concerns others.
    assert_eq!(ask(&mut play.requests().await, get("/hello"), &[]).await.expect("an answer").body, b"hello");
}

#[tokio::test]
async fn heads_that_are_too_long_get_431() {
    let play = Play::start().await;
    let connection = play.connect().await;
    // By its length alone: nothing of it has to come.
    let answer = raw(&connection, &[1, 0xbf, 0xff, 0xff, 0xff, 0, 0], false).await.expect("an answer");
    assert!(answer.ends_with(b"431"), "{answer:?}");
    // 2,000 fields of the static table, one byte each: 82,000 bytes decoded.
    let bomb = [&[0, 0, 0xd1, 0xd7][..], AUTHORITY, PATH, &[0xdd; 2_000]].concat();
    let bomb = [&[1, 0x40 | (bomb.len() >> 8) as u8, bomb.len() as u8][..], &bomb].concat();
    let answer = raw(&connection, &bomb, true).await.expect("an answer");
    // That one is h3's: the status is in the Huffman code.
    assert!(answer.ends_with(&[0x5f, 9, 0x83, 0x69, 0x90, 0xff]), "{answer:?}");
    play.until(|play| *play.service.0.unreadable.lock() == [431, 431]).await;
    assert!(raw(&connection, &headers(&[METHOD, SCHEME, AUTHORITY, PATH]), true).await.is_ok());
}

#[tokio::test]
async fn who_stops_in_a_head_or_a_body_is_not_waited_for() {
    let play = Play::start().await;
    let connection = play.connect().await;
    assert_eq!(raw(&connection, &[1, 20, 0, 0], false).await, Err(0x10d), "a head has its time");
    assert_eq!(play.timeouts("head"), 1);
    let count = headers(&[b"\xd4", SCHEME, AUTHORITY, b"\x51\x06/count"]);
    let answer = raw(&connection, &[&count[..], b"\x00\x05hi"].concat(), false).await.expect("400");
    assert!(answer.ends_with(b"bad body"), "{answer:?}");
    assert_eq!(*play.service.0.body_errors.lock(), ["the client stopped sending its request body"]);
}

#[tokio::test]
async fn a_slow_reader_makes_nobody_run_ahead_and_is_ended() {
    let play = Play::start().await;
    let connection = play.connect().await;
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    let big = headers(&[METHOD, SCHEME, AUTHORITY, b"\x51\x0e/big?104857600"]);
    send.write_all(&big).await.expect("room");
    send.finish().expect("open");
    let mut some = [0; 1000];
    receive.read_exact(&mut some).await.expect("a beginning");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let produced = play.service.0.produced.load(Ordering::Relaxed);
    assert!(produced < 4 << 20, "{produced}");
    // Meanwhile others on the connection are served: a stream has its own window.
    play.until(|play| play.timeouts("window") == 1).await;
    let rest = timeout(PATIENCE, receive.read_to_end(200 << 20)).await.expect("in time");
    let code = match rest {
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => code.into_inner(),
        other => panic!("{:?}", other.map(|read| read.len())),
    };
    assert_eq!(code, 0x10c);
}

#[tokio::test]
async fn whoever_wants_no_answer_any_more_stops_the_work() {
    let play = Play::start().await;
    let connection = play.connect().await;
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    send.write_all(&headers(&[METHOD, SCHEME, AUTHORITY, b"\x51\x0b/slow?60000"])).await.expect("room");
    send.finish().expect("open");
    play.until(|play| play.service.0.slow_begun.load(Ordering::Relaxed) == 1).await;
    receive.stop(0x10c_u32.into()).expect("open");
    play.until(|play| play.service.0.slow_dropped.load(Ordering::Relaxed) == 1).await;
    // So does who closes the connection.
    let mut requests = play.requests().await;
    let _stream = requests.send_request(get("/slow?60000")).await.expect("a stream");
    play.until(|play| play.service.0.slow_begun.load(Ordering::Relaxed) == 2).await;
    play.client.close(0_u32.into(), b"");
    play.until(|play| play.service.0.slow_dropped.load(Ordering::Relaxed) == 2 && play.metrics.connections.get() == 0)
        .await;
}

#[tokio::test]
async fn streams_without_requests_are_counted() {
    let play = Play::start().await;
    let connection = play.connect().await;
    let flood = async {
        loop {
            let Ok((mut send, _receive)) = connection.open_bi().await else { return };
            if send.write_all(&[1]).await.is_err() || send.reset(0x10c_u32.into()).is_err() {
                return;
            }
        }
    };
    timeout(PATIENCE, flood).await.expect("an end");
    assert_eq!(closed(&connection.closed().await), 0x107);
}
