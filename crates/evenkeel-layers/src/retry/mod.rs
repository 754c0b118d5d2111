//! Retries: makes another attempt if one failed and another may succeed.
//!
//! **Use it** above a balancer, once for each logical call. Each attempt goes to an endpoint that
//! the call has not tried, as long as another is open. **Not** where something above retries as
//! well: attempts multiply. **Not** below the balancer: there every attempt goes to the same
//! endpoint.
//!
//! * A request that was provably not processed (a refused connection, a stream that the server
//!   refused) is sent once more at once, for free. A request that may have been processed is
//!   repeated only if that does no harm. [`Rules`] tell the two apart: `HttpRetry` of evenkeel-http
//!   for HTTP and gRPC, [`AnyRules`] for anything else.
//! * Everything else is paid from a [`Budget`], before the back-off. If the budget is empty, the
//!   attempts are used up, or the caller's deadline would pass, the caller gets the last real error
//!   or response.
//! * Back-off has full jitter, drawn again for each call. A delay that the endpoint asks for is
//!   respected, up to [`max_delay`](RetryLayer::max_delay).
//! * The budget also pays for [hedges](crate::hedge), if both layers are given the same one.
//!
//! ```
//! use std::{io, sync::atomic::{AtomicU32, Ordering::Relaxed}};
//! use evenkeel::core::retry::{AnyRules, Budget};
//! use evenkeel::retry::RetryLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//!
//! let client = ServiceBuilder::new()
//!     .layer(RetryLayer::new(Budget::default()).rules(AnyRules::idempotent()))
//!     .service(service_fn(|question: &'static str| async move {
//!         match ATTEMPTS.fetch_add(1, Relaxed) {
//!             0 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
//!             _ => Ok(format!("an answer to {question}")),
//!         }
//!     }));
//!
//! assert_eq!(client.oneshot("a question").await.unwrap(), "an answer to a question");
//! assert_eq!(ATTEMPTS.load(Relaxed), 2);
//! # }
//! ```
//!
//! # Configured
//! ```
//! use std::time::Duration;
//! use evenkeel::core::{backoff::Backoff, retry::{AnyRules, Budget}};
//! use evenkeel::retry::RetryLayer;
//!
//! let budget = Budget::share(10.0).floor_per_second(3);
//! let layer = RetryLayer::new(budget)
//!     .rules(AnyRules::new())
//!     .max_attempts(4)
//!     .attempt_timeout(Duration::from_millis(300))
//!     .backoff(Backoff::full_jitter(Duration::from_millis(10), Duration::from_secs(1)))
//!     .max_delay(Duration::from_secs(2));
//! # drop(layer);
//! ```
//!
//! Without rules it makes no service, and the compiler names the rules that exist:
//!
//! ```compile_fail,E0277
//! use evenkeel::core::retry::Budget;
//! use evenkeel::retry::RetryLayer;
//! use tower::ServiceBuilder;
//!
//! let client = ServiceBuilder::new().layer(RetryLayer::new(Budget::default())).service(());
//! ```
//!
//! Pass an existing [`tower::retry::Policy`] to [`RetryLayer::with_policy`].
//!
//! # What it costs
//! For each call: a clone of the service and one of the request, two atomic additions, and a
//! reading of the clock if the call has to wait. It allocates nothing, except what these clones
//! allocate. A failed attempt's response is dropped before the back-off, so that it holds no
//! connection meanwhile.
//!
//! [`AnyRules`]: evenkeel_core::retry::AnyRules
//! [`Budget`]: evenkeel_core::retry::Budget
//! [`Rules`]: evenkeel_core::retry::Rules

mod future;
mod layer;
mod none;
mod policy;
mod service;
mod settings;

pub use self::{
    future::RetryFuture,
    layer::RetryLayer,
    none::NoRules,
    policy::{PolicyCall, PolicyRules},
    service::Retry,
};
