//! What the program tells of itself: metrics, the access log, structured lines on stderr.

pub mod access_log;
pub mod metrics;
mod striped;
pub mod tracing;
mod writer;
