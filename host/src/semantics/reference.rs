//! References to other resources (RFC 3986 section 5), as Location and Content-Location hold them.

use super::authority::{Authority, Hostname};
use super::target::Target;

/// What references are read against: the target of a request.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host.
    pub host: &'a Hostname,
    /// Port, none for the scheme's own.
    pub port: Option<u16>,
    /// Path and query as they came.
    pub raw: &'a str,
}

impl Base<'_> {
    /// What a reference leads to, if that is of the same origin (RFC 9110 section 4.3.1): scheme, host and port are equal. None
    /// too where it cannot be read, or leads to what no request could ask for.
    pub fn same_origin(&self, reference: &str) -> Option<Target> {
        let reference = reference.trim_ascii().split('#').next().unwrap_or_default();
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (reference, None),
        };
        let (base_path, base_query) = match self.raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.raw, None),
        };
        let scheme = path.split('/').next().and_then(|first| first.split_once(':')).map(|(scheme, _)| scheme);
        let behind_scheme = match scheme {
            Some(scheme) if scheme.eq_ignore_ascii_case(self.scheme) => Some(&path[scheme.len() + 1..]),
            Some(_) => return None,
            None => None,
        };
        let path_only = match behind_scheme.unwrap_or(path).strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                if !self.is_at(authority) {
                    return None;
                }
                if path.is_empty() { "/" } else { path }
            }
            // `http:x` has no authority: no URL of this scheme.
            None if behind_scheme.is_some() => return None,
            None => path,
        };
        let (path, query) = if path_only.is_empty() {
            (base_path.to_owned(), query.or(base_query))
        } else if path_only.starts_with('/') {
            (without_dots(path_only), query)
        } else {
            let folder = base_path.rfind('/').map_or("/", |at| &base_path[..=at]);
            (without_dots(&format!("{folder}{path_only}")), query)
        };
        Target::parse(&query.map_or(path.clone(), |query| format!("{path}?{query}"))).ok()
    }

    fn is_at(&self, authority: &str) -> bool {
        let own = if self.scheme == "https" { 443 } else { 80 };
        Authority::parse(authority)
            .is_ok_and(|there| there.host == *self.host && there.port.filter(|port| *port != own) == self.port)
    }
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(reference: &str) -> Option<String> {
        let host = Hostname::parse("a.test").expect("a host");
        let base = Base { scheme: "http", host: &host, port: None, raw: "/b/c/d?q=1" };
        base.same_origin(reference).map(|target| target.raw().to_owned())
    }

    #[test]
    fn references_are_read_as_rfc_3986_has_it() {
        for (reference, expected) in [
            ("", "/b/c/d?q=1"),
            ("#top", "/b/c/d?q=1"),
            ("?y=2", "/b/c/d?y=2"),
            ("g", "/b/c/g"),
            ("./g?y", "/b/c/g?y"),
            ("g/", "/b/c/g/"),
            (".", "/b/c/"),
            ("..", "/b/"),
            ("../g", "/b/g"),
            ("../../../g", "/g"),
            ("/g/../h/./i", "/h/i"),
            ("/g?x#y", "/g?x"),
            ("//a.test/g", "/g"),
            ("//A.Test:80", "/"),
            ("http://a.test/g", "/g"),
            ("HTTP://a.test", "/"),
            ("http://a.test?x", "/?x"),
            ("  /g ", "/g"),
            ("g/a:b", "/b/c/g/a:b"),
        ] {
            assert_eq!(resolved(reference).as_deref(), Some(expected), "{reference:?}");
        }
    }

    #[test]
    fn other_origins_and_what_cannot_be_asked_for_are_none() {
        for reference in [
            "https://a.test/g",
            "http://b.test/g",
            "http://a.test:8080/g",
            "//b.test/g",
            "//user@a.test/g",
            "http:g",
            "mailto:a@a.test",
            "g:h",
            "/%00",
            "/%zz",
            "/a%2Fb",
        ] {
            assert_eq!(resolved(reference), None, "{reference:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(reference in "\\PC{0,30}", raw in "/\\PC{0,12}", dots in "[/.a?#:]{0,20}") {
            let host = Hostname::parse("a.test").expect("a host");
            let base = Base { scheme: "https", host: &host, port: Some(8443), raw: &raw };
            let _ = (base.same_origin(&reference), base.same_origin(&dots));
        }
    }
}
