//! A rate limit: how many requests per period, in total, for each caller, or for each endpoint.
//!
//! One layer, two places:
//!
//! * **Alone**, around a `Service`: requests above the rate fail with
//!   [`RateLimited`](evenkeel_core::error::RateLimited), which says when to try again, or
//!   [wait](RateLimitLayer::wait) for their turn. [`keyed`](RateLimitLayer::keyed) gives each caller
//!   a quota of its own.
//! * **Below a balancer**, around a `Connect`: one limit for each endpoint. While it is used up,
//!   the node's gate [`RateLimit`](evenkeel_core::node::Gate::RateLimit) is closed in every clone,
//!   and other endpoints are chosen. If there is none, the balancer waits for up to its maximum
//!   wait.
//!
//! All clones share one limiter, so a server that clones its stack for each connection limits all
//! of them together. The counting is governor's: a token bucket kept as one point in time (GCRA).
//! It has no window at whose edge twice as many requests get through.
//!
//! **Use it** to protect what has a known capacity, to share it fairly between callers, or to stay
//! within a quota that another party enforces. **Not** where the capacity is unknown or changes: a
//! limit on concurrency finds it. **Not** to share a quota between machines: each has its own
//! limiter.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::core::error::{RateLimited, cause};
//! use evenkeel::rate_limit::RateLimitLayer;
//! use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let echo = service_fn(|n: u32| async move { Ok::<_, BoxError>(n) });
//! let mut service = RateLimitLayer::per_second(10).burst(2).layer(echo);
//!
//! assert_eq!(service.ready().await?.call(1).await?, 1);
//! assert_eq!(service.clone().ready().await?.call(2).await?, 2);
//!
//! let refused = service.ready().await?.call(3).await.unwrap_err();
//! let refused = cause::<RateLimited>(refused.as_ref()).expect("two at once");
//! assert!(refused.retry_after <= Duration::from_millis(100));
//! # Ok(())
//! # }
//! ```
//!
//! Configured: ten a second for each tenant. A request may wait for half a second.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::core::quota::Rate;
//! use evenkeel::rate_limit::RateLimitLayer;
//! use tower::{BoxError, Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let limit = RateLimitLayer::new(Rate::per_second(10).burst(1))
//!     .keyed(|request: &(String, u32)| Some(request.0.clone()), 10_000)
//!     .wait(Duration::from_millis(500))
//!     .jitter(Duration::from_millis(20));
//! let service = limit.layer(service_fn(|(_, n): (String, u32)| async move {
//!     Ok::<_, BoxError>(n)
//! }));
//!
//! let begun = tokio::time::Instant::now();
//! for tenant in ["a", "b", "c"] {
//!     service.clone().oneshot((tenant.to_owned(), 1)).await?; // at once: each has its own
//! }
//! assert_eq!(begun.elapsed(), Duration::ZERO);
//! service.clone().oneshot(("a".to_owned(), 2)).await?; // waits for a tenth of a second
//! assert!(begun.elapsed() >= Duration::from_millis(100));
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//! Let through: one reading of the clock and governor's one atomic exchange. With keys also the
//! hash of the key, and a lock that eight keys share, held while they are looked at. No allocation.
//! A request that waits allocates its place once. Below a balancer the attempt also asks its node's
//! observers, and a gate that closes starts a timer. Tokio's timers tick once a millisecond, so a
//! limit of more than a thousand a second needs a burst of a few.
//!
//! # The tower contract
//! `poll_ready` is that of the inner service and reserves nothing here, so a caller that is ready
//! and makes no call delays no other. A call that waits or is refused gives back what its inner
//! service reserved for it, by taking a clone in its place.

mod keyed;
mod layer;
mod limiter;
mod monitor;
mod rules;
mod service;
mod wait;

pub use self::{
    layer::RateLimitLayer,
    limiter::RateLimiter,
    service::{RateLimit, RateLimitFuture},
};
