//! What a bucket tells of itself: S3 event notifications as AWS, MinIO and others send them, by themselves, in an envelope of SNS,
//! SQS or Lambda, or as EventBridge has them. What cannot be read is told with its place, and does not keep the others from
//! counting: whoever sends them sends them once.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Events of one request: far more than anybody puts into one.
const EVENTS_MOST: usize = 10_000;
/// Envelopes in envelopes: an event of S3 in one of EventBridge, SNS and SQS.
const DEEPEST: usize = 6;
/// The longest key that S3 knows, in bytes.
const KEY_BYTES: usize = 1024;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, or another one than before, or one version of it is gone.
    Created,
    /// It is gone.
    Removed,
}

/// Something happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The bucket.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// What.
    pub change: Change,
}

/// What a body has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// In their order.
    pub events: Vec<Event>,
    /// Where something cannot be read, and why.
    pub errors: Vec<(String, String)>,
    /// Events of other kinds: tests, tags, access.
    pub ignored: u64,
    /// What a person should know: a subscription that waits to be confirmed.
    pub notes: Vec<String>,
}

impl Events {
    /// Reads the body of `POST /events`. The error says why none of it can be read.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(body).map_err(|error| format!("the events are not JSON: {error}"))?;
        let mut events = Self::default();
        events.read(&value, "", 0);
        Ok(events)
    }

    fn read(&mut self, value: &Value, at: &str, depth: usize) {
        let mut wrong = |at: &str, why: &str| self.errors.push((named(at).to_owned(), why.to_owned()));
        if depth > DEEPEST {
            return wrong(at, "too many envelopes");
        }
        let object = match value {
            Value::Array(items) => return self.all(items, at, depth),
            Value::Object(object) => object,
            _ => return wrong(at, "it is no event, but neither an object nor a list"),
        };
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        if let Some(Value::Array(records)) = object.get("Records") {
            return self.all(records, &below(at, "Records"), depth);
        }
        if object.contains_key("s3") {
            return self.record(value, at);
        }
        if object.contains_key("detail-type") && object.contains_key("detail") {
            return self.event_bridge(value, at);
        }
        match (text("Type"), text("Message")) {
            (Some("Notification"), Some(message)) => return self.message(message, &below(at, "Message"), depth),
            (Some("SubscriptionConfirmation"), _) => {
                let url: String = text("SubscribeURL").unwrap_or_default().chars().take(2048).collect();
                self.notes.push(format!("SNS wants its subscription confirmed: open {url}"));
                return;
            }
            (Some("UnsubscribeConfirmation"), _) => return self.ignored += 1,
            _ => {}
        }
        if let Some(sns) = object.get("Sns") {
            return match sns.get("Message").and_then(Value::as_str) {
                Some(message) => self.message(message, &below(at, "Sns.Message"), depth),
                None => wrong(&below(at, "Sns.Message"), "it is missing"),
            };
        }
        if let Some(body) = text("body").or(text("Body")) {
            return self.message(body, &below(at, "body"), depth);
        }
        if text("Event") == Some("s3:TestEvent") {
            return self.ignored += 1;
        }
        wrong(at, "it is no S3 event, nor an envelope of one that is known");
    }

    fn all(&mut self, items: &[Value], at: &str, depth: usize) {
        for (index, item) in items.iter().enumerate() {
            let at = format!("{at}[{index}]");
            if self.events.len() + self.errors.len() >= EVENTS_MOST {
                return self.errors.push((at, format!("more than {EVENTS_MOST} events at once")));
            }
            self.read(item, &at, depth + 1);
        }
    }

    /// What an envelope has as text.
    fn message(&mut self, text: &str, at: &str, depth: usize) {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => self.read(&value, at, depth + 1),
            Err(error) => self.errors.push((at.to_owned(), format!("it is not JSON: {error}"))),
        }
    }

    /// A record of AWS's own kind. Its key is encoded as in forms.
    fn record(&mut self, record: &Value, at: &str) {
        let Some(name) = record.get("eventName").and_then(Value::as_str) else {
            return self.errors.push((below(at, "eventName"), "it is missing, or no text".to_owned()));
        };
        let name = name.strip_prefix("s3:").unwrap_or(name);
        let change = match name.split(':').next() {
            Some("ObjectCreated" | "ObjectRestore") => Change::Created,
            Some("ObjectRemoved" | "LifecycleExpiration")
                if name.ends_with(":Delete") && is_one_version(record.pointer("/s3/object/versionId")) =>
            {
                Change::Created
            }
            Some("ObjectRemoved" | "LifecycleExpiration") => Change::Removed,
            _ => return self.ignored += 1,
        };
        let bucket = record.pointer("/s3/bucket/name");
        let key = record.pointer("/s3/object/key").map(|key| {
            let text = key.as_str()?.replace('+', " ");
            percent_decode_str(&text).decode_utf8().ok().map(|key| key.into_owned())
        });
        self.push(at, ("s3.bucket.name", bucket), ("s3.object.key", key), change);
    }

    /// EventBridge has keys as they are.
    fn event_bridge(&mut self, event: &Value, at: &str) {
        let change = match (event.get("source").and_then(Value::as_str), event["detail-type"].as_str()) {
            (Some("aws.s3"), Some("Object Created" | "Object Restore Completed")) => Change::Created,
            (Some("aws.s3"), Some("Object Deleted"))
                if is_one_version(event.pointer("/detail/object/version-id"))
                    && event.pointer("/detail/deletion-type").is_some_and(|kind| kind == "Permanently Deleted") =>
            {
                Change::Created
            }
            (Some("aws.s3"), Some("Object Deleted")) => Change::Removed,
            _ => return self.ignored += 1,
        };
        let key = event.pointer("/detail/object/key").map(|key| key.as_str().map(str::to_owned));
        self.push(at, ("detail.bucket.name", event.pointer("/detail/bucket/name")), ("detail.object.key", key), change);
    }

    fn push(
        &mut self,
        at: &str,
        (bucket_at, bucket): (&str, Option<&Value>),
        (key_at, key): (&str, Option<Option<String>>),
        change: Change,
    ) {
        let mut wrong = |name: &str, why: &str| self.errors.push((below(at, name), why.to_owned()));
        let Some(bucket) = bucket.and_then(Value::as_str).filter(|bucket| !bucket.is_empty()) else {
            return wrong(bucket_at, "it is missing, or no text");
        };
        match key {
            None => wrong(key_at, "it is missing"),
            Some(None) => wrong(key_at, "it is no text, or not UTF-8 once decoded"),
            Some(Some(key)) if key.is_empty() || key.len() > KEY_BYTES => wrong(key_at, "no key has such a length"),
            Some(Some(key)) => self.events.push(Event { bucket: bucket.to_owned(), key, change }),
        }
    }
}

/// Whether a version is named: it is one of some, and what is left shows when the object is asked for.
fn is_one_version(id: Option<&Value>) -> bool {
    id.is_some_and(|id| id.as_str().is_some_and(|id| !id.is_empty()))
}

fn below(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn named(at: &str) -> &str {
    if at.is_empty() { "the body" } else { at }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Events {
        Events::parse(value.to_string().as_bytes()).expect("JSON")
    }

    fn record(name: &str, key: &str) -> Value {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name,
            "s3": { "bucket": { "name": "site", "arn": "arn:aws:s3:::site" }, "object": { "key": key, "size": 1024 } }
        })
    }

    fn event(key: &str, change: Change) -> Event {
        Event { bucket: "site".to_owned(), key: key.to_owned(), change }
    }

    #[test]
    fn the_events_of_aws_and_of_minio() {
        let aws =
            json!({ "Records": [record("ObjectCreated:Put", "a+b%2Bc%C3%BC"), record("ObjectRemoved:Delete", "x/y")] });
        let minio = json!({
            "EventName": "s3:ObjectCreated:Put", "Key": "site/x/y",
            "Records": [record("s3:ObjectCreated:Put", "x%2Fy"), record("s3:ObjectAccessed:Get", "z")]
        });
        assert_eq!(read(&aws).events, [event("a b+cü", Change::Created), event("x/y", Change::Removed)]);
        let minio = read(&minio);
        assert_eq!((minio.events, minio.ignored), (vec![event("x/y", Change::Created)], 1));
        let other = json!({ "Records": [record("LifecycleExpiration:Delete", "a"), record("ObjectTagging:Put", "b")] });
        assert_eq!(read(&other).events, [event("a", Change::Removed)]);
    }

    #[test]
    fn a_version_that_is_gone_is_not_the_object() {
        let of_version = |name: &str| {
            let mut record = record(name, "a");
            record["s3"]["object"]["versionId"] = json!("v1");
            read(&record).events
        };
        assert_eq!(of_version("ObjectRemoved:Delete"), [event("a", Change::Created)]);
        assert_eq!(of_version("LifecycleExpiration:Delete"), [event("a", Change::Created)]);
        assert_eq!(of_version("ObjectRemoved:DeleteMarkerCreated"), [event("a", Change::Removed)]);
        let bridge = |kind: &str| {
            read(&json!({
                "detail-type": "Object Deleted", "source": "aws.s3",
                "detail": { "bucket": { "name": "site" }, "object": { "key": "a", "version-id": "v1" }, "deletion-type": kind }
            }))
            .events
        };
        assert_eq!(bridge("Permanently Deleted"), [event("a", Change::Created)]);
        assert_eq!(bridge("Delete Marker Created"), [event("a", Change::Removed)]);
    }

    #[test]
    fn envelopes_are_opened() {
        let aws = json!({ "Records": [record("ObjectCreated:Put", "a")] });
        let bridge = json!({
            "version": "0", "detail-type": "Object Deleted", "source": "aws.s3",
            "detail": { "bucket": { "name": "site" }, "object": { "key": "a+b", "size": 5 }, "reason": "DeleteObject" }
        });
        let sns = |inner: &Value| json!({ "Type": "Notification", "MessageId": "1", "Message": inner.to_string() });
        let created = [event("a", Change::Created)];
        assert_eq!(read(&sns(&aws)).events, created);
        assert_eq!(read(&json!({ "Records": [{ "Sns": sns(&aws) }] })).events, created);
        assert_eq!(read(&json!({ "Records": [{ "body": sns(&aws).to_string() }] })).events, created);
        assert_eq!(read(&bridge).events, [event("a+b", Change::Removed)]);
        assert_eq!(read(&sns(&bridge)).events, [event("a+b", Change::Removed)]);
        assert_eq!(read(&json!([bridge, aws])).events.len(), 2);
    }

    #[test]
    fn what_is_no_change_is_passed_over() {
        let confirm =
            json!({ "Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.test/?Token=1", "Message": "x" });
        assert_eq!(read(&confirm).notes, ["SNS wants its subscription confirmed: open https://sns.test/?Token=1"]);
        let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "site" });
        assert_eq!(read(&test), Events { ignored: 1, ..Events::default() });
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place_and_the_rest_counts() {
        let mut no_key = record("ObjectCreated:Put", "x");
        no_key["s3"]["object"] = json!({});
        let mut no_bucket = record("ObjectCreated:Put", "x");
        no_bucket["s3"]["bucket"]["name"] = json!(7);
        let list = json!({ "Records": [record("ObjectCreated:Put", "a"), no_key, no_bucket, record("ObjectCreated:Put", "%ff"), 3, {},
            { "Sns": {} }, { "body": "{" }, record("ObjectRemoved:Delete", "b")] });
        let read = read(&list);
        assert_eq!(read.events, [event("a", Change::Created), event("b", Change::Removed)]);
        let places: Vec<&str> = read.errors.iter().map(|(at, _)| at.as_str()).collect();
        assert_eq!(
            places,
            [
                "Records[1].s3.object.key",
                "Records[2].s3.bucket.name",
                "Records[3].s3.object.key",
                "Records[4]",
                "Records[5]",
                "Records[6].Sns.Message",
                "Records[7].body"
            ]
        );
        assert!(Events::parse(b"{").is_err());
        assert_eq!(super::tests::read(&json!("x")).errors[0].0, "the body");
    }

    #[test]
    fn no_list_and_no_envelope_is_too_much() {
        let many: Vec<Value> = (0..EVENTS_MOST + 5).map(|_| record("ObjectCreated:Put", "a")).collect();
        let many = read(&json!({ "Records": many }));
        assert_eq!((many.events.len(), many.errors.len()), (EVENTS_MOST, 1));
        let mut deep = json!({ "Records": [] });
        for _ in 0..20 {
            deep =
                json!({ "Type": "Notification", "Message": deep.to_string().chars().take(60_000).collect::<String>() });
        }
        assert_eq!(read(&deep).events, []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_events_or_not(bytes in any::<Vec<u8>>(), text in "[\\[\\]{}\",:a-zA-Z3\\. ]{0,60}") {
            let _ = Events::parse(&bytes);
            let _ = Events::parse(text.as_bytes());
        }
    }
}
