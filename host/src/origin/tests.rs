//! Tests of the room: the contract that every kind of origin keeps, and what is particular to each.

mod contract;
mod dir;
mod http;
mod s3;
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::Bytes;
use futures_util::StreamExt;

use super::*;
use crate::telemetry::metrics::{Metrics, OriginLabels};

/// Short enough for a test to wait for.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_millis(2000),
    first_byte: Duration::from_millis(400),
    idle: Duration::from_millis(400),
};

/// An origin of hosts.json with its decorators, and the metrics that it counts in.
struct Built {
    origin: Arc<dyn Origin>,
    metrics: Arc<Metrics>,
}

impl Built {
    async fn new(place: Place) -> Self {
        let (metrics, _) = Metrics::new();
        let settings = Settings { name: "o".to_owned(), place, timeouts: TIMEOUTS };
        let origin = build(&settings, Arc::clone(&metrics)).await.expect("the origin can be built");
        Self { origin, metrics }
    }

    async fn dir(folder: &Path) -> Self {
        Self::new(Place::Dir(folder.to_owned())).await
    }

    async fn http(url: &str) -> Self {
        let url = url.parse().expect("a URL");
        Self::new(Place::Http(HttpSettings { url, host: HostField::Origin, ca: None })).await
    }

    async fn s3(endpoint: &str) -> Self {
        Self::new(Place::S3(s3_settings(
            endpoint,
            S3Credentials::Static { access_key_id: "AKIDEXAMPLE".to_owned(), secret_access_key: "secret".to_owned() },
        )))
        .await
    }

    async fn get(&self, path: &str, fields: &[(&'static str, &str)]) -> Answer {
        self.ask(request(Method::GET, path, fields)).await.expect("an answer")
    }

    async fn fail(&self, path: &str) -> OriginError {
        match self.ask(request(Method::GET, path, &[])).await {
            Ok(answer) => panic!("expected an error, got {answer:?}"),
            Err(error) => error,
        }
    }

    /// Fetches and reads to the end; an error of the body is an error.
    async fn ask(&self, request: OriginRequest) -> Result<Answer, OriginError> {
        read(self.origin.fetch(request).await?).await
    }

    fn counted(&self, outcome: &str) -> u64 {
        let labels = OriginLabels { origin: "o".to_owned(), outcome: outcome.to_owned() };
        self.metrics.origin_requests.get_or_create(&labels).get()
    }
}

fn s3_settings(endpoint: &str, credentials: S3Credentials) -> S3Settings {
    S3Settings {
        bucket: "bucket".to_owned(),
        region: Some("eu-central-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        credentials,
    }
}

/// A response that was read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    length: Option<u64>,
    body: Bytes,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a visible value"))
    }
}

async fn read(mut response: OriginResponse) -> Result<Answer, OriginError> {
    let mut body = Vec::new();
    while let Some(piece) = response.body.next().await {
        body.extend_from_slice(&piece?);
    }
    Ok(Answer {
        status: response.status.as_u16(),
        headers: response.headers,
        length: response.length,
        body: body.into(),
    })
}

fn request(method: Method, path: &str, fields: &[(&'static str, &str)]) -> OriginRequest {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a field value"));
    }
    OriginRequest {
        method,
        path: path.to_owned(),
        query: None,
        headers,
        authority: "client.test".to_owned(),
        body: None,
        retry: false,
        interim: None,
        upgrade: false,
    }
}

fn with_body(mut request: OriginRequest, length: Option<u64>, pieces: Vec<&'static str>) -> OriginRequest {
    let stream = futures_util::stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))));
    request.body = Some(RequestBody { length, stream: Box::pin(stream) });
    request
}
