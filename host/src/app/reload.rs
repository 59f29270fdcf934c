//! Another configuration while requests run: all or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::generation;
use super::{Inner, alternatives, bound, connections, port_of};
use crate::admin;
use crate::config::{self, Resolved};

impl Inner {
    pub(super) async fn reload_now(&self) -> Result<Vec<String>, Vec<String>> {
        let mut in_force = self.in_force.lock().await;
        if self.draining.load(Ordering::Acquire) {
            return Err(vec!["this program is ending; another one may serve by now, ask again".to_owned()]);
        }
        let outcome = self.try_reload(&in_force).await;
        match outcome {
            Ok((resolved, changes)) => {
                *in_force = resolved;
                *self.failed_reload.lock() = None;
                tracing::info!(?changes, "reloaded");
                Ok(changes)
            }
            Err(mistakes) => {
                tracing::error!(?mistakes, "not reloaded, the old configuration stays in force");
                *self.failed_reload.lock() = Some(mistakes.clone());
                Err(mistakes)
            }
        }
    }

    async fn try_reload(&self, old: &Resolved) -> Result<(Resolved, Vec<String>), Vec<String>> {
        let file = self.file.clone();
        let resolved = tokio::task::spawn_blocking(move || config::load(&file))
            .await
            .map_err(|error| vec![error.to_string()])?
            .map_err(|mistakes| mistakes.lines())?;
        let mut changes = Vec::new();
        let fixed = [("listen.admin", resolved.admin != old.admin), ("cache.dir", resolved.cache.dir != old.cache.dir)];
        let needs_restart: Vec<String> = fixed
            .into_iter()
            .filter(|(_, changed)| *changed)
            .map(|(name, _)| {
                format!("{name}: a change of this takes effect at a restart only; put it back, or restart")
            })
            .collect();
        if !needs_restart.is_empty() {
            return Err(needs_restart);
        }
        // What can fail comes first.
        let refused = self.tls.refusals(&resolved.tls());
        if !refused.is_empty() {
            return Err(refused.into_iter().map(|line| format!("tls.certificates: {line}")).collect());
        }
        let listen = (resolved.http != old.http).then(|| self.http.prepare(&resolved.http)).transpose();
        let listen = listen.map_err(|error| vec![format!("listen.http: {error}")])?;
        let listen_https = (resolved.https != old.https).then(|| self.https.prepare(&resolved.https)).transpose();
        let listen_https = listen_https.map_err(|error| vec![format!("listen.https: {error}")])?;
        // Addresses of any port are as they were bound.
        let over_udp = if resolved.http3 { bound(&resolved.https, &self.https) } else { Vec::new() };
        let listen_http3 = if (&resolved.https, resolved.http3) != (&old.https, old.http3) {
            let prepared = self.http3.prepare(&over_udp).await;
            Some(prepared.map_err(|error| vec![format!("listen.https: {error}")])?)
        } else {
            None
        };
        let automatic = self.certificates.prepare(resolved.acme.as_ref()).await.map_err(|error| vec![error])?;
        let token = if resolved.admin_token == old.admin_token {
            None
        } else {
            let (configured, dir) = (resolved.admin_token.clone(), resolved.cache.dir.clone());
            let token = move || admin::auth::token_for(configured.as_ref().map(|token| &*token.0), &dir);
            let made = tokio::task::spawn_blocking(token).await.map_err(|error| vec![error.to_string()])?;
            Some(made.map_err(|error| vec![format!("admin.token: {error}")])?)
        };
        // Policies take note of a new configuration as soon as they are asked for.
        let origins = generation::origins(&resolved, &self.metrics).await?;
        self.policies.configure(resolved.policies.clone());
        let before = self.proxy.generation();
        let (generation, chains) =
            match generation::build(&resolved, origins, &self.policies, &self.metrics, Some(&before), &mut changes)
                .await
            {
                Ok(built) => built,
                Err(mistakes) => {
                    self.policies.configure(old.policies.clone());
                    return Err(mistakes);
                }
            };
        changes.extend(self.tls.configure(&resolved.tls()).map_err(|error| vec![error.to_string()])?);
        self.admission.configure(connections(&resolved));
        self.cache.configure(&resolved.cache);
        let names = |all: &[crate::vhost::Settings]| all.iter().map(|host| host.name.clone()).collect::<Vec<_>>();
        let (before, after) = (names(&old.hosts), names(&resolved.hosts));
        changes.extend(after.iter().filter(|name| !before.contains(name)).map(|name| format!("host {name} added")));
        changes.extend(before.iter().filter(|name| !after.contains(name)).map(|name| format!("host {name} removed")));
        self.proxy.replace(generation);
        self.certificates.order(automatic).await;
        // Only now: what is not wanted any more was, for the requests before.
        let policies = Arc::clone(&self.policies);
        match tokio::task::spawn_blocking(move || policies.put_in_force(&chains)).await {
            Ok(lines) => changes.extend(lines),
            Err(error) => tracing::error!(%error, "the folder of the policies was not looked at"),
        }
        if let Some(change) = listen {
            self.http.apply(change);
            changes.push(format!("listening at {:?}", self.http.addresses()));
        }
        if let Some(change) = listen_https {
            self.https.apply(change);
            self.proxy.serve_https_at(port_of(&self.https));
            changes.push(format!("listening over TLS at {:?}", self.https.addresses()));
        }
        if let Some(change) = listen_http3 {
            self.http3.apply(change);
            changes.push(format!("listening for HTTP/3 at {:?}", self.http3.addresses()));
        }
        self.proxy.serve_http3_at(alternatives(&self.http3));
        if let Some(token) = token {
            self.token.set(token);
            changes.push("another admin token".to_owned());
        }
        Ok((resolved, changes))
    }
}
