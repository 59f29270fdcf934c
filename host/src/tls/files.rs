//! Certificates in files, read again when they change.
//!
//! A certificate and its key are often replaced one after the other: what does not fit together is reported once and tried
//! again at the next look, and the old pair stays in service. So does an old one that is still good where the new one is not.
//! Beside a certificate file may lie its OCSP answer (DER), under the same name with `.ocsp` behind it: it is stapled as long as
//! it is good, and a bad one does not take the place of one that still is.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::certificate::{self, Certificate, Staple};
use super::error::CertificateError;
use super::ocsp;
use crate::clock::Timestamp;

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
    /// By the file of the chain.
    certificates: Vec<(PathBuf, Arc<Certificate>)>,
    problems: Vec<String>,
}

/// What came of reading again.
#[derive(Debug, Default)]
pub(super) struct Refreshed {
    /// A line for each change.
    pub changes: Vec<String>,
    /// A line for each new problem.
    pub problems: Vec<String>,
    /// Something else is to be shown now.
    pub changed: bool,
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
                problems: Vec::new(),
            }));
        }
    }

    /// What speaks against taking a list: entries that are new in it and can't be shown.
    pub fn refusals(&self, list: &[CertificateFiles], provider: &CryptoProvider, now: Timestamp) -> Vec<String> {
        let new = list.iter().filter(|files| !self.known.iter().any(|known| known.files == **files));
        new.flat_map(|files| Reading::of(files, &[], provider, now).problems).collect()
    }

    /// Reads what has changed.
    pub fn refresh(&mut self, provider: &CryptoProvider, now: Timestamp) -> Refreshed {
        let mut refreshed = Refreshed::default();
        for known in &mut self.known {
            let stamps = stamps(&known.files);
            let too_old = known.certificates.iter().any(|(_, certificate)| certificate.is_staple_over(now));
            if stamps == known.stamps && known.problems.is_empty() && !too_old {
                continue;
            }
            let first = known.stamps.is_empty();
            known.stamps = stamps;
            let Reading { certificates, problems } = Reading::of(&known.files, &known.certificates, provider, now);
            refreshed.problems.extend(problems.iter().filter(|problem| !known.problems.contains(problem)).cloned());
            known.problems = problems;
            let is_old = |file: &Path, new: &Certificate| {
                known.certificates.iter().any(|(other, old)| other == file && is_same(new, old))
            };
            let new: Vec<&PathBuf> =
                certificates.iter().filter(|(file, new)| !is_old(file, new)).map(|(file, _)| file).collect();
            if new.is_empty() && certificates.len() == known.certificates.len() {
                continue;
            }
            refreshed.changed = true;
            if !first {
                let line = |file: &&PathBuf| format!("{}: the new certificate is in service", file.display());
                refreshed.changes.extend(new.iter().map(line));
            }
            known.certificates = certificates;
        }
        refreshed
    }

    /// What is wrong at the moment.
    pub fn problems(&self) -> Vec<String> {
        self.known.iter().flat_map(|known| known.problems.clone()).collect()
    }

    /// What is in service, in the order of hosts.json.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.known.iter().flat_map(|known| known.certificates.iter().map(|(_, certificate)| certificate))
    }
}

fn is_same(new: &Certificate, old: &Certificate) -> bool {
    // The key belongs to the certificate: another key is another certificate.
    new.key.cert == old.key.cert && new.key.ocsp == old.key.ocsp
}

/// An entry, read.
#[derive(Debug, Default)]
struct Reading {
    certificates: Vec<(PathBuf, Arc<Certificate>)>,
    problems: Vec<String>,
}

impl Reading {
    /// Reads all certificates of an entry. Where one can't be shown, the one of the same file among `old` stays.
    fn of(
        files: &CertificateFiles,
        old: &[(PathBuf, Arc<Certificate>)],
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Self {
        let mut reading = Self::default();
        let (members, key) = if files.cert.is_dir() {
            (members(&files.cert), None)
        } else {
            (vec![files.cert.clone()], files.key.as_deref())
        };
        if members.is_empty() {
            let stays = stays(!old.is_empty());
            let line = format!("{}: no certificate in the folder (*.pem or *.crt){stays}", files.cert.display());
            reading.problems.push(line);
            reading.certificates = old.to_vec();
        }
        for file in members {
            let before = old.iter().find(|(other, _)| *other == file).map(|(_, certificate)| certificate);
            let good_before = before.filter(|before| before.not_after > now);
            let (read, problem) = match one(&file, key, before, provider, now) {
                Ok((read, _)) if read.not_after <= now && good_before.is_some() => {
                    (None, Some(format!("the certificate has expired{}", stays(true))))
                }
                Ok((read, ocsp_problem)) => {
                    let expired = (read.not_after <= now).then(|| "the certificate has expired".to_owned());
                    (Some(Arc::new(read)), expired.or(ocsp_problem))
                }
                Err(error) => (None, Some(format!("{error}{}", stays(before.is_some())))),
            };
            if let Some(problem) = problem {
                reading.problems.push(format!("{}: {problem}", file.display()));
            }
            reading.certificates.extend(read.or_else(|| before.cloned()).map(|certificate| (file, certificate)));
        }
        reading
    }
}

fn stays(is_there: bool) -> &'static str {
    if is_there { " (the previous one stays in service)" } else { "" }
}

/// Reads one certificate, and what is wrong with its OCSP answer.
fn one(
    cert: &Path,
    key: Option<&Path>,
    before: Option<&Arc<Certificate>>,
    provider: &CryptoProvider,
    now: Timestamp,
) -> Result<(Certificate, Option<String>), CertificateError> {
    let chain = certificate::read(cert)?;
    let beside = cert.with_extension("key");
    let key = match key {
        Some(key) => certificate::read(key)?,
        None if beside.is_file() => certificate::read(&beside)?,
        None => chain.clone(),
    };
    let mut read = Certificate::from_pem(&chain, &key, provider)?;
    let file = ocsp_file(cert);
    let answer = match std::fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((read, None)),
        Err(error) => Err(error.to_string()),
        Ok(answer) => match ocsp::good_until(&answer, &read.key.cert[0], now) {
            Ok(until) => Ok(Staple { answer, until }),
            Err(reason) => Err(reason),
        },
    };
    let problem = match answer {
        Ok(staple) => {
            read.staple(staple);
            None
        }
        Err(reason) => {
            // One about the same certificate that is still good does.
            let before = before.filter(|before| before.key.cert == read.key.cert && !before.is_staple_over(now));
            let kept = before.and_then(|before| before.stapled());
            let stays = stays(kept.is_some());
            if let Some(staple) = kept {
                read.staple(staple);
            }
            Some(format!("the OCSP answer {} is not stapled: {reason}{stays}", file.display()))
        }
    };
    Ok((read, problem))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::ocsp::tests::{answer, certificate};
    use super::*;
    use crate::clock::Clock;

    const HOUR: i64 = 3600;

    struct Play {
        folder: tempfile::TempDir,
        statics: StaticCertificates,
    }

    impl Play {
        /// An entry that is this file, or the folder itself.
        fn of(name: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut statics = StaticCertificates::default();
            statics.configure(&[CertificateFiles { cert: folder.path().join(name), key: None }]);
            Self { folder, statics }
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
            // Another inode, so that the change shows whatever the clock of the file system.
            let new = self.folder.path().join("new");
            fs::write(&new, bytes).unwrap();
            fs::rename(new, self.folder.path().join(name)).unwrap();
        }

        fn write_certificate(&self, name: &str, serial: u8) {
            let (certificate, key) = certificate(serial);
            self.write(name, certificate.pem() + &key.serialize_pem());
        }

        fn look(&mut self) -> Refreshed {
            self.statics.refresh(&rustls::crypto::aws_lc_rs::default_provider(), Clock::System.now())
        }

        fn stapled(&self) -> Option<Vec<u8>> {
            self.statics.certificates().next().unwrap().key.ocsp.clone()
        }
    }

    #[test]
    fn a_good_answer_is_stapled_and_a_bad_one_does_not_take_its_place() {
        let mut play = Play::of("a.pem");
        play.write_certificate("a.pem", 9);
        assert!(play.look().changed && play.stapled().is_none());
        let good = answer(0, 9, -HOUR, HOUR);
        play.write("a.pem.ocsp", &good);
        assert!(play.look().changed);
        assert_eq!(play.stapled().as_ref(), Some(&good));
        for bad in [b"garbage".to_vec(), answer(0, 8, -HOUR, HOUR), answer(0, 9, -2 * HOUR, -HOUR)] {
            play.write("a.pem.ocsp", bad);
            let looked = play.look();
            assert!(looked.problems.iter().any(|line| line.contains("stays in service")), "{looked:?}");
            assert_eq!(play.stapled().as_ref(), Some(&good));
        }
        assert!(play.look().problems.is_empty(), "it is told once");
        // Another certificate: the answer is not about it.
        play.write_certificate("a.pem", 10);
        assert!(play.look().changed && play.stapled().is_none());
    }

    #[test]
    fn an_answer_is_stapled_no_longer_than_it_is_good() {
        let mut play = Play::of("a.pem");
        play.write_certificate("a.pem", 9);
        play.write("a.pem.ocsp", answer(0, 9, -HOUR, HOUR));
        play.look();
        assert!(play.stapled().is_some());
        let later = Clock::System.now().plus(std::time::Duration::from_secs(2 * HOUR as u64));
        let looked = play.statics.refresh(&rustls::crypto::aws_lc_rs::default_provider(), later);
        assert!(looked.changed && play.stapled().is_none(), "{looked:?}");
    }

    #[test]
    fn a_bad_file_of_a_folder_takes_only_itself_out() {
        let mut play = Play::of("");
        play.write_certificate("a.pem", 1);
        play.write_certificate("b.crt", 2);
        play.write("c.txt", "of others");
        play.look();
        assert_eq!(play.statics.certificates().count(), 2);
        play.write("a.pem", "junk");
        play.write_certificate("d.pem", 3);
        let looked = play.look();
        assert!(looked.changed && looked.problems.len() == 1, "{looked:?}");
        assert_eq!(play.statics.certificates().count(), 3, "the old one of the bad file stays");
        fs::remove_file(play.folder.path().join("b.crt")).unwrap();
        assert!(play.look().changed);
        assert_eq!(play.statics.certificates().count(), 2);
    }
}
