//! Fetching before somebody asks: lists, sitemaps, buckets and folders, by the command line and by `POST /warm`.

use std::io::Write as _;

use harness::prelude::*;
use harness::sign::{Own, epoch_in, own_link};
use harness::{policies, temp_dir};

/// The lines of an answer to `POST /warm`.
async fn warm(host: &Host, order: Value) -> Vec<Value> {
    let answer = host.admin("POST", "/warm").body(order.to_string()).send().await;
    answer.status(200).header("content-type", "application/x-ndjson");
    answer.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn done(lines: &[Value]) -> (u64, u64, u64) {
    let done = &lines.last().expect("the last line")["done"];
    let count = |name: &str| done[name].as_u64().unwrap_or_else(|| panic!("no {name} in {lines:?}"));
    (count("fetched"), count("fresh"), count("failed"))
}

fn because(lines: &[Value], url: &str) -> String {
    let line = lines.iter().find(|line| line["url"] == url).unwrap_or_else(|| panic!("no {url} in {lines:?}"));
    line["because"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_list_is_fetched_once_and_what_fails_is_told() {
    let origin = Origin::answering(|request| match request.path() {
        "/gone" => reply(404, "no").cache_control("max-age=60"),
        "/private" => ok("x").cache_control("private"),
        path => ok(path.to_owned()).cache_control("max-age=600"),
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let list = "\u{feff}# pages\n/a\n/b?x=1\r\n\nhttp://a.test/ü c\n/gone\n/private\n/a/../b\nhttp://other.test/a\n";
    host.write("list.txt", list.as_bytes());
    let arguments = ["warm", "--host", "a.test", "--from", "list.txt"];
    let told = host.asking(&arguments).await;
    told.code(1).says(&[
        "a.test/gone: it is answered with 404",
        "a.test/private: it is not kept: private",
        "line 8: is no path: the path has a dot segment",
        "http://other.test/a: there is no such host here",
        "4 could not be warmed",
    ]);
    assert!(told.stdout.starts_with("3 fetched"), "{}", told.stdout);
    host.get("/a").await.expect(200, "/a").cache("hit");
    host.get("/b?x=1").await.expect(200, "/b").cache("hit");
    host.get("/%C3%BC%20c").await.status(200).cache("hit");
    let asked = origin.requests();
    let again = host.asking(&["warm", "--host", "a.test", "/a", "/b?x=1", "--json"]).await;
    again.code(0);
    let lines: Vec<Value> = again.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(done(&lines), (0, 2, 0));
    assert_eq!(origin.requests(), asked, "what is fresh is not fetched");
    host.asking(&["warm", "--host", "a.test", "/a", "--token", "wrong"]).await.code(2);
    host.asking(&["warm", "--host", "*.test", "/a"]).await.code(2).says(&["not a pattern"]);
    host.asking(&["warm", "--from", "nowhere.txt"]).await.code(2).says(&["nowhere.txt cannot be read"]);
}

#[tokio::test]
async fn a_long_list_goes_in_parts_and_a_few_at_a_time() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut list = Vec::new();
    (0..4500).for_each(|number| writeln!(list, "/{number}").expect("memory"));
    host.write("list.txt", &list);
    let told = host.asking(&["warm", "--host", "a.test", "--from", "list.txt", "--jobs", "3"]).await;
    told.code(0);
    assert!(told.stdout.starts_with("4500 fetched"), "{}", told.stdout);
    assert!(origin.most_at_once() <= 3, "{} at once", origin.most_at_once());
    host.get("/4499").await.cache("hit");
}

#[tokio::test]
async fn what_is_stale_is_asked_about_and_what_is_cut_is_completed() {
    let body = generated(7, 3_500_000);
    let origin = Origin::serving(
        "/a",
        ok("a").cache_control("max-age=0, stale-while-revalidate=600").etag("\"1\"").conditional(),
    )
    .await
    .and("/large", ok(body.clone()).cache_control("max-age=600").etag("\"2\"").ranged());
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/large").range("2100000-2100001").send().await.status(206);
    let lines = warm(&host, json!({ "host": "a.test", "paths": ["/a", "/large"] })).await;
    assert_eq!(done(&lines), (2, 0, 0), "{lines:?}");
    let asked = origin.requests_to("/large");
    host.get("/large").await.expect(200, body.slice(0..3_500_000));
    assert_eq!(origin.requests_to("/large"), asked, "all of it is here");
    assert_eq!(done(&warm(&host, json!({ "host": "a.test", "paths": ["/a"] })).await), (1, 0, 0));
    assert_eq!(origin.last().header("if-none-match"), "\"1\"");
}

#[tokio::test]
async fn sitemaps_lead_to_pages_and_to_sitemaps() {
    let page = |path: &str| format!("<url><loc>http://a.test{path}</loc></url>");
    let pages =
        |paths: &[&str]| format!("<urlset>{}</urlset>", paths.iter().map(|path| page(path)).collect::<String>());
    let index = "<sitemapindex><sitemap><loc>http://a.test/1.xml</loc></sitemap>\
        <sitemap><loc>http://a.test/2.xml.gz</loc></sitemap><sitemap><loc>http://a.test/page</loc></sitemap></sitemapindex>";
    let packed = {
        let mut child =
            async_compression::tokio::bufread::GzipEncoder::new(std::io::Cursor::new(pages(&["/p2?a=1&amp;b=2"])));
        let mut packed = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut child, &mut packed).await.expect("memory");
        packed
    };
    let keep = |body: Bytes| ok(body).cache_control("max-age=600");
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    origin.set("/index.xml", keep(index.into()));
    origin.set(
        "/1.xml",
        keep(pages(&["/p1", "/../x"]).replace("</urlset>", "<url><loc>http://b.test/</loc></url></urlset>").into()),
    );
    origin.set("/2.xml.gz", keep(packed.into()));
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let lines = warm(&host, json!({ "sitemaps": ["http://a.test/index.xml"] })).await;
    assert_eq!(done(&lines), (2, 0, 3), "{lines:?}");
    assert!(because(&lines, "http://a.test/page").contains("it is no sitemap"), "{lines:?}");
    assert!(because(&lines, "http://a.test/../x").contains("dot segment"), "{lines:?}");
    assert!(because(&lines, "http://b.test/").contains("no such host here"), "{lines:?}");
    host.get("/p1").await.cache("hit");
    host.get("/p2?a=1&b=2").await.cache("hit");
    // As content management systems have it.
    origin.set("/sitemap.xml", redirect(301, "https://a.test/1.xml"));
    origin.set("/away.xml", redirect(302, "https://login.test/"));
    origin.set("/circle.xml", redirect(302, "/circle2.xml"));
    origin.set("/circle2.xml", redirect(302, "/circle.xml"));
    let maps = json!(["/sitemap.xml", "/away.xml", "/circle.xml"]);
    let lines = warm(&host, json!({ "host": "a.test", "sitemaps": maps })).await;
    assert_eq!(done(&lines), (0, 1, 4), "{lines:?}");
    assert!(because(&lines, "a.test/away.xml").contains("redirected to https://login.test/"), "{lines:?}");
    assert!(because(&lines, "a.test/circle.xml").contains("redirected"), "{lines:?}");
    let told = host.asking(&["warm", "--host", "a.test", "--sitemap", "/page"]).await;
    told.code(1).says(&["a.test/page: sitemap: it is no sitemap"]);
}

#[tokio::test]
async fn a_bucket_of_more_than_a_page_with_keys_of_all_kinds() {
    let s3 = S3Server::with_bucket("site").await;
    for number in 0..2300 {
        s3.put("site", &format!("my/{number:04}"), object(format!("{number}")));
    }
    let odd = ["my/a b+c&d=e?f#g.txt", "my/ü/100%25", "my//x", "my/<\n>\"'", "my/folder/x"];
    for key in odd {
        s3.put("site", key, object(key));
    }
    s3.put("site", "my/folder/", object(""));
    s3.put("site", "my/../up", object("up"));
    s3.put("site", "mine/not", object("not"));
    let host = Host::with(vhost("a.test").origin(&s3.bucket("site")).set("prefix", "my")).await;
    let lines = warm(&host, json!({ "host": "a.test", "prefixes": ["/"], "jobs": 16 })).await;
    assert_eq!(
        done(&lines),
        (2305, 0, 1),
        "{:?}",
        lines.iter().filter(|line| line["result"] == "failed").collect::<Vec<_>>()
    );
    assert!(because(&lines, "a.test/../up").contains("dot segment"));
    let asked = s3.requests();
    for (target, key) in [
        ("/a%20b+c&d=e%3Ff%23g.txt", odd[0]),
        ("/%C3%BC/100%2525", odd[1]),
        ("//x", odd[2]),
        ("/%3C%0A%3E%22'", odd[3]),
        ("/folder/x", odd[4]),
        ("/2299", "2299"),
    ] {
        host.get(target).await.expect(200, key).cache("hit");
    }
    assert_eq!(s3.requests(), asked);
    assert_eq!(done(&warm(&host, json!({ "host": "a.test", "prefixes": ["/22"] })).await), (0, 100, 0));
}

#[tokio::test]
async fn a_bucket_that_fails_in_the_middle_is_told_and_taken_up_again() {
    let s3 = S3Server::with_bucket("site").await;
    (0..1500).for_each(|number| s3.put("site", &format!("{number:04}"), object("x")));
    s3.put("site", "0007", object(generated(1, 200_000)));
    let host = Host::with(vhost("a.test").origin(&s3.bucket("site"))).await;
    // The second page twice, since it is asked for again once; and a body that breaks off for good.
    s3.fail_key("0007", Fault::CloseAfter(1000));
    s3.fail_key("0007", Fault::CloseAfter(1000));
    s3.fail_key("0007", Fault::CloseAfter(1000));
    s3.fail_key("", Fault::Late(millis(1)));
    s3.fail_key("", Fault::InternalError);
    s3.fail_key("", Fault::InternalError);
    let order = json!({ "host": "a.test", "prefixes": ["/"], "jobs": 8 });
    let lines = warm(&host, order.clone()).await;
    assert!(because(&lines, "a.test/").contains("the list of it breaks off"), "{lines:?}");
    assert!(because(&lines, "a.test/0007").contains("breaks off"), "{}", because(&lines, "a.test/0007"));
    assert_eq!(done(&lines), (999, 0, 2));
    s3.heal();
    assert_eq!(done(&warm(&host, order).await), (501, 999, 0));
    s3.refuse("site", true);
    let lines = warm(&host, json!({ "host": "a.test", "prefixes": ["/"] })).await;
    assert!(because(&lines, "a.test/").contains("403"), "{lines:?}");
}

#[tokio::test]
async fn a_folder_is_walked_and_an_http_origin_has_no_list() {
    let folder = temp_dir("site");
    for name in ["index.html", "a/b/c.txt", "a.txt", ".git/config"] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(path, name).expect("writable");
    }
    let origin = Origin::serving("/", ok("x")).await;
    let dir = json!({ "dir": { "path": folder.path() } });
    let a = vhost("a.test").origin(&dir).set("ttl", "1h");
    let mut host = setup().vhost(a).vhost(vhost("b.test").origin(&origin)).start().await;
    let order = json!({ "host": "a.test", "prefixes": ["/"] });
    assert_eq!(done(&warm(&host, order.clone()).await), (3, 0, 0));
    host.get("/a/b/c.txt").await.expect(200, "a/b/c.txt").cache("hit");
    host.restart().await;
    assert_eq!(done(&warm(&host, order).await), (0, 3, 0), "what was fetched survives a restart");
    let lines = warm(&host, json!({ "host": "b.test", "prefixes": ["/"] })).await;
    assert!(because(&lines, "b.test/").contains("an http origin has no list"), "{lines:?}");
}

#[tokio::test]
async fn a_policy_that_refuses_strangers_lets_the_operator_warm_what_they_will_get() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let stanza = json!({ "config": { "keys": ["sign"] }, "secrets": { "sign": "env:SIGN" } });
    let a = vhost("a.test").origin(&origin).policy("signed-url", stanza);
    let b = vhost("b.test").origin(&origin).wasm("trap.wasm", &policies::trap(), json!({}));
    let c =
        vhost("c.test").origin(&origin).wasm("away.wasm", &policies::redirect(302, "https://login.test/"), json!({}));
    let host = setup().vhost(a).vhost(b).vhost(c).env("SIGN", "secret").start().await;
    let urls = ["http://a.test/x", "http://b.test/x", "http://c.test/x"];
    let lines = warm(&host, json!({ "paths": urls })).await;
    assert_eq!(done(&lines), (1, 0, 2), "{lines:?}");
    assert!(because(&lines, urls[1]).contains("503"), "a policy that fails is no stranger's matter");
    assert!(because(&lines, urls[2]).contains("redirected to https://login.test/"));
    host.get("/x").await.status(403);
    let expires = epoch_in(3600);
    let link =
        own_link("secret", Own { method: "GET", host: "a.test", path: "/x", expires: &expires, ..Own::default() });
    host.get(&link).await.expect(200, "/x").cache("hit");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_purge_during_a_warm_up_counts_and_it_ends_with_who_reads_it() {
    let (gated, gate) = ok(generated(1, 300_000)).cache_control("max-age=600").etag("\"1\"").gated(1000);
    let origin =
        Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600").late(millis(50))).await;
    origin.once("/large", gated);
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let order = json!({ "host": "a.test", "paths": ["/large"] });
    let address = host.admin("POST", "/warm").body(order.to_string());
    let warming = tokio::spawn(async move { address.send().await });
    origin.wait_for_requests(1).await;
    host.purge(json!({ "host": "a.test" })).await;
    gate.open();
    let answer = warming.await.expect("no panic");
    assert!(answer.text().contains("\"fetched\":1"), "{}", answer.text());
    host.get("/large").await.expect(200, "/large").cache("hit");

    let paths: Vec<String> = (0..2000).map(|number| format!("/{number}")).collect();
    let call = host.admin("POST", "/warm").body(json!({ "host": "a.test", "paths": paths, "jobs": 2 }).to_string());
    let mut stream = call.open().await.expect("an answer");
    stream.read(1).await.expect("a line");
    assert_eq!(host.stats().await["warm_ups"], 1);
    drop(stream);
    tokio::time::sleep(millis(500)).await;
    assert_eq!(host.stats().await["warm_ups"], 0);
    let asked = origin.requests();
    tokio::time::sleep(millis(500)).await;
    assert_eq!(origin.requests(), asked, "nobody is told any more");
    assert!(asked < 500, "{asked}");
}

#[tokio::test]
async fn it_goes_on_with_the_program_that_takes_over() {
    let late = Duration::from_millis(100);
    let origin = Origin::answering(move |_| ok("page").cache_control("max-age=600").late(late)).await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    let list: String = (0..60).map(|number| format!("/{number}\n")).collect();
    host.write("list.txt", list.as_bytes());
    let upgrading = async {
        origin.wait_for_requests(6).await;
        host.signal(libc::SIGUSR2);
    };
    let arguments = ["warm", "--host", "a.test", "--from", "list.txt", "--jobs", "2", "--json"];
    let (told, ()) = tokio::join!(host.asking(&arguments), upgrading);
    host.succeeded_by_signal().await;
    told.code(0);
    let lines: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (fetched, fresh, failed) = done(&lines);
    assert_eq!((fetched + fresh, failed, lines.len()), (60, 0, 61), "{lines:?}");
    for number in 0..60 {
        host.get(&format!("/{number}")).await.expect(200, "page").cache("hit");
    }
}

#[tokio::test]
async fn who_listens_is_told_when_the_program_ends() {
    let (gated, _gate) = ok(generated(3, 3_000_000)).cache_control("max-age=600").gated(1_000_000);
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    origin.once("/large", gated);
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    let order = json!({ "host": "a.test", "paths": ["/a", "/large", "/b"] });
    let call = host.admin("POST", "/warm").body(order.to_string());
    let warming = tokio::spawn(async move { call.send().await });
    origin.wait_for_requests(3).await;
    host.signal(libc::SIGTERM);
    assert_eq!(host.ended().await, 0);
    let answer = warming.await.expect("no panic");
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let last = lines.last().expect("a line");
    assert!(last["interrupted"].as_str().is_some_and(|why| why.contains("ends")), "{lines:?}");
}

#[tokio::test]
async fn it_goes_on_though_nothing_was_told_before() {
    let (gated, gate) = ok(generated(3, 3_000_000)).cache_control("max-age=600").gated(1_000_000);
    let origin = Origin::serving("/large", gated).await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    let upgrading = async {
        origin.wait_for_requests(1).await;
        host.signal(libc::SIGUSR2);
        // The new program asks anew.
        origin.wait_for_requests(2).await;
        gate.open();
    };
    let (told, ()) = tokio::join!(host.asking(&["warm", "--host", "a.test", "/large"]), upgrading);
    host.succeeded_by_signal().await;
    told.code(0);
    host.get("/large").await.expect(200, pattern(3, 0..3_000_000)).cache("hit");
}
