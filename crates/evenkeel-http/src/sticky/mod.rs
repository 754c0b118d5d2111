//! Sessions that stay on their endpoint, by a cookie.

mod cookie;
mod layer;
mod seal;
mod service;
mod settings;

pub use cookie::SameSite;
pub use layer::StickyLayer;
pub use service::{Sticky, StickyFuture};
