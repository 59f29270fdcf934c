//! The demo's site: pages, a style sheet, pictures of several megabytes, and one file of more than 200 MB.

use harness::content::{generated, picture};
use harness::s3::{Object, S3Server, object};

/// The path of the big file.
pub const BIG: &str = "/disk-image.bin";
/// Its length.
pub const BIG_LENGTH: u64 = 210_000_000;
/// The seed of its bytes.
pub const BIG_SEED: u64 = 2026;

/// A page of the site.
pub fn page(title: &str, text: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"/style.css\"></head>\n\
         <body><h1>{title}</h1>\n<p>{text}</p>\n\
         <nav><a href=\"/\">Home</a> <a href=\"/about\">About</a> <a href=\"/blog/\">Blog</a></nav>\n</body>\n</html>\n"
    )
}

fn html(title: &str, text: &str) -> Object {
    object(page(title, text)).content_type("text/html; charset=utf-8")
}

/// Puts it into the bucket `site`.
pub fn fill(s3: &S3Server) {
    let put = |key: &str, object: Object| s3.put("site", key, object);
    put("www/index.html", html("Home", "This page comes from a private bucket."));
    put("www/about.html", html("About", "Asked for without its ending."));
    put("www/blog/index.html", html("Blog", "An index document of a folder."));
    put("www/404.html", html("Not found", "There is no such page."));
    let style = "body { font: 18px/1.5 sans-serif; max-width: 40em; margin: 3em auto; }\nh1 { color: #245; }\n";
    put("www/style.css", object(style).content_type("text/css").cache_control("public, max-age=3600"));
    for (name, width, height, seed) in [("sunrise", 1600, 1000, 1), ("noon", 1280, 1280, 7), ("sunset", 2000, 900, 42)]
    {
        put(&format!("images/{name}.bmp"), object(picture(width, height, seed)).content_type("image/bmp"));
    }
    put("downloads/release.txt", object("proxyhost demo release\n").content_type("text/plain"));
    let big = object(generated(BIG_SEED, BIG_LENGTH)).content_type("application/octet-stream");
    put(&format!("downloads{BIG}"), big);
}
