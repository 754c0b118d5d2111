//! Outlier ejection: leaves out, for a time, endpoints that do worse than they should or than
//! others.
//!
//! It stands below the balancer, around a `Connect`, and looks at all endpoints together.
//! Consecutive failures eject an endpoint at once. Success rates, failure percentages and latencies
//! are compared at an interval. An ejected endpoint gets no new requests in any clone. It comes
//! back after a time that grows from one ejection to the next, and first has to answer a trial
//! request.
//!
//! **Use it** below every balancer over more than one endpoint. Its cap and its panic rule ensure
//! that it never leaves callers worse off than without it. **Not** for a single endpoint, where it
//! does nothing: there a [circuit breaker](crate::breaker) stands alone.
//!
//! [`core::health::outlier`](evenkeel_core::health::outlier) describes the rules, where their
//! defaults come from, and what always holds. The traffic of the innermost `Connect` says what
//! failed. Over HTTP an error without an answer is local, and 502, 503 and 504 are the gateway's.
//! If an attempt is cut off by a [deadline](crate::deadline), or by the [attempt
//! timeout](crate::retry::RetryLayer::attempt_timeout) of a retry, after half of that time or more,
//! it counts as one without an answer. An attempt that its caller drops says nothing.
//! [`core::cut`](evenkeel_core::cut) describes what counts when, and why.
//!
//! A trial request is judged by the head of its response, so that a download or a stream does not
//! keep all others out. It fails if there is none in time. An endpoint on probation gives way to
//! the ejection of another that fails now.
//!
//! ```
//! use std::sync::Arc;
//! use evenkeel::core::{endpoint::Endpoint, node::Node};
//! use evenkeel::{balance::BalanceLayer, outlier::OutlierLayer};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
//! let mut client = ServiceBuilder::new()
//!     .layer(BalanceLayer::round_robin(endpoints))
//!     .layer(OutlierLayer::new())
//!     .service(|node: &Arc<Node>| {
//!         let is_down = node.address().to_string() == "10.0.0.1:80";
//!         service_fn(move |n: u32| async move {
//!             if is_down { Err(BoxError::from("down")) } else { Ok(n) }
//!         })
//!     });
//!
//! let mut failures = 0;
//! for n in 0..100 {
//!     failures += u32::from(client.ready().await?.call(n).await.is_err());
//! }
//! assert_eq!(failures, 5);
//! # Ok(())
//! # }
//! ```
//!
//! Configured for a small set that should recover quickly, and read:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use evenkeel::core::{endpoint::Endpoint, health::outlier::SlowerThanOthers, node::Node};
//! use evenkeel::{balance::BalanceLayer, outlier::OutlierLayer};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let outlier = OutlierLayer::new()
//!     .consecutive_errors(3)
//!     .latency(SlowerThanOthers::default())
//!     .interval(Duration::from_secs(1))
//!     .ejection_time(Duration::from_secs(1), Duration::from_secs(30))
//!     .max_ejected_percent(40);
//! let ejected = outlier.ejected();
//!
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
//! let client = ServiceBuilder::new()
//!     .layer(BalanceLayer::peak_ewma(endpoints))
//!     .layer(outlier)
//!     .service(|_: &Arc<Node>| service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
//!
//! assert_eq!(client.oneshot(1).await?, 2);
//! assert!(ejected.list().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//! No service of its own. Two or three atomic operations at the end of an attempt, no lock, no
//! allocation, and a clock read for an attempt that has to wait. Comparing latencies costs another
//! clock read. One task for all endpoints of a layer sleeps between sweeps while there are
//! endpoints.

mod layer;
mod monitor;

pub(crate) use self::monitor::passed_check;
pub use self::{
    layer::{OutlierConnect, OutlierLayer},
    monitor::Ejected,
};
