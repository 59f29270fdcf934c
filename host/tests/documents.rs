//! Holds what README and the policies' READMEs show against the configuration reader: a sample that is refused, or a field that
//! is not told of, is a mistake in the documents.
//!
//! Blocks of README are found by a line before their fence, `<!-- tested: name -->`; in a policy's README every JSON block is a
//! part of a hosts.json, and what it is a part of is seen from its keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proxyhost::config;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Enough of a certificate for the reader, which leaves the rest to the origin.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEADZkOWc9OjD3R0MI//V6ZSeECUz7khjt0fbePbvVLvy8=\n-----END PUBLIC KEY-----\n";

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn text(file: impl AsRef<Path>) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands in the fence behind a marker.
fn marked<'a>(document: &'a str, name: &str) -> &'a str {
    let marker = format!("<!-- tested: {name} -->\n```");
    let (_, behind) = document.split_once(&marker).unwrap_or_else(|| panic!("no block is marked {name:?}"));
    let (_, block) = behind.split_once('\n').expect("a fence is a line");
    block.split_once("```").expect("the fence is closed").0
}

/// All JSON blocks of a document.
fn json_blocks(document: &str) -> Vec<&str> {
    document.split("```json\n").skip(1).map(|block| block.split_once("```").expect("the fence is closed").0).collect()
}

/// The names of the folders below `policies`.
fn policies() -> Vec<String> {
    let entries = fs::read_dir(root().join("policies")).expect("the folder of the policies");
    let entries = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.join("Cargo.toml").exists());
    let mut names: Vec<String> =
        entries.filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned())).collect();
    names.sort();
    assert!(!names.is_empty(), "there are policies");
    names
}

/// A folder with everything that the samples name, so that only the samples themselves can be wrong.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path();
    for name in ["site", "policies"] {
        fs::create_dir(path.join(name)).expect("a folder");
    }
    for name in policies() {
        fs::write(path.join("policies").join(format!("{name}.wasm")), "").expect("a file");
    }
    let mut staff = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    staff.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let staff = staff.self_signed(&key).expect("a certificate").pem();
    let files = [
        ("secret", "a-secret"),
        ("old.key", "another-secret"),
        ("app-ca.pem", CERTIFICATE),
        ("staff-ca.pem", &staff),
        ("bots.txt", "192.0.2.0/24\n"),
        ("moved.json", "{}"),
        ("issuer.pem", PUBLIC_KEY),
    ];
    for (name, content) in files {
        fs::write(path.join(name), content).expect("a file");
    }
    folder
}

/// Secrets of the environment become secrets of a file: a test cannot set variables for its own process.
fn without_variables(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("env:") => *text = "file:secret".to_owned(),
        Value::Array(items) => items.iter_mut().for_each(without_variables),
        Value::Object(members) => members.values_mut().for_each(without_variables),
        _ => {}
    }
}

/// Reads a hosts.json as the program does.
#[track_caller]
fn accepted(what: &str, mut hosts_json: Value) {
    without_variables(&mut hosts_json);
    let folder = folder();
    let file = folder.path().join("hosts.json");
    fs::write(&file, hosts_json.to_string()).expect("a file");
    if let Err(mistakes) = config::load(&file) {
        panic!("{what} is refused:\n{}", mistakes.lines().join("\n"));
    }
}

#[track_caller]
fn parsed(what: &str, block: &str) -> Value {
    serde_json::from_str(block).unwrap_or_else(|error| panic!("{what} is not JSON: {error}\n{block}"))
}

#[test]
fn the_quickstart_of_readme_serves() {
    let readme = text("README.md");
    let script = marked(&readme, "quickstart");
    let (_, behind) = script.split_once("cat > hosts.json <<'EOF'\n").expect("the script writes hosts.json");
    let (written, _) = behind.split_once("\nEOF\n").expect("the text ends");
    accepted("the quickstart's hosts.json", parsed("the quickstart's hosts.json", written));
}

#[test]
fn the_explained_hosts_json_of_readme_serves() {
    let readme = text("README.md");
    let explained = parsed("the explained hosts.json", marked(&readme, "explained"));
    accepted("the explained hosts.json", explained);
}

/// The names of all fields, wherever they stand in the schema.
fn fields(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                if let ("properties", Value::Object(properties)) = (key.as_str(), value) {
                    into.extend(properties.keys().cloned());
                }
                fields(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, into)),
        _ => {}
    }
}

/// Whether a table names a field: alone, at the end of a path, or both with a remark of its own.
fn is_told(tables: &str, field: &str) -> bool {
    let mut code = tables.split('`').skip(1).step_by(2);
    code.any(|span| span.rsplit('.').next() == Some(field))
}

#[test]
fn readme_tells_of_every_field() {
    let readme = text("README.md");
    // Line by line, so that a lone backtick elsewhere cannot turn the spans inside out.
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with('|')).collect();
    let mut names = BTreeSet::new();
    fields(&config::json_schema(), &mut names);
    assert!(names.contains("purge_allow") && names.contains("time_ms"), "the schema was read: {names:?}");
    // They are told of by their members.
    for section in ["listen", "admin", "tls", "cache", "origins", "hosts", "limits"] {
        names.remove(section);
    }
    let untold: Vec<&String> = names.iter().filter(|name| !rows.iter().any(|row| is_told(row, name))).collect();
    assert!(untold.is_empty(), "no row of README's tables has {untold:?}");
}

#[test]
fn the_policy_of_readme_is_the_one_that_the_sdk_tests() {
    let readme = text("README.md");
    let sdk = text("guest-sdk/src/lib.rs");
    // The crate's example, which `cargo test` runs, without the slashes.
    let tested: Vec<&str> = sdk.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim).collect();
    for line in marked(&readme, "policy").lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(tested.contains(&line), "the example of guest-sdk does not have {line:?}");
    }
}

/// A whole hosts.json around a stanza of a policy's README.
fn around(stanza: Value) -> Value {
    let Value::Object(mut members) = stanza else { panic!("a stanza has members") };
    let hosts = match members.remove("hosts") {
        Some(hosts) => hosts,
        None if members.contains_key("policy") => {
            let mut host = std::mem::take(&mut members);
            host.entry("origin").or_insert(json!("files"));
            json!({ "a.example": host })
        }
        None => Value::Object(std::mem::take(&mut members)),
    };
    let names = hosts.as_object().into_iter().flat_map(Map::values).filter_map(|host| host["origin"].as_str());
    let origins: Map<String, Value> =
        names.map(|name| (name.to_owned(), json!({ "dir": { "path": "site" } }))).collect();
    members.insert("origins".to_owned(), Value::Object(origins));
    members.insert("hosts".to_owned(), hosts);
    Value::Object(members)
}

#[test]
fn the_stanzas_of_the_policies_are_read() {
    for name in policies() {
        let document = text(format!("policies/{name}/README.md"));
        let blocks = json_blocks(&document);
        assert!(!blocks.is_empty(), "the README of {name} shows a stanza");
        assert!(document.contains("```sh\n"), "the README of {name} shows a request");
        for block in blocks {
            let what = format!("a stanza of {name}");
            let stanza = parsed(&what, &format!("{{{block}}}"));
            assert!(block.contains(&format!("\"{name}.wasm\"")), "{what} is about another policy");
            accepted(&what, around(stanza));
        }
    }
}
