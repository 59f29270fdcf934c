//! What is fetched before somebody asks for it: the body of `POST /warm`, sitemaps, and what is told of each thing that was
//! fetched. The proxy carries it out.

pub mod event;
pub mod order;
pub mod sitemap;
mod told;

pub use order::{Order, Wanted, item, parse_request};
pub use told::{Interrupted, Kept, Tally, Told, Warming};
