//! The `static-site` policy before a bucket.

use harness::prelude::*;

async fn site(config: Value) -> (S3Server, Host) {
    let s3 = S3Server::with_bucket("site").await;
    for (key, body) in [
        ("my/index.html", "home"),
        ("my/about.html", "about"),
        ("my/blog/index.html", "blog"),
        ("my/404.html", "custom"),
    ] {
        s3.put("site", key, object(body).content_type("text/html"));
    }
    s3.put("site", "my/style.css", object("body {}").content_type("text/css"));
    let a = vhost("a.test").origin(&s3.bucket("site")).set("prefix", "my");
    let host = Host::with(a.policy("static-site", json!({ "config": config }))).await;
    (s3, host)
}

#[tokio::test]
async fn index_documents_clean_urls_and_a_custom_404() {
    let (_s3, host) = site(json!({ "not_found": "/404.html" })).await;
    host.get("/").await.expect(200, "home").header("content-type", "text/html");
    host.get("/").await.expect(200, "home").cache("hit");
    host.get("/about").await.expect(200, "about");
    host.get("/blog/").await.expect(200, "blog");
    host.get("/style.css").await.expect(200, "body {}").header("content-type", "text/css");
    host.get("/nothing").await.expect(404, "custom");
    host.head("/about").await.expect(200, "").header("content-length", "5");
}
