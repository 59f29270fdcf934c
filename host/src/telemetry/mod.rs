//! What the program tells of itself: metrics, the access log, structured lines on stderr.

pub mod access_log;
pub(crate) mod histogram;
pub mod metrics;
pub(crate) mod striped;
pub mod tracing;
mod writer;
