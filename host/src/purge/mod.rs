//! What a purge is asked for in: the body of `POST /purge`, and requests with a host's purge method. The cache carries it out.

pub mod scope;

pub use scope::{of_request, parse_request};
