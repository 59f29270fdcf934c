//! What policies edit: the request to the origin, the lookup, how a response is kept, and the response itself.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::{Host, joined, names, trap};
use crate::policy::bindings::proxyhost::policy as wit;
use crate::policy::checks;
use crate::policy::error::Fence;
use crate::policy::exchange::HeaderEdit;
use crate::policy::limits::{
    HEADER_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, KEY_PARTS_MAX, QUERY_NAMES_MAX, TAG_BYTES_MAX, TAGS_MAX,
    TRY_PATHS_MAX,
};
use crate::policy::state::State;

impl State {
    fn edit_upstream(&mut self, function: &'static str, edit: HeaderEdit, bytes: usize) -> Host<()> {
        let upstream = trap(self.upstream(function))?;
        let so_far: usize = upstream.headers.iter().map(edit_bytes).sum();
        if upstream.headers.len() >= HEADERS_MAX || so_far + bytes > HEADER_BYTES_MAX {
            return trap(Err(Fence::Calls(format!(
                "a request may be given {HEADERS_MAX} header edits of {HEADER_BYTES_MAX} bytes in all"
            ))));
        }
        upstream.headers.push(edit);
        Ok(())
    }

    /// Saves a header of the response, then edits it.
    fn edit_response(
        &mut self,
        function: &'static str,
        name: HeaderName,
        added: usize,
        edit: impl FnOnce(&mut HeaderMap, HeaderName),
    ) -> Host<()> {
        if added > 0 {
            self.added = (self.added.0 + 1, self.added.1 + added);
            if self.added.0 > HEADERS_MAX || self.added.1 > HEADER_BYTES_MAX {
                return trap(Err(Fence::Calls(format!(
                    "a response may be given {HEADERS_MAX} header lines of {HEADER_BYTES_MAX} bytes in all"
                ))));
            }
        }
        let response = trap(self.response(function))?;
        let before: SmallVec<[_; 1]> = response.headers.get_all(&name).iter().cloned().collect();
        edit(&mut response.headers, name.clone());
        self.save_header(&name, before);
        Ok(())
    }
}

fn edit_bytes(edit: &HeaderEdit) -> usize {
    match edit {
        HeaderEdit::Set(name, value) | HeaderEdit::Append(name, value) => name.as_str().len() + value.len(),
        HeaderEdit::Remove(name) => name.as_str().len(),
    }
}

impl wit::upstream::Host for State {
    fn set_header(&mut self, name: String, value: String) -> Host<()> {
        let edit = HeaderEdit::Set(trap(checks::header_name(&name))?, trap(checks::header_value(&name, &value))?);
        self.edit_upstream("upstream.set-header", edit, name.len() + value.len())
    }

    fn append_header(&mut self, name: String, value: String) -> Host<()> {
        let edit = HeaderEdit::Append(trap(checks::header_name(&name))?, trap(checks::header_value(&name, &value))?);
        self.edit_upstream("upstream.append-header", edit, name.len() + value.len())
    }

    fn remove_header(&mut self, name: String) -> Host<()> {
        let edit = HeaderEdit::Remove(trap(checks::header_name(&name))?);
        self.edit_upstream("upstream.remove-header", edit, name.len())
    }

    fn set_path(&mut self, path: String) -> Host<()> {
        let upstream = trap(self.upstream("set-path"))?;
        upstream.path = Some(trap(checks::path(path))?);
        Ok(())
    }

    fn set_query(&mut self, query: Option<String>) -> Host<()> {
        let upstream = trap(self.upstream("set-query"))?;
        upstream.query = Some(trap(query.map(checks::query).transpose())?);
        Ok(())
    }

    fn try_paths(&mut self, paths: Vec<String>) -> Host<()> {
        let upstream = trap(self.upstream("try-paths"))?;
        if paths.len() > TRY_PATHS_MAX {
            return trap(Err(Fence::Calls(format!("at most {TRY_PATHS_MAX} paths can be tried, not {}", paths.len()))));
        }
        upstream.try_paths = trap(paths.into_iter().map(checks::path).collect::<Result<_, _>>())?;
        Ok(())
    }

    fn use_origin(&mut self, name: String) -> Host<Result<(), String>> {
        let known = self.surroundings.prepared.source.origins.contains(&name);
        let upstream = trap(self.upstream("use-origin"))?;
        if !known {
            return Ok(Err(format!("there is no origin {} in hosts.json", checks::shown(&name))));
        }
        upstream.origin = Some(name);
        Ok(Ok(()))
    }
}

impl wit::cache_lookup::Host for State {
    fn add_key(&mut self, name: String, value: String) -> Host<()> {
        let lookup = trap(self.lookup("add-key"))?;
        let so_far: usize = lookup.parts.iter().map(|(name, value)| name.len() + value.len()).sum();
        if lookup.parts.len() >= KEY_PARTS_MAX || so_far + name.len() + value.len() > KEY_BYTES_MAX {
            return trap(Err(Fence::Calls(format!(
                "a key may be given {KEY_PARTS_MAX} parts of {KEY_BYTES_MAX} bytes in all"
            ))));
        }
        lookup.parts.push((name, value));
        Ok(())
    }

    fn set_key(&mut self, key: String) -> Host<()> {
        let lookup = trap(self.lookup("set-key"))?;
        if key.len() > KEY_BYTES_MAX {
            return trap(Err(Fence::Calls(format!("a key may have {KEY_BYTES_MAX} bytes, not {}", key.len()))));
        }
        lookup.key = Some(key);
        Ok(())
    }

    fn key_query_only(&mut self, names: Vec<String>) -> Host<()> {
        let lookup = trap(self.lookup("key-query-only"))?;
        let bytes: usize = names.iter().map(String::len).sum();
        if names.len() > QUERY_NAMES_MAX || bytes > KEY_BYTES_MAX {
            return trap(Err(Fence::Calls(format!(
                "key-query-only takes {QUERY_NAMES_MAX} names of {KEY_BYTES_MAX} bytes in all"
            ))));
        }
        lookup.query_only = Some(names);
        Ok(())
    }

    fn bypass(&mut self) -> Host<()> {
        trap(self.lookup("bypass"))?.bypass = true;
        Ok(())
    }

    fn max_age_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.lookup("max-age-ms"))?.max_age = Some(Duration::from_millis(ms));
        Ok(())
    }
}

impl wit::cache_store::Host for State {
    fn ttl_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.store("ttl-ms"))?.ttl = Some(Duration::from_millis(ms));
        Ok(())
    }

    fn stale_while_revalidate_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.store("stale-while-revalidate-ms"))?.stale_while_revalidate = Some(Duration::from_millis(ms));
        Ok(())
    }

    fn stale_if_error_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.store("stale-if-error-ms"))?.stale_if_error = Some(Duration::from_millis(ms));
        Ok(())
    }

    fn tag(&mut self, tag: String) -> Host<()> {
        let store = trap(self.store("tag"))?;
        if tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.contains('\0') {
            return trap(Err(Fence::Invalid(format!(
                "a tag has 1 to {TAG_BYTES_MAX} bytes and no NUL, not {}",
                checks::shown(&tag)
            ))));
        }
        if store.tags.contains(&tag) {
            return Ok(());
        }
        if store.tags.len() >= TAGS_MAX {
            return trap(Err(Fence::Calls(format!("a response may have {TAGS_MAX} tags"))));
        }
        store.tags.push(tag);
        Ok(())
    }

    fn no_store(&mut self) -> Host<()> {
        trap(self.store("no-store"))?.no_store = true;
        Ok(())
    }

    fn hit_for_miss_ms(&mut self, ms: u64) -> Host<()> {
        trap(self.store("hit-for-miss-ms"))?.hit_for_miss = Some(Duration::from_millis(ms));
        Ok(())
    }
}

impl wit::response::Host for State {
    fn status(&mut self) -> Host<u16> {
        Ok(trap(self.response("status"))?.status.as_u16())
    }

    fn set_status(&mut self, status: u16) -> Host<()> {
        let status = trap(checks::reply_status(status))?;
        let before = std::mem::replace(&mut trap(self.response("set-status"))?.status, status);
        self.save_status(before);
        Ok(())
    }

    fn header(&mut self, name: String) -> Host<Option<String>> {
        // What an origin sends in another encoding is not shown half; the client's request is none the worse for it.
        Ok(joined(&trap(self.response("response.header"))?.headers, &name).unwrap_or(None))
    }

    fn header_names(&mut self) -> Host<Vec<String>> {
        Ok(names(&trap(self.response("response.header-names"))?.headers))
    }

    fn set_header(&mut self, name: String, value: String) -> Host<()> {
        let (field, value) = (trap(checks::header_name(&name))?, trap(checks::header_value(&name, &value))?);
        let added = name.len() + value.len();
        self.edit_response("response.set-header", field, added, |headers, name| {
            headers.insert(name, value);
        })
    }

    fn append_header(&mut self, name: String, value: String) -> Host<()> {
        let (field, value) = (trap(checks::header_name(&name))?, trap(checks::header_value(&name, &value))?);
        let added = name.len() + value.len();
        self.edit_response("response.append-header", field, added, |headers, name| {
            headers.append(name, value);
        })
    }

    fn remove_header(&mut self, name: String) -> Host<()> {
        let field = trap(checks::header_name(&name))?;
        self.edit_response("response.remove-header", field, 0, |headers, name| {
            headers.remove(name);
        })
    }

    fn cache_status(&mut self) -> Host<String> {
        Ok(trap(self.response("cache-status"))?.cache_status.to_owned())
    }

    fn origin_path(&mut self) -> Host<Option<String>> {
        Ok(trap(self.response("origin-path"))?.origin_path.as_deref().map(str::to_owned))
    }
}
