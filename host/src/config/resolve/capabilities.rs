//! What policies can ask for by name: address sets, tables, rates and public keys, written in place or in files.

use std::collections::HashMap;
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::Value;

use super::super::at::At;
use super::super::error::{Mistakes, Path, quoted, shown};
use super::super::files::{FILE_MOST_BYTES, read};
use super::super::json::Json;
use super::super::leaf;
use super::super::shape::doubles_within;
use super::Resolver;
use crate::policy::settings::{Capabilities, PublicKeyFile, Rate};

impl Resolver<'_> {
    pub(super) fn capabilities(&mut self, root: &At<'_>, mut origins: Vec<String>) -> Capabilities {
        origins.sort_unstable();
        let mut capabilities = Capabilities { origins, ..Capabilities::default() };
        for (name, set) in root.object("addresses").names() {
            capabilities.addresses.insert(name.to_owned(), self.addresses(&set));
        }
        for (name, table) in root.object("tables").names() {
            capabilities.tables.insert(name.to_owned(), self.table(&table));
        }
        for (name, rate) in root.object("rates").names() {
            if let Some(rate) = self::rate(&rate) {
                capabilities.rates.insert(name.to_owned(), rate);
            }
        }
        for (name, key) in root.object("keys").names() {
            if let Some(key) = self.key(&key) {
                capabilities.keys.insert(name.to_owned(), key);
            }
        }
        capabilities
    }

    fn addresses(&mut self, set: &At<'_>) -> Vec<IpNet> {
        match set.json {
            Json::List(items) => items.iter().filter_map(Json::text).filter_map(leaf::network).collect(),
            Json::Text(name) if !name.is_empty() => match self.file_text(set, name, "networks, one on each line") {
                Some(text) => lines(&text, name, &set.path, self.mistakes),
                None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn table(&mut self, table: &At<'_>) -> HashMap<String, String> {
        let expected = "a JSON object";
        match table.json {
            Json::Object(members) => rows(members),
            Json::Text(name) if !name.is_empty() => {
                let Some(text) = self.file_text(table, name, expected) else { return HashMap::new() };
                match Json::parse(text.as_bytes()) {
                    Ok(json @ Json::Object(_)) => {
                        doubles_within(&json, &table.path, self.mistakes);
                        rows(json.members())
                    }
                    Ok(other) => {
                        let found = format!("{}, which is {}", quoted(name), other.kind());
                        self.mistakes.add(&table.path, found, expected);
                        HashMap::new()
                    }
                    Err(error) => {
                        let found = format!("{}, which is not JSON ({error})", quoted(name));
                        self.mistakes.add(&table.path, found, expected);
                        HashMap::new()
                    }
                }
            }
            _ => HashMap::new(),
        }
    }

    fn key(&mut self, key: &At<'_>) -> Option<PublicKeyFile> {
        let expected = "a public key in a PEM file, or a JWKS";
        let name = key.json.text().filter(|name| !name.is_empty())?;
        let (path, text) = if name.starts_with("env:") {
            let bytes = self.surroundings.secret(name, &key.path, self.mistakes)?;
            (PathBuf::from(name), String::from_utf8(bytes).ok())
        } else {
            let name = name.strip_prefix("file:").unwrap_or(name);
            (self.surroundings.path(name), Some(self.file_text(key, name, expected)?))
        };
        let found = match text {
            None => "which is not UTF-8",
            // It would work no worse, but a private key has no business here.
            Some(text) if text.contains("PRIVATE KEY-----") => "which holds a private key",
            Some(text) => {
                let file = PublicKeyFile { path, text };
                match file.check() {
                    _ if !is_public_key(&file.text) => "which is neither",
                    Ok(()) => return Some(file),
                    Err(reason) => &format!("which can't be used: {reason}"),
                }
            }
        };
        self.mistakes.add(&key.path, format!("{}, {found}", quoted(name)), expected);
        None
    }

    fn file_text(&mut self, at: &At<'_>, name: &str, expected: &str) -> Option<String> {
        let text = read(&self.surroundings.path(name), FILE_MOST_BYTES)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "which is not UTF-8".to_owned()));
        match text {
            Ok(text) => Some(text),
            Err(reason) => {
                self.mistakes.add(&at.path, format!("{}, {reason}", quoted(name)), format!("a file with {expected}"));
                None
            }
        }
    }
}

fn rate(at: &At<'_>) -> Option<Rate> {
    let rate = at.count("rate")?;
    let burst = match at.given("burst") {
        Some(burst) => leaf::count(burst.json)?,
        None => rate,
    };
    Some(Rate { rate, per: at.duration("per")?, burst })
}

/// Networks, one on each line; blank lines and what stands behind a hash sign are left out.
fn lines(text: &str, name: &str, path: &Path, mistakes: &mut Mistakes) -> Vec<IpNet> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut networks = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match leaf::network(line) {
            Some(network) => networks.push(network),
            None => {
                let found = format!("{} in line {} of {}", quoted(line), number + 1, quoted(name));
                mistakes.add(path, found, leaf::Leaf::Network.expected());
            }
        }
    }
    networks
}

/// Strings stand for themselves, all else for its JSON text.
fn rows(members: &[(String, Json)]) -> HashMap<String, String> {
    members
        .iter()
        .map(|(key, value)| {
            let text = match value {
                Json::Text(text) => text.clone(),
                Json::Null | Json::Bool(_) | Json::Number(_) => shown(value),
                Json::List(_) | Json::Object(_) => value.to_value().to_string(),
            };
            (key.clone(), text)
        })
        .collect()
}

fn is_public_key(text: &str) -> bool {
    if text.contains("-----BEGIN ") {
        return true;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(json) => json.get("keys").is_some_and(Value::is_array) || json.get("kty").is_some_and(Value::is_string),
        Err(_) => false,
    }
}
