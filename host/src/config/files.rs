//! Files and secrets that hosts.json names. Reading is bounded and never hangs: only regular files are opened.

use std::io::{ErrorKind, Read};
use std::path::{Path as FilePath, PathBuf};

use super::error::{Mistakes, Path, quoted};

/// The longest file of addresses, tables or keys.
pub const FILE_MOST_BYTES: u64 = 64 << 20;
/// The longest secret.
const SECRET_MOST_BYTES: u64 = 1 << 20;

/// What the file is resolved against: injected, so that tests need not change the process.
pub struct Surroundings<'a> {
    /// Folder of hosts.json, absolute.
    pub folder: PathBuf,
    /// An environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// Free bytes where a path is or would be.
    pub disk_free: &'a dyn Fn(&FilePath) -> Option<u64>,
    /// Memory that the program may use, in bytes.
    pub memory: Option<u64>,
}

impl Surroundings<'_> {
    /// A file name of hosts.json, resolved.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads a secret: literal, `env:NAME` or `file:PATH` (one line end at its end is dropped). Mistakes never show it.
    pub fn secret(&self, text: &str, path: &Path, mistakes: &mut Mistakes) -> Option<Vec<u8>> {
        let expected = "a secret that can be read and is not empty";
        if text.is_empty() {
            return None; // the walker has named it
        }
        let secret = if let Some(name) = text.strip_prefix("env:") {
            match (self.variable)(name) {
                Some(secret) => secret,
                None => {
                    mistakes.add(path, format!("{}, a variable that is not set", quoted(text)), expected);
                    return None;
                }
            }
        } else if let Some(name) = text.strip_prefix("file:") {
            match read(&self.path(name), SECRET_MOST_BYTES) {
                Ok(mut secret) => {
                    if secret.last() == Some(&b'\n') {
                        secret.pop();
                        if secret.last() == Some(&b'\r') {
                            secret.pop();
                        }
                    }
                    secret
                }
                Err(reason) => {
                    mistakes.add(path, format!("{}, {reason}", quoted(text)), expected);
                    return None;
                }
            }
        } else {
            text.as_bytes().to_vec()
        };
        if secret.is_empty() {
            // An empty key signs for everyone.
            mistakes.add(path, format!("{}, which is empty", quoted(text)), expected);
            return None;
        }
        Some(secret)
    }

    /// The same as text.
    pub fn secret_text(&self, text: &str, path: &Path, mistakes: &mut Mistakes) -> Option<String> {
        let secret = self.secret(text, path, mistakes)?;
        match String::from_utf8(secret) {
            Ok(secret) if secret.bytes().all(|b| b.is_ascii_graphic()) => Some(secret),
            _ => {
                mistakes.add(
                    path,
                    "a secret with blanks or other than ASCII characters (not shown)",
                    "visible ASCII characters",
                );
                None
            }
        }
    }
}

/// Reads a regular file that is not longer than a bound. The error fits behind the name: "which does not exist".
pub fn read(path: &FilePath, most_bytes: u64) -> Result<Vec<u8>, String> {
    // Opening a pipe would wait for its writer, so the kind is asked first.
    let meta = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
    if meta.is_dir() {
        return Err("which is a folder".into());
    }
    if !meta.is_file() {
        return Err("which is not a regular file".into());
    }
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::new();
    file.take(most_bytes + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > most_bytes {
        return Err(format!("which is longer than {}", crate::units::ByteSize(most_bytes)));
    }
    Ok(bytes)
}

/// Why something cannot be read, in words that fit behind its name.
pub fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "which does not exist".into(),
        _ => format!("which cannot be read ({error})"),
    }
}
