//! Lists that a command takes, one thing a line, of any length: read as they are sent, and never whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The longest line: longer than any path or tag.
const LINE_BYTES: u64 = 64 << 10;

/// U+FEFF in UTF-8.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// A list under way.
pub struct Lines {
    from: Box<dyn BufRead>,
    /// Bytes of all of it, where that is known.
    length: Option<u64>,
    /// Bytes that were read.
    read: u64,
    /// The line that was read last.
    pub number: u64,
}

impl Lines {
    /// Of a file; `-` is stdin.
    pub fn of(list: &Path) -> io::Result<Self> {
        let (from, length): (Box<dyn BufRead>, Option<u64>) = if list == Path::new("-") {
            (Box::new(io::stdin().lock()), None)
        } else {
            let opened = File::open(list)?;
            let length = opened.metadata()?.len();
            (Box::new(BufReader::new(opened)), Some(length))
        };
        Ok(Self { from, length, read: 0, number: 0 })
    }

    /// The next line that says something: neither empty nor a comment. The inner error says what is wrong with the line.
    pub fn next(&mut self) -> io::Result<Option<Result<String, &'static str>>> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.from).take(LINE_BYTES).read_until(b'\n', &mut line)? as u64;
            self.read += read;
            self.number += 1;
            if read == 0 {
                return Ok(None);
            }
            if read == LINE_BYTES && line.last() != Some(&b'\n') {
                self.read += self.from.skip_until(b'\n')? as u64;
                return Ok(Some(Err("is too long")));
            }
            // As editors on Windows begin a file.
            if self.number == 1 && line.starts_with(BOM) {
                line.drain(..BOM.len());
            }
            let Ok(text) = String::from_utf8(line) else { return Ok(Some(Err("is not UTF-8"))) };
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                return Ok(Some(Ok(text.to_owned())));
            }
        }
    }

    /// Bytes of it up to here, and of all of it; none where its length is not known.
    pub fn place(&self) -> Option<(u64, u64)> {
        self.length.filter(|length| *length > 0).map(|length| (self.read.min(length), length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_the_byte_order_is_no_part_of_the_first_line() {
        for (text, first) in [("\u{feff}/a\n/b", "/a"), ("\u{feff}# c\n/\u{feff}", "/\u{feff}")] {
            let from = Box::new(io::Cursor::new(text.to_owned().into_bytes()));
            let mut lines = Lines { from, length: None, read: 0, number: 0 };
            assert_eq!(lines.next().unwrap(), Some(Ok(first.to_owned())));
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_one_line() {
        let text = format!("# a comment\n{}\n\n/a\n/b", "x".repeat(200 << 10));
        let from = Box::new(io::Cursor::new(text.clone().into_bytes()));
        let mut lines = Lines { from, length: Some(text.len() as u64), read: 0, number: 0 };
        assert_eq!(lines.next().unwrap(), Some(Err("is too long")));
        assert_eq!(lines.number, 2);
        assert_eq!(lines.next().unwrap(), Some(Ok("/a".to_owned())));
        assert_eq!(lines.number, 4);
        assert_eq!(lines.next().unwrap(), Some(Ok("/b".to_owned())));
        assert_eq!(lines.place(), Some((text.len() as u64, text.len() as u64)));
        assert_eq!(lines.next().unwrap(), None);
    }
}
