//! The folder store: what it keeps, what it imports, and what it is not misled by.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
};
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};

use super::*;

const DIRECTORY: &str = "https://ca.test/directory";

/// Key and certificate as PEM.
fn pair(names: &[&str], until_year: i32) -> (String, String) {
    let mut parameters =
        CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect("names");
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(until_year, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("signed").pem();
    (key.serialize_pem(), certificate)
}

fn pem(names: &[&str], until_year: i32) -> String {
    let (key, certificate) = pair(names, until_year);
    key + &certificate
}

/// An EC key as golang writes it: SEC1 (RFC 5915).
fn sec1(curve: &'static EcdsaSigningAlgorithm) -> String {
    let key = EcdsaKeyPair::generate(curve).expect("a key");
    let der: EcPrivateKeyRfc5915Der<'_> = key.private_key().as_der().expect("SEC1");
    let mut text = String::new();
    stored::write_pem(&mut text, "EC PRIVATE KEY", der.as_ref());
    text
}

fn year(stored: Option<Stored>) -> Option<u64> {
    stored.map(|stored| 1970 + stored.not_after().as_secs() / 31_556_952)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn names_are_host_names_and_no_paths() {
    for good in ["a.test", "a", "xn--bcher-kva.test", "1.a.test", "a_b.test", "localhost"] {
        assert!(is_host_name(good), "{good}");
    }
    let long = format!("{}.test", "a".repeat(64));
    for bad in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.",
        "A.test",
        "a/b",
        "../a",
        "*.a",
        "a+rsa",
        "127.0.0.1",
        "[::1]",
        "-a",
        "a-",
        &long,
        "a b",
        "ä.test",
        "a\0b",
        "a:1",
    ] {
        assert!(!is_host_name(bad), "{bad}");
    }
}

#[test]
fn what_is_kept_is_there_after_a_restart_and_for_the_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("new/store");
    let store = FolderStore::open(&root).expect("made");
    assert!(store.certificate("a.test").expect("readable").is_none());
    let stored = Stored::from_pem(pem(&["a.test"], 2050).as_bytes()).expect("a certificate");
    store.keep_certificate("a.test", &stored).expect("kept");
    store.keep_attempts(b"{}").expect("kept");

    let store = FolderStore::open(&root).expect("there");
    let again = store.certificate("a.test").expect("readable").expect("kept");
    assert_eq!(again.chain(), stored.chain());
    assert_eq!(again.to_pem(), stored.to_pem());
    assert_eq!(store.attempts().expect("readable").as_deref(), Some(&b"{}"[..]));
    for (path, expected) in [
        ("", 0o700),
        ("certificates", 0o700),
        ("accounts", 0o700),
        ("certificates/a.test.pem", 0o600),
        ("attempts.json", 0o600),
    ] {
        assert_eq!(mode(&root.join(path)), expected, "{path}");
    }
    assert_eq!(fs::read_dir(root.join("certificates")).expect("readable").count(), 1, "nothing is left beside it");
    let error = store.keep_certificate("../a", &stored).expect_err("no host name");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn account_keys_are_kept_by_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open(folder.path()).expect("made");
    assert_eq!(store.account_key(DIRECTORY).expect("readable"), None);
    let key = autocert::p256_key(sec1(&ECDSA_P256_SHA256_FIXED_SIGNING).as_bytes()).expect("a P-256 key");
    store.keep_account_key(DIRECTORY, &key).expect("kept");
    assert_eq!(store.account_key(DIRECTORY).expect("readable"), Some(key));
    assert_eq!(store.account_key("https://ca.test/other").expect("readable"), None);

    let file =
        fs::read_dir(folder.path().join("accounts")).expect("there").next().expect("one").expect("readable").path();
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("ca.test-") && name.ends_with(".json"), "{name}");
    assert_eq!(mode(&file), 0o600);
    fs::write(&file, "{").expect("written");
    assert_eq!(store.account_key(DIRECTORY).expect("no error"), None, "nonsense is no key");
}

#[test]
fn files_that_do_not_fit_are_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open(folder.path()).expect("made");
    let (key, certificate) = pair(&["a.test"], 2050);
    let (other_key, _) = pair(&["a.test"], 2050);
    for (what, text) in [
        ("empty", String::new()),
        ("no key", certificate.clone()),
        ("no certificate", key.clone()),
        ("another's key", other_key + &certificate),
        ("another name", pem(&["b.test", "c.test"], 2050)),
        ("broken PEM", (key.clone() + &certificate).replace("MII", "!!!")),
        ("broken DER", key.clone() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("not text", "\0\u{1}\u{2}".to_owned()),
    ] {
        for file in ["certificates/a.test.pem", "a.test", "a.test+rsa"] {
            let file = folder.path().join(file);
            fs::write(&file, &text).expect("written");
            assert!(store.certificate("a.test").expect("no error").is_none(), "{what}");
            fs::remove_file(file).expect("removed");
        }
    }
    fs::create_dir(folder.path().join("a.test")).expect("made");
    assert!(store.certificate("a.test").expect("no error").is_none(), "a folder of that name");
    assert!(store.certificate("accounts").expect("no error").is_none());
    fs::write(folder.path().join("certificates/a.test.pem"), key + &certificate).expect("written");
    assert!(store.certificate("a.test").expect("readable").is_some());
}

#[test]
fn of_several_certificates_the_one_that_is_valid_longest_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open(folder.path()).expect("made");
    let write = |file: &str, year: i32| fs::write(folder.path().join(file), pem(&["a.test"], year)).expect("written");
    write("a.test+rsa", 2041);
    assert_eq!(year(store.certificate("a.test").expect("readable")), Some(2041));
    write("a.test", 2042);
    assert_eq!(year(store.certificate("a.test").expect("readable")), Some(2042));
    write("certificates/a.test.pem", 2043);
    let own = store.certificate("a.test").expect("readable").expect("there");
    assert!(own.found().expect("a file").ends_with("certificates/a.test.pem"));
    write("certificates/a.test.pem", 2021);
    assert_eq!(year(store.certificate("a.test").expect("readable")), Some(2042), "ours has expired, theirs has not");
}

#[test]
fn an_autocert_cache_beside_ours_or_inside_is_read_and_never_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("old");
    fs::create_dir(&cache).expect("made");
    let account = sec1(&ECDSA_P256_SHA256_FIXED_SIGNING);
    assert!(account.contains("BEGIN EC PRIVATE KEY"));
    let certificate = pem(&["a.test"], 2050);
    fs::write(cache.join("acme_account+key"), &account).expect("written");
    fs::write(cache.join("a.test"), &certificate).expect("written");
    fs::write(cache.join("b.test+token"), "whatever").expect("written");

    let store = FolderStore::open(folder.path()).expect("made");
    let found = store.certificate("a.test").expect("readable").expect("found");
    assert_eq!(found.found(), Some(cache.join("a.test").as_path()));
    let key = store.account_key(DIRECTORY).expect("readable").expect("theirs");
    assert_eq!(Some(&key), autocert::p256_key(account.as_bytes()).as_ref());
    store.keep_account_key(DIRECTORY, &key).expect("kept");
    store.keep_certificate("a.test", &found).expect("kept");
    assert_eq!(fs::read_to_string(cache.join("acme_account+key")).expect("there"), account);
    assert_eq!(fs::read_to_string(cache.join("a.test")).expect("there"), certificate);
    assert_eq!(fs::read_dir(&cache).expect("readable").count(), 3);
}

#[test]
fn an_autocert_account_on_another_curve_is_not_used_and_its_older_name_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open(folder.path()).expect("made");
    fs::write(folder.path().join("acme_account+key"), sec1(&ECDSA_P384_SHA384_FIXED_SIGNING)).expect("written");
    assert_eq!(store.account_key(DIRECTORY).expect("readable"), None);
    fs::write(folder.path().join("acme_account.key"), sec1(&ECDSA_P256_SHA256_FIXED_SIGNING)).expect("written");
    assert!(store.account_key(DIRECTORY).expect("readable").is_some());
}

#[test]
fn a_store_that_is_no_folder_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let error = FolderStore::open(&file).expect_err("a file").to_string();
    assert!(error.contains("file"), "{error}");
}

#[test]
fn a_certificate_is_for_its_names_and_one_label_below_its_wildcards() {
    let stored = Stored::from_pem(pem(&["a.test", "*.b.test"], 2050).as_bytes()).expect("a certificate");
    for (name, is) in [
        ("a.test", true),
        ("x.a.test", false),
        ("x.b.test", true),
        ("b.test", false),
        ("y.x.b.test", false),
        ("test", false),
    ] {
        assert_eq!(stored.is_for(name), is, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Stored::from_pem(&bytes);
        let _ = autocert::p256_key(&bytes);
    }

    #[test]
    fn a_host_name_is_one_harmless_path_element(name in "[a-z0-9._/+*-]{0,12}") {
        if is_host_name(&name) {
            prop_assert_eq!(Path::new(&name).components().count(), 1);
            prop_assert!(!name.contains(['/', '+', '*']) && !name.starts_with('.'));
        }
    }
}
