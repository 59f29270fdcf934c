//! RFC 9110: what fields and targets mean. Pure; no I/O.

pub mod authority;
pub mod byte_range;
pub mod cdn_loop;
pub mod content_coding;
pub mod content_type;
pub mod date;
pub mod digest;
pub mod etag;
pub mod forwarded;
pub mod hop_by_hop;
pub mod host_names;
pub mod interest;
pub mod interim;
pub mod list;
pub mod path_pattern;
pub mod precondition;
pub mod preferences;
pub mod query_rule;
pub mod reference;
pub mod target;
pub mod versions;
