//! Requests byte by byte: what has two readings is refused before anyone reads it (issue 4, line 6). The table is `framing.md`.

use futures_util::StreamExt as _;
use harness::prelude::*;

const TABLE: &str = include_str!("framing.md");

/// A row of the table.
struct Case {
    what: String,
    bytes: Vec<u8>,
    outcome: String,
}

fn cases() -> Vec<Case> {
    let rows = TABLE.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(|row| {
        let (what, rest) = row[2..].split_once(" | `").expect("a name, then bytes");
        let (bytes, outcome) = rest.rsplit_once("` | ").expect("bytes, then an outcome");
        let outcome = outcome.trim_end_matches(" |").to_owned();
        Case { what: what.to_owned(), bytes: unescaped(bytes), outcome }
    })
    .collect()
}

/// The bytes of a Rust byte string.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'0') => bytes.push(0),
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap_or(b'0')));
                let number = u8::from_str_radix(&digits.iter().collect::<String>(), 16);
                bytes.push(number.expect("two hexadecimal digits"));
            }
            Some(other) => bytes.push(other),
            None => {}
        }
    }
    bytes
}

#[tokio::test]
async fn every_case_of_the_table() {
    let origin = Origin::answering(|request| ok(request.target.clone())).await;
    let host = Host::with(vhost("*").origin(&origin).set("methods", "all")).await;
    let cases = cases();
    assert!(cases.len() > 200, "the table was read: {}", cases.len());
    let answers: Vec<(Case, RawAnswer)> = futures_util::stream::iter(cases)
        .map(|case| {
            let host = &host;
            async move {
                let answer = host.raw_for(&case.bytes, millis(400)).await;
                (case, answer)
            }
        })
        .buffer_unordered(24)
        .collect()
        .await;
    let mut wrong = Vec::new();
    for (case, answer) in &answers {
        let statuses = answer.statuses();
        let last = statuses.last().copied().unwrap_or(0);
        let so = match case.outcome.split_once(", ") {
            None => {
                case.outcome == "passes" && (!matches!(last, 400 | 414 | 431 | 501 | 505) || case.what.contains("Host"))
            }
            Some((status, "head")) => answer.closed && status.parse() == Ok(last),
            // The answer may have begun, or be an error of the origin's side: what counts is that nothing follows.
            Some((_, "body")) => answer.closed && statuses.iter().filter(|status| **status == 200).count() <= 1,
            Some(_) => false,
        };
        if !so {
            wrong.push(format!("{}: {} expected, {statuses:?}, closed: {}", case.what, case.outcome, answer.closed));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // No request that was hidden in another got through.
    let hidden = origin.seen().iter().filter(|seen| seen.target.contains("smuggled")).count();
    assert_eq!(hidden, 0);
}

#[tokio::test]
async fn what_is_refused_unread_is_logged_and_takes_no_earlier_answer_along() {
    let origin = Origin::answering(|request| ok(request.target.clone()).late(millis(200))).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let two = "GET /first HTTP/1.1\r\nHost: a.test\r\n\r\nGET /second HTTP/1.1\r\nHost : a.test\r\n\r\n";
    let answer = host.raw_for(two, secs(5)).await;
    assert_eq!((answer.statuses(), answer.closed), (vec![200, 400], true), "{}", answer.text());
    assert!(answer.text().contains("/first"), "{}", answer.text());
    assert_eq!(origin.requests(), 1);
    host.stdout_line("\"-\" 400").await;
    // The same over TLS.
    let certificate = Certificate::for_names(&["a.test"]);
    let listen = json!({ "listen": { "https": ["127.0.0.1:0"] }, "tls": { "certificates": [certificate.files()] } });
    let host = setup().vhost(vhost("a.test").origin(&origin)).config(listen).start().await;
    let secure = Secure::trusting(&certificate, "a.test");
    host.tls(&secure, "a.test", "/x").header("content_length", "0").send().await.status(400);
    host.tls(&secure, "a.test", "/x").send().await.status(200);
    let long = format!("/{}", "x".repeat(20_000));
    host.tls(&secure, "a.test", &long).send().await.status(414);
}
