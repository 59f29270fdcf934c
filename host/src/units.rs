//! Measured values as a person writes them: sizes in bytes ("40GB", "512MiB") and durations ("5m", "90s").

use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Why a size or a duration could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(pub String);

const SIZE_SUFFIXES: [(&str, u64); 13] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Reads "40GB", "512MiB", "1.5 GB" or a bare number of bytes. Decimal suffixes count in thousands, binary ones (KiB) in
    /// 1,024s; letters in any case.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let trimmed = text.trim();
        let (number, unit) = SIZE_SUFFIXES
            .iter()
            .find_map(|(suffix, unit)| {
                let cut = trimmed.len().checked_sub(suffix.len())?;
                let tail = trimmed.get(cut..)?;
                tail.eq_ignore_ascii_case(suffix).then(|| (trimmed[..cut].trim_end(), *unit))
            })
            .unwrap_or((trimmed, 1));
        let wrong = || UnitError(format!("a size such as \"40GB\", \"512MiB\" or a number of bytes, not {text:?}"));
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(wrong());
        }
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Self).ok_or_else(wrong);
        }
        let value = number.parse::<f64>().map_err(|_| wrong())? * unit as f64;
        if value.is_finite() && value >= 0.0 && value < u64::MAX as f64 { Ok(Self(value as u64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, unit) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= unit {
                let value = self.0 as f64 / unit as f64;
                return if value.fract() < 0.05 {
                    write!(f, "{value:.0} {suffix}")
                } else {
                    write!(f, "{value:.1} {suffix}")
                };
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

/// Reads "5m", "90s", "1h30m", "250ms", "1d", "2w" or a bare number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError(format!("a duration such as \"5m\", \"90s\" or a number of seconds, not {text:?}"));
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    if let Ok(seconds) = rest.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(wrong()),
        };
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(wrong)?;
        rest = &rest[letters..];
    }
    Ok(Duration::from_millis(total_ms))
}

/// A duration as `parse_duration` reads it, in the largest unit that loses nothing.
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit)) {
        Some((unit, letter)) => format!("{}{letter}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_the_largest_unit_that_loses_nothing() {
        for (ms, text) in
            [(0, "0ms"), (250, "250ms"), (1_500, "1500ms"), (300_000, "5m"), (90_000, "90s"), (86_400_000, "1d")]
        {
            assert_eq!(duration_text(Duration::from_millis(ms)), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
    }

    #[test]
    fn sizes_are_read_in_both_systems() {
        assert_eq!(ByteSize::parse("40GB"), Ok(ByteSize(40_000_000_000)));
        assert_eq!(ByteSize::parse("512MiB"), Ok(ByteSize(512 << 20)));
        assert_eq!(ByteSize::parse("1.5 gb"), Ok(ByteSize(1_500_000_000)));
        assert_eq!(ByteSize::parse("77"), Ok(ByteSize(77)));
        for bad in ["", "GB", "-1", "1e9", "ten", "99999999999999999999", "∞GB"] {
            assert!(ByteSize::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_in_units_and_in_seconds() {
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("12"), Ok(Duration::from_secs(12)));
        for bad in ["", "m", "5 m", "-1", "5x", "5m3", "1.5h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
