//! What s3s asks of us: who is let in, and reads with their conditions and ranges.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::dto::{
    ChecksumMode, ChecksumType, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Range, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::{Object, State};

/// What requests are let in: signed ones (s3s has checked the signature by then), and anyone to a public bucket.
pub(super) struct Access(pub(super) Arc<State>);

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let book = self.0.book();
        let bucket = context.s3_path().get_bucket_name().and_then(|name| book.buckets.get(name));
        if bucket.is_some_and(|bucket| bucket.refuses) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if context.credentials().is_some() || bucket.is_some_and(|bucket| bucket.public) {
            return Ok(());
        }
        Err(s3_error!(AccessDenied, "Access Denied"))
    }
}

pub(super) struct Objects(pub(super) Arc<State>);

/// A read after its conditions and its range are settled.
struct Read {
    object: Object,
    range: std::ops::Range<u64>,
    partial: bool,
}

struct Asked {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
    range: Option<Range>,
}

impl Objects {
    fn read(&self, bucket: &str, key: &str, asked: &Asked) -> S3Result<Read> {
        let book = self.0.book();
        let Some(bucket) = book.buckets.get(bucket) else {
            return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"));
        };
        let Some(object) = bucket.objects.get(key).cloned() else {
            return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
        };
        drop(book);
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(tag) => tag.value() == object.etag,
        };
        let modified: time::OffsetDateTime = object.last_modified.into();
        // RFC 9110 section 13.2.2, which is also what S3 documents.
        let fails = match (&asked.if_match, &asked.if_unmodified_since) {
            (Some(condition), _) => !is(condition),
            (None, Some(at)) => modified > time::OffsetDateTime::from(at.clone()),
            (None, None) => false,
        };
        if fails {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
        }
        let unchanged = match (&asked.if_none_match, &asked.if_modified_since) {
            (Some(condition), _) => is(condition),
            (None, Some(at)) => modified <= time::OffsetDateTime::from(at.clone()),
            (None, None) => false,
        };
        if unchanged {
            let mut error = S3Error::new(S3ErrorCode::NotModified);
            error.set_status_code(StatusCode::NOT_MODIFIED);
            let mut headers = HeaderMap::new();
            insert(&mut headers, "etag", &object.quoted_etag());
            insert(&mut headers, "last-modified", &object.last_modified_text());
            if let Some(cache_control) = &object.cache_control {
                insert(&mut headers, "cache-control", cache_control);
            }
            error.set_headers(headers);
            return Err(error);
        }
        let length = object.content.len();
        let range = match &asked.range {
            None => 0..length,
            Some(range) => range.check(length).map_err(|_| {
                let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
                let mut headers = HeaderMap::new();
                insert(&mut headers, "content-range", &format!("bytes */{length}"));
                error.set_headers(headers);
                error
            })?,
        };
        Ok(Read { object, range, partial: asked.range.is_some() })
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let with_checksum = input.checksum_mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        let asked = Asked {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
            range: input.range,
        };
        let Read { object, range, partial } = self.read(&input.bucket, &input.key, &asked)?;
        let chunks = object.content.chunks(range.clone()).map(Ok::<Bytes, std::io::Error>);
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some((range.end - range.start) as i64),
            content_range: partial.then(|| content_range(&range, object.content.len())),
            body: Some(StreamingBlob::wrap(futures_util::stream::iter(chunks))),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.last_modified.into()),
            cache_control: object.cache_control,
            content_type: Some(object.content_type.unwrap_or_else(|| "binary/octet-stream".to_owned())),
            content_encoding: object.content_encoding,
            content_disposition: object.content_disposition,
            content_language: object.content_language,
            website_redirect_location: object.website_redirect,
            checksum_sha256: object.checksum_sha256.filter(|_| with_checksum),
            checksum_type: object.checksum_type.filter(|_| with_checksum).map(ChecksumType::from),
            metadata: Some(object.metadata.into_iter().collect()),
            ..GetObjectOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.list(request)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let asked = Asked {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
            range: input.range,
        };
        let Read { object, range, partial } = self.read(&input.bucket, &input.key, &asked)?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some((range.end - range.start) as i64),
            content_range: partial.then(|| content_range(&range, object.content.len())),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.last_modified.into()),
            cache_control: object.cache_control,
            content_type: Some(object.content_type.unwrap_or_else(|| "binary/octet-stream".to_owned())),
            content_encoding: object.content_encoding,
            content_disposition: object.content_disposition,
            content_language: object.content_language,
            website_redirect_location: object.website_redirect,
            metadata: Some(object.metadata.into_iter().collect()),
            ..HeadObjectOutput::default()
        }))
    }
}

fn content_range(range: &std::ops::Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
