//! The endpoints over a control that only remembers what it was told.

use std::convert::Infallible;
use std::sync::Mutex;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http_body_util::{Empty, StreamBody};

use super::*;
use crate::cache::purges::{PurgeScope, PurgeSequence};
use crate::cache::survey::Count;
use crate::purge::{Done, Order};

#[derive(Default)]
struct Remembering {
    purged: Mutex<Vec<PurgeScope>>,
    asked: Mutex<Vec<Question>>,
    broken: bool,
}

impl Control for Remembering {
    fn purge(&self, order: Order) -> BoxFuture<'_, Result<Done, NotDone>> {
        let mut purged = self.purged.lock().expect("no panic under the lock");
        let all = order.scopes == [PurgeScope::All];
        purged.extend(order.scopes);
        let counts = vec![Count { entries: 2, complete: true }];
        let sequence = Done { sequence: PurgeSequence(purged.len() as u64), counts, unknown: Vec::new() };
        Box::pin(async move {
            match (self.broken, all) {
                (false, _) => Ok(sequence),
                (true, false) => Err(NotDone::Failed("disk full".to_owned())),
                (true, true) => Err(NotDone::NotNow("it does not answer".to_owned())),
            }
        })
    }
    fn warm(&self, order: crate::warm::Order) -> Result<crate::warm::Warming, NotDone> {
        if self.broken {
            return Err(NotDone::NotNow("later".to_owned()));
        }
        let told = |wanted: crate::warm::Wanted| {
            let outcome = match wanted.target.as_str() {
                "/bad" => Err("because".to_owned()),
                target => Ok(crate::warm::Kept { fetched: target != "/fresh", bytes: 3 }),
            };
            crate::warm::Told { url: wanted.url(), outcome }
        };
        Ok(futures_util::stream::iter(order.wanted).map(told).map(Ok).boxed())
    }

    fn events(&self, events: Events) -> BoxFuture<'_, Result<Value, NotDone>> {
        Box::pin(async move { Ok(json!({ "events": events.events.len() })) })
    }

    fn reload(&self) -> BoxFuture<'_, Result<Vec<String>, Vec<String>>> {
        Box::pin(async {
            if self.broken {
                Err(vec!["hosts.a.test: bad".to_owned()])
            } else {
                Ok(vec!["host a.test added".to_owned()])
            }
        })
    }
    fn upgrade(&self) -> BoxFuture<'_, Result<u32, NotDone>> {
        Box::pin(async { if self.broken { Err(NotDone::Failed("it ended".to_owned())) } else { Ok(7) } })
    }
    fn forget_policy(&self, host: String) -> BoxFuture<'_, bool> {
        Box::pin(async move { host == "a.test" })
    }
    fn stats(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { json!({ "uptime": 1, "policies": [{ "name": "a.wasm" }] }) })
    }
    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }
    fn ready(&self) -> Result<Value, Value> {
        if self.broken { Err(json!({ "ready": false })) } else { Ok(json!({ "ready": true })) }
    }
    fn explain(
        &self,
        method: String,
        url: String,
        headers: Vec<(String, String)>,
    ) -> BoxFuture<'_, Result<Value, String>> {
        self.asked.lock().expect("no panic under the lock").push((url, method, headers));
        Box::pin(async { Ok(json!({ "host": "a.test" })) })
    }
}

fn admin(broken: bool) -> Admin<Remembering> {
    let settings = Settings { address: peer(), token: Token::from(Arc::from("secret")) };
    Admin::new(&settings, Arc::new(Remembering { broken, ..Remembering::default() }))
}

fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

fn request(method: &str, target: &str, token: Option<&str>) -> http::request::Builder {
    let builder = Request::builder().method(method).uri(target);
    match token {
        Some(token) => builder.header(AUTHORIZATION, format!("Bearer {token}")),
        None => builder,
    }
}

async fn ask(admin: &Admin<Remembering>, method: &str, target: &str, token: Option<&str>) -> (StatusCode, Value) {
    send(admin, method, target, token, "").await
}

async fn send(
    admin: &Admin<Remembering>,
    method: &str,
    target: &str,
    token: Option<&str>,
    body: &str,
) -> (StatusCode, Value) {
    let request =
        request(method, target, token).body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("legal");
    let response = admin.answer(peer(), request).await;
    let status = response.status();
    let body = response.into_body().collect().await.expect("a full body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn health_is_told_without_a_token() {
    assert_eq!(ask(&admin(false), "GET", "/healthz", None).await, (StatusCode::OK, json!({ "status": "ok" })));
    assert_eq!(ask(&admin(false), "GET", "/readyz", None).await, (StatusCode::OK, json!({ "ready": true })));
    let (status, state) = ask(&admin(true), "HEAD", "/readyz?x", None).await;
    assert_eq!((status, state), (StatusCode::SERVICE_UNAVAILABLE, json!({ "ready": false })));
}

#[tokio::test]
async fn all_else_is_refused_without_the_token_whether_it_exists_or_not() {
    let admin = admin(false);
    for path in [
        "/purge",
        "/warm",
        "/events",
        "/reload",
        "/upgrade",
        "/stats",
        "/policies",
        "/metrics",
        "/explain?url=x",
        "/nothing",
        "/",
        "/healthz/",
        "*",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            for token in [None, Some("wrong"), Some("")] {
                let request = request(method, path, token).body(Empty::<Bytes>::new()).expect("legal");
                let response = admin.answer(peer(), request).await;
                assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path} {token:?}");
                assert!(response.headers()[WWW_AUTHENTICATE].to_str().expect("text").starts_with("Bearer"));
            }
        }
    }
    assert_eq!(ask(&admin, "GET", "/nothing", Some("secret")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    for (method, path, allow) in [
        ("GET", "/purge", "POST"),
        ("GET", "/reload", "POST"),
        ("GET", "/upgrade", "POST"),
        ("POST", "/stats", "GET, HEAD"),
        ("PUT", "/healthz", "GET, HEAD"),
    ] {
        let request = request(method, path, Some("secret")).body(Empty::<Bytes>::new()).expect("legal");
        let response = admin(false).answer(peer(), request).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], allow);
    }
}

#[tokio::test]
async fn a_purge_is_carried_out_and_tells_its_sequence() {
    let admin = admin(false);
    let body = r#"{"host": "a.test", "path": "/x"}"#;
    let told = json!({ "sequence": 1, "mode": "hard", "purged": 1, "entries": 2, "complete": true });
    assert_eq!(send(&admin, "POST", "/purge", Some("secret"), body).await, (StatusCode::OK, told));
    let purged = admin.control.purged.lock().expect("no panic under the lock").clone();
    assert_eq!(purged, [PurgeScope::Path { host: "a.test".to_owned(), path: "/x".to_owned() }]);
}

#[tokio::test]
async fn a_purge_that_is_not_understood_or_fails_says_why() {
    for body in ["", "{}", "[]", "{\"host\": 1}", "{\"al", "\u{0}"] {
        let admin = admin(false);
        let (status, answer) = send(&admin, "POST", "/purge", Some("secret"), body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer["error"].is_string(), "{body}");
        assert!(admin.control.purged.lock().expect("no panic under the lock").is_empty());
    }
    let (status, answer) = send(&admin(true), "POST", "/purge", Some("secret"), r#"{"host": "a.test"}"#).await;
    assert_eq!((status, answer), (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": "disk full" })));
    let (status, answer) = send(&admin(true), "POST", "/purge", Some("secret"), r#"{"all": true}"#).await;
    assert_eq!((status, answer), (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": "it does not answer" })));
    let huge = " ".repeat(LIST_BYTES + 1);
    assert_eq!(send(&admin(false), "POST", "/purge", Some("secret"), &huge).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let never = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
    let request = request("POST", "/purge", Some("secret")).body(never).expect("legal");
    let admin = Admin { body_timeout: Duration::from_millis(50), ..admin(false) };
    let response = admin.answer(peer(), request).await;
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn a_reload_tells_changes_or_all_mistakes() {
    assert_eq!(
        ask(&admin(false), "POST", "/reload", Some("secret")).await,
        (StatusCode::OK, json!({ "changes": ["host a.test added"] }))
    );
    assert_eq!(
        ask(&admin(true), "POST", "/reload", Some("secret")).await,
        (StatusCode::UNPROCESSABLE_ENTITY, json!({ "errors": ["hosts.a.test: bad"] }))
    );
}

#[tokio::test]
async fn numbers_come_as_json_and_as_metrics() {
    let admin = admin(false);
    assert_eq!(ask(&admin, "GET", "/stats", Some("secret")).await.1["uptime"], 1);
    assert_eq!(
        ask(&admin, "GET", "/policies", Some("secret")).await,
        (StatusCode::OK, json!({ "policies": [{ "name": "a.wasm" }] }))
    );
    let request = request("GET", "/metrics", Some("secret")).body(Empty::<Bytes>::new()).expect("legal");
    let response = admin.answer(peer(), request).await;
    assert_eq!(response.headers()[CONTENT_TYPE], metrics::CONTENT_TYPE);
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn explain_passes_the_question_on_decoded() {
    let admin = admin(false);
    let target =
        "/explain?url=http%3A%2F%2Fa.test%2Fx%3Fy%3D1%262&method=HEAD&header=Accept-Language:+de&header=X%3Ay:z";
    assert_eq!(ask(&admin, "GET", target, Some("secret")).await, (StatusCode::OK, json!({ "host": "a.test" })));
    let asked = admin.control.asked.lock().expect("no panic under the lock").clone();
    let headers = vec![("Accept-Language".to_owned(), "de".to_owned()), ("X".to_owned(), "y:z".to_owned())];
    assert_eq!(asked, [("http://a.test/x?y=1&2".to_owned(), "HEAD".to_owned(), headers)]);

    for bad in ["", "?", "?url=", "?url=%ff", "?url=a&url=b", "?uri=a", "?url=a&header=nothing"] {
        let (status, answer) = ask(&admin, "GET", &format!("/explain{bad}"), Some("secret")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(answer["error"].is_string());
    }
}

#[tokio::test]
async fn an_upgrade_tells_the_process_or_why_there_is_none() {
    let upgrade = async |broken| ask(&admin(broken), "POST", "/upgrade", Some("secret")).await;
    assert_eq!(upgrade(false).await, (StatusCode::OK, json!({ "pid": 7 })));
    assert_eq!(upgrade(true).await, (StatusCode::UNPROCESSABLE_ENTITY, json!({ "errors": ["it ended"] })));
}

#[tokio::test]
async fn a_vanished_policy_is_forgotten_by_name() {
    let admin = admin(false);
    let forget = async |body: &str| send(&admin, "POST", "/policies/forget", Some("secret"), body).await;
    assert_eq!(forget("{\"host\": \"a.test\"}").await, (StatusCode::OK, json!({ "forgotten": true })));
    assert_eq!(forget("{\"host\": \"b.test\"}").await, (StatusCode::OK, json!({ "forgotten": false })));
    for bad in ["", "{}", "[]", "{\"host\": 1}", "{\"host\": \"a.test\", \"all\": true}"] {
        assert_eq!(forget(bad).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(send(&admin, "POST", "/policies/forget", None, "").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_warm_up_is_told_line_by_line() {
    let body = r#"{"host": "a.test", "paths": ["/a", "/fresh", "/bad"]}"#;
    let request = request("POST", "/warm", Some("secret")).body(Full::new(Bytes::from(body))).expect("legal");
    let response = admin(false).answer(peer(), request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.into_body().collect().await.expect("lines").to_bytes();
    let lines: Vec<Value> =
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(
        lines,
        [
            json!({ "url": "a.test/a", "result": "fetched", "bytes": 3 }),
            json!({ "url": "a.test/fresh", "result": "fresh", "bytes": 3 }),
            json!({ "url": "a.test/bad", "result": "failed", "because": "because" }),
            json!({ "done": { "fetched": 1, "fresh": 1, "failed": 1, "bytes": 3 } }),
        ]
    );
    let (status, answer) = send(&admin(false), "POST", "/warm", Some("secret"), "{}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["error"].is_string());
    let (status, _) = send(&admin(true), "POST", "/warm", Some("secret"), body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn events_that_cannot_be_read_are_told_and_the_others_count() {
    let record = |key: &str| json!({ "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": "b" }, "object": { "key": key } } });
    let good = json!({ "Records": [record("a")] }).to_string();
    let answered = send(&admin(false), "POST", "/events", Some("secret"), &good).await;
    assert_eq!(answered, (StatusCode::OK, json!({ "events": 1, "ignored": 0 })));
    let mixed = json!({ "Records": [record("a"), record(""), record("c")] }).to_string();
    let (status, answer) = send(&admin(false), "POST", "/events", Some("secret"), &mixed).await;
    assert_eq!((status, &answer["events"]), (StatusCode::BAD_REQUEST, &json!(2)));
    assert_eq!(answer["errors"][0]["at"], "Records[1].s3.object.key");
    assert_eq!(send(&admin(false), "POST", "/events", Some("secret"), "{").await.0, StatusCode::BAD_REQUEST);
    let basic = |path: &str| {
        let request = Request::builder().method("POST").uri(path).header(AUTHORIZATION, "Basic c25zOnNlY3JldA==");
        request.body(Full::new(Bytes::from(good.clone()))).expect("legal")
    };
    assert_eq!(admin(false).answer(peer(), basic("/events")).await.status(), StatusCode::OK, "sns:secret");
    assert_eq!(admin(false).answer(peer(), basic("/purge")).await.status(), StatusCode::UNAUTHORIZED);
}
