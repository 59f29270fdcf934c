//! HTTPS: listeners, certificates, automatic ones, and what hosts say of them.

use std::sync::Arc;

use http::HeaderValue;

use super::super::at::At;
use super::super::error::quoted;
use super::super::json::Json;
use super::super::leaf;
use super::{Resolver, Tls};
use crate::semantics::authority::{HostPattern, Hostname};
use crate::tls::{CertificateFiles, ClientCa, Source, roots};
use crate::vhost::Https;

/// Let's Encrypt's directories.
const LETSENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETSENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// What hosts.json says of automatic certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// Whom the CA may write to.
    pub contact: Vec<String>,
    /// URL of the directory.
    pub directory: String,
    /// PEM file of the CA of a private ACME server.
    pub ca: Option<std::path::PathBuf>,
    /// Folder of the account and the certificates.
    pub store: std::path::PathBuf,
}

impl Resolver<'_> {
    /// Files of static certificates. Whether they are good is for the room that shows them.
    pub(super) fn static_certificates(&mut self, tls: &At<'_>) -> Vec<CertificateFiles> {
        let Some(list) = tls.given("certificates") else { return Vec::new() };
        let Json::List(items) = list.json else { return Vec::new() };
        let text =
            |item: &Json, name: &str| item.get(name).and_then(Json::text).map(|file| self.surroundings.path(file));
        items
            .iter()
            .filter_map(|item| Some(CertificateFiles { cert: text(item, "cert")?, key: text(item, "key") }))
            .collect()
    }

    pub(super) fn acme(&mut self, root: &At<'_>, cache_folder: &std::path::Path) -> Option<Acme> {
        let acme = root.given("acme")?;
        let directory = match acme.text("directory")?.as_str() {
            "letsencrypt" => LETSENCRYPT.to_owned(),
            "letsencrypt-staging" => LETSENCRYPT_STAGING.to_owned(),
            url => {
                // RFC 8555 section 6.1: nothing of ACME goes over plain HTTP.
                if !url.starts_with("https://") || leaf::url(url).is_none() {
                    let expected = r#""letsencrypt", "letsencrypt-staging" or a URL that begins with https://"#;
                    self.mistakes.add(&acme.path.key("directory"), quoted(url), expected);
                }
                url.to_owned()
            }
        };
        let contact = acme.list("contact", |text| Some(text.to_owned()));
        for (index, address) in contact.iter().enumerate().filter(|(_, address)| !address.starts_with("mailto:")) {
            let expected = "an address such as \"mailto:ops@example.com\"";
            self.mistakes.add(&acme.path.key("contact").item(index), quoted(address), expected);
        }
        let file = |name: &str| acme.text(name).map(|file| self.surroundings.path(&file));
        let (ca, store) = (file("ca"), file("store").unwrap_or_else(|| cache_folder.join("acme")));
        if let Some(Err(error)) = ca.as_ref().map(|file| roots::read(file)) {
            self.mistakes.add(&acme.path.key("ca"), error.to_string(), "a PEM file with certificates of CAs");
        }
        self.folder(&acme, "store", &store);
        Some(Acme { contact, directory, ca, store })
    }

    pub(super) fn https(&mut self, host: &At<'_>, pattern: Option<&HostPattern>, tls: Tls) -> Option<Https> {
        let exact = matches!(pattern, Some(HostPattern::Exact(name)) if !name.is_address());
        let said = host.text("https");
        if !tls.listens
            && let Some(said @ ("static" | "auto")) = said.as_deref()
        {
            let expected = "listen.https with an address, or \"off\"";
            self.mistakes.add(&host.path.key("https"), format!("{said:?}, and no listen.https"), expected);
        }
        if tls.listens && !tls.certificates && said.as_deref() == Some("static") {
            let expected = "tls.certificates with one for this host, or \"auto\" with acme, or \"off\"";
            self.mistakes.add(&host.path.key("https"), "\"static\", and no tls.certificates", expected);
        }
        let source = match said.as_deref() {
            None => Source::Unsaid { auto: tls.acme && exact },
            Some("off") => Source::Off,
            Some("static") => Source::Static,
            Some(said) => {
                let path = host.path.key("https");
                if said != "auto" {
                    // The walker has named it.
                    return None;
                }
                if !exact && pattern.is_some() {
                    let expected = "\"static\": a certificate for a pattern or an address is not issued automatically";
                    self.mistakes.add(&path, "\"auto\"", expected);
                } else if !tls.acme {
                    self.mistakes.add(&path, "\"auto\", and no acme", "acme beside it, or \"static\"");
                }
                Source::Auto
            }
        };
        if source == Source::Off {
            let of_no_use =
                [("client_ca", host.given("client_ca").is_some()), ("redirect_http", host.flag("redirect_http"))];
            for (name, _) in of_no_use.into_iter().filter(|(_, given)| *given) {
                let expected = "https for this host, or nothing here";
                self.mistakes.add(&host.path.key(name), "it beside \"https\": \"off\"", expected);
            }
        }
        let redirect = match host.given("redirect_http") {
            Some(_) => host.flag("redirect_http"),
            None => source != Source::Off && !matches!(pattern, Some(HostPattern::Any)),
        };
        Some(Https {
            source,
            client_ca: self.client_ca(host),
            redirect,
            hsts: hsts(host),
            canonical: self.canonical(host),
        })
    }

    fn client_ca(&mut self, host: &At<'_>) -> Option<Arc<ClientCa>> {
        let file = self.surroundings.path(&host.text("client_ca")?);
        match ClientCa::read(&file) {
            Ok(ca) => Some(Arc::new(ca)),
            Err(error) => {
                self.mistakes.add(&host.path.key("client_ca"), error.to_string(), "a PEM file of a CA");
                None
            }
        }
    }

    fn canonical(&mut self, host: &At<'_>) -> Option<Hostname> {
        let written = host.text("canonical")?;
        Hostname::parse(&written)
            .map_err(|error| {
                let found = format!("{} ({error})", quoted(&written));
                self.mistakes.add(&host.path.key("canonical"), found, "a host name such as \"www.example.com\"");
            })
            .ok()
    }
}

fn hsts(host: &At<'_>) -> Option<HeaderValue> {
    let given = host.given("hsts")?;
    let (max_age, subdomains, preload) = match given.json {
        Json::Object(_) => {
            let flag = |name: &str| given.json.get(name) == Some(&Json::Bool(true));
            (leaf::duration(given.json.get("max_age")?)?, flag("include_subdomains"), flag("preload"))
        }
        age => (leaf::duration(age)?, false, false),
    };
    let mut value = format!("max-age={}", max_age.as_secs());
    if subdomains {
        value.push_str("; includeSubDomains");
    }
    if preload {
        value.push_str("; preload");
    }
    HeaderValue::from_str(&value).ok()
}
