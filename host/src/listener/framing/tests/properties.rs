//! Properties: cuts do not matter, nothing panics, and what passes is read in the same way by `reference.rs`.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::reference::{self, Body};
use super::*;

/// A request that is good.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec!["GET", "HEAD", "POST", "PUT", "OPTIONS", "M-SEARCH"]);
    let target = prop_oneof![
        "/[a-z0-9/%.{|}]{0,20}(\\?[a-z=&]{0,9})?".prop_map(|path| (path, "a.test".to_owned())),
        "/[a-z]{0,3}".prop_map(|path| (format!("http://b.test:80{path}"), "b.test".to_owned())),
        Just(("/".to_owned(), "[::1]:8080".to_owned())),
    ];
    let field =
        ("X-[A-Za-z_]{1,17}", "[ \t]{0,2}[!-~\u{e9}]{0,40}").prop_map(|(name, value)| format!("{name}:{value}\r\n"));
    let fields = proptest::collection::vec(field, 0..6);
    let body = proptest::collection::vec(any::<u8>(), 0..90);
    let chunk = (1..40usize, select(vec!["", ";a", ";a=b", " ; c=\"d;\""]));
    let framing = prop_oneof![
        Just((None, Vec::new())),
        body.prop_map(|body| (Some(format!("Content-Length: {}\r\n", body.len())), body)),
        (proptest::collection::vec(chunk, 0..4), select(vec!["", "Sum: 1\r\n", "A: b\r\nC:\r\n"])).prop_map(
            |(chunks, trailers)| {
                let chunks = chunks.iter().map(|(size, rest)| format!("{size:x}{rest}\r\n{}\r\n", "\n".repeat(*size)));
                let body = chunks.chain([format!("0\r\n{trailers}\r\n")]).collect::<String>();
                (Some("Transfer-Encoding: chunked\r\n".to_owned()), body.into_bytes())
            }
        ),
    ];
    let lead = select(vec!["", "", "\r\n"]);
    (lead, method, target, fields, framing, any::<Index>()).prop_map(
        |(lead, method, (target, host), mut fields, (framing, body), place)| {
            fields.extend(framing);
            fields.insert(place.index(fields.len() + 1), format!("Host: {host}\r\n"));
            let head = format!("{lead}{method} {target} HTTP/1.1\r\n{}\r\n", fields.concat());
            [head.into_bytes(), body].concat()
        },
    )
}

fn pipeline() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(request(), 1..5)
}

/// Pieces that matter somewhere.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    "\0",
    "\u{7f}",
    "#",
    ";",
    "\"",
    ",",
    "0",
    "-",
    "_",
    "x",
    "\u{e9}",
    "0\r\n\r\n",
    "3\r\nabc\r\n",
    "GET / HTTP/1.1\r\n",
    "Host: a.test\r\n",
    "Content-Length: 3\r\n",
    " HTTP/1.1",
    "content_length: 1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "CONNECT a:1",
    "GET / HTTP/1.0\r\n\r\n",
    "http://a.test/",
    "X: y\r\n z\r\n",
];

#[derive(Clone, Debug)]
enum Harm {
    Insert(Index, &'static str),
    Replace(Index, u8),
    Remove(Index),
    /// From here on, the line once more.
    Repeat(Index),
}

/// Good requests with little harm done to them, so that the harm is found deep inside.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let harm = prop_oneof![
        (any::<Index>(), select(PIECES)).prop_map(|(at, piece)| Harm::Insert(at, piece)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Harm::Replace(at, byte)),
        any::<Index>().prop_map(Harm::Remove),
        any::<Index>().prop_map(Harm::Repeat),
    ];
    (pipeline(), proptest::collection::vec(harm, 0..4)).prop_map(|(requests, harms)| {
        let mut bytes = requests.concat();
        for harm in harms {
            match harm {
                Harm::Insert(at, piece) => {
                    let at = at.index(bytes.len() + 1);
                    bytes.splice(at..at, piece.chars().map(|c| c as u8));
                }
                Harm::Replace(at, byte) => {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                Harm::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
                Harm::Repeat(at) => {
                    let at = at.index(bytes.len());
                    let line: Vec<u8> =
                        bytes[at..].split_inclusive(|byte| *byte == b'\n').next().unwrap_or(b"").to_vec();
                    bytes.splice(at..at, line);
                }
            }
        }
        bytes
    })
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 0..12)
}

fn places(cuts: &[Index], length: usize) -> Vec<usize> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
    places.sort_unstable();
    places
}

fn check_cuts(bytes: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let (passed, refused, whole) = look_cut(bytes, std::iter::empty());
    let (passed_cut, refused_cut, cut) = look_cut(bytes, places(cuts, bytes.len()).into_iter());
    prop_assert_eq!(refused_cut, refused);
    prop_assert_eq!(format!("{cut:?}"), format!("{whole:?}"));
    // With cuts, more of a bad line may have passed before it was known to be bad, but never its end.
    prop_assert!(passed_cut >= passed);
    prop_assert_eq!(messages(&bytes[..passed_cut]).heads.len(), messages(&bytes[..passed]).heads.len());
    Ok(())
}

fn check_reference(bytes: &[u8]) -> Result<(), TestCaseError> {
    let found = messages(bytes);
    let (requests, bad) = reference::read(bytes);
    if found.refusal.is_none() {
        prop_assert!(!bad);
    } else if bad {
        // Whatever else is refused is cut short, where the reference does not look.
        prop_assert_eq!(requests.len(), found.heads.len());
    }
    prop_assert!(requests.len() >= found.heads.len());
    let ends: Vec<usize> =
        requests.iter().filter(|request| request.method != "CONNECT").filter_map(|one| one.end).collect();
    prop_assert_eq!(&ends[..], &found.ends[..]);
    for (request, (head_end, framing)) in requests.iter().zip(&found.heads) {
        prop_assert_eq!(request.head_end, *head_end);
        let expected = match request.body {
            Body::Nothing if request.method == "CONNECT" => Framing::Silence,
            Body::Nothing => Framing::Nothing,
            Body::Length(bytes) => Framing::Length(bytes),
            Body::Chunked => Framing::Chunked,
        };
        prop_assert_eq!(*framing, expected);
        let line = format!("{} {} HTTP/1.{}", request.method, request.target, request.minor);
        let read = request_line::parse(line.as_bytes(), usize::MAX);
        let read = read.map_err(|refusal| TestCaseError::fail(refusal.reason))?;
        prop_assert_eq!(read.method, request.method.as_bytes());
        prop_assert_eq!(read.target, request.target.as_bytes());
        let start = bytes[..*head_end].windows(line.len()).any(|window| window == line.as_bytes());
        prop_assert!(start, "the request line is not in the head");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_does_not_depend_on_cuts(bytes in stream(), cuts in cuts()) {
        check_cuts(&bytes, &cuts)?;
    }

    #[test]
    fn what_passes_is_read_in_the_same_way_by_another_reader(bytes in stream()) {
        check_reference(&bytes)?;
    }

    #[test]
    fn arbitrary_bytes_are_looked_at_without_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in cuts(),
    ) {
        check_cuts(&bytes, &cuts)?;
        check_reference(&bytes)?;
    }

    #[test]
    fn arbitrary_bodies_in_chunks_are_looked_at_without_harm(body in "[0-3a;= \t\"\\\\\r\n]{0,60}", cuts in cuts()) {
        let bytes = format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
        check_cuts(&bytes, &cuts)?;
        check_reference(&bytes)?;
    }

    #[test]
    fn pipelines_of_good_requests_pass_with_any_cut(requests in pipeline(), cuts in cuts()) {
        let bytes = requests.concat();
        let (passed, refused, _) = look_cut(&bytes, places(&cuts, bytes.len()).into_iter());
        prop_assert_eq!((passed, refused), (bytes.len(), None));
        let found = messages(&bytes);
        let ends: Vec<usize> = requests.iter().scan(0, |end, one| { *end += one.len(); Some(*end) }).collect();
        prop_assert_eq!(found.ends, ends);
    }
}
