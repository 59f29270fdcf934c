//! What a cache key depends on beside host and path: language, kind of device, some query parameters, some cookies.
//!
//! What counts for the key is what the origin gets, and nothing else: the language as the one that was chosen, the device
//! as `X-Device`, the query and the cookies without what isn't listed. An origin that could see more would answer by it,
//! and its answer would be kept for everyone.

mod device;
mod language;

use std::borrow::Cow;

use proxyhost_policy::prelude::*;

use device::Device;
use language::Languages;

/// The longest cookie value that may be part of a key. With a longer one nothing is kept.
const COOKIE_MAX_BYTES: usize = 64;

/// The policy, configured.
pub struct CacheKey {
    language: Option<Languages>,
    device: bool,
    query: Option<Vec<String>>,
    cookies: Option<Vec<String>>,
}

/// The configuration as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    language: Option<language::Written>,
    /// Whether mobile, tablet, desktop and bot get answers of their own.
    device: bool,
    /// Parameters that count; without the list all do.
    query: Option<Vec<String>>,
    /// Cookies that count; without the list the host's own rules hold.
    cookies: Option<Vec<String>>,
}

impl Policy for CacheKey {
    fn configure() -> Result<Self, String> {
        let Written { language, device, query, cookies } = config::parsed()?;
        for name in cookies.iter().flatten() {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && !b"=;,\"".contains(&b)) {
                return Err(format!("config: cookies: {name:?} is not the name of a cookie"));
            }
        }
        Ok(Self { language: language.map(Languages::resolve).transpose()?, device, query, cookies })
    }

    fn on_request(&self) -> Result<Decision, String> {
        if let Some(languages) = &self.language {
            let language = languages.choose();
            cache_lookup::add_key("language", language);
            upstream::set_header("accept-language", language);
        }
        if self.device {
            let device = Device::of_request().name();
            cache_lookup::add_key("device", device);
            upstream::set_header("x-device", device);
            // Whoever goes by this field instead can tell no more from it than the key can.
            upstream::set_header("user-agent", &format!("Mozilla/5.0 (compatible; proxyhost; {device})"));
            upstream::remove_header("sec-ch-ua-mobile");
        }
        if let Some(names) = &self.query {
            keep_query(names);
        }
        if let Some(names) = &self.cookies {
            keep_cookies(names);
        }
        Ok(Decision::Next)
    }

    /// Tells caches behind us what the answer depended on; what the origin said of it stays.
    fn on_deliver(&self) -> Result<(), String> {
        let fields = [
            ("accept-language", self.language.is_some()),
            ("user-agent", self.device),
            ("sec-ch-ua-mobile", self.device),
            ("cookie", self.cookies.as_ref().is_some_and(|names| !names.is_empty())),
        ];
        let vary = response::header("vary").unwrap_or_default().to_ascii_lowercase();
        let said = |field: &str| vary.split(',').any(|name| matches!(name.trim(), "*") || name.trim() == field);
        let missing: Vec<_> =
            fields.iter().filter(|(field, on)| *on && !said(field)).map(|(field, _)| *field).collect();
        if !missing.is_empty() {
            response::append_header("vary", &missing.join(", "));
        }
        Ok(())
    }
}

/// Keeps the listed parameters, by name and then in their order: `?b=1&a=2` and `?a=2&b=1` are one entry.
fn keep_query(names: &[String]) {
    let query = request::query();
    let mut kept: Vec<(Cow<'_, str>, &str)> = Vec::new();
    for piece in query.as_deref().unwrap_or("").split('&') {
        let name = piece.split('=').next().unwrap_or(piece);
        if let Some(name) = text::query_decode(name).filter(|name| names.iter().any(|one| one == name)) {
            kept.push((name, piece));
        }
    }
    // A stable sort: the order among equals may mean something to the origin.
    kept.sort_by(|(a, _), (b, _)| a.cmp(b));
    let kept: Vec<_> = kept.into_iter().map(|(_, piece)| piece).collect();
    let kept = kept.join("&");
    upstream::set_query(if kept.is_empty() { None } else { Some(&kept) });
    cache_lookup::key_query_only(names);
}

/// Keeps the listed cookies, as parts of the key and in what the origin gets.
fn keep_cookies(names: &[String]) {
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        let Some(value) = request::cookie(name) else { continue };
        if value.len() > COOKIE_MAX_BYTES {
            // Anyone can send any cookie; long ones would only fill the cache.
            cache_lookup::bypass();
        } else {
            cache_lookup::add_key(&format!("cookie.{name}"), &value);
        }
        kept.push(format!("{name}={value}"));
    }
    if kept.is_empty() {
        upstream::remove_header("cookie");
    } else {
        upstream::set_header("cookie", &kept.join("; "));
    }
}

proxyhost_policy::export!(CacheKey: on_request, on_deliver);
