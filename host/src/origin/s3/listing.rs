//! ListObjectsV2: a page of what a bucket has. The SDK signs it; its XML is read here, since the answer is taken before the SDK
//! sees it. Keys are asked for encoded: XML can't write every character that a key may have.

use futures_util::StreamExt;
use jiff::Timestamp;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

use super::super::listing::{Listed, PAGE, Page, Place};
use super::super::{OriginError, body::chain};
use super::transport::{Slot, Taken};
use super::{MAX_KEY, S3Origin};

/// The longest page: a thousand keys of 1024 bytes, each encoded, with what stands around them.
const PAGE_BYTES: usize = 8 << 20;

/// Elements within elements; those of S3 are four deep.
const DEEPEST: usize = 8;

impl S3Origin {
    /// `retry`: not over a connection that lay idle.
    pub(super) async fn page(&self, place: Place, retry: bool) -> Result<Page, OriginError> {
        let (prefix, token) = match place {
            Place::Start { prefix } => (prefix, None),
            Place::Token { prefix, token } => (prefix, Some(token)),
            Place::Walk(_) => return Err(self.broken("a walk through a folder is none through a bucket".to_owned())),
        };
        self.may_ask()?;
        let before = token.clone();
        let slot = Slot { retry, ..Slot::default() };
        let prepare = {
            let slot = slot.clone();
            move |request: &mut aws_smithy_runtime_api::client::orchestrator::HttpRequest| {
                request.add_extension(slot.clone());
            }
        };
        let key = prefix.strip_prefix('/').unwrap_or(&prefix);
        let ask = self
            .sdk
            .list_objects_v2()
            .bucket(&self.bucket)
            .set_prefix(Some(key.to_owned()).filter(|key| !key.is_empty()));
        let ask = ask.set_continuation_token(token).max_keys(i32::try_from(PAGE).unwrap_or(i32::MAX));
        let ask = ask.encoding_type(aws_sdk_s3::types::EncodingType::Url);
        let failed = ask.customize().mutate_request(prepare).send().await.err().map(|error| self.not_asked(&error));
        let mut body = match self.taken(&slot, failed)? {
            Taken::Object { body, .. } => body,
            Taken::Refusal { status, headers, document } => {
                let answer = self.refusal(&http::Method::GET, status, headers, &document)?;
                let reason = format!("S3 answered {} to a request for the list of its keys", answer.status.as_u16());
                return Err(OriginError::Status { origin: self.name.to_string(), status, reason });
            }
        };
        let mut document = Vec::new();
        while let Some(piece) = body.next().await {
            document.extend_from_slice(&piece?);
            if document.len() > PAGE_BYTES {
                return Err(self.broken(format!("a list of keys is longer than {PAGE_BYTES} bytes")));
            }
        }
        self.see_bucket();
        let read =
            read(&document).map_err(|reason| self.broken(format!("its list of keys cannot be read: {reason}")))?;
        let next = match (read.truncated, read.token) {
            (false, _) => None,
            (true, Some(token)) if Some(&token) == before.as_ref() => {
                return Err(self.broken("its list of keys goes on where it was".to_owned()));
            }
            (true, Some(token)) => Some(Place::Token { prefix, token }),
            (true, None) => return Err(self.broken("its list of keys goes on, and does not say where".to_owned())),
        };
        Ok(Page { listed: read.listed, left_out: read.left_out, next })
    }
}

#[derive(Debug, Default)]
struct Read {
    listed: Vec<Listed>,
    left_out: u64,
    truncated: bool,
    token: Option<String>,
}

/// An object as it is read.
#[derive(Default)]
struct Raw {
    key: String,
    size: String,
    etag: String,
    modified: String,
}

fn read(document: &[u8]) -> Result<Read, String> {
    let mut xml = Reader::from_reader(document);
    let mut read = Read::default();
    let (mut encoded, mut truncated, mut raws) = (false, None, Vec::new());
    let (mut way, mut text): (Vec<Vec<u8>>, String) = (Vec::new(), String::new());
    let mut raw = Raw::default();
    loop {
        match xml.read_event().map_err(|error| chain(&error))? {
            Event::Start(start) => {
                if way.len() == DEEPEST {
                    return Err("its elements lie too deep in each other".to_owned());
                }
                way.push(start.local_name().as_ref().to_vec());
                text.clear();
            }
            Event::End(_) => {
                let names: Vec<&[u8]> = way.iter().map(Vec::as_slice).collect();
                let value = std::mem::take(&mut text);
                match names.as_slice() {
                    [b"ListBucketResult", b"IsTruncated"] => truncated = Some(value.trim() == "true"),
                    [b"ListBucketResult", b"NextContinuationToken"] => read.token = Some(value),
                    [b"ListBucketResult", b"EncodingType"] => encoded = value.trim() == "url",
                    [b"ListBucketResult", b"Contents", b"Key"] => raw.key = value,
                    [b"ListBucketResult", b"Contents", b"Size"] => raw.size = value,
                    [b"ListBucketResult", b"Contents", b"ETag"] => raw.etag = value,
                    [b"ListBucketResult", b"Contents", b"LastModified"] => raw.modified = value,
                    [b"ListBucketResult", b"Contents"] => raws.push(std::mem::take(&mut raw)),
                    [b"ListBucketResult"] => {
                        for raw in raws {
                            match listed(raw, encoded)? {
                                Some(listed) => read.listed.push(listed),
                                None => read.left_out += 1,
                            }
                        }
                        // Taken for whole, a part of a list would have the rest removed.
                        read.truncated = truncated.ok_or("it does not say whether it is all (IsTruncated)")?;
                        return Ok(read);
                    }
                    [_] => return Err("it is no ListBucketResult".to_owned()),
                    _ => {}
                }
                way.pop();
            }
            Event::Text(part) => text.push_str(&part.decode().map_err(|error| error.to_string())?),
            Event::CData(part) => text.push_str(&part.decode().map_err(|error| error.to_string())?),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| chain(&error))?;
                match (character, resolve_xml_entity(&String::from_utf8_lossy(&reference))) {
                    (Some(character), _) => text.push(character),
                    (None, named) => text.push_str(named.ok_or("an entity that XML does not know")?),
                }
            }
            Event::Eof => return Err("it breaks off".to_owned()),
            _ => {}
        }
    }
}

/// None for what no request can name. The error is that of a list that does not say what it should.
fn listed(raw: Raw, encoded: bool) -> Result<Option<Listed>, String> {
    let key = if encoded {
        // As forms encode: AWS writes a space as a plus sign, and a plus sign as %2B.
        let spaced = raw.key.replace('+', " ");
        match percent_encoding::percent_decode_str(&spaced).decode_utf8() {
            Ok(key) => key.into_owned(),
            Err(_) => return Ok(None),
        }
    } else {
        raw.key
    };
    if key.is_empty() || key.len() > MAX_KEY {
        return Ok(None);
    }
    let modified = raw.modified.trim().parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_second()).ok());
    let size = raw.size.trim().parse();
    let size = size.map_err(|_| format!("the size of {key:?} is {:?}, which is no number of bytes", raw.size))?;
    let etag = Some(raw.etag.trim().to_owned()).filter(|etag| !etag.is_empty());
    Ok(Some(Listed { path: format!("/{key}"), size, etag, modified }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
      <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>x</Prefix>
      <KeyCount>2</KeyCount><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
      <NextContinuationToken>1ue&amp;GcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>
      <Contents><Key>a+b%2Bc%0A%3C%26</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>
        <ETag>&quot;fba9&quot;</ETag><Size>434234</Size><StorageClass>STANDARD</StorageClass>
        <Owner><ID>1</ID><Key>no key</Key></Owner></Contents>
      <Contents><Key>%FF</Key><Size>1</Size></Contents>
      <CommonPrefixes><Prefix>y</Prefix></CommonPrefixes></ListBucketResult>";

    #[test]
    fn a_page_is_read() {
        let read = read(PAGE.as_bytes()).expect("a page");
        let one = Listed {
            path: "/a b+c\n<&".to_owned(),
            size: 434_234,
            etag: Some("\"fba9\"".to_owned()),
            modified: Some(1_255_369_830),
        };
        assert_eq!((read.listed, read.left_out, read.truncated), (vec![one], 1, true));
        assert_eq!(read.token.as_deref(), Some("1ue&GcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM="));
    }

    #[test]
    fn keys_are_as_they_stand_where_nobody_says_that_they_are_encoded() {
        let plain = PAGE.replace("<EncodingType>url</EncodingType>", "");
        assert_eq!(read(plain.as_bytes()).expect("a page").listed[0].path, "/a+b%2Bc%0A%3C%26");
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for text in ["", "x", "<Error><Code>x</Code></Error>", &PAGE[..400], "<ListBucketResult>&x;</ListBucketResult>"]
        {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_that_may_be_a_part_or_does_not_say_what_it_has_is_an_error() {
        for (part, instead) in [
            ("<IsTruncated>true</IsTruncated>", ""),
            ("<Size>434234</Size>", ""),
            ("<Size>434234</Size>", "<Size>-1</Size>"),
            ("<Size>434234</Size>", "<Size>18446744073709551616</Size>"),
        ] {
            let page = PAGE.replace(part, instead);
            assert!(page != PAGE && read(page.as_bytes()).is_err(), "{part} {instead}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_page_or_not(bytes in any::<Vec<u8>>(), cut in 0..PAGE.len()) {
            let _ = read(&bytes);
            let _ = read(&PAGE.as_bytes()[..cut]);
        }
    }
}
