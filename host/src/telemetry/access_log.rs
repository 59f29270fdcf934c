//! The access log: one line in the combined format for a request, on stdout, written by one writer behind a bounded queue. No
//! lock that requests share; a blocked stdout never holds a request, what is dropped is counted.
//!
//! The format is Apache's `%h - - %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"`, with times in UTC. Quotes and backslashes of
//! what a client sent are escaped with a backslash, control bytes and all beyond ASCII as `\xNN`, so that a line is one line
//! and a field one field whatever came in.
//!
//! A request's fields are copied into the queue, not held: they share a buffer with the connection, which could not be used
//! again as long as one of them waits here, and a head of 64 KiB would wait with them.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, Version};
use smallvec::SmallVec;

use super::metrics::Metrics;
use super::writer::{Line, LineWriter, own};
use crate::clock::Timestamp;

/// Lines that can wait: a tenth of a second and more of the most that two cores serve, and some 3 MiB.
const CAPACITY: usize = 8192;

/// Text that a queued line holds without an allocation.
const INLINE_BYTES: usize = 256;

/// The longest target, referrer and user agent that are logged; the rest is cut off, so that the queue is bounded in bytes too.
const FIELD_BYTES: usize = 8 << 10;

/// One request as it ended.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The client, after trusted proxies are resolved.
    pub client: IpAddr,
    /// End of the request.
    pub at: Timestamp,
    /// Method.
    pub method: &'a Method,
    /// Request target as it came in.
    pub target: &'a str,
    /// HTTP version.
    pub version: Version,
    /// The status that was sent.
    pub status: StatusCode,
    /// Bytes of body that were sent.
    pub bytes: u64,
    /// Referer field.
    pub referer: Option<&'a HeaderValue>,
    /// User-Agent field.
    pub user_agent: Option<&'a HeaderValue>,
}

/// The way to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog(LineWriter<Entry>);

impl AccessLog {
    /// Starts the writer on a thread of its own, onto stdout.
    pub fn start(metrics: Arc<Metrics>) -> Self {
        match own(&std::io::stdout()) {
            Ok(stdout) => Self::onto(stdout, &metrics),
            Err(error) => {
                tracing::error!(%error, "no access log: stdout cannot be duplicated");
                Self::onto(std::io::sink(), &metrics)
            }
        }
    }

    /// Starts the writer onto anything.
    pub fn onto(sink: impl std::io::Write + Send + 'static, metrics: &Metrics) -> Self {
        Self(LineWriter::start("access-log", sink, CAPACITY, metrics.log_dropped.clone()))
    }

    /// Hands a record over, or drops it when the queue is full.
    pub fn write(&self, record: &Record<'_>) {
        self.0.write(Entry::of(record));
    }

    /// The same for what could not be read as a request: `"-"` stands in place of the request line.
    pub fn write_unreadable(&self, client: IpAddr, at: Timestamp, status: StatusCode) {
        self.0.write(Entry {
            client,
            at,
            version: Version::HTTP_11,
            status,
            bytes: 0,
            text: SmallVec::new(),
            method_end: 0,
            target_end: 0,
            referer_end: 0,
        });
    }

    /// Writes what is queued, waiting at most a second.
    pub fn flush(&self) {
        self.0.flush();
    }
}

/// A record on its way: numbers, and the text in one piece.
#[derive(Debug)]
struct Entry {
    client: IpAddr,
    at: Timestamp,
    version: Version,
    status: StatusCode,
    bytes: u64,
    /// Method, target, referrer and user agent, one after the other.
    text: SmallVec<[u8; INLINE_BYTES]>,
    method_end: u32,
    target_end: u32,
    referer_end: u32,
}

impl Entry {
    fn of(record: &Record<'_>) -> Self {
        let mut text = SmallVec::new();
        let mut add = |bytes: &[u8]| {
            text.extend_from_slice(&bytes[..bytes.len().min(FIELD_BYTES)]);
            // At most four fields of 8 KiB.
            text.len() as u32
        };
        let method_end = add(record.method.as_str().as_bytes());
        let target_end = add(record.target.as_bytes());
        let referer_end = add(record.referer.map_or(b"", HeaderValue::as_bytes));
        add(record.user_agent.map_or(b"", HeaderValue::as_bytes));
        Self {
            client: record.client,
            at: record.at,
            version: record.version,
            status: record.status,
            bytes: record.bytes,
            text,
            method_end,
            target_end,
            referer_end,
        }
    }
}

/// What was formatted last: neighbours in the log mostly share the second, and often the client.
#[derive(Default)]
struct Last {
    second: Option<u64>,
    text: Vec<u8>,
    client: Option<IpAddr>,
    client_text: Vec<u8>,
}

impl Last {
    fn client(&mut self, client: IpAddr) -> &[u8] {
        if self.client != Some(client) {
            self.client = Some(client);
            self.client_text.clear();
            // Writing into a vector cannot fail.
            let _ = write!(self.client_text, "{client} - - ");
        }
        &self.client_text
    }

    fn second(&mut self, at: Timestamp) -> &[u8] {
        if self.second != Some(at.as_secs()) {
            self.second = Some(at.as_secs());
            self.text.clear();
            // Moments past the year 9999 are nobody's; the log says 1970 then.
            let moment = i64::try_from(at.as_secs()).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
            let moment = moment.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            // Writing into a vector cannot fail.
            let _ = write!(self.text, "[{}]", moment.strftime("%d/%b/%Y:%H:%M:%S +0000"));
        }
        &self.text
    }
}

impl Line for Entry {
    type Memory = Last;

    fn append(&self, last: &mut Last, out: &mut Vec<u8>) {
        let (method_end, target_end, referer_end) =
            (self.method_end as usize, self.target_end as usize, self.referer_end as usize);
        out.extend_from_slice(last.client(self.client));
        out.extend_from_slice(last.second(self.at));
        out.extend_from_slice(b" \"");
        escape(&self.text[..method_end], out);
        out.extend_from_slice(if method_end > 0 { b" " } else { b"-" });
        escape(&self.text[method_end..target_end], out);
        let version = match self.version {
            _ if method_end == 0 => "\" ",
            Version::HTTP_09 => " HTTP/0.9\" ",
            Version::HTTP_10 => " HTTP/1.0\" ",
            Version::HTTP_2 => " HTTP/2.0\" ",
            Version::HTTP_3 => " HTTP/3.0\" ",
            _ => " HTTP/1.1\" ",
        };
        out.extend_from_slice(version.as_bytes());
        out.extend_from_slice(self.status.as_str().as_bytes());
        if self.bytes == 0 {
            out.extend_from_slice(b" - ");
        } else {
            out.push(b' ');
            out.extend_from_slice(itoa::Buffer::new().format(self.bytes).as_bytes());
            out.push(b' ');
        }
        quote(&self.text[target_end..referer_end], out);
        out.push(b' ');
        quote(&self.text[referer_end..], out);
        out.push(b'\n');
    }
}

/// A field in quotes; `-` when there is none.
fn quote(field: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if field.is_empty() {
        out.push(b'-');
    } else {
        escape(field, out);
    }
    out.push(b'"');
}

fn is_odd(byte: u8) -> bool {
    !(b' '..=b'~').contains(&byte) || byte == b'"' || byte == b'\\'
}

fn escape(field: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = field;
    // Most fields have nothing odd, and looking at all bytes without stopping takes many at a time.
    if !field.iter().fold(false, |odd, &byte| odd | is_odd(byte)) {
        return out.extend_from_slice(field);
    }
    while let Some(odd) = rest.iter().position(|&byte| is_odd(byte)) {
        out.extend_from_slice(&rest[..odd]);
        match rest[odd] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
        rest = &rest[odd + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        Entry::of(record).append(&mut Last::default(), &mut out);
        String::from_utf8(out).expect("a line is ASCII")
    }

    fn example<'a>(method: &'a Method, target: &'a str) -> Record<'a> {
        Record {
            client: "192.0.2.1".parse().expect("an address"),
            at: Timestamp::from_millis(971_186_136_999),
            method,
            target,
            version: Version::HTTP_11,
            status: StatusCode::OK,
            bytes: 2326,
            referer: None,
            user_agent: None,
        }
    }

    #[test]
    fn a_line_is_in_the_combined_format() {
        let referer = HeaderValue::from_static("http://www.example.com/start.html");
        let agent = HeaderValue::from_static("Mozilla/4.08 [en] (Win98; I ;Nav)");
        let target = "/apache_pb.gif?x=1";
        let record = Record { referer: Some(&referer), user_agent: Some(&agent), ..example(&Method::GET, target) };
        assert_eq!(
            line(&record),
            "192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] \"GET /apache_pb.gif?x=1 HTTP/1.1\" 200 2326 \
             \"http://www.example.com/start.html\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"\n"
        );
    }

    #[test]
    fn what_is_absent_is_a_dash() {
        let target = "/";
        let record = Record { bytes: 0, status: StatusCode::NOT_MODIFIED, ..example(&Method::HEAD, target) };
        assert_eq!(line(&record), "192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] \"HEAD / HTTP/1.1\" 304 - \"-\" \"-\"\n");
    }

    #[test]
    fn quotes_and_odd_bytes_are_escaped() {
        let agent = HeaderValue::from_bytes(b"a\"b\\c\td\xffe").expect("a legal field value");
        let target = "/";
        let record = Record { user_agent: Some(&agent), ..example(&Method::GET, target) };
        assert!(line(&record).ends_with(" \"-\" \"a\\\"b\\\\c\\x09d\\xffe\"\n"), "{}", line(&record));
    }

    #[test]
    fn huge_fields_are_cut() {
        let agent = HeaderValue::from_str(&"a".repeat(60_000)).expect("a legal field value");
        let target = "/";
        let record = Record { user_agent: Some(&agent), ..example(&Method::GET, target) };
        assert!(line(&record).len() < FIELD_BYTES + 200);
    }

    #[test]
    fn the_time_is_formatted_anew_when_the_second_changes() {
        let mut last = Last::default();
        assert_eq!(last.second(Timestamp::from_millis(0)), b"[01/Jan/1970:00:00:00 +0000]");
        assert_eq!(last.second(Timestamp::from_millis(999)), b"[01/Jan/1970:00:00:00 +0000]");
        assert_eq!(last.second(Timestamp::from_millis(1000)), b"[01/Jan/1970:00:00:01 +0000]");
        assert_eq!(last.second(Timestamp::from_millis(u64::MAX)), b"[01/Jan/1970:00:00:00 +0000]");
    }

    #[test]
    fn the_client_is_formatted_anew_when_another_comes() {
        let mut last = Last::default();
        for client in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "192.0.2.2"] {
            let expected = format!("{client} - - ");
            assert_eq!(last.client(client.parse().expect("an address")), expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_in_a_line_has_six_quotes_and_one_end(agent in prop::collection::vec(any::<u8>(), 0..300)) {
            let Ok(agent) = HeaderValue::from_bytes(&agent) else { return Ok(()) };
            let target = "/";
            let text = line(&Record { user_agent: Some(&agent), ..example(&Method::GET, target) });
            let bare = text.replace("\\\\", "").replace("\\\"", "");
            prop_assert_eq!(bare.matches('"').count(), 6);
            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert!(text.ends_with('\n'));
        }
    }
}
