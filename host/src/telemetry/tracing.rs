//! Structured lines on stderr: JSON, one object a line, with RFC 3339 times. `error` means that a person should come.
//!
//! `RUST_LOG` chooses what is written, in the syntax of tracing-subscriber. The lines go through a writer of their own, so that
//! a blocked stderr holds nobody; what it cannot keep up with is dropped and counted.

use std::io;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::metrics::Metrics;
use super::writer::{Line, LineWriter, own};

/// Lines that can wait.
const CAPACITY: usize = 4096;

/// What is written unless `RUST_LOG` says otherwise.
const DEFAULT_FILTER: &str = "warn,proxyhost=info";

/// The way to stderr, kept to flush it before the program ends.
#[derive(Clone, Debug)]
pub struct Stderr(LineWriter<Text>);

/// Starts the writer and makes it the destination of all lines of the program, panics included.
pub fn init(metrics: &Metrics) -> io::Result<Stderr> {
    let stderr = Stderr::onto(own(&io::stderr())?, metrics.stderr_dropped.clone());
    let (filter, complaint) = filter(std::env::var("RUST_LOG").ok().as_deref());
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(stderr.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    if let Some(complaint) = complaint {
        tracing::warn!(error = complaint, "RUST_LOG is not understood, going on with \"{DEFAULT_FILTER}\"");
    }
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(place, thread, "panic: {message}");
    }));
    Ok(stderr)
}

/// The filter asked for, or the default and what was wrong.
fn filter(asked: Option<&str>) -> (EnvFilter, Option<String>) {
    match asked.filter(|asked| !asked.trim().is_empty()).map(EnvFilter::try_new) {
        None => (EnvFilter::new(DEFAULT_FILTER), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT_FILTER), Some(error.to_string())),
    }
}

impl Stderr {
    fn onto(sink: impl io::Write + Send + 'static, dropped: Counter) -> Self {
        Self(LineWriter::start("stderr", sink, CAPACITY, dropped))
    }

    /// Writes what is queued, waiting at most a second.
    pub fn flush(&self) {
        self.0.flush();
    }
}

/// A line as the subscriber has formatted it.
#[derive(Debug)]
struct Text(Box<[u8]>);

impl Line for Text {
    type Memory = ();

    fn append(&self, (): &mut (), out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

/// The subscriber hands over a whole line in one call.
impl io::Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(Text(line.into()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_line_is_one_json_object() {
        let (mut reader, sink) = io::pipe().expect("a pipe");
        let stderr = Stderr::onto(sink, Counter::default());
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(stderr.clone()).with_target(true).finish();
        tracing::subscriber::with_default(subscriber, || tracing::warn!(host = "a.test", "odd\n\"thing\""));
        stderr.flush();
        let mut bytes = [0; 4096];
        let read = reader.read(&mut bytes).expect("the line is in the pipe");
        let text = std::str::from_utf8(&bytes[..read]).expect("JSON is UTF-8");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(value["message"], "odd\n\"thing\"");
        assert_eq!(value["host"], "a.test");
        assert_eq!(value["level"], "WARN");
        assert!(value["timestamp"].as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()));
    }

    #[test]
    fn a_filter_that_is_not_understood_is_replaced() {
        assert!(filter(None).1.is_none());
        assert!(filter(Some("")).1.is_none());
        assert!(filter(Some("proxyhost=debug")).1.is_none());
        assert!(filter(Some("proxyhost=shouting")).1.is_some());
    }
}
