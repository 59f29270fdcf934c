//! The CA as we speak to it: its directory, our one account there, and every request with a bound on its time and with bad
//! nonces sent again.
//!
//! The protocol is rustls-acme's (RFC 8555). It asks for a new nonce before each request, so sending again is all that
//! `badNonce` needs (section 6.5). It sets no time limit; here each request has one. Contacts are given when the account is
//! made and not changed afterwards: the crate has no request for that. External account binding is not asked for.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls_acme::acme::{Account, AcmeError as ProtocolError, Directory};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::AcmeError;
use super::failure::{Failure, Read, answer, read};
use super::renewal_info;
use super::schedule::Window;
use crate::clock::{Clock, Timestamp};
use crate::tls::roots;
use crate::tls::store::CertificateStore;

/// The longest that one request takes. CAs answer within seconds; what waits longer is not answered any more.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);

/// How often a request is sent that the server refuses for its nonce. Pebble refuses one good nonce in twenty to see that
/// clients send again; in a row of ten there is something else wrong.
const NONCE_TRIES: usize = 10;

/// The longest directory or renewal information; both have less than 2 KiB.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How long directory and account are taken as they are, before they are asked for anew.
const SESSION: Duration = Duration::from_secs(24 * 3600);

const USER_AGENT: &str = concat!("proxyhost/", env!("CARGO_PKG_VERSION"), " hyper");

/// A CA.
pub(super) struct Ca {
    url: String,
    contact: Vec<String>,
    clock: Clock,
    tls: Arc<ClientConfig>,
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    session: Mutex<Option<Session>>,
}

/// What was learnt of the CA, and when.
struct Session {
    since: Timestamp,
    listing: Arc<Listing>,
    account: Option<Arc<Account>>,
}

/// The directory (RFC 8555 section 7.1.1, RFC 9773 section 4).
struct Listing {
    directory: Directory,
    renewal_info: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfoUrl {
    renewal_info: Option<String>,
}

/// What the CA says of a certificate's renewal.
#[derive(Debug)]
pub(super) enum Renewal {
    /// The CA has no renewal information.
    NotOffered,
    /// When to renew, and how long to wait before asking again.
    Suggested(Window, Duration),
}

impl Ca {
    /// A CA by its directory URL. With a file of CA certificates, these alone are trusted; else the system's are.
    ///
    /// # Errors
    /// The URL is none, or there are no usable CA certificates.
    pub(super) fn new(url: &str, contact: &[String], ca: Option<&Path>, clock: Clock) -> Result<Self, AcmeError> {
        let uri: Uri = url.parse().map_err(|_| AcmeError::Directory(url.to_owned()))?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err(AcmeError::Directory(url.to_owned()));
        }
        let mut tls = tls_config(ca)?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().build();
        // Asked every few hours: a connection kept open would be closed by the other side anyway.
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (url, contact) = (url.to_owned(), contact.to_vec());
        Ok(Self { url, contact, clock, tls: Arc::new(tls), http, session: Mutex::new(None) })
    }

    /// How TLS to the CA is spoken, for the protocol crate's requests.
    pub(super) fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// Sends a request of the protocol crate: again when the nonce is refused, and not longer than its time.
    pub(super) async fn sent<T, F>(&self, doing: &str, request: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ProtocolError>>,
    {
        for _ in 0..NONCE_TRIES {
            let Ok(result) = tokio::time::timeout(REQUEST_PATIENCE, request()).await else {
                return Err(Failure::Server(format!("{doing}: no answer within {} s", REQUEST_PATIENCE.as_secs())));
            };
            match result.map_err(|error| read(doing, &error)) {
                Ok(value) => return Ok(value),
                Err(Read::Failure(failure)) => return Err(failure),
                Err(Read::BadNonce) => tracing::debug!(doing, "the nonce was refused, sent again"),
            }
        }
        Err(Failure::Server(format!("{doing}: the nonce was refused {NONCE_TRIES} times")))
    }

    /// Our account: registered once, by whoever comes first, with the key in the store or a new one that is kept there
    /// before it is used. A server that knows the key gives the account it has (RFC 8555 section 7.3.1).
    pub(super) async fn account(&self, store: &Arc<dyn CertificateStore>) -> Result<Arc<Account>, Failure> {
        let mut guard = self.session.lock().await;
        let session = self.session(&mut guard).await?;
        if let Some(account) = &session.account {
            return Ok(Arc::clone(account));
        }
        let key = self.account_key(store).await?;
        let (tls, directory, contact) = (&self.tls, &session.listing.directory, &self.contact);
        let account = self
            .sent("account", || Account::create_with_keypair(tls, directory.clone(), contact, &key))
            .await
            .map(Arc::new)?;
        tracing::info!(directory = %self.url, account = %account.kid, "ACME account in use");
        session.account = Some(Arc::clone(&account));
        Ok(account)
    }

    /// Forgets directory and account, so that they are asked for again. The key stays.
    pub(super) async fn forget_session(&self) {
        *self.session.lock().await = None;
    }

    /// What the CA says of the renewal of a certificate (RFC 9773 section 4.2).
    pub(super) async fn renewal(&self, identifier: &str) -> Result<Renewal, Failure> {
        let listing = {
            let mut guard = self.session.lock().await;
            Arc::clone(&self.session(&mut guard).await?.listing)
        };
        let Some(base) = &listing.renewal_info else { return Ok(Renewal::NotOffered) };
        let (headers, body) = self.get("renewal information", &renewal_info::url(base, identifier)).await?;
        let (window, why) = renewal_info::parse(&body)
            .map_err(|error| Failure::Refused(format!("renewal information is not understood: {error}")))?;
        if let Some(why) = why {
            tracing::info!(identifier, why, "the CA explains when to renew");
        }
        let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(Renewal::Suggested(window, renewal_info::ask_again(retry_after, self.clock.now())))
    }

    /// The session, with the directory asked for when there is none or it is old.
    async fn session<'a>(&self, session: &'a mut Option<Session>) -> Result<&'a mut Session, Failure> {
        let now = self.clock.now();
        let session_now = match session.take().filter(|session| now.since(session.since) < SESSION) {
            Some(session) => session,
            None => Session { since: now, listing: Arc::new(self.listing().await?), account: None },
        };
        Ok(session.insert(session_now))
    }

    /// Asks for the directory ourselves: the crate would drop the URL of the renewal information.
    async fn listing(&self) -> Result<Listing, Failure> {
        let (_, body) = self.get("directory", &self.url).await?;
        // Something else answers at this address, or the server is being set up: not this or that name's fault.
        let strange = |error: serde_json::Error| Failure::Server(format!("the directory is not understood: {error}"));
        let directory = serde_json::from_slice(&body).map_err(strange)?;
        let RenewalInfoUrl { renewal_info } = serde_json::from_slice(&body).map_err(strange)?;
        Ok(Listing { directory, renewal_info })
    }

    async fn account_key(&self, store: &Arc<dyn CertificateStore>) -> Result<Vec<u8>, Failure> {
        let (store, url) = (Arc::clone(store), self.url.clone());
        let kept = tokio::task::spawn_blocking(move || -> Result<Vec<u8>, String> {
            if let Some(key) = store.account_key(&url).map_err(|error| error.to_string())? {
                // One that was found elsewhere becomes ours, so that it stays when the place it came from goes.
                store.keep_account_key(&url, &key).map_err(|error| error.to_string())?;
                return Ok(key);
            }
            let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| "no random bytes for a key".to_owned())?;
            store.keep_account_key(&url, key.as_ref()).map_err(|error| error.to_string())?;
            Ok(key.as_ref().to_vec())
        });
        let kept = kept.await.unwrap_or_else(|error| Err(error.to_string()));
        kept.map_err(|error| Failure::Internal(format!("the account key: {error}")))
    }

    /// A plain GET, bounded in time and size; any status but success is a failure.
    async fn get(&self, doing: &str, url: &str) -> Result<(HeaderMap, Bytes), Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Server(format!("{doing}: {error}"));
        let request = Request::get(url)
            .header(header::USER_AGENT, USER_AGENT)
            .body(Empty::new())
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| failed(&innermost(&error)))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| failed(&error))?;
            Ok::<_, Failure>((head.status, head.headers, body.to_bytes()))
        };
        let late = |_| failed(&format_args!("no answer within {} s", REQUEST_PATIENCE.as_secs()));
        let (status, headers, body) = tokio::time::timeout(REQUEST_PATIENCE, exchange).await.map_err(late)??;
        if status == StatusCode::OK {
            return Ok((headers, body));
        }
        match answer(doing, status.as_u16(), &String::from_utf8_lossy(&body)) {
            Read::Failure(failure) => Err(failure),
            Read::BadNonce => Err(failed(&"a bad nonce, where there is none")),
        }
    }
}

/// The error at the bottom, with its words: hyper's own are "client error (Connect)".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut bottom = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    if std::ptr::eq(bottom, error) { error.to_string() } else { format!("{error}: {bottom}") }
}

/// TLS as a client: against the system's roots, or those in a file alone.
fn tls_config(ca: Option<&Path>) -> Result<ClientConfig, AcmeError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| AcmeError::Roots(error.to_string()))?;
    let Some(path) = ca else {
        let builder = builder.with_native_roots();
        return Ok(builder.map_err(|error| AcmeError::Roots(error.to_string()))?.with_no_client_auth());
    };
    let (roots, _) = roots::read(path).map_err(AcmeError::Ca)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
