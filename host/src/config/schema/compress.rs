//! What a host says of compression.

use super::{SIZE, field};
use crate::config::leaf::Leaf;
use crate::config::shape::Absent::{Computed, Default};
use crate::config::shape::Shape;

pub(super) static COMPRESS: Shape = Shape::Either(&[
    Shape::Leaf(Leaf::Flag),
    Shape::Object(&[
        field(
            "types",
            &TYPES,
            Computed("text, JSON, XML, JavaScript, WebAssembly, SVG and what else is worth it"),
            "Content types; a star stands for any run of characters.",
        ),
        field("min_size", &SIZE, Default("512"), "Smaller bodies are left as they are."),
        field(
            "encodings",
            &ENCODINGS,
            Default("[\"br\", \"zstd\", \"gzip\"]"),
            "Which, the first one first where a client likes several alike.",
        ),
    ]),
]);
static TYPES: Shape = Shape::List { each: &TYPE, least: 1 };
static TYPE: Shape = Shape::Leaf(Leaf::Text("a content type such as \"text/*\" or \"application/json\""));
static ENCODINGS: Shape = Shape::List { each: &ENCODING, least: 1 };
static ENCODING: Shape = Shape::Leaf(Leaf::Choice(&["br", "zstd", "gzip"]));
