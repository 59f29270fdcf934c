//! `--check`: the requests that a person would make, a line each, and whether all were answered as they should be.

use std::fmt::Debug;

use harness::client::{Answer, Call};
use harness::content::{pattern, picture};
use harness::sign::epoch_in;
use serde_json::json;

use crate::{Demo, site};

/// What was held against what.
struct Report {
    ok: bool,
}

impl Report {
    fn line(&mut self, what: &str, wrong: Option<String>) {
        match wrong {
            None => println!("ok    {what}"),
            Some(wrong) => {
                self.ok = false;
                println!("FAIL  {what}: {wrong}");
            }
        }
    }

    fn equal<T: PartialEq + Debug>(&mut self, what: &str, got: T, expected: T) {
        let wrong = (got != expected).then(|| format!("{got:?} instead of {expected:?}"));
        self.line(what, wrong);
    }

    /// An answer's status, and one thing more about it.
    fn answer(&mut self, what: &str, answer: &anyhow::Result<Answer>, status: u16, so: impl Fn(&Answer) -> bool) {
        let wrong = match answer {
            Err(error) => Some(format!("no answer: {error:#}")),
            Ok(answer) if answer.status.as_u16() != status => Some(format!(
                "status {} instead of {status}: {}",
                answer.status,
                answer.text().lines().next().unwrap_or_default()
            )),
            Ok(answer) if !so(answer) => {
                Some(format!("not as expected: {:?}, {} bytes", answer.headers, answer.body.len()))
            }
            Ok(_) => None,
        };
        self.line(what, wrong);
    }
}

fn is(word: &'static str) -> impl Fn(&Answer) -> bool {
    move |answer| answer.cache_status().iter().any(|parameter| parameter == word)
}

/// Makes the requests; whether all went well.
pub async fn run(demo: &Demo) -> bool {
    let mut report = Report { ok: true };
    let host = &demo.host;
    let call = |method: &str, name: &str, target: &str| host.call(method, target).host(name);
    let get = async |name: &str, target: &str| call("GET", name, target).attempt().await;

    pages(&mut report, demo).await;

    let image = picture(1600, 1000, 1);
    let is_image = |answer: &Answer| answer.body == image;
    report.answer("an image, whole", &get("img.localhost", "/sunrise.bmp").await, 200, is_image);
    let again = get("img.localhost", "/sunrise.bmp").await;
    report.answer("the image again, from the cache", &again, 200, |answer| is_image(answer) && is("hit")(answer));
    let etag = again.as_ref().map(|answer| answer.field("etag")).unwrap_or_default();
    let conditional = call("GET", "img.localhost", "/sunrise.bmp").header("if-none-match", &etag).attempt().await;
    report.answer("the image, if it has changed: it has not", &conditional, 304, |answer| answer.body.is_empty());

    signed(&mut report, demo).await;

    let unknown = get("nobody.localhost", "/").await;
    report.answer("a host that nobody has configured", &unknown, 421, |_| true);
    let posted = call("POST", "img.localhost", "/sunrise.bmp").attempt().await;
    report.answer("POST to a bucket", &posted, 405, |_| true);

    purged(&mut report, demo).await;
    dropped_in(&mut report, demo).await;

    let ready = host.admin_without_token("GET", "/readyz").attempt().await;
    report.answer("the admin listener says that it is ready", &ready, 200, |_| true);
    let no_token = host.admin_without_token("GET", "/stats").attempt().await;
    report.answer("the admin listener wants its token", &no_token, 401, |_| true);
    println!("{}", if report.ok { "all is well" } else { "something is wrong" });
    report.ok
}

async fn pages(report: &mut Report, demo: &Demo) {
    let get = async |target: &str| demo.host.call("GET", target).host("www.localhost").attempt().await;
    let home = site::page("Home", "This page comes from a private bucket.");
    let body = |text: String| move |answer: &Answer| answer.body == text.as_bytes();
    report.answer("the home page, from the bucket", &get("/").await, 200, body(home));
    report.answer("the home page again, from the cache", &get("/").await, 200, is("hit"));
    let about = site::page("About", "Asked for without its ending.");
    report.answer("a page under its clean URL", &get("/about").await, 200, body(about));
    let blog = site::page("Blog", "An index document of a folder.");
    report.answer("the index document of a folder", &get("/blog/").await, 200, body(blog));
    report.answer("a style sheet", &get("/style.css").await, 200, |answer| answer.field("content-type") == "text/css");
    let missing = site::page("Not found", "There is no such page.");
    report.answer("the site's own 404", &get("/nothing-here").await, 404, body(missing));
    let dots = demo.host.raw("GET /a/../../secret HTTP/1.1\r\nHost: www.localhost\r\nConnection: close\r\n\r\n").await;
    report.equal("a path that climbs", dots.status(), 400);
}

async fn signed(report: &mut Report, demo: &Demo) {
    let call = |target: &str| demo.host.call("GET", target).host("downloads.localhost");
    let good = Demo::link(site::BIG, &epoch_in(3600));
    let end = pattern(site::BIG_SEED, site::BIG_LENGTH - 100..site::BIG_LENGTH);
    let before = demo.s3.seen().len();
    let ranged = call(&good).range("-100").attempt().await;
    report.answer("the end of the big file, by a signed link", &ranged, 206, |answer| answer.body == end);
    // HEAD, by which the length is learnt, brings no bytes.
    let reads = demo.s3.seen().split_off(before).into_iter().filter(|seen| seen.method != "HEAD");
    let asked: Vec<String> = reads.map(|seen| seen.header("range").to_owned()).collect();
    let part = !asked.is_empty() && asked.iter().all(|range| range.starts_with("bytes="));
    report.line("only a part of it was fetched", (!part).then(|| format!("ranges asked for: {asked:?}")));
    let middle = pattern(site::BIG_SEED, 100_000_000..100_300_000);
    let ranged = call(&good).range("100000000-100299999").attempt().await;
    report.answer("300 kB from its middle", &ranged, 206, |answer| answer.body == middle);
    let ranged = call(&good).range("100000000-100299999").attempt().await;
    report.answer("the same again, from the cache", &ranged, 206, |answer| answer.body == middle && is("hit")(answer));
    report.answer(
        "a link whose time is over",
        &call(&Demo::link(site::BIG, &epoch_in(-60))).attempt().await,
        403,
        |_| true,
    );
    report.answer("no signature", &call(site::BIG).attempt().await, 403, |_| true);
    let other = good.replace(site::BIG, "/release.txt");
    report.answer("a signature of another path", &call(&other).attempt().await, 403, |_| true);
    let forged = good.replace("expires=", "expires=9");
    report.answer("a link with a later end than was signed", &call(&forged).attempt().await, 403, |_| true);
    let head: Call = demo.host.call("HEAD", &good).host("downloads.localhost");
    let length = site::BIG_LENGTH.to_string();
    report
        .answer("HEAD by the same link", &head.attempt().await, 200, |answer| answer.field("content-length") == length);

    let legacy = async |target: &str| demo.host.call("GET", target).host("cdn.localhost").attempt().await;
    let good = Demo::legacy_link("/release.txt", &epoch_in(3600));
    report.answer("a link signed as poormanscdn does", &legacy(&good).await, 200, |answer| {
        answer.text() == "proxyhost demo release\n"
    });
    let expired = Demo::legacy_link("/release.txt", &epoch_in(-60));
    report.answer("such a link whose time is over", &legacy(&expired).await, 403, |_| true);
    report.answer("such a link with a wrong signature", &legacy(&format!("{good}0")).await, 403, |_| true);
}

async fn purged(report: &mut Report, demo: &Demo) {
    let get = async || demo.host.call("GET", "/about").host("www.localhost").attempt().await;
    report.answer("a page before its purge", &get().await, 200, is("hit"));
    let what = json!({ "host": "www.localhost", "path": "/about" }).to_string();
    let purged =
        demo.host.admin("POST", "/purge").header("content-type", "application/json").body(what).attempt().await;
    report.answer("purge it", &purged, 200, |answer| answer.text().contains("sequence"));
    report.answer("after the purge it is fetched", &get().await, 200, |answer| !is("hit")(answer));
    report.answer("and then it is a hit again", &get().await, 200, is("hit"));
}

/// A policy comes into force when its file is dropped into the folder, and a broken one changes nothing.
async fn dropped_in(report: &mut Report, demo: &Demo) {
    let get = async || demo.host.call("GET", "/style.css").host("live.localhost").attempt().await;
    let becomes = async |status: u16| {
        for _ in 0..200 {
            let answer = get().await;
            if answer.as_ref().is_ok_and(|answer| answer.status.as_u16() == status) {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        get().await
    };
    report.answer("a host without a policy", &get().await, 200, |_| true);
    demo.host.write("policies/live.localhost.wasm", &harness::policies::deny());
    report.answer("a policy that refuses is dropped in", &becomes(403).await, 403, |_| true);
    demo.host.write("policies/live.localhost.wasm", b"this is not WebAssembly");
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    report.answer("a broken one is dropped in: the old one stays", &get().await, 403, |_| true);
    demo.host.write("policies/live.localhost.wasm", &harness::policies::next());
    report.answer("one that lets all through is dropped in", &becomes(200).await, 200, |_| true);
}
