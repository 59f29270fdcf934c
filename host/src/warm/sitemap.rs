//! Sitemaps (sitemaps.org, protocol 0.90): what pages, or what other sitemaps, one of them names. It is read as a stream, gzip or
//! not; of what others have put into it (images, videos, alternates) nothing counts.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::ops::ControlFlow;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// The longest sitemap, unpacked: what the protocol allows.
pub const MOST_BYTES: u64 = 50 << 20;
/// The longest URL: twice what the protocol allows.
const URL_BYTES: usize = 4 << 10;

/// What a sitemap names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A page.
    Page(String),
    /// Another sitemap, in an index of them.
    Sitemap(String),
}

/// Why something is not read as a sitemap.
#[derive(Debug, thiserror::Error)]
pub enum SitemapError {
    /// Neither `urlset` nor `sitemapindex` comes first.
    #[error("it is no sitemap: {0}")]
    Other(String),
    /// XML, gzip or UTF-8 that is none.
    #[error("it cannot be read at byte {at}: {reason}")]
    Broken {
        /// Where, unpacked.
        at: u64,
        /// In words.
        reason: String,
    },
    /// More than the protocol allows.
    #[error("it is longer than {MOST_BYTES} bytes")]
    Long,
    /// A URL that no URL is as long as.
    #[error("it has a URL of more than {URL_BYTES} bytes")]
    LongUrl,
}

/// Reads what a host answered with: XML, or gzip of it.
pub fn read(body: Bytes, each: impl FnMut(Named) -> ControlFlow<()>) -> Result<(), SitemapError> {
    let packed = body.starts_with(&[0x1f, 0x8b]);
    let cursor = Cursor::new(body);
    if packed { read_xml(BufReader::new(MultiGzDecoder::new(cursor)), each) } else { read_xml(cursor, each) }
}

/// Reads until `each` has enough.
fn read_xml(from: impl BufRead, mut each: impl FnMut(Named) -> ControlFlow<()>) -> Result<(), SitemapError> {
    let mut from = BufReader::new(Bounded { from, left: MOST_BYTES });
    // An error is met again when it is read.
    let begins = from.fill_buf().unwrap_or_default();
    if [[0xff, 0xfe], [0xfe, 0xff]].iter().any(|mark| begins.starts_with(mark)) {
        return Err(SitemapError::Other("it is UTF-16, and sitemaps are UTF-8".to_owned()));
    }
    let mut xml = Reader::from_reader(from);
    let mut buffer = Vec::new();
    let mut depth = 0_usize;
    let (mut of_index, mut in_item, mut url) = (None, false, None::<String>);
    loop {
        buffer.clear();
        let event = match xml.read_event_into(&mut buffer) {
            Ok(event) => event,
            Err(quick_xml::Error::Io(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(SitemapError::Long);
            }
            Err(error) if of_index.is_none() => return Err(SitemapError::Other(error.to_string())),
            Err(error) => return Err(SitemapError::Broken { at: xml.error_position(), reason: error.to_string() }),
        };
        let broken = |reason: String| SitemapError::Broken { at: 0, reason };
        match event {
            Event::Start(start) => {
                depth += 1;
                let name = start.local_name();
                match (depth, of_index, name.as_ref()) {
                    (1, _, b"urlset") => of_index = Some(false),
                    (1, _, b"sitemapindex") => of_index = Some(true),
                    (1, _, other) => return Err(of_root(other)),
                    (2, Some(index), name) => in_item = name == if index { &b"sitemap"[..] } else { b"url" },
                    (3, _, b"loc") if in_item => url = Some(String::new()),
                    _ => {}
                }
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                if depth == 2
                    && let Some(text) = url.take()
                {
                    let text = text.trim().to_owned();
                    let named = if of_index == Some(true) { Named::Sitemap(text) } else { Named::Page(text) };
                    if each(named).is_break() {
                        return Ok(());
                    }
                }
            }
            Event::Empty(empty) if depth == 0 => match empty.local_name().as_ref() {
                b"urlset" | b"sitemapindex" => return Ok(()),
                other => return Err(of_root(other)),
            },
            Event::Text(text) => match &mut url {
                Some(url) => url.push_str(&text.decode().map_err(|error| broken(error.to_string()))?),
                None if depth == 0 && !text.iter().all(u8::is_ascii_whitespace) => {
                    return Err(SitemapError::Other("it does not begin with an element".to_owned()));
                }
                None => {}
            },
            Event::CData(text) => {
                if let Some(url) = &mut url {
                    url.push_str(&text.decode().map_err(|error| broken(error.to_string()))?);
                }
            }
            Event::GeneralRef(reference) => {
                if let Some(url) = &mut url {
                    let character = reference.resolve_char_ref().map_err(|error| broken(error.to_string()))?;
                    let unknown = || broken("an entity that XML does not know".to_owned());
                    match (character, resolve_xml_entity(&String::from_utf8_lossy(&reference))) {
                        (Some(character), _) => url.push(character),
                        (None, named) => url.push_str(named.ok_or_else(unknown)?),
                    }
                }
            }
            Event::Eof if of_index.is_none() => return Err(SitemapError::Other("it is empty".to_owned())),
            Event::Eof if depth > 0 => return Err(broken("it breaks off".to_owned())),
            Event::Eof => return Ok(()),
            _ => {}
        }
        if url.as_ref().is_some_and(|url| url.len() > URL_BYTES) {
            return Err(SitemapError::LongUrl);
        }
    }
}

fn of_root(name: &[u8]) -> SitemapError {
    let name: String = String::from_utf8_lossy(name).chars().take(40).collect();
    SitemapError::Other(format!("its element is {name:?}, and not urlset or sitemapindex"))
}

/// Fails where it would become too long: what is packed may be a thousand times what it takes here.
struct Bounded<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn named(text: &[u8]) -> Result<Vec<Named>, SitemapError> {
        let mut found = Vec::new();
        read(Bytes::copy_from_slice(text), |named| {
            found.push(named);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    const PAGES: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>
        <!-- <url><loc>http://a.test/comment</loc></url> -->
        <s:urlset xmlns:s=\"http://www.sitemaps.org/schemas/sitemap/0.9\" xmlns:image=\"i\">
          <s:url><s:loc> http://a.test/?a=1&amp;b=2&#x26;c </s:loc><lastmod>2024</lastmod>
            <image:image><image:loc>http://a.test/image</image:loc></image:image></s:url>
          <other><loc>http://a.test/other</loc></other>
          <s:url><s:loc><![CDATA[http://a.test/<&>]]></s:loc></s:url>
          <s:url><s:priority/></s:url>
        </s:urlset>";

    #[test]
    fn pages_are_found_and_nothing_else() {
        let pages = ["http://a.test/?a=1&b=2&c", "http://a.test/<&>"].map(|url| Named::Page(url.to_owned()));
        assert_eq!(named(PAGES.as_bytes()).expect("a sitemap"), pages);
        assert_eq!(named(&packed(PAGES.as_bytes())).expect("a sitemap"), pages);
        assert_eq!(named(b"<urlset/>").expect("an empty one"), []);
    }

    #[test]
    fn an_index_names_sitemaps() {
        let index =
            "<sitemapindex><sitemap><loc>http://a.test/1.xml.gz</loc></sitemap><url><loc>x</loc></url></sitemapindex>";
        assert_eq!(named(index.as_bytes()).expect("an index"), [Named::Sitemap("http://a.test/1.xml.gz".to_owned())]);
    }

    #[test]
    fn what_is_none_says_so() {
        for (text, why) in [
            ("", "it is no sitemap: it is empty"),
            ("http://a.test/", "it is no sitemap"),
            ("{\"a\": 1}", "it is no sitemap"),
            ("<html><body/></html>", "its element is \"html\""),
            ("<urlset><url><loc>http://a.test/", "it breaks off"),
            ("<urlset><url></loc></url>", "cannot be read"),
            ("<urlset><url><loc>&lol;</loc></url></urlset>", "an entity"),
        ] {
            let error = named(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let wide = [0xff, 0xfe, b'<', 0];
        for text in [wide.to_vec(), packed(&wide)] {
            assert!(named(&text).expect_err("UTF-16").to_string().contains("UTF-16"));
        }
        let broken = &packed(PAGES.as_bytes())[..60];
        assert!(named(broken).is_err());
        let long = format!("<urlset><url><loc>{}</loc></url></urlset>", "a".repeat(URL_BYTES + 1));
        assert!(matches!(named(long.as_bytes()), Err(SitemapError::LongUrl)));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = packed(format!("<urlset>{}", " ".repeat(MOST_BYTES as usize)).as_bytes());
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(named(&bomb), Err(SitemapError::Long)));
    }

    #[test]
    fn who_has_enough_gets_no_more() {
        let mut count = 0;
        let enough = |_| {
            count += 1;
            ControlFlow::Break(())
        };
        read(Bytes::from_static(PAGES.as_bytes()), enough).expect("a sitemap");
        assert_eq!(count, 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(
            text in proptest::collection::vec(prop_oneof![
                Just("<urlset>"), Just("<url>"), Just("<loc>"), Just("</loc>"), Just("</url>"), Just("</urlset>"), Just("&#0;"),
                Just("<!DOCTYPE a [<!ENTITY b \"c\">]>"), Just("a&"), Just("<![CDATA["), Just("]]>"), Just("\u{0}")
            ], 0..12),
            bytes in any::<Vec<u8>>(),
        ) {
            let _ = named(text.concat().as_bytes());
            let _ = named(&bytes);
        }
    }
}
