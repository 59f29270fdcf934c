//! Makes a website of files in a bucket or folder: index documents, clean URLs, redirects, a page for what isn't there,
//! and a single-page application's one page for all its addresses.
//!
//! All of it is a list of origin paths to try in order ([`candidates`]); the host keys an entry by that list too, so
//! requests that would find different files never share one.

mod candidates;
mod redirects;

use proxyhost_policy::prelude::*;

use candidates::Site;
use redirects::Redirects;

/// The policy, configured.
pub struct StaticSite {
    site: Site,
    redirects: Redirects,
    trailing_slash: TrailingSlash,
    not_found: Option<String>,
    spa: Option<Spa>,
}

/// A single-page application.
struct Spa {
    document: String,
    except: Vec<String>,
}

/// The configuration as written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    /// What a path that ends in a slash means.
    index: String,
    /// Whether `/about` finds `about.html` and `about/index.html`.
    clean_urls: bool,
    trailing_slash: TrailingSlash,
    redirects: std::collections::BTreeMap<String, redirects::Written>,
    /// The page for what isn't there, sent with 404.
    not_found: Option<String>,
    /// The page for navigations to what isn't there, sent with 200.
    spa: Option<String>,
    /// Patterns of paths that are not the application's.
    spa_except: Vec<String>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            index: "index.html".to_owned(),
            clean_urls: true,
            trailing_slash: TrailingSlash::Keep,
            redirects: std::collections::BTreeMap::new(),
            not_found: None,
            spa: None,
            spa_except: Vec::new(),
        }
    }
}

/// Which of `/a` and `/a/` is the page's own address; the other is redirected there.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum TrailingSlash {
    /// Both are served.
    Keep,
    /// `/a/`, unless its last part looks like a file (`/a.css`).
    Add,
    /// `/a`.
    Remove,
}

impl TrailingSlash {
    /// Where a path is redirected to, if it is.
    fn redirect(self, path: &str) -> Option<String> {
        match self {
            Self::Add if !path.ends_with('/') && !candidates::is_file(path) => Some(format!("{path}/")),
            Self::Remove if path.len() > 1 && path.ends_with('/') => Some(path.trim_end_matches('/').to_owned()),
            _ => None,
        }
    }
}

impl Policy for StaticSite {
    fn configure() -> Result<Self, String> {
        let written: Written = config::parsed()?;
        if written.index.is_empty() || written.index.contains('/') {
            return Err(format!("config: index: {:?} is not a file name", written.index));
        }
        for (name, document) in [("not_found", &written.not_found), ("spa", &written.spa)] {
            if let Some(document) = document
                && (!document.starts_with('/') || document.ends_with('/'))
            {
                return Err(format!("config: {name}: {document:?} is not the path of a file: it begins with a slash"));
            }
        }
        if written.spa.is_none() && !written.spa_except.is_empty() {
            return Err("config: spa_except stands there without spa".to_owned());
        }
        Ok(Self {
            site: Site { index: written.index, clean_urls: written.clean_urls },
            redirects: Redirects::resolve(written.redirects)?,
            trailing_slash: written.trailing_slash,
            not_found: written.not_found,
            spa: written.spa.map(|document| Spa { document, except: written.spa_except }),
        })
    }

    fn on_request(&self) -> Result<Decision, String> {
        if !matches!(request::method().as_str(), "GET" | "HEAD") {
            return Ok(Decision::Next);
        }
        let path = request::path();
        if let Some((status, location)) = self.redirects.find(&path) {
            return Ok(redirects::decide(status, &location));
        }
        if let Some(elsewhere) = self.trailing_slash.redirect(&path) {
            return Ok(redirects::decide(308, &redirects::local(&elsewhere)));
        }
        let mut paths = self.site.candidates(&path);
        match self.spa_document(&path) {
            Some(document) => paths.push(document.to_owned()),
            None => paths.extend(self.not_found.clone()),
        }
        if paths != [path] {
            upstream::try_paths(&paths);
        }
        Ok(Decision::Next)
    }

    fn on_deliver(&self) -> Result<(), String> {
        let (Some(found), path) = (response::origin_path(), request::path()) else { return Ok(()) };
        if found == path {
            return Ok(());
        }
        if self.spa.as_ref().is_some_and(|spa| spa.document == found) {
            // A browser's own cache must not answer a script's request with the page.
            response::append_header("vary", "Sec-Fetch-Mode, Accept");
        }
        if self.not_found.as_ref() == Some(&found) && !self.site.candidates(&path).contains(&found) {
            // The origin found the page well enough; the client did not find what it wanted. A 304 is left alone: it
            // says that the page the client has, with its 404, is still the same.
            match response::status() {
                200 => response::set_status(404),
                206 => {
                    response::set_status(404);
                    response::remove_header("content-range");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl StaticSite {
    /// The application's page, if this request may get it. Scripts that ask for data must get an honest 404 and not a
    /// page, so the two are told apart in the key, whatever is found.
    fn spa_document(&self, path: &str) -> Option<&str> {
        let spa = self.spa.as_ref()?;
        if spa.except.iter().any(|pattern| text::glob(pattern, path)) {
            return None;
        }
        let navigation = is_navigation();
        cache_lookup::add_key("navigation", if navigation { "yes" } else { "no" });
        navigation.then_some(spa.document.as_str())
    }
}

/// Whether a person goes to this address, as the browser says; older ones are told by what they accept.
fn is_navigation() -> bool {
    match request::header("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => request::header("accept").is_some_and(|accept| accept.to_ascii_lowercase().contains("text/html")),
    }
}

proxyhost_policy::export!(StaticSite: on_request, on_deliver);
