//! A limit on how many calls are in flight at the same time: fixed, or one that learns.
//!
//! One layer, two places:
//!
//! * **Alone**, around a `Service`: a call for which there is no room fails with
//!   [`LimitReached`](evenkeel_core::error::LimitReached), or [waits](ConcurrencyLimitLayer::wait)
//!   in a bounded queue, in the order of arrival.
//! * **Below a balancer**, around a `Connect`: one limit for each endpoint. While it is full, the
//!   node's gate [`Limit`](evenkeel_core::node::Gate::Limit) is closed and other endpoints are
//!   chosen; no call is refused because of it. While all are full the balancer waits, and refuses
//!   after its `max_wait`.
//!
//! **Use it** on a client where an endpoint that slows down should not take up all of the client's
//! memory and time, and on a server so that it can answer what it accepts. **Not** to divide up how
//! many requests a caller may send in a period: that is a rate limit. A fixed number has to be
//! known, and it is wrong after the next release. [`vegas`](ConcurrencyLimitLayer::vegas) and
//! [`gradient2`](ConcurrencyLimitLayer::gradient2) find it by latency,
//! [`aimd`](ConcurrencyLimitLayer::aimd) by failures. [`core::limit`](evenkeel_core::limit) says
//! which to choose.
//!
//! A permit is taken in `call` and given back when the call ends, fails or is dropped. Alone it
//! lasts as long as [`traffic`](ConcurrencyLimitLayer::traffic) says, below a balancer as long as
//! the request is in flight. A service that is ready, cloned or idle holds none. A call that its
//! caller drops teaches a limit nothing; one that a deadline [cuts off](evenkeel_core::cut) counts
//! as failed.
//!
//! ```
//! use evenkeel::core::{BoxError, error::{LimitReached, cause}};
//! use evenkeel::concurrency::ConcurrencyLimitLayer;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let slow = service_fn(|n: u32| async move {
//!     tokio::task::yield_now().await;
//!     Ok::<_, BoxError>(n)
//! });
//! let mut service = ConcurrencyLimitLayer::fixed(1).layer(slow);
//!
//! let first = service.ready().await?.call(1);
//! let refused = service.clone().oneshot(2).await.unwrap_err();
//! assert_eq!(cause::<LimitReached>(refused.as_ref()).unwrap().limit, 1);
//!
//! assert_eq!(first.await?, 1);
//! assert_eq!(service.ready().await?.call(3).await?, 3);
//! # Ok(())
//! # }
//! ```
//!
//! Configured, below a balancer, and read:
//!
//! ```
//! use std::sync::Arc;
//! use evenkeel::core::{BoxError, endpoint::Endpoint, limit::Vegas, node::Node};
//! use evenkeel::{balance::BalanceLayer, concurrency::ConcurrencyLimitLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let limit = ConcurrencyLimitLayer::adaptive(|| Vegas::new().bounds(32, 4, 256));
//! let limits = limit.limits();
//!
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
//! let client = ServiceBuilder::new()
//!     .layer(BalanceLayer::p2c(endpoints))
//!     .layer(limit)
//!     .service(|_: &Arc<Node>| service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
//!
//! assert_eq!(client.clone().oneshot(1).await?, 2);
//! let limits: Vec<_> = limits.list().iter().map(|limit| (limit.limit(), limit.in_flight())).collect();
//! assert_eq!(limits, [(32, 0), (32, 0)]);
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//! A handful of atomic operations. No allocation and no lock, with three exceptions: a call that
//! has to wait, a call that ends while others wait, and an endpoint's limit that fills or empties,
//! which the balancer has to be told. A limit that learns reads the clock three times for a call
//! that has to wait for its answer. Once in some hundred calls, one thread computes the new limit,
//! and no other thread waits for it.
//!
//! Below a balancer, all callers that find every endpoint full are woken together when one has
//! room. If more than some hundred may have to wait, put another limit above the balancer.
//!
//! # The tower contract
//! Alone, `poll_ready` is that of the inner service, and `call` may refuse. A call that waits takes
//! along the inner service that was made ready for it; the inner service must be `Clone` for that.

mod future;
mod layer;
mod monitor;
mod queue;
mod service;

pub use self::{
    future::ConcurrencyLimitFuture,
    layer::ConcurrencyLimitLayer,
    monitor::{LimitHandle, Limits},
    service::ConcurrencyLimit,
};

/// What load shedding is built on.
pub(crate) mod inside {
    pub(crate) use super::{
        future::begin,
        service::{Shared, shedding},
    };
}
