//! What a purge is asked for in: the body of `POST /purge`, and requests with a host's purge method. The cache carries it out.

pub mod order;
pub mod scope;

pub use order::{Action, Done, Order};
pub use scope::{Kind, item, of_request, parse_request};
