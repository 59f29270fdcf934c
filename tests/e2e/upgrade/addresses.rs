//! An upgrade after which the listeners are at other addresses.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;

use super::*;

/// A port that nobody listens at just now.
fn free() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn ask(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn start(listen: Value) -> (Origin, Host) {
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=600")).await;
    let setup = Setup::from(vhost("a.test").origin(&origin)).config(json!({ "listen": listen }));
    (origin, setup.own_program().start().await)
}

#[tokio::test]
async fn an_address_widens_and_narrows_and_nobody_is_turned_away() {
    let port = free();
    let (narrow, wide) = (format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"));
    let (_origin, mut host) = start(json!({ "http": [narrow] })).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking = tokio::spawn({
        let (narrow, stop, asked) = (narrow.clone(), stop.clone(), asked.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = ask(&narrow).await.expect("somebody always answers");
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    // One that cannot have all of its addresses leaves everything as it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holding = std::net::TcpListener::bind(taken).unwrap();
    host.rewrite(json!({ "listen": { "http": [wide, taken.to_string()] } }));
    host.upgrade().await.code(2).says(&["cannot listen", &taken.port().to_string()]);
    drop(holding);
    assert!(ask(&format!("127.0.0.2:{port}")).await.is_err());
    host.rewrite(json!({ "listen": { "http": [wide] } }));
    host.upgrade().await.code(0);
    assert!(ask(&format!("127.0.0.2:{port}")).await.unwrap().ends_with('x'));
    assert_eq!(host.ended().await, 0);
    let so_far = asked.load(Ordering::Relaxed);
    tokio::time::sleep(millis(200)).await;
    assert!(asked.load(Ordering::Relaxed) > so_far);
    stop.store(true, Ordering::Relaxed);
    asking.await.expect("nobody was turned away");
    // Another one of the same kind does not get the port by mistake.
    let mut other = host.config().clone();
    other["cache"]["dir"] = json!("other");
    host.write("other.json", other.to_string().as_bytes());
    host.cli(&["--config", "other.json"]).await.code(2).says(&["in use"]);
    host.rewrite(json!({ "listen": { "http": [narrow] } }));
    host.upgrade().await.code(0);
    let start = std::time::Instant::now();
    while ask(&format!("127.0.0.2:{port}")).await.is_ok() {
        assert!(start.elapsed() < secs(20), "the wide address still answers");
        tokio::time::sleep(millis(50)).await;
    }
    assert!(ask(&narrow).await.unwrap().ends_with('x'));
}

#[tokio::test]
async fn http_and_https_change_places() {
    let (first, second) = (format!("127.0.0.1:{}", free()), format!("127.0.0.1:{}", free()));
    let certificate = Certificate::for_names(&["a.test"]);
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=600")).await;
    let config = json!({
        "listen": { "http": [first], "https": [second] },
        "tls": { "certificates": [certificate.files()] },
        "hosts": { "a.test": { "redirect_http": false } },
    });
    let setup = Setup::from(vhost("a.test").origin(&origin)).config(config);
    let mut host = setup.own_program().start().await;
    assert!(ask(&first).await.unwrap().ends_with('x'));
    host.rewrite(json!({ "listen": { "http": [second], "https": [first] } }));
    host.upgrade().await.code(0);
    assert!(ask(&second).await.unwrap().ends_with('x'));
    let secure = Secure::trusting(&certificate, "a.test");
    let call = Call::new(first.parse().unwrap(), "GET", "/x", "a.test").secure(&secure);
    call.send().await.expect(200, "x");
}

#[tokio::test]
async fn the_file_of_a_unix_socket_goes_with_its_name_unless_it_is_of_others() {
    let (_origin, mut host) = start(json!({ "http": ["127.0.0.1:0", "unix:a.sock", "unix:b.sock"] })).await;
    let (a, b) = (host.path("a.sock"), host.path("b.sock"));
    assert!(a.exists() && b.exists());
    std::fs::remove_file(&b).unwrap();
    let _of_others = UnixListener::bind(&b).unwrap();
    host.rewrite(json!({ "listen": { "http": ["127.0.0.1:0"] } }));
    host.upgrade().await.code(0);
    assert_eq!(host.ended().await, 0);
    assert!(!a.exists());
    std::os::unix::net::UnixStream::connect(&b).expect("what is of others stays");
}
