//! Origins: buckets, servers and folders.

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::super::at::At;
use super::super::error::quoted;
use super::super::files::{FILE_MOST_BYTES, read};
use super::super::leaf;
use super::Resolver;
use crate::origin::{HostField, HttpSettings, OriginKind, Place, S3Credentials, S3Settings, Settings, Timeouts};

/// The origins of a file.
pub struct Origins {
    /// In its order, those that are right.
    pub list: Vec<Settings>,
    /// Every name, and its kind where that is known.
    pub kinds: HashMap<String, Option<OriginKind>>,
}

impl Resolver<'_> {
    pub(super) fn origins(&mut self, origins: &At<'_>, private: &[(&str, &FilePath)]) -> Origins {
        let private: Vec<(&str, PathBuf)> = private.iter().map(|(what, path)| (*what, canonical(path))).collect();
        let mut list = Vec::new();
        let mut kinds = HashMap::new();
        for (name, origin) in origins.names() {
            let place = self.place(&origin, &private);
            let kind = match (&place, ["s3", "http", "dir"].iter().find(|kind| origin.given(kind).is_some())) {
                (Some(Place::S3(_)), _) | (None, Some(&"s3")) => Some(OriginKind::S3),
                (Some(Place::Http(_)), _) | (None, Some(&"http")) => Some(OriginKind::Http),
                (Some(Place::Dir(_)), _) | (None, Some(&"dir")) => Some(OriginKind::Dir),
                _ => None,
            };
            kinds.insert(name.to_owned(), kind);
            if let (Some(place), Some(timeouts)) = (place, timeouts(&origin.object("timeouts"))) {
                list.push(Settings { name: name.to_owned(), place, timeouts });
            }
        }
        Origins { list, kinds }
    }

    fn place(&mut self, origin: &At<'_>, private: &[(&str, PathBuf)]) -> Option<Place> {
        // All that is there is looked at, so that all mistakes are found; the walker has said that one is enough.
        let s3 = origin.given("s3").and_then(|s3| self.s3(&s3)).map(Place::S3);
        let http = origin.given("http").and_then(|http| self.http(&http)).map(Place::Http);
        let dir = origin.given("dir").and_then(|dir| self.dir(&dir, private)).map(Place::Dir);
        s3.or(http).or(dir)
    }

    fn s3(&mut self, s3: &At<'_>) -> Option<S3Settings> {
        let credentials = self.credentials(s3);
        let bucket = s3.text("bucket")?;
        if bucket.contains(['/', '?', '#', ' ']) {
            self.mistakes.add(
                &s3.path.key("bucket"),
                quoted(&bucket),
                "the name of a bucket, without slashes and blanks",
            );
            return None;
        }
        Some(S3Settings {
            bucket,
            region: s3.text("region"),
            endpoint: s3.text("endpoint"),
            path_style: s3.flag("path_style"),
            credentials: credentials?,
        })
    }

    fn credentials(&mut self, s3: &At<'_>) -> Option<S3Credentials> {
        let keys = ["access_key_id", "secret_access_key"];
        let given = keys.map(|name| s3.given(name));
        let [id, secret] = given.each_ref().map(|given| {
            let given = given.as_ref()?;
            self.surroundings.secret_text(given.json.text()?, &given.path, self.mistakes)
        });
        match (given.map(|given| given.is_some()), s3.flag("anonymous")) {
            ([false, false], true) => Some(S3Credentials::Anonymous),
            ([false, false], false) => Some(S3Credentials::Chain),
            ([true, true], false) => Some(S3Credentials::Static { access_key_id: id?, secret_access_key: secret? }),
            (_, true) => {
                let path = s3.path.key("anonymous");
                self.mistakes.add(&path, "true, and keys beside it", "either keys, or a public bucket without them");
                None
            }
            ([true, false], false) => {
                self.mistakes.add(&s3.path.key(keys[1]), "nothing", "the secret that belongs to access_key_id");
                None
            }
            ([false, true], false) => {
                self.mistakes.add(&s3.path.key(keys[0]), "nothing", "the id that belongs to secret_access_key");
                None
            }
        }
    }

    fn http(&mut self, http: &At<'_>) -> Option<HttpSettings> {
        let ca = http.text("ca").map(|name| self.surroundings.path(&name));
        if let (Some(ca), Some(name)) = (&ca, http.text("ca")) {
            self.certificates(http, ca, &name);
        }
        let host = match http.text("host")?.as_str() {
            "origin" => HostField::Origin,
            "client" => HostField::Client,
            literal => {
                let right = literal.parse::<http::uri::Authority>().is_ok() && !literal.contains('@');
                if !right {
                    let expected = r#""origin", "client" or a host name"#;
                    self.mistakes.add(&http.path.key("host"), quoted(literal), expected);
                }
                HostField::Literal(literal.to_owned())
            }
        };
        Some(HttpSettings { url: leaf::url(&http.text("url")?)?, host, ca })
    }

    fn certificates(&mut self, http: &At<'_>, file: &FilePath, name: &str) {
        let found = match read(file, FILE_MOST_BYTES) {
            Ok(bytes) => {
                let mut certificates = CertificateDer::pem_slice_iter(&bytes).peekable();
                match (certificates.peek().is_some(), certificates.find_map(Result::err)) {
                    (true, None) => return,
                    (false, None) => "which has no certificate".to_owned(),
                    (_, Some(error)) => format!("which is not PEM ({error})"),
                }
            }
            Err(reason) => reason,
        };
        let found = format!("{}, {found}", quoted(name));
        self.mistakes.add(&http.path.key("ca"), found, "a PEM file with certificates");
    }

    fn dir(&mut self, dir: &At<'_>, private: &[(&str, PathBuf)]) -> Option<PathBuf> {
        let name = dir.text("path")?;
        let folder = self.surroundings.path(&name);
        let found = match std::fs::metadata(&folder) {
            Ok(meta) if meta.is_dir() => {
                let real = canonical(&folder);
                // A site that serves the admin token or the secrets of hosts.json is never what was meant.
                match private.iter().find(|(_, path)| path.starts_with(&real) || real.starts_with(path)) {
                    None => return Some(folder),
                    Some((what, path)) => format!("which holds {what} ({})", path.display()),
                }
            }
            Ok(_) => "which is not a folder".to_owned(),
            Err(error) => super::super::files::unreadable(&error),
        };
        let found = format!("{}, {found}", quoted(&name));
        self.mistakes.add(&dir.path.key("path"), found, "a folder that can be served");
        None
    }
}

fn timeouts(timeouts: &At<'_>) -> Option<Timeouts> {
    Some(Timeouts {
        connect: timeouts.duration("connect")?,
        first_byte: timeouts.duration("first_byte")?,
        idle: timeouts.duration("idle")?,
    })
}

/// A path with its links followed as far as it exists.
fn canonical(path: &FilePath) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_owned()
}
