//! What a miss with a Range field asks the origin for: whole slices around what the client wants (RFC 9110 section 14), and what
//! of the answer can be kept.

use std::ops::Range;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};

use super::ask::{Answer, Ask};
use super::decide;
use super::steps::Carried;
use crate::cache::entry::SLICE_BYTES;
use crate::origin::{OriginError, OriginKind, OriginResponse};
use crate::semantics::byte_range::{self, ContentRange, RangeSpec, Resolved};
use crate::semantics::etag::EntityTag;

/// The largest object whose announced size is believed: far beyond any real one, and slice numbers cannot overflow.
pub const MAX_OBJECT_BYTES: u64 = 1 << 60;

/// What to ask for.
pub enum Plan {
    /// All of it.
    Whole,
    /// From this slice on, to one before that slice or to the end.
    From(u64, Option<u64>),
    /// What the client asks for, to be kept as it comes.
    Own(HeaderValue),
    /// The length must be known first.
    Probe(Vec<RangeSpec>),
    /// What the client asks for, and nothing of it is kept.
    Asked,
}

impl Plan {
    /// For a request.
    pub fn of(carried: &Carried) -> Self {
        let request = &carried.exchange.request;
        if request.method != Method::GET || !request.headers.contains_key(RANGE) {
            return Self::Whole;
        }
        match byte_range::parse_range(&request.headers).as_deref() {
            None | Some([RangeSpec::From(0)]) => Self::Whole,
            // Buckets and folders give the whole as soon as all of it from its first slice on.
            Some([RangeSpec::From(..SLICE_BYTES)]) if decide::origin_kind(carried) != OriginKind::Http => Self::Whole,
            Some([RangeSpec::From(start)]) => Self::From(start / SLICE_BYTES, None),
            Some([RangeSpec::Inclusive(start, end)]) => Self::around(*start, *end),
            // A HEAD would tell which slices these are, and cost more than it saves.
            Some([RangeSpec::Suffix(_)]) if decide::origin_kind(carried) == OriginKind::Http => {
                request.headers.get(RANGE).map_or(Self::Whole, |field| Self::Own(field.clone()))
            }
            Some(specs) => Self::Probe(specs.to_vec()),
        }
    }

    /// Whether all of it is asked for.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    fn around(start: u64, last: u64) -> Self {
        Self::From(start / SLICE_BYTES, Some(last / SLICE_BYTES + 1))
    }

    /// The Range field.
    pub fn field(&self) -> Option<HeaderValue> {
        let (first, end) = match self {
            Self::From(first, end) => (first, end),
            Self::Own(field) => return Some(field.clone()),
            _ => return None,
        };
        let start = first.checked_mul(SLICE_BYTES)?;
        let text = match end {
            Some(end) => format!("bytes={start}-{}", end.checked_mul(SLICE_BYTES)? - 1),
            None => format!("bytes={start}-"),
        };
        HeaderValue::from_str(&text).ok()
    }
}

/// What a HEAD says of ranges that cannot be planned without the length. An origin that fails is not asked for more.
pub async fn probe(ask: &Ask, specs: &[RangeSpec]) -> Result<Plan, OriginError> {
    let Answer { response, .. } = ask.send(&Method::HEAD, None, |_| None).await?;
    let length = response.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    Ok(match (response.status, length.or(response.length)) {
        (StatusCode::OK, Some(length)) => match byte_range::resolve(specs, length) {
            Resolved::Single(range) => Plan::around(range.start, range.end - 1),
            Resolved::Multiple(ranges) => {
                ranges.first().map_or(Plan::Whole, |range| Plan::around(range.start, range.end - 1))
            }
            Resolved::Whole => Plan::Whole,
            Resolved::Unsatisfiable => Plan::Asked,
        },
        // Without a length no part of it can be kept, and all of it would be more than was asked for.
        _ => Plan::Asked,
    })
}

/// Whole slices that came in a 206.
pub struct Part {
    /// Which.
    pub slices: Range<u64>,
    /// Bytes of the whole object.
    pub size: u64,
}

/// The slices of a 206, if it can be kept: a strong ETag, a known size, and the beginning that was asked for.
pub fn part_of(response: &OriginResponse, plan: &Plan) -> Option<Part> {
    let Plan::From(first, _) = plan else { return None };
    let content = response.headers.get(CONTENT_RANGE).and_then(ContentRange::parse)?;
    let (range, size) = (content.range?, content.complete.filter(|size| *size <= MAX_OBJECT_BYTES)?);
    if EntityTag::of(&response.headers).is_none_or(|tag| tag.weak) || range.start != first * SLICE_BYTES {
        return None;
    }
    let end = if range.end >= size { size.div_ceil(SLICE_BYTES) } else { range.end / SLICE_BYTES };
    (end > *first).then_some(Part { slices: *first..end, size })
}
