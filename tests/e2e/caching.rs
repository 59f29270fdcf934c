//! What a shared cache keeps, for how long, and when it asks again (issue 5, lines 1 to 3). The table is `caching.md`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use futures_util::StreamExt as _;
use harness::origin::Seen;
use harness::prelude::*;

const TABLE: &str = include_str!("caching.md");

/// Lives in the table that are to end are of a second.
const WAIT: Duration = millis(2100);

/// A row of the table.
#[derive(Clone, Debug)]
struct Case {
    what: String,
    host: &'static str,
    answers: Vec<Scripted>,
    steps: Vec<Step>,
}

/// What the origin answers.
#[derive(Clone, Debug)]
struct Scripted {
    /// None: it breaks the connection.
    status: Option<u16>,
    fields: Vec<(String, String)>,
}

/// What is asked, and what must come of it.
#[derive(Clone, Debug)]
enum Step {
    Wait,
    Ask { method: String, behind: String, fields: Vec<(String, String)>, outcome: String, expected: Vec<String> },
}

/// Words, and what stands between backquotes.
#[derive(Clone, Debug)]
enum Token {
    Word(String),
    Span(String),
}

/// The tokens of a cell, in the pieces that a separating word makes.
fn pieces(cell: &str, separator: &str) -> Vec<Vec<Token>> {
    let mut pieces = vec![Vec::new()];
    for (number, part) in cell.split('`').enumerate() {
        if number % 2 == 1 {
            pieces.last_mut().expect("there is one").push(Token::Span(part.to_owned()));
            continue;
        }
        for word in part.replace(',', " , ").split_whitespace() {
            if word == separator {
                pieces.push(Vec::new());
            } else {
                pieces.last_mut().expect("there is one").push(Token::Word(word.to_owned()));
            }
        }
    }
    pieces
}

fn field(span: &str) -> (String, String) {
    let (name, value) = span.split_once(':').unwrap_or_else(|| panic!("{span:?} is no field"));
    (name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned())
}

fn answer(tokens: &[Token]) -> Scripted {
    let mut scripted = Scripted { status: None, fields: Vec::new() };
    for token in tokens {
        match token {
            Token::Word(word) if word == "breaks" => {}
            Token::Word(word) => {
                scripted.status = Some(word.parse().unwrap_or_else(|_| panic!("{word:?} is no status")))
            }
            Token::Span(span) => scripted.fields.push(field(span)),
        }
    }
    scripted
}

fn step(tokens: &[Token]) -> Step {
    let words: Vec<&str> = tokens
        .iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word.as_str()),
            Token::Span(_) => None,
        })
        .collect();
    if words == ["wait"] {
        return Step::Wait;
    }
    let (behind, outcome) = match words[..] {
        [_, outcome] => ("", outcome),
        [_, behind, outcome] => (behind, outcome),
        _ => panic!("{tokens:?} is no step"),
    };
    let (mut fields, mut expected, mut told) = (Vec::new(), Vec::new(), false);
    for token in tokens {
        match token {
            Token::Word(word) => told |= word == outcome,
            Token::Span(span) if told => expected.push(span.clone()),
            Token::Span(span) => fields.push(field(span)),
        }
    }
    Step::Ask { method: words[0].to_owned(), behind: behind.to_owned(), fields, outcome: outcome.to_owned(), expected }
}

fn cases() -> Vec<Case> {
    let rows = TABLE.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [section, what, host, answers, steps] = cells[..] else { panic!("{row} has five cells") };
        let host = match host {
            "" => "a.test",
            "honor" => "honor.test",
            "ttl" => "ttl.test",
            "lives" => "lives.test",
            "min" => "min.test",
            "max" => "max.test",
            "over" => "over.test",
            "browser" => "browser.test",
            "refresh" => "refresh.test",
            "rescue" => "rescue.test",
            "off" => "off.test",
            other => panic!("no host {other:?}"),
        };
        Case {
            what: format!("{section}, {what}"),
            host,
            answers: pieces(answers, "then").iter().map(|tokens| answer(tokens)).collect(),
            steps: pieces(steps, ",").iter().map(|tokens| step(tokens)).collect(),
        }
    })
    .collect()
}

/// `{now-60}` and the like become dates, `{path}` the path of the row.
fn filled(value: &str, row: usize, now: SystemTime) -> String {
    let mut value = value.replace("{path}", &format!("/{row}"));
    while let Some(at) = value.find("{now") {
        let end = at + value[at..].find('}').expect("a closing brace");
        let moment = match value[at + 4..end].split_at_checked(1) {
            Some(("+", seconds)) => now + secs(seconds.parse().expect("seconds")),
            Some(("-", seconds)) => now - secs(seconds.parse().expect("seconds")),
            _ => now,
        };
        value.replace_range(at..=end, &httpdate::fmt_http_date(moment));
    }
    value
}

/// The origin: each row has a path, under which its answers come in turn, and the last again and again. Bodies are numbered.
async fn scripted(cases: &[Case]) -> Origin {
    let asked: Arc<Mutex<HashMap<usize, usize>>> = Arc::default();
    let answers: Vec<Vec<Scripted>> = cases.iter().map(|case| case.answers.clone()).collect();
    Origin::answering(move |request| {
        let row = row_of(request);
        let mut asked = asked.lock().expect("nobody panics with it");
        let count = asked.entry(row).or_default();
        *count += 1;
        let script = &answers[row];
        let Scripted { status, fields } = &script[(*count - 1).min(script.len() - 1)];
        let Some(status) = *status else { return raw("") };
        let body = if status == 304 { String::new() } else { count.to_string() };
        let now = SystemTime::now();
        let mut answer = reply(status, body);
        for (name, value) in fields {
            answer = if name == "no-date" { answer.no_date() } else { answer.header(name, &filled(value, row, now)) };
        }
        answer
    })
    .await
}

fn row_of(request: &Seen) -> usize {
    let first = request.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    first.parse().unwrap_or_else(|_| panic!("{} is of no row", request.target))
}

/// Plays a row; what went otherwise than it says.
async fn play(host: &Host, origin: &Origin, row: usize, case: &Case) -> Result<(), String> {
    let seen = || origin.seen().into_iter().filter(|seen| row_of(seen) == row).collect::<Vec<_>>();
    for (number, step) in case.steps.iter().enumerate() {
        let Step::Ask { method, behind, fields, outcome, expected } = step else {
            tokio::time::sleep(WAIT).await;
            continue;
        };
        let before = seen().len();
        let mut call = host.call(method, &format!("/{row}{behind}")).host(case.host);
        for (name, value) in fields {
            call = call.header(name, &filled(value, row, SystemTime::now()));
        }
        let answer = call.send().await;
        let wrong = |why: &str| Err(format!("{}: step {}, {outcome}: {why}: {answer:?}", case.what, number + 1));
        if outcome == "refreshed" {
            let begun = Instant::now();
            while seen().len() == before && begun.elapsed() < secs(5) {
                tokio::time::sleep(millis(20)).await;
            }
            // The answer to that is kept a moment after it was sent.
            tokio::time::sleep(millis(300)).await;
        }
        let asked = seen().split_off(before);
        let conditional = |seen: &Seen| seen.has("if-none-match") || seen.has("if-modified-since");
        let own = answer.text() == (before + 1).to_string() || method == "HEAD" || answer.text().is_empty();
        let stale = answer.cache_status().iter().any(|p| p == "hit" || p.starts_with("ttl=-"));
        let so = match outcome.as_str() {
            "fetched" => asked.len() == 1 && asked[0].method == *method && !conditional(&asked[0]) && own,
            "replaced" => asked.len() == 1 && conditional(&asked[0]) && own,
            "validated" => {
                asked.len() == 1 && conditional(&asked[0]) && (!own || method == "HEAD") && answer.status == 200
            }
            "kept" => asked.is_empty() && answer.text() != (before + 1).to_string() && answer.status.as_u16() < 504,
            "stale" => asked.is_empty() && stale && answer.status == 200,
            "refreshed" => asked.len() == 1 && stale && answer.text() != (before + 1).to_string(),
            "rescued" => !asked.is_empty() && stale && answer.status == 200,
            status => asked.len() <= 2 && status.parse() == Ok(answer.status.as_u16()),
        };
        if !so {
            return wrong(&format!("the origin saw {asked:?}"));
        }
        for span in expected {
            let met = match span.strip_prefix('!') {
                Some(absent) => answer.field(absent).is_empty(),
                None => {
                    let (name, value) = field(span);
                    answer.field(&name).contains(&filled(&value, row, SystemTime::now()))
                }
            };
            if !met {
                return wrong(&format!("not {span:?}"));
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_case_of_the_table() {
    let cases = cases();
    assert!(cases.len() >= 100, "the table was read: {}", cases.len());
    let origin = scripted(&cases).await;
    let on = |name: &str| vhost(name).origin(&origin).set("methods", "all");
    let host = setup()
        .vhost(on("a.test"))
        .vhost(on("honor.test").set("client_cache_control", "honor"))
        .vhost(on("ttl.test").set("ttl", 60))
        .vhost(on("lives.test").set("ttl", json!({ "default": 60, "404": 60, "4xx": 60, "500": 60, "5xx": 0 })))
        .vhost(on("min.test").set("ttl_min", 600))
        .vhost(on("max.test").set("ttl_max", 1))
        .vhost(on("over.test").set("ttl_override", json!({ "default": 600, "410": 600 })))
        .vhost(on("browser.test").set("browser_ttl", 60))
        .vhost(on("refresh.test").set("stale_while_revalidate", 600))
        .vhost(on("rescue.test").set("stale_if_error", json!({ "for": 600, "statuses": [404, 500] })))
        .vhost(on("off.test").set("cache", "off"))
        .start()
        .await;
    let wrong: Vec<String> = futures_util::stream::iter(cases.iter().enumerate())
        .map(|(row, case)| play(&host, &origin, row, case))
        .buffer_unordered(32)
        .filter_map(|played| std::future::ready(played.err()))
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
