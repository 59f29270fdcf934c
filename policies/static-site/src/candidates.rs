//! Which files a path may mean.

/// The rules of a site.
pub(crate) struct Site {
    pub(crate) index: String,
    pub(crate) clean_urls: bool,
}

impl Site {
    /// The files in order. The path itself stands first, so an exact name always wins.
    pub(crate) fn candidates(&self, path: &str) -> Vec<String> {
        let mut paths = Vec::with_capacity(4);
        if let Some(folder) = path.strip_suffix('/') {
            paths.push(format!("{path}{}", self.index));
            if self.clean_urls && !folder.is_empty() && !folder.ends_with('/') {
                paths.push(format!("{folder}.html"));
            }
            return paths;
        }
        paths.push(path.to_owned());
        // A name with an extension is a file: looking for `/logo.png.html` would treble the cost of each missing picture.
        if self.clean_urls && !is_file(path) {
            paths.push(format!("{path}.html"));
            paths.push(format!("{path}/{}", self.index));
        }
        paths
    }
}

/// Whether the last part of a path has an extension. A leading dot makes none (`/.well-known`).
pub(crate) fn is_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.trim_start_matches('.').contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_these_files() {
        let site = Site { index: "index.html".to_owned(), clean_urls: true };
        assert_eq!(site.candidates("/"), ["/index.html"]);
        assert_eq!(site.candidates("/a"), ["/a", "/a.html", "/a/index.html"]);
        assert_eq!(site.candidates("/a/"), ["/a/index.html", "/a.html"]);
        assert_eq!(site.candidates("//"), ["//index.html"]);
        assert_eq!(site.candidates("/a.css"), ["/a.css"]);
        assert_eq!(site.candidates("/v1.2/a"), ["/v1.2/a", "/v1.2/a.html", "/v1.2/a/index.html"]);
        let plain = Site { index: "home.htm".to_owned(), clean_urls: false };
        assert_eq!(plain.candidates("/a"), ["/a"]);
        assert_eq!(plain.candidates("/a/"), ["/a/home.htm"]);
    }

    #[test]
    fn a_file_has_an_extension() {
        assert!(is_file("/a/b.css"));
        assert!(!is_file("/a.b/c"));
        assert!(!is_file("/.well-known"));
        assert!(!is_file("/"));
    }
}
