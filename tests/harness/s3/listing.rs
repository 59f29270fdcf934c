//! ListObjectsV2: keys in the order of their bytes, in pages, encoded if that is asked for, as AWS does it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{self, ETag, EncodingType, ListObjectsV2Input, ListObjectsV2Output};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::protocol::Objects;

/// Keys of a page.
const PAGE: usize = 1000;

const NOT_IN_KEY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b'/').remove(b' ');

impl Objects {
    pub(super) fn list(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let book = self.0.book();
        let Some(bucket) = book.buckets.get(&input.bucket) else {
            return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"));
        };
        let encoded = input.encoding_type.as_ref().is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
        let prefix = input.prefix.clone().unwrap_or_default();
        // A real one is opaque; this one is the last key of the page before, dressed up.
        let after = match &input.continuation_token {
            None => None,
            Some(token) => match token.strip_prefix("after&") {
                Some(key) => Some(key.to_owned()),
                None => return Err(s3_error!(InvalidArgument, "The continuation token provided is incorrect")),
            },
        };
        let most = input.max_keys.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE).min(PAGE);
        let all = bucket.objects.iter().filter(|(key, _)| key.starts_with(&prefix));
        let mut rest = all.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
        let page: Vec<_> = rest.by_ref().take(most).collect();
        let truncated = rest.next().is_some();
        let written = |key: &str| match encoded {
            true => utf8_percent_encode(key, NOT_IN_KEY).to_string().replace(' ', "+"),
            false => key.to_owned(),
        };
        let next = page.last().filter(|_| truncated).map(|(key, _)| format!("after&{key}"));
        let contents = page.iter().map(|(key, object)| dto::Object {
            key: Some(written(key)),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            size: Some(object.content.len().cast_signed()),
            last_modified: Some(object.last_modified.into()),
            ..dto::Object::default()
        });
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(page.len()).ok(),
            contents: Some(contents.collect()),
            is_truncated: Some(truncated),
            next_continuation_token: next,
            encoding_type: input.encoding_type,
            name: Some(input.bucket),
            prefix: Some(prefix),
            ..ListObjectsV2Output::default()
        }))
    }
}
