//! Certificates in files, read again when they change.
//!
//! A certificate and its key are often replaced one after the other: what does not fit together is reported once and tried
//! again at the next look, and the old pair stays in service. Beside a certificate file may lie its OCSP answer (DER), under the
//! same name with `.ocsp` behind it: it is stapled.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::certificate::{self, Certificate};
use super::error::CertificateError;

/// Where a certificate lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// A PEM file with the chain, leaf first; or a folder of such files (`*.pem`, `*.crt`).
    pub cert: PathBuf,
    /// A PEM file with the key; none when it stands in the file of the chain, or beside it with the ending `.key`.
    pub key: Option<PathBuf>,
}

/// What tells a changed file cheaply.
type Stamp = (u64, u64, i64, i64);

/// One entry of `tls.certificates` and what was last read of it.
#[derive(Debug)]
struct Known {
    files: CertificateFiles,
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    certificates: Vec<Arc<Certificate>>,
    problem: Option<String>,
}

/// All static certificates.
#[derive(Debug, Default)]
pub(super) struct StaticCertificates {
    known: Vec<Known>,
}

impl StaticCertificates {
    /// Takes another list. What is in service of the entries that stay is kept, so that a bad file takes nothing away.
    pub fn configure(&mut self, list: &[CertificateFiles]) {
        let mut old = std::mem::take(&mut self.known);
        for files in list {
            let kept = old.iter().position(|known| known.files == *files).map(|at| old.swap_remove(at));
            self.known.push(kept.unwrap_or_else(|| Known {
                files: files.clone(),
                stamps: Vec::new(),
                certificates: Vec::new(),
                problem: None,
            }));
        }
    }

    /// Reads what has changed. Returns a line for each change and each new problem, and whether anything is different now.
    pub fn refresh(&mut self, provider: &CryptoProvider) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        let mut changed = false;
        for known in &mut self.known {
            let stamps = stamps(&known.files);
            if stamps == known.stamps && known.problem.is_none() {
                continue;
            }
            let first = known.stamps.is_empty();
            known.stamps = stamps;
            match load(&known.files, provider) {
                Ok(certificates) => {
                    let same = certificates.len() == known.certificates.len()
                        && certificates.iter().zip(&known.certificates).all(|(new, old)| is_same(new, old));
                    known.problem = None;
                    if !same {
                        changed = true;
                        known.certificates = certificates.into_iter().map(Arc::new).collect();
                        if !first {
                            lines.push(format!("{}: the new certificate is in service", known.files.cert.display()));
                        }
                    }
                }
                Err(error) => {
                    let stays = if known.certificates.is_empty() { "" } else { " (the previous one stays in service)" };
                    let problem = format!("{}: {error}{stays}", known.files.cert.display());
                    if known.problem.as_ref() != Some(&problem) {
                        lines.push(problem.clone());
                        known.problem = Some(problem);
                    }
                }
            }
        }
        (lines, changed)
    }

    /// What is wrong at the moment.
    pub fn problems(&self) -> Vec<String> {
        self.known.iter().filter_map(|known| known.problem.clone()).collect()
    }

    /// What is in service, in the order of hosts.json.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.known.iter().flat_map(|known| &known.certificates)
    }
}

fn is_same(new: &Certificate, old: &Certificate) -> bool {
    // The key belongs to the certificate: another key is another certificate.
    new.key.cert == old.key.cert && new.key.ocsp == old.key.ocsp
}

/// Reads all certificates of an entry.
fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Vec<Certificate>, CertificateError> {
    if !files.cert.is_dir() {
        return one(&files.cert, files.key.as_deref(), provider).map(|one| vec![one]);
    }
    let mut all = Vec::new();
    for file in members(&files.cert) {
        let found = one(&file, None, provider).map_err(|error| match error {
            error @ CertificateError::File { .. } => error,
            error => CertificateError::File { file: file.clone(), reason: error.to_string() },
        })?;
        all.push(found);
    }
    if all.is_empty() {
        let reason = "no certificate in the folder (*.pem or *.crt)".to_owned();
        return Err(CertificateError::File { file: files.cert.clone(), reason });
    }
    Ok(all)
}

fn one(cert: &Path, key: Option<&Path>, provider: &CryptoProvider) -> Result<Certificate, CertificateError> {
    let chain = certificate::read(cert)?;
    let beside = cert.with_extension("key");
    let key = match key {
        Some(key) => certificate::read(key)?,
        None if beside.is_file() => certificate::read(&beside)?,
        None => chain.clone(),
    };
    let ocsp = std::fs::read(ocsp_file(cert)).ok().filter(|bytes| !bytes.is_empty());
    Certificate::from_pem(&chain, &key, ocsp, provider)
}

fn ocsp_file(cert: &Path) -> PathBuf {
    let mut name = OsString::from(cert);
    name.push(".ocsp");
    name.into()
}

/// The certificate files of a folder, in the order of their names.
fn members(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = entries
        .filter(|file| file.extension().is_some_and(|extension| extension == "pem" || extension == "crt"))
        .collect();
    files.sort();
    files
}

/// Every file that an entry is read from, with what tells that it changed.
fn stamps(files: &CertificateFiles) -> Vec<(PathBuf, Option<Stamp>)> {
    let certs = if files.cert.is_dir() { members(&files.cert) } else { vec![files.cert.clone()] };
    let beside = |cert: &PathBuf| [cert.clone(), cert.with_extension("key"), ocsp_file(cert)];
    let all = certs.iter().flat_map(beside).chain(files.key.clone());
    all.map(|file| {
        let stamp = std::fs::metadata(&file).ok();
        let stamp = stamp.map(|data| (data.len(), data.ino(), data.mtime(), data.mtime_nsec()));
        (file, stamp)
    })
    .collect()
}
