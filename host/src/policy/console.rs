//! Lines that policies write, by `log.write` or on stdout and stderr: cut to a length, freed of control characters, and at most
//! so many in a second, the rest counted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_PER_SECOND};

/// How loud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// For its author.
    Debug,
    /// Worth knowing.
    Info,
    /// Odd.
    Warn,
    /// The policy says a person should come.
    Error,
}

impl Level {
    /// Whether anyone listens.
    pub(crate) fn enabled(self) -> bool {
        match self {
            Self::Debug => tracing::enabled!(target: "policy", tracing::Level::DEBUG),
            Self::Info => tracing::enabled!(target: "policy", tracing::Level::INFO),
            Self::Warn => tracing::enabled!(target: "policy", tracing::Level::WARN),
            Self::Error => tracing::enabled!(target: "policy", tracing::Level::ERROR),
        }
    }
}

/// Lets so many lines a second through.
#[derive(Debug, Default)]
pub(crate) struct LogGate(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    dropped: u64,
}

impl LogGate {
    /// Whether a line may pass, and how many were dropped since the last that did.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            window.began = Some(now);
            window.lines = 0;
        }
        if window.lines >= LOG_LINES_PER_SECOND {
            window.dropped += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.dropped))
    }

    /// Writes a line of the policy, if it may pass.
    pub(crate) fn write(&self, host: &str, policy: &str, level: Level, line: &str) {
        if !level.enabled() {
            return;
        }
        let Some(dropped) = self.pass(Instant::now()) else { return };
        if dropped > 0 {
            tracing::warn!(target: "policy", host, policy, dropped, "log lines of the policy were dropped");
        }
        let line = clean(line);
        match level {
            Level::Debug => tracing::debug!(target: "policy", host, policy, "{line}"),
            Level::Info => tracing::info!(target: "policy", host, policy, "{line}"),
            Level::Warn => tracing::warn!(target: "policy", host, policy, "{line}"),
            Level::Error => tracing::error!(target: "policy", host, policy, "{line}"),
        }
    }
}

/// A line that cannot forge another one.
pub(crate) fn clean(line: &str) -> String {
    let mut end = line.len().min(LOG_LINE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = String::with_capacity(end);
    for letter in line[..end].chars() {
        if letter.is_control() && letter != '\t' { out.extend(letter.escape_default()) } else { out.push(letter) }
    }
    if end < line.len() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_cannot_forge_others() {
        assert_eq!(clean("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        let long = "ü".repeat(LOG_LINE_BYTES_MAX);
        assert_eq!(clean(&long).len(), LOG_LINE_BYTES_MAX + 3);
    }

    #[test]
    fn a_talkative_policy_is_counted_not_written() {
        let gate = LogGate::default();
        let now = Instant::now();
        for _ in 0..LOG_LINES_PER_SECOND {
            assert_eq!(gate.pass(now), Some(0));
        }
        assert_eq!(gate.pass(now), None);
        assert_eq!(gate.pass(now), None);
        assert_eq!(gate.pass(now + Duration::from_secs(1)), Some(2));
    }
}
