//! What a host says of caching, and its rules: the same fields, but that a rule has from the host what it does not say itself.

use super::{DURATION, FLAG, SIZE, compress, field};
use crate::config::leaf::Leaf;
use crate::config::shape::Absent::{Computed, Default, Nothing, Refused};
use crate::config::shape::{Field, Shape};

pub(super) const CACHE: Field = field(
    "cache",
    &CACHE_USE,
    Default("\"on\""),
    "\"off\": passed on as it comes, nothing is kept, looked up or waited for.",
);
pub(super) const TTL: Field = field(
    "ttl",
    &LIVES,
    Computed("5m for s3 origins and 10s for their 404 and 410, a tenth of the time since Last-Modified for others"),
    "Life of what the origin says nothing about, for all or by status: { \"default\": \"5m\", \"404\": \"10s\", \"5xx\": \"1s\" }.",
);
pub(super) const TTL_MIN: Field = field(
    "ttl_min",
    &DURATION,
    Nothing,
    "Life of what the origin gives a shorter one, but for errors and what it forbids to keep.",
);
pub(super) const TTL_MAX: Field = field("ttl_max", &DURATION, Nothing, "Life of what the origin gives a longer one.");
pub(super) const TTL_OVERRIDE: Field = field(
    "ttl_override",
    &LIVES,
    Nothing,
    "Life whatever the origin says, no-store and private included, for all but errors or by status.",
);
pub(super) const BROWSER_TTL: Field =
    field("browser_ttl", &DURATION, Nothing, "How long clients keep what they get, in place of what the origin says.");
pub(super) const STALE_WHILE_REVALIDATE: Field = field(
    "stale_while_revalidate",
    &DURATION,
    Nothing,
    "For so long stale is served while it is fetched again, where the origin says nothing (RFC 5861).",
);
pub(super) const STALE_IF_ERROR: Field = field(
    "stale_if_error",
    &STALE,
    Nothing,
    "For so long stale is served in place of an error, where the origin says nothing (RFC 5861).",
);
pub(super) const MAX_OBJECT: Field =
    field("max_object", &SIZE, Computed("what the disk takes"), "The largest body that is kept.");
pub(super) const QUERY: Field = field(
    "query",
    &QUERIES,
    Computed("\"keep\" for http origins; others are not asked by query"),
    "Which parameters of the query count: \"keep\", \"ignore\", \"sort\", or those of a list. Only they reach the origin.",
);
pub(super) const CLIENT_CACHE_CONTROL: Field = field(
    "client_cache_control",
    &CLIENT,
    Default("\"ignore\""),
    "What a client's Cache-Control can do: \"ignore\": only no-store and only-if-cached count; \"honor\": all of RFC 9111.",
);

pub(super) const COMPRESS: Field = field(
    "compress",
    &compress::COMPRESS,
    Default("false"),
    "true, or how: what is kept is served compressed to who takes it, and what came compressed decompressed to who does not.",
);

/// The same field in a rule.
const fn of_host(field: Field) -> Field {
    Field { absent: Computed("as on the host"), ..field }
}

pub(super) static RULES: Shape = Shape::List { each: &RULE, least: 0 };
static RULE: Shape = Shape::Object(&[
    field(
        "path",
        &PATHS,
        Refused,
        "Pattern of the decoded path, or a list of them; * stands for any run of characters.",
    ),
    of_host(CACHE),
    of_host(TTL),
    of_host(TTL_MIN),
    of_host(TTL_MAX),
    of_host(TTL_OVERRIDE),
    of_host(BROWSER_TTL),
    of_host(STALE_WHILE_REVALIDATE),
    of_host(STALE_IF_ERROR),
    of_host(MAX_OBJECT),
    of_host(QUERY),
    of_host(CLIENT_CACHE_CONTROL),
    of_host(COMPRESS),
]);

static CACHE_USE: Shape = Shape::Leaf(Leaf::Choice(&["on", "off"]));
static LIVES: Shape = Shape::Either(&[
    Shape::Leaf(Leaf::Duration { least_ms: 0 }),
    Shape::Names { name: "\"default\", statuses (\"404\") or classes (\"5xx\")", each: &DURATION, least: 1 },
]);
static STALE: Shape = Shape::Either(&[
    Shape::Leaf(Leaf::Duration { least_ms: 0 }),
    Shape::Object(&[
        field("for", &DURATION, Nothing, "For how long."),
        field("statuses", &STATUSES, Default("[500, 502, 503, 504]"), "Which statuses of the origin are an error."),
    ]),
]);
static STATUSES: Shape = Shape::List { each: &STATUS, least: 1 };
static STATUS: Shape = Shape::Leaf(Leaf::Count { least: 400, most: 599 });
static QUERIES: Shape = Shape::Either(&[
    Shape::Leaf(Leaf::Choice(&["keep", "ignore", "sort"])),
    Shape::Object(&[
        field("allow", &PARAMETERS, Nothing, "Only these count; a star at the end of a name stands for any end."),
        field("deny", &PARAMETERS, Nothing, "All but these count."),
        field("unlisted", &UNLISTED, Default("\"drop\""), "With `allow`: a request with others is answered 400."),
        field("sort", &FLAG, Default("false"), "In order of their names."),
    ]),
]);
static PARAMETERS: Shape = Shape::List { each: &PARAMETER, least: 0 };
static PARAMETER: Shape = Shape::Leaf(Leaf::Text("the name of a parameter, decoded, or its beginning and a star"));
static UNLISTED: Shape = Shape::Leaf(Leaf::Choice(&["drop", "reject"]));
static PATHS: Shape = Shape::Either(&[Shape::Leaf(PATH), Shape::List { each: &PATH_SHAPE, least: 1 }]);
static PATH_SHAPE: Shape = Shape::Leaf(PATH);
const PATH: Leaf = Leaf::Text("a pattern of paths such as \"/assets/*\" or \"*.jpg\"");
static CLIENT: Shape = Shape::Leaf(Leaf::Choice(&["ignore", "honor"]));
