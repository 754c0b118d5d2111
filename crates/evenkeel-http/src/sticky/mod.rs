//! Sessions that stay on their endpoint, by a cookie.

mod cookie;
mod layer;
mod seal;
mod service;

pub use layer::{SameSite, StickyLayer};
pub use service::{Sticky, StickyFuture};
