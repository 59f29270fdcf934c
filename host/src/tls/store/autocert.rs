//! Reads what golang's autocert left (`golang.org/x/crypto/acme/autocert`, its `DirCache`), as poormanscdn used it.
//!
//! ```text
//! <cache>/<domain>            PEM: EC private key (SEC1), then the chain, leaf first
//! <cache>/<domain>+rsa        the same with an RSA key (PKCS#1), for old clients
//! <cache>/acme_account+key    PEM: the account's EC key; acme_account.key before 2018
//! <cache>/<...>+token, +http-01   challenges under way: of no use here
//! ```
//!
//! Nothing here is ever written or deleted: the old program may be started again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::folder::read;

/// The account's key, newest name first.
const ACCOUNT_KEYS: [&str; 2] = ["acme_account+key", "acme_account.key"];

/// How many entries of the store's folder are looked at for a cache inside it. A cache is put there by hand, beside a few
/// others.
const MAX_ENTRIES: usize = 10_000;

/// The caches in a folder: itself, since it may be one, and every folder directly in it that has an account key.
pub(super) fn caches_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut caches = vec![folder.to_owned()];
    for entry in fs::read_dir(folder)?.take(MAX_ENTRIES) {
        let path = entry?.path();
        if path.is_dir() && ACCOUNT_KEYS.iter().any(|key| path.join(key).is_file()) {
            caches.push(path);
        }
    }
    Ok(caches)
}

/// The files that may hold the certificate of a name.
pub(super) fn candidates(cache: &Path, name: &str) -> [PathBuf; 2] {
    [cache.join(name), cache.join(format!("{name}+rsa"))]
}

/// The account's key as PKCS#8, if the cache has one on P-256: the only kind that the ACME client signs with.
pub(super) fn account_key(cache: &Path) -> io::Result<Option<Vec<u8>>> {
    for file in ACCOUNT_KEYS.map(|key| cache.join(key)) {
        let Some(text) = read(&file)? else { continue };
        match p256_key(&text) {
            Some(key) => {
                tracing::info!(file = %file.display(), "the account key of an autocert cache is used");
                return Ok(Some(key));
            }
            None => tracing::warn!(
                file = %file.display(),
                "the account key of an autocert cache is no EC P-256 key as PEM, it is skipped"
            ),
        }
    }
    Ok(None)
}

/// A private key on P-256, in SEC1 or PKCS#8, as PKCS#8.
pub(super) fn p256_key(text: &[u8]) -> Option<Vec<u8>> {
    let der = PrivateKeyDer::from_pem_slice(text).ok()?;
    let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der()).ok()?;
    Some(key.to_pkcs8v1().ok()?.as_ref().to_vec())
}
