//! A line on a terminal that says how far something is. It is drawn over itself, and nowhere else than on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// As often as anyone looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Columns of the widest bar.
const WIDEST: usize = 25;
/// ... and of the narrowest that says anything.
const NARROWEST: usize = 5;
/// Columns around a bar: ` [` and `] 100 %`.
const AROUND: usize = 9;

/// The line.
pub struct ProgressLine {
    terminal: bool,
    drawn: Option<Instant>,
    /// So much of so much is done, where that is known.
    pub place: Option<(u64, u64)>,
}

impl Default for ProgressLine {
    fn default() -> Self {
        Self { terminal: io::stderr().is_terminal(), drawn: None, place: None }
    }
}

impl ProgressLine {
    /// Draws it, unless that was a moment ago.
    pub fn draw(&mut self, text: &str) {
        if !self.terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < PAUSE) {
            return;
        }
        self.drawn = Some(Instant::now());
        let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
        // Of a terminal that does not say how wide it is, what any has.
        print(&fitted(text, self.place, if columns == 0 { 80 } else { columns }));
    }

    /// Takes it away, so that something else can be said.
    pub fn clear(&mut self) {
        if self.terminal && self.drawn.take().is_some() {
            print("");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

fn print(line: &str) {
    let mut stderr = io::stderr();
    let _ = write!(stderr, "\r\x1b[K{line}");
    let _ = stderr.flush();
}

/// A line that is not as long as the terminal is wide: one that is broken cannot be drawn over.
fn fitted(text: &str, place: Option<(u64, u64)>, columns: usize) -> String {
    let mut line: String = text.chars().take(columns.saturating_sub(1)).collect();
    let width = columns.saturating_sub(line.chars().count() + AROUND + 1).min(WIDEST);
    if let Some((done, all)) = place.filter(|(_, all)| *all > 0 && width >= NARROWEST) {
        let part = |of: u64| usize::try_from(u128::from(done.min(all)) * u128::from(of) / u128::from(all)).unwrap_or(0);
        let full = part(width as u64);
        line += &format!(" [{}{}] {:>3} %", "#".repeat(full), " ".repeat(width - full), part(100));
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bar_says_what_is_done() {
        assert_eq!(fitted("3 done", Some((1, 2)), 24), "3 done [####    ]  50 %");
        assert_eq!(fitted("3 done", Some((2, 2)), 80), format!("3 done [{}] 100 %", "#".repeat(25)));
        assert_eq!(fitted("3 done", Some((1, 2)), 20), "3 done", "no room for it");
        assert_eq!(fitted("3 done", None, 80), "3 done");
        assert_eq!(fitted("3 done", Some((0, 0)), 80), "3 done");
    }

    proptest! {
        #[test]
        fn it_always_fits(text in "\\PC{0,60}", done: u64, all: u64, columns in 1_usize..100) {
            prop_assert!(fitted(&text, Some((done, all)), columns).chars().count() < columns);
        }
    }
}
