//! Holds the rooms of `host/src` against the rows of `lib.rs`: imports point strictly down, never sideways or up.
//!
//! It reads text, not syntax trees: every `crate::name` and `crate::{...}` in code counts, in tests and inline paths too, and
//! so does a chain of `super::` that climbs to the crate's root. Comments do not count.

use std::fs;
use std::path::{Path, PathBuf};

/// Row by row, from the bottom. A room that is not here has no place yet: give it one, here and in `lib.rs`.
const ROWS: [&[&str]; 9] = [
    &["clock", "local", "open_files", "region", "units"],
    &["semantics", "telemetry"],
    &["policy", "cache", "origin", "tls"],
    &["purge", "warm"],
    &["vhost", "fleet"],
    &["listener", "admin", "proxy"],
    &["config"],
    &["app"],
    &["main", "allocator", "arenas", "cli"],
];

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// The module path of a file below `src`: `cache/index/mod.rs` is `[cache, index]`.
fn module_path(file: &Path) -> Vec<String> {
    let mut path: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// What is wrong with one file, in words.
fn wrongs(module: &[String], source: &str) -> Vec<String> {
    let room = module[0].as_str();
    let Some(own_row) = row(room) else {
        return vec![format!("{room} has no row")];
    };
    let mut wrongs = Vec::new();
    for name in imported(module, source) {
        match row(&name) {
            _ if name == room => {}
            None => wrongs.push(format!("{room} imports {name}, which has no row")),
            Some(other) if other >= own_row => {
                wrongs.push(format!("{room} (row {own_row}) imports {name} (row {other}): imports point down"));
            }
            Some(_) => {}
        }
    }
    wrongs
}

/// The rooms that a file names.
fn imported(module: &[String], source: &str) -> Vec<String> {
    let code = without_comments(source);
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let begins_a_path =
            !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':');
        if begins_a_path {
            names.extend(first_names(&code[at + "crate::".len()..]));
        }
    }
    // `super::` as often as the module is deep leads to the root; an inline module needs one more.
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut climbed = 0;
        while let Some(behind) = rest.strip_prefix("super::") {
            rest = behind;
            climbed += 1;
        }
        if climbed >= module.len() {
            names.extend(first_names(rest).into_iter().filter(|name| row(name).is_some()));
        }
    }
    names
}

/// The names a path goes on with: one, or those at the top level of a group.
fn first_names(rest: &str) -> Vec<String> {
    let identifier = |text: &str| -> String {
        text.trim_start().chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
    };
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return vec![identifier(rest)];
    };
    let mut names = Vec::new();
    let mut depth = 1;
    let mut begin = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (character == ',' && depth == 1) || depth == 0 {
            names.push(identifier(&group[begin..at]));
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Line comments are cut off. One inside a string is cut too: then the rest of that line is not looked at.
fn without_comments(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "the sources are elsewhere");
    let mut all = Vec::new();
    for file in files {
        let below = file.strip_prefix(&src).expect("found below src");
        if below == Path::new("lib.rs") {
            continue;
        }
        let source = fs::read_to_string(&file).expect("a readable source");
        all.extend(
            wrongs(&module_path(below), &source).into_iter().map(|wrong| format!("{}: {wrong}", below.display())),
        );
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn every_room_of_the_crate_has_a_row() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("a readable lib.rs");
    for line in lib.lines() {
        let line = line.trim_start_matches("pub ");
        if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            assert!(row(name).is_some(), "{name} has no row");
        }
    }
}

#[test]
fn the_reader_sees_every_way_to_name_a_room() {
    let cache = [String::from("cache"), String::from("key")];
    let seen = |source: &str| wrongs(&cache, source).len();
    assert_eq!(seen("use crate::semantics::etag::EntityTag;"), 0);
    assert_eq!(seen("use crate::cache::key;\nuse super::vary;"), 0);
    assert_eq!(seen("use crate::policy::Chain;"), 1);
    assert_eq!(seen("let x = crate::proxy::handle();"), 1);
    assert_eq!(seen("use crate::{clock::Clock, origin::{Origin, error}, units};"), 1);
    assert_eq!(seen("use crate::{\n    clock::Clock,\n    app,\n    config::Settings,\n};"), 2);
    assert_eq!(seen("pub(crate) fn x() {}"), 0);
    assert_eq!(seen("use super::super::policy::Chain;"), 1);
    assert_eq!(seen("// crate::policy"), 0);
    assert_eq!(seen("use crate::nowhere::X;"), 1);
    assert_eq!(seen("use other_crate::policy::X;"), 0);
    assert_eq!(wrongs(&["main".to_owned()], "use proxyhost::app;"), Vec::<String>::new());
    assert_eq!(wrongs(&["strange".to_owned()], "").len(), 1);
}
