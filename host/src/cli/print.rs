//! What is printed, and how. A reader that goes away (`| head`) is no reason to fail.

use std::io::Write;

use serde_json::Value;

/// A line on stdout.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on stderr.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// JSON on stdout.
pub fn say_json(value: &Value) {
    say(&format!("{value:#}"));
}

/// JSON as a person reads it: a line for each value, indented by depth.
pub fn readable(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    match value {
        Value::Object(_) | Value::Array(_) => write(value, 0, &mut lines),
        single => lines.push(plain(single)),
    }
    lines
}

fn write(value: &Value, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(members) => {
            let width =
                members.iter().filter(|(_, value)| is_single(value)).map(|(key, _)| key.len()).max().unwrap_or(0);
            for (key, value) in members {
                let key = escaped(key);
                if is_single(value) {
                    lines.push(format!("{indent}{key:width$}  {}", plain(value)).trim_end().to_owned());
                } else {
                    lines.push(format!("{indent}{key}"));
                    write(value, depth + 1, lines);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                if is_single(item) {
                    lines.push(format!("{indent}{}", plain(item)));
                } else {
                    lines.push(format!("{indent}-"));
                    write(item, depth + 1, lines);
                }
            }
        }
        single => lines.push(format!("{indent}{}", plain(single))),
    }
}

/// Whether it fits on the line of its key.
fn is_single(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => escaped(text),
        Value::Array(_) | Value::Object(_) => "none".to_owned(),
        Value::Number(number) => number.to_string(),
    }
}

/// Without control characters: what clients and origins sent must not steer a terminal.
pub fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_printed_as_lines() {
        let value =
            json!({ "host": "a.example", "entry": { "fresh": true, "tags": ["x", "y"] }, "key": null, "none": [] });
        assert_eq!(
            readable(&value),
            ["entry", "  fresh  yes", "  tags", "    x", "    y", "host  a.example", "key   -", "none  none"]
        );
        assert_eq!(readable(&json!("a\u{1b}[2J")), ["a\\u{1b}[2J"]);
    }
}
