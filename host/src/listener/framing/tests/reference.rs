//! A reader of requests that shares nothing with the guard: slow, whole, with strings, as the RFC's grammar reads.

/// A request as the reference finds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) minor: char,
    pub(super) head_end: usize,
    pub(super) body: Body,
    /// `None` while the body is cut short.
    pub(super) end: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Nothing,
    Length(u64),
    Chunked,
}

/// The requests of a stream, up to the first that is bad or cut short; whether one is bad.
pub(super) fn read(bytes: &[u8]) -> (Vec<Request>, bool) {
    // One char for each byte.
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let mut at = 0;
    let mut requests = Vec::new();
    loop {
        let rest: String = text.chars().skip(at).collect();
        match one(&rest) {
            Ok(Some(mut request)) => {
                request.head_end += at;
                request.end = request.end.map(|end| end + at);
                let (end, connect) = (request.end, request.method == "CONNECT");
                requests.push(request);
                match end {
                    Some(end) if connect && end < bytes.len() => return (requests, true),
                    Some(end) => at = end,
                    None => return (requests, false),
                }
            }
            Ok(None) => return (requests, false),
            Err(Bad { after_head: Some(mut request) }) => {
                request.head_end += at;
                requests.push(*request);
                return (requests, true);
            }
            Err(Bad { after_head: None }) => return (requests, true),
        }
    }
}

/// What is bad, in a body: behind this head.
pub(super) struct Bad {
    after_head: Option<Box<Request>>,
}

const HEAD: Bad = Bad { after_head: None };

fn one(text: &str) -> Result<Option<Request>, Bad> {
    let count = |part: &str| part.chars().count();
    let lead = if text.starts_with("\r\n") { 2 } else { 0 };
    let text = &text[lead..];
    let Some((head, rest)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = first[..] else { return Err(HEAD) };
    let fields = lines.map(field).collect::<Option<Vec<_>>>().ok_or(HEAD)?;
    let values = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(other, _)| *other == name).map(|(_, value)| value.as_str()).collect()
    };
    let minor = match version {
        "HTTP/1.1" => '1',
        "HTTP/1.0" => '0',
        _ => return Err(HEAD),
    };
    let target_good = target.chars().all(|c| c.is_ascii_graphic() && c != '#') && !target.is_empty();
    if !is_token(method) || method.len() > 32 || method == "PRI" || !target_good || fields.len() > 100 {
        return Err(HEAD);
    }
    let hosts = values("host");
    let host = match hosts[..] {
        [] if minor == '0' => None,
        [host] => Some(authority(host).ok_or(HEAD)?),
        _ => return Err(HEAD),
    };
    check_target(method, target, host).ok_or(HEAD)?;
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Body::Nothing,
        ([length], []) => match length.parse::<i64>() {
            // What is written as it is read: no sign, no leading zero.
            Ok(number) if number >= 0 && number.to_string() == *length => match number.unsigned_abs() {
                0 => Body::Nothing,
                number => Body::Length(number),
            },
            _ => return Err(HEAD),
        },
        ([], [coding]) if coding.to_lowercase() == "chunked" && minor == '1' => Body::Chunked,
        _ => return Err(HEAD),
    };
    if method == "CONNECT" && body != Body::Nothing {
        return Err(HEAD);
    }
    let head_end = lead + count(head) + 4;
    let mut request =
        Request { method: method.to_owned(), target: target.to_owned(), minor, head_end, body, end: None };
    request.end = match body {
        Body::Nothing => Some(head_end),
        Body::Length(length) => (count(rest) as u64 >= length).then(|| head_end + length as usize),
        Body::Chunked => match chunked(rest) {
            Ok(left) => left.map(|left| head_end + count(rest) - count(left)),
            Err(()) => return Err(Bad { after_head: Some(Box::new(request)) }),
        },
    };
    Ok(Some(request))
}

/// What stands behind a body in chunks; `None` when it is cut short.
fn chunked(mut text: &str) -> Result<Option<&str>, ()> {
    loop {
        let Some((line, rest)) = text.split_once("\r\n") else { return Ok(None) };
        let size = line.split([';', ' ', '\t']).next().unwrap_or_default();
        if size.is_empty() || size.len() > 16 || !size.chars().all(|c| c.is_ascii_hexdigit()) || has_control(line) {
            return Err(());
        }
        if !extensions(&line[size.len()..]) {
            return Err(());
        }
        let size = i64::from_str_radix(size, 16).map_err(drop)?.unsigned_abs() as usize;
        if size == 0 {
            text = rest;
            break;
        }
        let rest: Vec<char> = rest.chars().collect();
        let behind: String = rest.iter().skip(size).take(2).collect();
        if !"\r\n".starts_with(&behind) {
            return Err(());
        }
        if behind.len() < 2 {
            return Ok(None);
        }
        let left: usize = rest.iter().skip(size + 2).map(|c| c.len_utf8()).sum();
        text = &text[text.len() - left..];
    }
    for _ in 0..=100 {
        let Some((line, rest)) = text.split_once("\r\n") else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(rest));
        }
        let (name, _) = field(line).ok_or(())?;
        let barred = "connection content-length host keep-alive proxy-connection te trailer transfer-encoding upgrade";
        if barred.split(' ').any(|other| other == name) {
            return Err(());
        }
        text = rest;
    }
    Err(())
}

/// `;name`, `;name=token` or `;name="text"`, any number of them.
fn extensions(text: &str) -> bool {
    let Some(text) = text.trim_start_matches([' ', '\t']).strip_prefix(';') else { return text.is_empty() };
    let text = text.trim_start_matches([' ', '\t']);
    let name: String = text.chars().take_while(|c| is_token(&c.to_string())).collect();
    let text = &text[name.len()..];
    let Some(value) = text.trim_start_matches([' ', '\t']).strip_prefix('=') else {
        return !name.is_empty() && extensions(text);
    };
    let value = value.trim_start_matches([' ', '\t']);
    if let Some(quoted) = value.strip_prefix('"') {
        let mut escaped = false;
        let end = quoted.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        return !name.is_empty() && end.is_some_and(|(at, _)| extensions(&quoted[at + 1..]));
    }
    let token: String = value.chars().take_while(|c| is_token(&c.to_string())).collect();
    !name.is_empty() && !token.is_empty() && extensions(&value[token.len()..])
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let folded: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let alike = folded == "content-length" || folded == "transfer-encoding";
    let good = is_token(name) && !has_control(value) && (!alike || name.to_lowercase() == folded);
    good.then(|| (name.to_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

fn authority(text: &str) -> Option<(String, Option<u16>)> {
    let split = text.rfind(']').map_or(text.find(':'), |bracket| text[bracket..].find(':').map(|at| at + bracket));
    let (host, port) = match split {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    let good = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => !inner.is_empty() && inner.chars().all(|c| c.is_ascii_hexdigit() || ".:".contains(c)),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    let port = match port {
        "" => None,
        digits if digits.len() <= 5 && digits.chars().all(|c| c.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    good.then(|| (host.to_lowercase(), port))
}

fn check_target(method: &str, target: &str, host: Option<(String, Option<u16>)>) -> Option<()> {
    if method == "CONNECT" {
        return (authority(target)?.1? > 0).then_some(());
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Some(());
    }
    let (scheme, rest) = target.split_once("://")?;
    let own = match scheme.to_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (name, port) = authority(rest.split(['/', '?']).next()?)?;
    let same = host.is_none_or(|(other, other_port)| other == name && other_port.unwrap_or(own) == port.unwrap_or(own));
    same.then_some(())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c))
}

fn has_control(text: &str) -> bool {
    text.chars().any(|c| (c < ' ' && c != '\t') || c == '\x7f')
}
