//! `cargo xtask demo`: a private bucket with a small site, proxyhost before it with three hosts and a policy each, and URLs
//! to try. With `--check` it makes those requests itself and exits by the result.
//!
//! The S3 server checks signatures (SigV4) as the real one does; it and the proxy live until Ctrl-C, in a folder that goes
//! with them.

mod check;
mod site;

use std::process::ExitCode;

use harness::host::Host;
use harness::s3::S3Server;
use harness::setup::{setup, vhost};
use harness::sign::{Own, Poormanscdn, epoch_in, own_link, poormanscdn_query};
use serde_json::json;

/// What links to downloads are signed with.
const SECRET: &str = "demo-secret";

/// The demo at work.
struct Demo {
    s3: S3Server,
    host: Host,
}

impl Demo {
    /// Starts the bucket, the proxy and its hosts.
    async fn start() -> Self {
        let s3 = S3Server::with_bucket("site").await;
        site::fill(&s3);
        let bucket = s3.bucket("site");
        let www = vhost("www.localhost")
            .origin(&bucket)
            .set("prefix", "www")
            .policy("static-site", json!({ "config": { "not_found": "/404.html" } }));
        let downloads = vhost("downloads.localhost").origin(&bucket).set("prefix", "downloads").policy(
            "signed-url",
            json!({ "config": { "scheme": "proxyhost" }, "secrets": { "sign": "env:DEMO_SECRET" } }),
        );
        let legacy = vhost("cdn.localhost").origin(&bucket).set("prefix", "downloads").set(
            "policy",
            json!({
                "wasm": "signed-url.wasm",
                "config": { "scheme": "poormanscdn", "generation": "g2" },
                "secrets": { "sign": "env:DEMO_SECRET" },
            }),
        );
        let img = vhost("img.localhost").origin(&bucket).set("prefix", "images");
        // Its policy is dropped in as a file while the proxy runs.
        let live = vhost("live.localhost").origin(&bucket).set("prefix", "www");
        let host = setup()
            .vhost(www)
            .vhost(downloads)
            .vhost(legacy)
            .vhost(img)
            .vhost(live)
            .config(json!({ "cache": { "disk": "2GB", "memory": "64MB" } }))
            .env("DEMO_SECRET", SECRET)
            .start()
            .await;
        Self { s3, host }
    }

    /// A signed link to a download.
    fn link(path: &str, expires: &str) -> String {
        let what = Own { method: "GET", host: "downloads.localhost", path, expires, ..Own::default() };
        own_link(SECRET, what)
    }

    /// The same file, signed as poormanscdn signs it.
    fn legacy_link(path: &str, expires: &str) -> String {
        let what = Poormanscdn { method: "GET", path, modified: "0", expires, ..Poormanscdn::default() };
        format!("{path}?{}", poormanscdn_query(SECRET, what))
    }

    /// What a person may try.
    fn print(&self) {
        let port = self.host.address().port();
        let resolve = |name: &str| format!("--resolve {name}:{port}:127.0.0.1");
        let in_an_hour = epoch_in(3600);
        println!("proxyhost serves a private bucket of {} at http://127.0.0.1:{port}", self.s3.endpoint());
        println!("(names below localhost lead here in browsers; curl is told by --resolve)\n");
        let try_it = |what: &str, arguments: &str, name: &str, target: &str| {
            println!("# {what}\ncurl -sS {arguments} {} 'http://{name}:{port}{target}'", resolve(name));
        };
        try_it("a page; the second time it is a hit", "-i", "www.localhost", "/");
        try_it("a page under its clean URL", "-i", "www.localhost", "/about");
        try_it("the site's own 404", "-i", "www.localhost", "/nothing-here");
        try_it("an image of several megabytes", "-o /dev/null -D -", "img.localhost", "/sunrise.bmp");
        let big = Self::link(site::BIG, &in_an_hour);
        try_it(
            "the end of a file of 200 MB, by a signed link",
            "-r -100 -o /dev/null -D -",
            "downloads.localhost",
            &big,
        );
        let expired = Self::link(site::BIG, &epoch_in(-60));
        try_it("the same, but the link's time is over", "-i", "downloads.localhost", &expired);
        let legacy = Self::legacy_link("/release.txt", &in_an_hour);
        try_it("a link signed as poormanscdn does", "-i", "cdn.localhost", &legacy);
        let token = self.host.path("cache/admin-token");
        println!(
            "# purge a page\ncurl -sS -H \"Authorization: Bearer $(cat {})\" -d '{}' http://{}/purge",
            token.display(),
            json!({ "host": "www.localhost", "path": "/" }),
            self.host.admin_address()
        );
        println!("\nhosts.json and the policies folder: {}", self.host.path("").display());
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let check = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => false,
        (Some("--check"), None) => true,
        _ => {
            eprintln!("usage: demo [--check]");
            return ExitCode::from(2);
        }
    };
    let demo = Demo::start().await;
    if check {
        return if check::run(&demo).await { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    demo.print();
    println!("\nCtrl-C ends it.");
    // Without a signal handler there is no clean end but the default one, which is an end as well.
    let _ = tokio::signal::ctrl_c().await;
    ExitCode::SUCCESS
}
