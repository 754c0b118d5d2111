//! The quota that an HTTP request spends, and the headers that report it, written and read.

mod fields;
mod headers;
mod heed;
mod spender;

pub use fields::ServerQuota;
pub(crate) use fields::seconds;
pub use headers::{DiscloseQuota, RateLimitHeaders, RateLimitHeadersFuture, RateLimitHeadersLayer};
pub use heed::{HeedQuota, HeedQuotaFuture, HeedQuotaLayer};
pub use spender::{AddressSpender, HeaderSpender};
