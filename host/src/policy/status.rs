//! What is in service, for the admin listener.

use std::time::Instant;

use serde_json::json;

use super::chain::Entry;
use super::component::{Kind, Lane};
use super::registry::Policies;
use super::settings::OnFailure;

impl Policies {
    /// What is in service, for the admin listener.
    pub fn status(&self) -> serde_json::Value {
        let (chains, unused) = {
            let work = self.work.lock();
            (work.current(), work.unused.clone())
        };
        let mut hosts: Vec<serde_json::Value> = Vec::new();
        for chain in chains {
            let policies: Vec<serde_json::Value> = chain.entries.iter().filter_map(entry_status).collect();
            if !policies.is_empty() {
                hosts.push(json!({
                    "host": chain.settings.host,
                    "generation": chain.number(),
                    "policies": policies,
                }));
            }
        }
        hosts.sort_by_key(|host| host["host"].as_str().unwrap_or_default().to_owned());
        let broken = hosts.iter().any(|host| {
            host["policies"].as_array().is_some_and(|all| all.iter().any(|policy| !policy["problem"].is_null()))
        });
        let unused: Vec<String> = unused.iter().map(|file| file.display().to_string()).collect();
        json!({ "ok": !broken, "hosts": hosts, "unused_files": unused })
    }
}

fn entry_status(entry: &Entry) -> Option<serde_json::Value> {
    let known = entry.known.lock();
    if !known.expected && known.generation.is_none() {
        return None;
    }
    let mut status = json!({
        "file": entry.settings.file.display().to_string(),
        "state": match (&known.generation, &known.problem) {
            (Some(_), None) => "in service",
            (Some(_), Some(_)) => "previous version in service",
            (None, _) => "not in service",
        },
        "problem": known.problem,
        "on_failure": match entry.settings.on_failure {
            OnFailure::Closed => "closed",
            OnFailure::Open => "open",
        },
    });
    if let (Some(generation), Some(map)) = (&known.generation, status.as_object_mut()) {
        let inspection = &generation.compiled.inspection;
        map.insert("sha256".to_owned(), json!(inspection.sha256));
        map.insert("size".to_owned(), json!(inspection.size));
        map.insert("phases".to_owned(), json!(inspection.phases));
        map.insert("imports".to_owned(), json!(inspection.imports));
        let (kind, lane) = (inspection.kind, generation.lane(Instant::now()));
        map.insert("kind".to_owned(), json!(if kind == Kind::Component { "component" } else { "core module" }));
        map.insert("lane".to_owned(), json!(if lane == Lane::Direct { "direct" } else { "fiber" }));
        if let Some(since) = known.since {
            map.insert("since_ms".to_owned(), json!(since.as_millis()));
        }
        let quarantine: serde_json::Map<String, serde_json::Value> =
            generation.quarantines().into_iter().map(|(phase, left)| (phase.to_owned(), json!(left))).collect();
        if !quarantine.is_empty() {
            map.insert("quarantine_ms".to_owned(), serde_json::Value::Object(quarantine));
        }
    }
    Some(status)
}
