//! One order, from its placing to the certificate (RFC 8555 section 7.4), with one challenge.
//!
//! An order has one name. The challenge is answered as long as the CA may ask; then its answer is taken back, however the
//! order ends. The key is new for each order, on P-256.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::CryptoProvider;
use rustls_acme::acme::{Account, Auth, AuthStatus, ChallengeType, Identifier, Order, OrderStatus};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::Instant;

use super::challenges::{Challenges, Kind, next};
use super::client::Ca;
use super::failure::{Failure, problem};
use crate::clock::Clock;
use crate::tls::store::{CertificateStore, Stored};

/// How long the CA may take to look for a challenge's answer, and to make the certificate.
const VALIDATION_PATIENCE: Duration = Duration::from_secs(120);
const ISSUANCE_PATIENCE: Duration = Duration::from_secs(300);

/// The pause between two looks grows to this many times the first.
const LONGEST_LOOK: u32 = 16;

/// What orders are placed with.
pub(super) struct Orders {
    pub(super) ca: Ca,
    pub(super) store: Arc<dyn CertificateStore>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) provider: CryptoProvider,
    pub(super) clock: Clock,
    /// The pause before the first look whether the CA is done.
    pub(super) first_look: Duration,
}

/// How far an order came; tells what an order that failed counts for.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What the CA offered, of what we can answer.
    pub(super) offered: Vec<Kind>,
    /// The challenge that was taken.
    pub(super) taken: Option<Kind>,
    /// The CA was told to look for the answer, and did not refuse to.
    pub(super) told: bool,
    /// The CA found the answer.
    pub(super) validated: bool,
}

/// What is wanted of an order.
pub(super) struct Wish<'a> {
    pub(super) name: &'a str,
    /// Challenges that have failed in this round.
    pub(super) tried: &'a [Kind],
    /// The challenge that succeeded last.
    pub(super) works: Option<Kind>,
    /// Whether the name is still configured.
    pub(super) wanted: &'a (dyn Fn() -> bool + Sync),
}

impl Orders {
    /// Places an order and sees it through.
    pub(super) async fn place(&self, wish: &Wish<'_>, progress: &mut Progress) -> Result<Stored, Failure> {
        let account = self.ca.account(&self.store).await?;
        let account = &*account;
        still(wish)?;
        let tls = self.ca.tls();
        let (url, order) = self.ca.sent("new order", || account.new_order(tls, vec![wish.name.to_owned()])).await?;
        if order.status == OrderStatus::Pending {
            for authorization in &order.authorizations {
                self.authorize(account, authorization, wish, progress).await?;
            }
        }
        still(wish)?;
        self.issue(account, &url, order, wish.name).await
    }

    /// Proves that the name is ours, unless the CA takes that for proven.
    async fn authorize(
        &self,
        account: &Account,
        url: &str,
        wish: &Wish<'_>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let tls = self.ca.tls();
        let look = || account.auth(tls, url);
        let authorization = self.ca.sent("authorization", look).await?;
        match authorization.status {
            AuthStatus::Pending => {}
            AuthStatus::Valid => return Ok(()),
            status => return Err(Failure::Refused(format!("an authorization that is {status:?} from the start"))),
        }
        let Identifier::Dns(of) = &authorization.identifier;
        if !of.eq_ignore_ascii_case(wish.name) {
            return Err(Failure::Refused(format!("an authorization for {of} was asked for")));
        }
        progress.offered = authorization.challenges.iter().filter_map(|c| kind_of(&c.typ)).collect();
        let kind = next(&progress.offered, wish.tried, wish.works)
            .ok_or_else(|| Failure::Refused("the CA offers no challenge that can be answered here".to_owned()))?;
        progress.taken = Some(kind);

        let internal = |error| Failure::Internal(format!("the answer to a challenge: {error}"));
        let (challenge, _answer) = match kind {
            Kind::TlsAlpn01 => {
                let (challenge, key) =
                    account.tls_alpn_01(&authorization.challenges, wish.name.to_owned()).map_err(internal)?;
                (challenge, self.challenges.answer_tls_alpn_01(wish.name, Arc::new(key)))
            }
            Kind::Http01 => {
                let (challenge, text) = account.http_01(&authorization.challenges).map_err(internal)?;
                (challenge, self.challenges.answer_http_01(challenge.token.clone(), text))
            }
        };
        still(wish)?;
        progress.told = true;
        let told = self.ca.sent("challenge", || account.challenge(tls, &challenge.url)).await;
        // Where no answer came back the CA may be looking already: that counts.
        progress.told = matches!(told, Ok(()) | Err(Failure::Server(_)));
        told?;

        let mut looks = Looks::new(self.first_look, VALIDATION_PATIENCE);
        while looks.another().await {
            let seen = self.ca.sent("authorization", look).await?;
            match seen.status {
                AuthStatus::Pending => {}
                AuthStatus::Valid => {
                    progress.validated = true;
                    return Ok(());
                }
                _ => return Err(Failure::Validation(format!("{}: {}", kind.as_str(), why(&seen, kind)))),
            }
        }
        Err(Failure::Validation(format!("{}: no outcome within {} s", kind.as_str(), VALIDATION_PATIENCE.as_secs())))
    }

    /// Has the certificate made for an order whose authorizations are valid, and fetches it.
    async fn issue(&self, account: &Account, url: &str, mut order: Order, name: &str) -> Result<Stored, Failure> {
        let tls = self.ca.tls();
        let (key, request) = signing_request(name)?;
        let mut finalized = false;
        let mut looks = Looks::new(self.first_look, ISSUANCE_PATIENCE);
        loop {
            match &order.status {
                OrderStatus::Ready if !finalized => {
                    finalized = true;
                    let finalize = &order.finalize;
                    order = self.ca.sent("finalize", || account.finalize(tls, finalize, &request)).await?;
                    continue;
                }
                OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing => {}
                OrderStatus::Valid { certificate } => {
                    let chain = self.ca.sent("certificate", || account.certificate(tls, certificate)).await?;
                    return self.checked(name, &chain, key);
                }
                OrderStatus::Invalid => {
                    let reason = problem(order.error.as_ref());
                    return Err(Failure::Refused(format!("the order has become invalid: {reason}")));
                }
            }
            if !looks.another().await {
                let patience = ISSUANCE_PATIENCE.as_secs();
                return Err(Failure::Refused(format!("the order was not done within {patience} s")));
            }
            order = self.ca.sent("order", || account.order(tls, url)).await?;
        }
    }

    /// The certificate, if it is one that can be served for the name now.
    fn checked(&self, name: &str, chain: &str, key: PrivateKeyDer<'static>) -> Result<Stored, Failure> {
        let unusable = |reason: String| Failure::Refused(format!("an unusable certificate was issued: {reason}"));
        let stored = Stored::from_chain(chain.as_bytes(), key).map_err(|error| unusable(error.to_string()))?;
        stored.certified_for(name, &self.provider).map_err(|error| unusable(error.to_string()))?;
        if stored.not_after() <= self.clock.now() {
            return Err(unusable("it has expired".to_owned()));
        }
        Ok(stored)
    }
}

/// Looks whether the CA is done, with growing pauses, for as long as there is patience.
struct Looks {
    pause: Duration,
    longest: Duration,
    until: Instant,
}

impl Looks {
    fn new(first: Duration, patience: Duration) -> Self {
        Self { pause: first, longest: first * LONGEST_LOOK, until: Instant::now() + patience }
    }

    /// Waits; false when the patience is at its end.
    async fn another(&mut self) -> bool {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.longest);
        Instant::now() < self.until
    }
}

/// A new key and the request for a certificate for one name, in DER (RFC 2986). The subject stays empty: the name is in
/// subjectAltName alone.
fn signing_request(name: &str) -> Result<(PrivateKeyDer<'static>, Vec<u8>), Failure> {
    let made = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
        parameters.distinguished_name = DistinguishedName::new();
        let request = parameters.serialize_request(&key)?;
        Ok((PrivatePkcs8KeyDer::from(key.serialize_der()).into(), request.der().to_vec()))
    };
    made().map_err(|error| Failure::Internal(format!("the certificate request: {error}")))
}

/// Before each step that concerns the CA with the name: whether the name is still ours to order for.
fn still(wish: &Wish<'_>) -> Result<(), Failure> {
    if (wish.wanted)() { Ok(()) } else { Err(Failure::Removed) }
}

fn kind_of(kind: &ChallengeType) -> Option<Kind> {
    match kind {
        ChallengeType::TlsAlpn01 => Some(Kind::TlsAlpn01),
        ChallengeType::Http01 => Some(Kind::Http01),
        ChallengeType::Dns01 | ChallengeType::Unknown => None,
    }
}

/// Why the CA did not find what it looked for.
fn why(authorization: &Auth, kind: Kind) -> String {
    let challenge = authorization.challenges.iter().find(|challenge| kind_of(&challenge.typ) == Some(kind));
    problem(challenge.and_then(|challenge| challenge.error.as_ref()))
}
