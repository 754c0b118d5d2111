//! A balancer: chooses an endpoint for each request.
//!
//! It is `Clone + Send + Sync` and needs no `Buffer`; clones share the endpoints and all that is
//! known of them. The choice is made in `call`, when the request is known. One task in the background,
//! started at the first `poll_ready` and ended with the last clone, follows discovery. It runs on the runtime
//! that it was started on. Where that has ended, or is a current-thread runtime that rests, it begins
//! again on the next caller's, with the endpoints as discovery names them then.
//!
//! **Use it** wherever one logical service has more than one endpoint. **Not** for a single address
//! behind somebody else's balancer: there it only adds a step.
//!
//! What is below it is a [`Connect`](evenkeel_core::connect::Connect): a closure, or `HttpConnector`
//! of evenkeel-http. Services must be `Clone + Send + Sync`; a boxed one is a `BoxCloneSyncService`.
//!
//! * `poll_ready` is ready while one endpoint is open. Otherwise it waits, three seconds by default, and
//!   then gives [`NoEndpoints`](evenkeel_core::error::NoEndpoints) or
//!   [`AllEndpointsClosed`](evenkeel_core::error::AllEndpointsClosed). It may be polled again after that:
//!   the balancer recovers when endpoints come.
//! * Where endpoints are open and the policy picks none of them, the call fails at once with
//!   [`NoEndpointPicked`](evenkeel_core::error::NoEndpointPicked).
//! * While no endpoint is open, those are used that only their health closes: an ejection, an open
//!   breaker, a failing health check. Callers then get what the endpoint says, not a refusal. See
//!   [`fail_open`](BalanceLayer::fail_open).
//! * A service that turns out not to be ready is passed over for another one, up to eight, and the
//!   first of them to become ready gets the request. One that failed is made anew.
//! * An endpoint that discovery no longer names gets nothing new from that moment on, in every clone;
//!   its service is dropped as soon as its requests have ended.
//!
//! ```
//! use std::{convert::Infallible, sync::Arc, time::Duration};
//! use evenkeel_core::{endpoint::Endpoint, error::{NoEndpoints, cause}, node::Node};
//! use evenkeel_layers::balance::BalanceLayer;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let nobody: Vec<Endpoint> = Vec::new();
//! let client = BalanceLayer::p2c(nobody)
//!     .wait_max(Duration::from_millis(20))
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
mod repair;
mod select;
mod service;
mod shared;
mod tend;

pub use self::{future::BalanceFuture, layer::BalanceLayer, service::Balance};
