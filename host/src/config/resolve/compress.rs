//! What a host says of compression.

use super::Resolver;
use crate::config::at::At;
use crate::config::error::quoted;
use crate::config::json::Json;
use crate::semantics::content_coding::Coding;
use crate::vhost::{Compress, TypePattern};

impl Resolver<'_> {
    /// What is compressed: as it is said, or else as it holds without that. None where a mistake was named.
    pub(super) fn compress(&mut self, of: &At<'_>, base: Option<Compress>) -> Option<Option<Compress>> {
        let Some(given) = of.given("compress") else { return Some(base) };
        if !matches!(given.json, Json::Object(_)) {
            return Some(of.flag("compress").then(Compress::default));
        }
        self.compress_by(&of.object("compress")).map(Some)
    }

    fn compress_by(&mut self, at: &At<'_>) -> Option<Compress> {
        let types = match at.given("types") {
            None => Some(Compress::default().types),
            Some(list) => {
                // All are looked at, so that the mistakes of all are found.
                let read: Vec<Option<TypePattern>> = list
                    .items()
                    .map(|item| {
                        let text = item.json.text()?;
                        let pattern = TypePattern::parse(text);
                        if pattern.is_none() {
                            let expected =
                                "a content type without parameters, such as \"text/*\" or \"application/json\"";
                            self.mistakes.add(&item.path, quoted(text), expected);
                        }
                        pattern
                    })
                    .collect();
                read.into_iter().collect()
            }
        };
        let mut encodings: Vec<Coding> = Vec::new();
        for coding in at.list("encodings", |name| Coding::of(name.as_bytes())) {
            if !encodings.contains(&coding) {
                encodings.push(coding);
            }
        }
        Some(Compress { types: types?, min_bytes: at.size("min_size")?, encodings })
    }
}
