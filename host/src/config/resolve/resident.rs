//! What a host keeps in any case: pins, and the mirror of its bucket or folder.

use super::Resolver;
use crate::config::at::At;
use crate::config::json::Json;
use crate::origin::OriginKind;
use crate::semantics::authority::HostPattern;
use crate::semantics::path_pattern::PathPattern;
use crate::vhost::Mirror;

impl Resolver<'_> {
    pub(super) fn pins(&mut self, host: &At<'_>) -> Option<Vec<PathPattern>> {
        let Some(pins) = host.given("pin") else { return Some(Vec::new()) };
        self.patterns(pins.items())
    }

    pub(super) fn mirror(
        &mut self,
        host: &At<'_>,
        pattern: Option<&HostPattern>,
        kind: Option<OriginKind>,
        cached: bool,
    ) -> Option<Option<Mirror>> {
        let Some(given) = host.given("mirror") else { return Some(None) };
        if *given.json == Json::Bool(false) {
            return Some(None);
        }
        let written = host.object("mirror");
        let jobs = usize::try_from(written.count("jobs")?).ok()?;
        let mirror = Mirror { interval: written.duration("interval")?, jobs };
        let mut wrong = |found: &str, expected: &str| self.mistakes.add(&given.path, found, expected);
        if kind == Some(OriginKind::Http) {
            wrong("a mirror of an http origin, which has no list of what it has", "an s3 or dir origin");
        }
        if matches!(pattern, Some(HostPattern::Wildcard(_) | HostPattern::Any)) {
            wrong("a mirror for a pattern of hosts", "a host of one name: each name has its own entries");
        }
        if !cached {
            wrong("a mirror beside \"cache\": \"off\"", "a host that is cached");
        }
        Some(Some(mirror))
    }
}
