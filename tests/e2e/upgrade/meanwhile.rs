//! What comes while a new program starts, and a new program that ends before it serves.

use super::*;

/// Puts another program in place of the old one.
fn put(host: &Host, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let program = host.path("proxyhost");
    std::fs::rename(&program, host.path("proxyhost-of-the-old")).unwrap();
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A program that takes its time before it is the real one.
fn put_slow(host: &Host, seconds: u32) {
    let real = host.path("proxyhost-of-the-old");
    put(host, &format!("#!/bin/sh\nsleep {seconds}\nexec {} \"$@\"\n", real.display()));
}

#[tokio::test]
async fn a_second_upgrade_during_one_is_told_so_at_once() {
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=600")).await;
    let mut host = Setup::from(vhost("a.test").origin(&origin)).own_program().start().await;
    put_slow(&host, 5);
    host.signal(libc::SIGUSR2);
    host.stderr_line("upgrading").await;
    let begun = std::time::Instant::now();
    let admin = host.admin_address().to_string();
    let second = host.cli(&["upgrade", "--admin", &admin, "--token", &host.token()]).await;
    second.code(1).says(&["an upgrade is under way"]);
    let answer = host.admin("POST", "/upgrade").send().await;
    answer.status(409);
    assert!(answer.text().contains("an upgrade is under way"), "{}", answer.text());
    assert!(begun.elapsed() < secs(4), "it waits for the first: {:?}", begun.elapsed());
    host.succeeded_by_signal().await;
    host.get("/x").await.expect(200, "x");
    // One that has failed stands in nobody's way.
    std::fs::remove_file(host.path("proxyhost-of-the-old")).unwrap();
    host.upgrade().await.code(2);
    host.upgrade().await.code(2);
}

#[tokio::test]
async fn a_reload_during_an_upgrade_reaches_the_program_that_serves() {
    let origin = Origin::answering(|request| ok(request.target.clone())).await;
    let mut host = Setup::from(vhost("a.test").origin(&origin)).own_program().start().await;
    put_slow(&host, 1);
    let reload = host.admin("POST", "/reload");
    host.signal(libc::SIGUSR2);
    host.stderr_line("upgrading").await;
    host.rewrite(json!({ "hosts": { "b.test": { "origin": "origin1" } } }));
    let asked = tokio::spawn(reload.send());
    host.signal(libc::SIGHUP);
    host.succeeded_by_signal().await;
    // Over the connection of the old one it is refused in words; the signal goes on to the new one.
    let answer = asked.await.unwrap();
    assert!(answer.status == 422 && answer.text().contains("another one may serve"), "{answer:?}");
    host.stderr_line("\"reloaded\"").await;
    host.get_from("b.test", "/x").await.expect(200, "/x");
}

#[tokio::test]
async fn the_reason_of_a_new_program_that_ends_is_not_hidden_by_a_broken_pipe() {
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=600")).await;
    let mut host = Setup::from(vhost("a.test").origin(&origin)).own_program().start().await;
    host.get("/x").await.expect(200, "x");
    let python = harness::python::program();
    let ready = "end.send(b'{\"ready\":{\"version\":\"0\"}}')";
    let start = format!("#!{}\nimport socket\nend = socket.socket(fileno=0)\n{ready}\n", python.display());
    put(&host, &start);
    host.upgrade().await.code(2).says(&["it ended (exit status: 0)"]).never_says("roken pipe");
    put(&host, &format!("{start}end.send(b'{{\"failed\":{{\"reason\":\"no moon tonight\"}}}}')\n"));
    host.upgrade().await.code(2).says(&["no moon tonight"]).never_says("roken pipe");
    host.get("/x").await.expect(200, "x").cache("hit");
    assert!(host.purge(json!({ "host": "a.test", "path": "/x" })).await > 0);
}
