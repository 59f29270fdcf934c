//! What a host keeps in any case.

use super::field;
use crate::config::leaf::Leaf;
use crate::config::shape::Absent::Default;
use crate::config::shape::{Field, Shape};

pub(super) const PIN: Field = field(
    "pin",
    &PINS,
    Default("[]"),
    "Patterns of decoded paths: what fits one is evicted last, and asked about before it is stale.",
);
pub(super) const MIRROR: Field = field(
    "mirror",
    &MIRRORS,
    Default("false"),
    "true, or how: all that the bucket or folder has below `prefix` is kept, and follows its changes.",
);

static PINS: Shape = Shape::List { each: &PATTERN, least: 0 };
static PATTERN: Shape = Shape::Leaf(Leaf::Text("a pattern of paths such as \"/assets/*\" or \"*.jpg\""));
static MIRRORS: Shape = Shape::Either(&[
    Shape::Leaf(Leaf::Flag),
    Shape::Object(&[
        field("interval", &INTERVAL, Default("\"5m\""), "Between two listings."),
        field("jobs", &JOBS, Default("4"), "Objects that are fetched at once."),
    ]),
]);
static INTERVAL: Shape = Shape::Leaf(Leaf::Duration { least_ms: 1000 });
static JOBS: Shape = Shape::Leaf(Leaf::Count { least: 1, most: 64 });
