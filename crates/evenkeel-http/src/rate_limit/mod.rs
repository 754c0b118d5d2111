//! Whose quota an HTTP request spends, and the headers that tell of it, out and in.

mod fields;
mod headers;
mod heed;
mod spender;

pub use fields::ServerQuota;
pub(crate) use fields::seconds;
pub use headers::{DiscloseQuota, RateLimitHeaders, RateLimitHeadersFuture, RateLimitHeadersLayer};
pub use heed::{HeedQuota, HeedQuotaFuture, HeedQuotaLayer};
pub use spender::{AddressSpender, HeaderSpender};
