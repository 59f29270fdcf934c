//! The bearer token of the admin listener (RFC 6750): where it comes from and how it is compared.
//!
//! Without a token in hosts.json one is made and kept in the cache folder, where the command line finds it. Whoever may read
//! that file may purge and reload.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use constant_time_eq::constant_time_eq;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The file in the cache folder.
pub const TOKEN_FILE: &str = "admin-token";

/// Random bytes of a token that is made here.
const TOKEN_BYTES: usize = 32;

/// The shortest text of the file that is taken for a token. A file that was cut off must not become a token of no length.
const SHORTEST: usize = 16;

/// The longest, so that a wrong file is not read whole.
const LONGEST: u64 = 4096;

/// The token in force: the configured one, or the one kept in the cache folder, or a new one that is kept there from now on.
/// When the folder cannot be written, the new token lives in memory only and a line tells so.
pub fn token_for(configured: Option<&str>, cache_dir: &Path) -> io::Result<Arc<str>> {
    if let Some(token) = configured {
        return Ok(token.into());
    }
    let path = cache_dir.join(TOKEN_FILE);
    match kept(&path) {
        Ok(Some(token)) => return Ok(token),
        Ok(None) => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot read the admin token, making a new one"),
    }
    let mut random = [0; TOKEN_BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes for an admin token"))?;
    let token = URL_SAFE_NO_PAD.encode(random);
    if let Err(error) = keep(&path, &token) {
        tracing::warn!(
            path = %path.display(), %error,
            "cannot keep the admin token: the command line will not find it, set admin.token to use the admin listener"
        );
    }
    Ok(token.into())
}

/// The token in the file; `None` when there is no file or nothing that could be a token.
fn kept(path: &Path) -> io::Result<Option<Arc<str>>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        // Others may have read it: it is not a secret any more.
        tracing::warn!(path = %path.display(), "the admin token was readable for others, making a new one");
        return Ok(None);
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    let token = text.trim();
    Ok((token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic())).then(|| token.into()))
}

/// Writes the token into a folder where its file has gone missing. What cannot be written is told at the start.
pub(super) fn keep_again(token: &str, cache_dir: &Path) {
    let path = cache_dir.join(TOKEN_FILE);
    let is_gone = fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if is_gone && cache_dir.is_dir() && keep(&path, token).is_ok() {
        tracing::warn!(path = %path.display(), "the admin token had gone missing, and is there again");
    }
}

/// Writes the file beside its place and moves it there, so that it is never seen half written or readable for others.
fn keep(path: &Path, token: &str) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(token.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    // Left behind by a crash of a process with our number.
    let _ = fs::remove_file(&beside);
    write().inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// Whether a request bears the token. The comparison takes the same time wherever the two differ.
pub(super) fn authorized(headers: &HeaderMap, token: &str) -> bool {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let field = field.as_bytes();
    let Some((scheme, credentials)) = field.split_at_checked(b"bearer ".len()) else { return false };
    // An empty token would be no token: nothing bears it.
    scheme.eq_ignore_ascii_case(b"bearer ")
        && !token.is_empty()
        && constant_time_eq(credentials.trim_ascii(), token.as_bytes())
}

/// Whether a request bears it as the password of Basic authentication (RFC 7617), whatever the name is.
pub(super) fn authorized_by_password(headers: &HeaderMap, token: &str) -> bool {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let Some((scheme, credentials)) = field.as_bytes().split_at_checked(b"basic ".len()) else { return false };
    let Ok(credentials) = STANDARD.decode(credentials.trim_ascii()) else { return false };
    let Some(colon) = memchr::memchr(b':', &credentials) else { return false };
    scheme.eq_ignore_ascii_case(b"basic ")
        && !token.is_empty()
        && constant_time_eq(&credentials[colon + 1..], token.as_bytes())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn bearing(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (AUTHORIZATION, HeaderValue::from_str(field).expect("a legal value"))).collect()
    }

    #[test]
    fn only_the_token_opens() {
        assert!(authorized(&bearing(&["Bearer secret"]), "secret"));
        assert!(authorized(&bearing(&["bearer  secret"]), "secret"));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer ", "Bearer", "Basic secret", "secret", ""] {
            assert!(!authorized(&bearing(&[wrong]), "secret"), "{wrong}");
        }
        assert!(!authorized(&bearing(&[]), "secret"));
        assert!(!authorized(&bearing(&["Bearer secret", "Bearer secret"]), "secret"), "two of them are none");
        assert!(!authorized(&bearing(&["Bearer "]), ""));
    }

    #[test]
    fn a_password_is_as_good_where_it_is_asked_for() {
        let basic = |text: &str| bearing(&[&format!("Basic {}", STANDARD.encode(text))]);
        assert!(authorized_by_password(&basic("anyone:secret"), "secret"));
        assert!(authorized_by_password(&basic(":se:cret"), "se:cret"));
        for wrong in ["secret", "anyone:", "anyone:secrets", "secret:"] {
            assert!(!authorized_by_password(&basic(wrong), "secret"), "{wrong}");
        }
        assert!(!authorized_by_password(&basic("anyone:"), ""));
        assert!(!authorized_by_password(&bearing(&["Basic !"]), "secret"));
        assert!(!authorized_by_password(&bearing(&["Bearer secret"]), "secret"));
    }

    #[test]
    fn a_configured_token_is_used_and_not_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(&*token_for(Some("mine"), dir.path()).expect("a token"), "mine");
        assert!(!dir.path().join(TOKEN_FILE).exists());
    }

    #[test]
    fn a_token_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = token_for(None, dir.path()).expect("a token");
        assert_eq!(first.len(), 43);
        assert_eq!(token_for(None, dir.path()).expect("a token"), first);
        let path = dir.path().join(TOKEN_FILE);
        assert_eq!(fs::metadata(&path).expect("kept").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing is left beside it");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("our file");
        let second = token_for(None, dir.path()).expect("a token");
        assert_ne!(second, first);
        assert_eq!(fs::metadata(&path).expect("kept").permissions().mode() & 0o777, 0o600);

        fs::write(&path, "short").expect("our file");
        assert_ne!(token_for(None, dir.path()).expect("a token"), second);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_only_the_file() {
        let token = token_for(None, Path::new("/proc/nothing/here")).expect("a token in memory");
        assert_eq!(token.len(), 43);
    }
}
