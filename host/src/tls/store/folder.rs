//! The certificate store as a folder.
//!
//! ```text
//! <store>/                              0700
//!   certificates/<name>.pem             0600  key (PKCS#8), then the chain, leaf first
//!   accounts/<host>-<hash>.json         0600  {"version": 1, "directory": "https://…", "key": "<PEM>"}
//!   attempts.json                       0600  failed attempts of the last hour, see acme/attempts.rs
//!   <an autocert cache, or its files>         read only, see autocert.rs
//! ```
//!
//! `<hash>` is the first 16 hex digits of the SHA-256 of the directory URL. A file is written beside its place, synced and
//! moved there, and its folder synced: it is never seen half written. Files and folders that are made here are for their
//! owner alone; a store folder that was there before keeps its mode, and a line tells when others may look into it.
//!
//! Two processes may read the folder; only one should order certificates.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::stored::write_pem;
use super::{BadCertificate, CertificateStore, Stored, autocert, is_host_name};
use crate::clock::{Clock, Timestamp};

/// The longest file that is read. A chain has some 10 KiB, the attempts of ten thousand names 1 MiB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A file that was being written this long ago was left by a crash.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// Format of the account files.
const ACCOUNT_VERSION: u32 = 1;

/// Hex digits of the directory URL's hash in a file name.
const HASH_DIGITS: usize = 16;

/// A folder with certificates, account keys and failed attempts.
#[derive(Debug)]
pub struct FolderStore {
    folder: PathBuf,
    caches: Vec<PathBuf>,
    provider: CryptoProvider,
}

#[derive(Serialize, Deserialize)]
struct AccountFile {
    version: u32,
    directory: String,
    key: String,
}

impl FolderStore {
    /// Opens a folder, which is made if it is not there, and looks for autocert caches in it.
    ///
    /// # Errors
    /// It is no folder, or cannot be made, read or written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let told = |error: io::Error| {
            io::Error::new(error.kind(), format!("the certificate store {}: {error}", folder.display()))
        };
        let store = Self {
            folder: folder.to_owned(),
            caches: Vec::new(),
            provider: rustls::crypto::aws_lc_rs::default_provider(),
        };
        let there = folder.is_dir();
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        for made in [folder, &store.certificates(), &store.accounts()] {
            private.create(made).map_err(told)?;
        }
        if there && fs::metadata(folder).map_err(told)?.permissions().mode() & 0o077 != 0 {
            tracing::warn!(folder = %folder.display(), "others than its owner may look into the certificate store");
        }
        let now = Clock::default().now();
        for swept in [folder, &store.certificates(), &store.accounts()] {
            sweep(swept, now).map_err(told)?;
        }
        Ok(Self { caches: autocert::caches_in(folder).map_err(told)?, ..store })
    }

    fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    fn accounts(&self) -> PathBuf {
        self.folder.join("accounts")
    }

    fn account_file(&self, directory: &str) -> PathBuf {
        let host = directory.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase));
        let host: String = host
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' })
            .collect();
        let hash: String = Sha256::digest(directory).iter().map(|byte| format!("{byte:02x}")).collect();
        self.accounts().join(format!("{host}-{}.json", &hash[..HASH_DIGITS]))
    }

    /// The certificate in a file, or `None` with a line that tells why not.
    fn usable(&self, file: &Path, name: &str) -> io::Result<Option<Stored>> {
        let Some(text) = read(file)? else { return Ok(None) };
        let checked = || -> Result<Stored, BadCertificate> {
            let stored = Stored::from_pem(&text)?;
            stored.certified_for(name, &self.provider)?;
            Ok(stored.found_in(file))
        };
        Ok(checked()
            .inspect_err(|error| {
                tracing::warn!(file = %file.display(), name, %error, "a certificate in the store is skipped");
            })
            .ok())
    }

    fn own_account_key(&self, directory: &str) -> io::Result<Option<Vec<u8>>> {
        let file = self.account_file(directory);
        let Some(text) = read(&file)? else { return Ok(None) };
        let key = serde_json::from_slice::<AccountFile>(&text)
            .ok()
            .filter(|account| account.version == ACCOUNT_VERSION && account.directory == directory)
            .and_then(|account| autocert::p256_key(account.key.as_bytes()));
        if key.is_none() {
            tracing::warn!(file = %file.display(), directory, "an account in the store is unreadable, it is skipped");
        }
        Ok(key)
    }
}

impl CertificateStore for FolderStore {
    /// Of several usable files, our own and those of autocert caches, the one that is valid longest.
    fn certificate(&self, name: &str) -> io::Result<Option<Stored>> {
        if !is_host_name(name) {
            return Ok(None);
        }
        let mut best = self.usable(&self.certificates().join(format!("{name}.pem")), name)?;
        for file in self.caches.iter().flat_map(|cache| autocert::candidates(cache, name)) {
            if let Some(found) = self.usable(&file, name)?
                && best.as_ref().is_none_or(|best| best.not_after() < found.not_after())
            {
                best = Some(found);
            }
        }
        Ok(best)
    }

    fn keep_certificate(&self, name: &str, stored: &Stored) -> io::Result<()> {
        if !is_host_name(name) {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{name:?} is no host name")));
        }
        write(&self.certificates(), &format!("{name}.pem"), stored.to_pem().as_bytes())
    }

    /// Our own, else that of an autocert cache, which is registered at any directory as well as at its own.
    fn account_key(&self, directory: &str) -> io::Result<Option<Vec<u8>>> {
        if let Some(key) = self.own_account_key(directory)? {
            return Ok(Some(key));
        }
        for cache in &self.caches {
            if let Some(key) = autocert::account_key(cache)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn keep_account_key(&self, directory: &str, pkcs8: &[u8]) -> io::Result<()> {
        let mut key = String::new();
        write_pem(&mut key, "PRIVATE KEY", pkcs8);
        let account = AccountFile { version: ACCOUNT_VERSION, directory: directory.to_owned(), key };
        let file = self.account_file(directory);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        write(&self.accounts(), &name, &serde_json::to_vec_pretty(&account)?)
    }

    fn attempts(&self) -> io::Result<Option<Vec<u8>>> {
        read(&self.folder.join("attempts.json"))
    }

    fn keep_attempts(&self, document: &[u8]) -> io::Result<()> {
        write(&self.folder, "attempts.json", document)
    }
}

/// A file's bytes; `None` when there is no such file, or it is a folder, a pipe or the like.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // Asked first: opening a pipe would wait for its writer.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(told(error)),
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)).map_err(told)?;
    Ok(Some(bytes))
}

/// Writes a file beside its place, syncs it, moves it there and syncs the folder.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = folder.join(name);
    // A leading dot: no host name looks like that.
    let beside = folder.join(format!(".{:016x}.new", fastrand::u64(..)));
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(folder)?.sync_all()
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&beside);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })
}

/// Removes what a crash left half written. What another process may be writing now stays.
fn sweep(folder: &Path, now: Timestamp) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') || !name.ends_with(".new") {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| now.since(Timestamp::from_system(modified)) > LEFT_BEHIND) {
            tracing::info!(file = %entry.path().display(), "a file that a crash left half written is removed");
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}
