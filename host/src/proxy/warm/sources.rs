//! What is to be fetched, one after the other: a list, sitemaps and the sitemaps that they name, and what origins have.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::stream;
use tokio::sync::mpsc;

use super::super::Proxy;
use super::{Item, one};
use crate::origin::ListingPlace;
use crate::semantics::authority::Authority;
use crate::semantics::target::{self, Target};
use crate::warm::sitemap::{self, Named};
use crate::warm::{Order, Told, Wanted, item};

/// What waits to be fetched.
const WAITING: usize = 64;
/// Sitemaps of one order, indexes included: what one index may name.
const SITEMAPS_MOST: usize = 50_000;

type Out = mpsc::Sender<Item>;

/// Nobody listens any more.
struct Gone;

/// As a stream; what makes it ends with it.
pub(super) fn of(proxy: Arc<Proxy>, order: Order) -> impl stream::Stream<Item = Item> + Send + 'static {
    let (out, mut from) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let gone = out.clone();
        tokio::select! {
            _ = all(&proxy, order, &out) => {}
            () = gone.closed() => {}
        }
    });
    stream::poll_fn(move |context| from.poll_recv(context))
}

async fn all(proxy: &Arc<Proxy>, order: Order, out: &Out) -> Result<(), Gone> {
    for wanted in order.wanted {
        send(out, Item::Wanted(wanted)).await?;
    }
    let mut sitemaps = order.sitemaps;
    let mut seen = 0;
    // In the order in which they are named; those of an index come after all others.
    let mut depth = 0;
    while !sitemaps.is_empty() {
        let mut further = Vec::new();
        for wanted in sitemaps {
            seen += 1;
            if seen > SITEMAPS_MOST {
                return fail(out, wanted.url(), format!("more than {SITEMAPS_MOST} sitemaps")).await;
            }
            let body = one::body(proxy, &wanted, &order.headers, sitemap::MOST_BYTES as usize).await;
            let url = wanted.url();
            let read = match body {
                Ok(body) => pages(body, depth, out.clone()).await,
                Err(why) => Err(why),
            };
            match read {
                Ok(more) => further.extend(more.into_iter().take(SITEMAPS_MOST.saturating_sub(further.len()))),
                Err(why) => fail(out, url, format!("sitemap: {why}")).await?,
            }
        }
        depth += 1;
        sitemaps = Vec::new();
        for text in further {
            match item(None, &text) {
                Ok(wanted) => sitemaps.push(wanted),
                Err(why) => fail(out, text, format!("sitemap: its URL {why}")).await?,
            }
        }
    }
    for wanted in order.prefixes {
        listing(proxy, &wanted, out).await?;
    }
    Ok(())
}

/// Sends the pages of a sitemap; what an index names is returned. Off the workers: unpacking and reading take time.
async fn pages(body: bytes::Bytes, depth: usize, out: Out) -> Result<Vec<String>, String> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut further = Vec::new();
        let read = sitemap::read(body, |named| {
            let item = match named {
                Named::Sitemap(url) if depth == 0 && further.len() < SITEMAPS_MOST => {
                    further.push(url);
                    return ControlFlow::Continue(());
                }
                Named::Sitemap(url) => {
                    let why = if depth == 0 { "its index names too many" } else { "an index in an index" };
                    Item::Bad(Told { url, outcome: Err(format!("sitemap: {why}")) })
                }
                Named::Page(text) => match item(None, &text) {
                    Ok(wanted) => Item::Wanted(wanted),
                    Err(why) => Item::Bad(Told { url: text, outcome: Err(format!("it {why}")) }),
                },
            };
            if out.blocking_send(item).is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        read.map(|()| further).map_err(|error| error.to_string())
    });
    reading.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Sends what a host's origin has below a path.
async fn listing(proxy: &Arc<Proxy>, wanted: &Wanted, out: &Out) -> Result<(), Gone> {
    let (Ok(authority), Ok(below)) = (Authority::parse(&wanted.authority), Target::parse(&wanted.target)) else {
        return fail(out, wanted.url(), "it is no URL".to_owned()).await;
    };
    let Some(site) = proxy.generation().route(&authority.host).cloned() else {
        return fail(out, wanted.url(), "there is no such host here".to_owned()).await;
    };
    let settings = &site.host.settings;
    let prefix = target::join_prefix(&settings.prefix, below.path());
    let mut next = Some(ListingPlace::Start { prefix });
    while let Some(place) = next {
        let page = match site.host.origin.list(place, false).await {
            Ok(page) => page,
            Err(error) => return fail(out, wanted.url(), format!("the list of it breaks off: {error}")).await,
        };
        for listed in page.listed {
            let Some(path) = path_of(&settings.prefix, &listed.path, listed.size) else { continue };
            let item = match target::check_path(path) {
                Ok(()) => Item::Wanted(Wanted { target: target::encode_path(path), ..wanted.clone() }),
                Err(error) => {
                    let url = format!("{}{path}", wanted.authority);
                    Item::Bad(Told { url, outcome: Err(format!("no client can ask for it: {error}")) })
                }
            };
            send(out, item).await?;
        }
        if page.left_out > 0 {
            let why = format!("{} names that no client can ask for", page.left_out);
            fail(out, wanted.url(), why).await?;
        }
        next = page.next;
    }
    Ok(())
}

/// The path under which clients ask for what is listed; none for what stands for a folder in a bucket, and has nothing in it.
pub(in crate::proxy) fn path_of<'a>(prefix: &str, listed: &'a str, size: u64) -> Option<&'a str> {
    if size == 0 && listed.ends_with('/') {
        return None;
    }
    let prefix = prefix.trim_matches('/');
    let path = listed.strip_prefix('/').unwrap_or(listed);
    let path = if prefix.is_empty() { listed } else { path.strip_prefix(prefix)? };
    path.starts_with('/').then_some(path)
}

async fn send(out: &Out, item: Item) -> Result<(), Gone> {
    out.send(item).await.map_err(|_| Gone)
}

async fn fail(out: &Out, url: String, why: String) -> Result<(), Gone> {
    send(out, Item::Bad(Told { url, outcome: Err(why) })).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_has_the_path_that_leads_to_it() {
        for (prefix, listed, path) in [
            ("", "/a b", Some("/a b")),
            ("", "//a", Some("//a")),
            ("my", "/my/a", Some("/a")),
            ("/my/", "/my//a", Some("//a")),
            ("my", "/mya", None),
            ("my", "/other", None),
        ] {
            assert_eq!(path_of(prefix, listed, 1), path, "{prefix} {listed}");
            if let Some(path) = path {
                assert_eq!(target::join_prefix(prefix, path), listed);
            }
        }
        assert_eq!((path_of("", "/folder/", 0), path_of("", "/folder/", 1)), (None, Some("/folder/")));
        assert_eq!(path_of("", "/empty", 0), Some("/empty"));
    }
}
