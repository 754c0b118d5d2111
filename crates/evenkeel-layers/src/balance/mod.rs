//! A balancer: chooses an endpoint for each request.
//!
//! It is `Clone + Send + Sync` and needs no `Buffer`. Clones share the endpoints and all that is
//! known of them. The choice is made in `call`, when the request is known. One background task
//! follows discovery. It starts at the first `poll_ready` and ends with the last clone. It runs on
//! the runtime on which it was started. If that runtime has ended, or is a current-thread runtime
//! that rests, the task starts again on the next caller's runtime, with the endpoints that
//! discovery names then.
//!
//! **Use it** wherever one logical service has more than one endpoint. **Not** for a single address
//! that has a balancer of its own behind it: there it only adds a step.
//!
//! Below it is a [`Connect`](evenkeel_core::connect::Connect): a closure, or `HttpConnector` of
//! evenkeel-http. Services must be `Clone + Send + Sync`; a boxed one is a `BoxCloneSyncService`.
//!
//! * `poll_ready` is ready while at least one endpoint is open. Otherwise it waits, by default
//!   three seconds, and then fails with [`NoEndpoints`](evenkeel_core::error::NoEndpoints) or
//!   [`AllEndpointsClosed`](evenkeel_core::error::AllEndpointsClosed). It may be polled again after
//!   that: the balancer recovers when endpoints come.
//! * If endpoints are open and the policy picks none of them, the call fails at once with
//!   [`NoEndpointPicked`](evenkeel_core::error::NoEndpointPicked).
//! * While no endpoint is open, those closed only by their health are used: by an ejection, an open
//!   breaker or a failing health check. Callers then get the endpoint's answer, not a refusal. See
//!   [`fail_open`](BalanceLayer::fail_open).
//! * If the chosen service turns out not to be ready, others are asked, up to eight, and the first
//!   to become ready gets the request. A service that failed is replaced.
//! * An endpoint that discovery no longer names gets no new requests from that moment on, in every
//!   clone. Its service is dropped as soon as its requests have ended.
//!
//! ```
//! use std::{convert::Infallible, sync::Arc, time::Duration};
//! use evenkeel::core::{endpoint::Endpoint, error::{NoEndpoints, cause}, node::Node};
//! use evenkeel::balance::BalanceLayer;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let no_endpoints: Vec<Endpoint> = Vec::new();
//! let client = BalanceLayer::p2c(no_endpoints)
//!     .max_wait(Duration::from_millis(20))
//!     .layer(|_: &Arc<Node>| service_fn(|n: u32| async move { Ok::<_, Infallible>(n) }));
//!
//! let error = client.oneshot(1).await.unwrap_err();
//! assert!(cause::<NoEndpoints>(error.as_ref()).is_some());
//! # }
//! ```

mod ask_first;
mod future;
mod home;
mod layer;
mod pool;
mod probes;
mod probing;
mod repair;
mod running;
mod select;
mod service;
mod settings;
mod shared;
mod tend;

pub use self::{future::BalanceFuture, layer::BalanceLayer, service::Balance};
