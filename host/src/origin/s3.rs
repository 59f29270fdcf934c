//! An S3 bucket as an origin, asked with aws-sdk-s3.
//!
//! The SDK signs and finds credentials and endpoints; everything else is ours. Its requests go out through the same pooled
//! client as those of http origins, with the same timeouts; its own retries, timeouts and stream protection are off. Its
//! typed output drops fields that a cache must hand on (the text of Expires, unknown ones), so the answer is taken where it
//! comes in, status and fields as they are, and the SDK gets an empty one in its place.
//!
//! A GET of a whole object asks for its checksum too. A SHA-256 or SHA-512 of the whole is told in the words of RFC 9530; a checksum
//! of the checksums of parts is none. With a range S3 may give that of a part, so nothing is asked for; nor with HEAD, where it
//! takes rights that a GET does not.
//!
//! Of S3's own fields (`x-amz-*`) only those that describe the object are handed on: metadata, version, checksums and the
//! redirect of websites. S3's error documents are not; they name buckets and keys.
//!
//! | S3 says | we answer |
//! |---|---|
//! | 200, 206, 304, 412, 416 | the same |
//! | 404, 403 | the same, with a line of text |
//! | 404 NoSuchBucket; 301, 307, 400: wrong region and the like | error of the configuration, in words |
//! | 403 that is about our keys or our clock | unavailable |
//! | 408, 429, 503 (SlowDown) | unavailable |
//! | other 5xx | error that names it |
//!
//! A HEAD of S3 that finds nothing does not say whether the object or the bucket is missing; so unless the bucket was seen
//! lately, a GET of one byte asks again.

use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::chain;
use super::client::end_to_end;
use super::connect::{no_tls, tls_config};
use super::{
    ListingPlace, Origin, OriginError, OriginKind, OriginRequest, OriginResponse, Page, S3Credentials, S3Settings,
    Timeouts, no_body, read_only, short_answer,
};

use crate::semantics::digest::{Algorithm, Digest, REPR_DIGEST};

mod listing;
mod transport;

use transport::{Hosts, Slot, Taken, Transport};

/// Where a bucket is whose region nothing names.
const DEFAULT_REGION: &str = "us-east-1";
/// Longest key that S3 knows, in bytes.
const MAX_KEY: usize = 1024;
/// How long a bucket that was seen is taken to be there.
const BUCKET_SEEN: Duration = Duration::from_secs(60);
/// How long credentials that can't be had are not asked for again.
const CREDENTIALS_PAUSE: Duration = Duration::from_secs(1);

/// Request fields that S3 is asked with.
const ASKED: [HeaderName; 5] =
    [header::RANGE, header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

/// Asks for the checksum that the object was stored with.
const CHECKSUM_MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");
/// What that is of.
const CHECKSUM_TYPE: HeaderName = HeaderName::from_static("x-amz-checksum-type");

/// An S3 bucket.
pub(super) struct S3Origin {
    name: Arc<str>,
    bucket: String,
    region: String,
    sdk: aws_sdk_s3::Client,
    seen: Mutex<Option<Instant>>,
    no_credentials: Mutex<Option<(Instant, OriginError)>>,
}

impl S3Origin {
    /// Sets the SDK up; asks nobody yet.
    pub(super) async fn new(name: &str, settings: &S3Settings, timeouts: Timeouts) -> Result<Self, OriginError> {
        let configuration = |reason: String| OriginError::Configuration { origin: name.to_owned(), reason };
        if let Some(endpoint) = &settings.endpoint {
            let uri: Uri = endpoint.parse().map_err(|e| configuration(format!("endpoint {endpoint}: {e}")))?;
            if !matches!(uri.scheme_str(), Some("http" | "https")) {
                return Err(configuration(format!("endpoint {endpoint} begins with neither http:// nor https://")));
            }
        }
        let clear = settings.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http:"));
        let tls = if clear { no_tls(name)? } else { tls_config(name, None)? };
        let name: Arc<str> = name.into();
        let transport = SharedHttpConnector::new(Transport(Arc::new(Hosts::new(Arc::clone(&name), tls, timeouts))));
        let region = match (&settings.region, &settings.credentials) {
            (Some(region), _) => region.clone(),
            (None, S3Credentials::Chain) => region_of_surroundings().await.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            (None, _) => DEFAULT_REGION.to_owned(),
        };

        let mut builder = match &settings.credentials {
            S3Credentials::Anonymous => Builder::new().allow_no_auth(),
            S3Credentials::Static { access_key_id, secret_access_key } => {
                let keys = Credentials::new(access_key_id, secret_access_key, None, None, "hosts.json");
                Builder::new().credentials_provider(keys)
            }
            S3Credentials::Chain => {
                let loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(region.clone()));
                Builder::from(&loader.load().await)
            }
        };
        if let Some(endpoint) = &settings.endpoint {
            // The SDK puts bucket and key right behind it.
            let slash = if endpoint.ends_with('/') { "" } else { "/" };
            builder = builder.endpoint_url(format!("{endpoint}{slash}"));
        }
        let config = builder
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .force_path_style(settings.path_style)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .http_client(http_client_fn(move |_, _| transport.clone()))
            .build();
        Ok(Self {
            name,
            bucket: settings.bucket.clone(),
            region,
            sdk: aws_sdk_s3::Client::from_conf(config),
            seen: Mutex::new(None),
            no_credentials: Mutex::new(None),
        })
    }

    async fn ask(&self, request: OriginRequest) -> Result<OriginResponse, OriginError> {
        let method = &request.method;
        if method != Method::GET && method != Method::HEAD {
            return Ok(read_only(method));
        }
        // A GET of the empty key would list the bucket.
        let key = request.path.strip_prefix('/').unwrap_or(&request.path);
        if key.is_empty() || key.len() > MAX_KEY {
            return Ok(not_found(method));
        }
        let mut fields = asked(&request.headers);
        if method == Method::GET && fields.iter().all(|(name, _)| name != header::RANGE) {
            fields.push((CHECKSUM_MODE, HeaderValue::from_static("ENABLED")));
        }
        let answer = self.send(method, key, fields, request.retry).await?;
        let head_only = method == Method::HEAD && answer.status() == StatusCode::NOT_FOUND;
        let answer = self.answer(method, answer)?;
        if head_only && !self.bucket_seen() {
            let one_byte = vec![(header::RANGE, HeaderValue::from_static("bytes=0-0"))];
            let probe = self.send(&Method::GET, key, one_byte, request.retry).await?;
            self.answer(&Method::GET, probe)?;
        }
        Ok(answer)
    }

    /// Lets the SDK ask, and takes what came back before the SDK reads it.
    async fn send(
        &self,
        method: &Method,
        key: &str,
        fields: Vec<(HeaderName, HeaderValue)>,
        retry: bool,
    ) -> Result<Taken, OriginError> {
        self.may_ask()?;
        let slot = Slot { retry, ..Slot::default() };
        let prepare = {
            let slot = slot.clone();
            move |request: &mut HttpRequest| {
                for (name, value) in &fields {
                    if let Ok(value) = value.to_str() {
                        // Can't fail: the value was a field value already.
                        let _ = request.headers_mut().try_insert(name.as_str().to_owned(), value.to_owned());
                    }
                }
                request.add_extension(slot.clone());
            }
        };
        let failed = if method == Method::HEAD {
            let ask = self.sdk.head_object().bucket(&self.bucket).key(key).customize().mutate_request(prepare);
            ask.send().await.err().map(|e| self.not_asked(&e))
        } else {
            let ask = self.sdk.get_object().bucket(&self.bucket).key(key).customize().mutate_request(prepare);
            ask.send().await.err().map(|e| self.not_asked(&e))
        };
        self.taken(&slot, failed)
    }

    /// Credentials that were missing a moment ago are not looked for again.
    fn may_ask(&self) -> Result<(), OriginError> {
        match &*self.no_credentials.lock() {
            Some((since, error)) if since.elapsed() < CREDENTIALS_PAUSE => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// What came back of a request, or why the SDK sent none.
    fn taken(&self, slot: &Slot, failed: Option<OriginError>) -> Result<Taken, OriginError> {
        let taken = slot.answer.lock().take();
        match (taken, failed) {
            (Some(taken), _) => taken,
            (None, Some(error)) => {
                if matches!(error, OriginError::Unavailable { .. }) {
                    *self.no_credentials.lock() = Some((Instant::now(), error.clone()));
                }
                Err(error)
            }
            (None, None) => Err(self.broken("the answer was lost".to_owned())),
        }
    }

    /// Why the SDK sent nothing.
    fn not_asked(&self, error: &(dyn std::error::Error + 'static)) -> OriginError {
        let reason = chain(error);
        let mut source = Some(error);
        while let Some(error) = source {
            if error.is::<CredentialsError>() {
                let reason = format!("no credentials for S3: {reason}");
                return OriginError::Unavailable { origin: self.name.to_string(), reason };
            }
            source = error.source();
        }
        self.configuration(format!("the request could not be made: {reason}"))
    }

    fn answer(&self, method: &Method, taken: Taken) -> Result<OriginResponse, OriginError> {
        match taken {
            Taken::Object { status, mut headers, body } => {
                self.see_bucket();
                let length = body.length();
                end_to_end(method, status, &mut headers, length);
                let mut headers = of_the_object(headers);
                if status == StatusCode::OK
                    && !headers.contains_key(REPR_DIGEST)
                    && let Some(digest) = digest_of(&headers)
                {
                    headers.insert(REPR_DIGEST, digest.to_value());
                }
                Ok(OriginResponse { status, headers, length, body: Box::pin(body), upgraded: None })
            }
            Taken::Refusal { status, headers, document } => self.refusal(method, status, headers, &document),
        }
    }

    fn refusal(
        &self,
        method: &Method,
        status: StatusCode,
        mut headers: HeaderMap,
        document: &str,
    ) -> Result<OriginResponse, OriginError> {
        let code = element(document, "Code").unwrap_or_default();
        let said = || format!("S3 answered {} {code}", status.as_u16()).trim_end().to_owned();
        let region = region_of(&headers, document).filter(|region| *region != self.region);
        match status {
            StatusCode::NOT_MODIFIED => {
                self.see_bucket();
                headers.remove(header::CONTENT_LENGTH);
                end_to_end(method, status, &mut headers, None);
                Ok(OriginResponse {
                    status,
                    headers: of_the_object(headers),
                    length: Some(0),
                    body: no_body(),
                    upgraded: None,
                })
            }
            StatusCode::PRECONDITION_FAILED => {
                self.see_bucket();
                Ok(with_date(short_answer(method, status, "precondition failed\n"), &headers))
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.see_bucket();
                let size = element(document, "ActualObjectSize").map(|size| format!("bytes */{size}"));
                let complete = size.and_then(|size| HeaderValue::from_str(&size).ok());
                let mut answer = with_date(short_answer(method, status, "no such range\n"), &headers);
                if let Some(value) = headers.remove(header::CONTENT_RANGE).or(complete) {
                    answer.headers.insert(header::CONTENT_RANGE, value);
                }
                Ok(answer)
            }
            StatusCode::NOT_FOUND if code == "NoSuchBucket" => {
                Err(self.configuration(format!("there is no bucket {:?}", self.bucket)))
            }
            StatusCode::NOT_FOUND => {
                if !code.is_empty() {
                    self.see_bucket();
                }
                Ok(with_date(not_found(method), &headers))
            }
            StatusCode::FORBIDDEN if is_about_us(code) => Err(self.unavailable(said())),
            StatusCode::FORBIDDEN => Ok(with_date(short_answer(method, status, "forbidden\n"), &headers)),
            StatusCode::BAD_REQUEST if is_about_us(code) => Err(self.unavailable(said())),
            StatusCode::BAD_REQUEST if code == "RequestTimeout" => Err(self.unavailable(said())),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(self.unavailable(said()))
            }
            _ if status.is_server_error() => {
                Err(OriginError::Status { origin: self.name.to_string(), status, reason: said() })
            }
            _ => Err(self.configuration(match region {
                Some(region) => {
                    format!("bucket {:?} is in region {region}, not {} ({})", self.bucket, self.region, said())
                }
                None => said(),
            })),
        }
    }

    fn see_bucket(&self) {
        *self.seen.lock() = Some(Instant::now());
    }

    fn bucket_seen(&self) -> bool {
        self.seen.lock().is_some_and(|seen| seen.elapsed() < BUCKET_SEEN)
    }

    fn configuration(&self, reason: String) -> OriginError {
        OriginError::Configuration { origin: self.name.to_string(), reason }
    }

    fn unavailable(&self, reason: String) -> OriginError {
        OriginError::Unavailable { origin: self.name.to_string(), reason }
    }

    fn broken(&self, reason: String) -> OriginError {
        OriginError::Broken { origin: self.name.to_string(), reason }
    }
}

impl Origin for S3Origin {
    fn fetch(&self, request: OriginRequest) -> BoxFuture<'_, Result<OriginResponse, OriginError>> {
        Box::pin(self.ask(request))
    }

    fn list(&self, place: ListingPlace, retry: bool) -> BoxFuture<'_, Result<Page, OriginError>> {
        Box::pin(self.page(place, retry))
    }

    fn kind(&self) -> OriginKind {
        OriginKind::S3
    }

    fn bucket(&self) -> Option<&str> {
        Some(&self.bucket)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The conditions and the range of a request. S3 knows no If-Range: with one, the whole is asked for, which is always a
/// right answer.
fn asked(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let no_range = headers.contains_key(header::IF_RANGE);
    let mut fields = Vec::new();
    for name in ASKED {
        if no_range && name == header::RANGE {
            continue;
        }
        let values: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if values.is_empty() {
            continue;
        }
        if let Ok(value) = HeaderValue::from_bytes(&values.join(&b", "[..])) {
            fields.push((name, value));
        }
    }
    fields
}

/// Leaves out what S3 says of itself and not of the object.
fn of_the_object(headers: HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut last = None;
    for (name, value) in headers {
        // A name stands only before the first of its values.
        if name.is_some() {
            last = name;
        }
        if let Some(name) = last.as_ref().filter(|name| describes_object(name)) {
            kept.append(name, value);
        }
    }
    kept
}

fn describes_object(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.strip_prefix("x-amz-") {
        Some(own) => {
            own.starts_with("meta-")
                || own.starts_with("checksum-")
                || own == "version-id"
                || own == "website-redirect-location"
        }
        // Nothing that it could vary by is passed on: all would be the same.
        None => name != "server" && name != "vary",
    }
}

/// The digest of the object, where S3 has one that is of all of it.
fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    // FULL_OBJECT, or nothing from servers that know no other.
    if headers.get(CHECKSUM_TYPE).is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(b"COMPOSITE")) {
        return None;
    }
    let named = [("x-amz-checksum-sha256", Algorithm::Sha256), ("x-amz-checksum-sha512", Algorithm::Sha512)];
    named.into_iter().find_map(|(name, algorithm)| Digest::from_base64(algorithm, headers.get(name)?.as_bytes()))
}

/// Codes that say that our keys or our clock are wrong: nothing that the client asked for.
fn is_about_us(code: &str) -> bool {
    [
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
        "RequestExpired",
    ]
    .contains(&code)
}

/// What AWS_REGION, AWS_DEFAULT_REGION or the profile says, as for the credentials of the chain. The instance's metadata is not
/// asked: where there is none, that costs seconds at every start.
async fn region_of_surroundings() -> Option<String> {
    let provider = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::builder().build());
    provider.region().await.map(|region| region.as_ref().to_owned())
}

fn region_of<'a>(headers: &'a HeaderMap, document: &'a str) -> Option<&'a str> {
    let named = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
    named.or_else(|| element(document, "Region"))
}

/// The text of an element of an error document. Enough for S3's flat ones; what is not there is none.
fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    Some(text.trim()).filter(|text| !text.is_empty())
}

fn not_found(method: &Method) -> OriginResponse {
    short_answer(method, StatusCode::NOT_FOUND, "not found\n")
}

fn with_date(mut answer: OriginResponse, headers: &HeaderMap) -> OriginResponse {
    if let Some(date) = headers.get(header::DATE) {
        answer.headers.insert(header::DATE, date.clone());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_an_error_document_are_found() {
        let document =
            "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Region> eu-west-1 </Region><Empty></Empty>";
        assert_eq!(element(document, "Code"), Some("NoSuchKey"));
        assert_eq!(element(document, "Region"), Some("eu-west-1"));
        assert_eq!(element(document, "Empty"), None);
        assert_eq!(element("<Code>cut", "Code"), None);
    }

    #[test]
    fn what_s3_says_of_itself_is_left_out() {
        let mut headers = HeaderMap::new();
        for name in ["x-amz-id-2", "x-amz-request-id", "x-amz-server-side-encryption", "server", "x-amz-storage-class"]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        headers.insert("x-amz-meta-a", HeaderValue::from_static("1"));
        headers.append("x-amz-meta-a", HeaderValue::from_static("2"));
        headers.insert("x-amz-version-id", HeaderValue::from_static("v"));
        headers.insert("expires", HeaderValue::from_static("0"));
        let kept = of_the_object(headers);
        assert_eq!(kept.len(), 4, "{kept:?}");
        assert_eq!(kept.get_all("x-amz-meta-a").iter().count(), 2);
    }

    #[test]
    fn only_a_checksum_of_the_whole_object_is_its_digest() {
        let whole = "RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=";
        let of = |value: &str, kind: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-checksum-sha256", HeaderValue::from_str(value).unwrap());
            headers.extend(kind.map(|kind| (CHECKSUM_TYPE, HeaderValue::from_static(kind))));
            digest_of(&headers).is_some()
        };
        assert!(of(whole, None) && of(whole, Some("FULL_OBJECT")));
        assert!(!of(whole, Some("COMPOSITE")) && !of(&format!("{whole}-2"), None) && !of("AAAAAA==", None));
    }

    #[test]
    fn if_range_asks_for_the_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.append(header::IF_NONE_MATCH, HeaderValue::from_static("\"a\""));
        headers.append(header::IF_NONE_MATCH, HeaderValue::from_static("\"b\""));
        assert_eq!(asked(&headers).len(), 2);
        assert_eq!(asked(&headers)[1].1, "\"a\", \"b\"");
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        assert_eq!(asked(&headers).len(), 1);
    }
}
