//! Under systemd (issue 4, lines 7 and 8): sockets that it opened, and what it is told. No systemd is needed: the protocols are a
//! variable, a descriptor and a datagram.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use harness::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_socket_that_was_handed_over_is_served_and_the_manager_is_told() {
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=60")).await;
    let folder = harness::temp_dir("service");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = json!({
        "listen": { "http": [address.to_string()], "admin": "127.0.0.1:0" },
        "origins": { "o": { "http": { "url": origin.url() } } },
        "hosts": { "a.test": { "origin": "o" } },
    });
    std::fs::write(folder.path().join("hosts.json"), config.to_string()).unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(secs(60))).unwrap();
    // The shell gives the socket the number that the protocol wants, and is the process that the variable names.
    let script = "exec 3<&$FD; export LISTEN_PID=$$; exec \"$0\" --config hosts.json";
    let_inherit(&socket);
    let mut child = Command::new("bash")
        .args(["-c", script])
        .arg(harness::program())
        .current_dir(folder.path())
        .env("FD", socket.as_raw_fd().to_string())
        .env("LISTEN_FDS", "1")
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .env("WATCHDOG_USEC", "200000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = tokio::task::spawn_blocking(move || {
        let mut told = Vec::new();
        let mut bytes = [0; 256];
        while told.iter().filter(|line: &&String| line.contains("WATCHDOG=1")).count() < 3 {
            let read = manager.recv(&mut bytes).expect("the manager is told within a minute");
            told.push(String::from_utf8_lossy(&bytes[..read]).into_owned());
        }
        (manager, told)
    });
    // A connection from before the program was up is answered too: the socket was open all the time.
    let mut early = tokio::net::TcpStream::connect(address).await.unwrap();
    early.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(secs(60), early.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('x'), "{answer}");
    let (manager, told) = told.await.unwrap();
    assert!(told[0].contains("READY=1"), "{told:?}");
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let mut last = String::new();
    while !last.contains("STOPPING=1") {
        let mut bytes = [0; 256];
        let read = manager.recv(&mut bytes).expect("it tells that it stops");
        last = String::from_utf8_lossy(&bytes[..read]).into_owned();
    }
    assert!(child.wait().unwrap().success());
}

/// Lets a child have the socket.
fn let_inherit(socket: &TcpListener) {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
}
