//! Active health checks: asks every endpoint regularly whether it is well, and leaves out those
//! that fail.
//!
//! It stands below the balancer, around a `Connect`. A background task probes each endpoint at an
//! interval, and all of them at a steady pace. An endpoint that fails some probes in a row is
//! closed in every clone, and opened again when some have passed. After a first contrary result the
//! next probes follow soon. What was found is kept for an endpoint that is gone for a while, and
//! for a balancer made again from the same layer.
//!
//! **Use it** where endpoints can be known to be unfit before a request suffers: services with a
//! health endpoint or gRPC's health service, sets with little traffic, servers that report that
//! they drain. **Not** in place of [outlier ejection](crate::outlier), which sees what requests
//! see, is faster, and costs no connection. Used together, each finds what the other misses. Use
//! only one in a stack, since two would set the same gate; ask two questions in one probe. **Not**
//! with thousands of client processes against few endpoints, which would then spend their time on
//! probes; let a registry probe for all of them.
//!
//! If all endpoints fail their checks, all are closed by
//! [`Gate::Unhealthy`](evenkeel_core::node::Gate::Unhealthy). The balancer decides what happens
//! then.
//!
//! [`core::health::check`](evenkeel_core::health::check) describes the rules and where the defaults
//! come from. A probe is any async closure that takes a node. evenkeel-http has probes for HTTP,
//! gRPC, TLS and TCP. Opening and closing are logged as `tracing` events with the reason.
//!
//! ```
//! use std::{sync::{Arc, atomic::{AtomicBool, Ordering}}, time::Duration};
//! use evenkeel::core::{endpoint::Endpoint, node::Node};
//! use evenkeel::{active_health::ActiveHealthLayer, balance::BalanceLayer};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # let served_by = |node: &Arc<Node>| {
//! #     let address = node.address().to_string();
//! #     service_fn(move |_: ()| {
//! #         let address = address.clone();
//! #         async move { Ok::<_, BoxError>(address) }
//! #     })
//! # };
//! let is_down = Arc::new(AtomicBool::new(false));
//! let seen = is_down.clone();
//! let probe = move |node: Arc<Node>| {
//!     let is_down = seen.load(Ordering::SeqCst) && node.address().port() == Some(1);
//!     async move { if is_down { Err("it does not answer") } else { Ok(()) } }
//! };
//!
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?];
//! let mut client = ServiceBuilder::new()
//!     .layer(BalanceLayer::round_robin(endpoints))
//!     .layer(ActiveHealthLayer::new(probe))
//!     .service(served_by);
//! client.ready().await?.call(()).await?;
//!
//! is_down.store(true, Ordering::SeqCst);
//! tokio::time::sleep(Duration::from_secs(4)).await;
//!
//! for _ in 0..10 {
//!     assert_eq!(client.ready().await?.call(()).await?, "10.0.0.2:2");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Configured so that an endpoint gets no request before its first probe has passed, and read:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use evenkeel::core::{endpoint::Endpoint, health::check::Standing, node::Node};
//! use evenkeel::{active_health::ActiveHealthLayer, balance::BalanceLayer};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let health = ActiveHealthLayer::new(|_: Arc<Node>| async { Ok::<_, BoxError>(()) })
//!     .interval(Duration::from_secs(5))
//!     .interval_edge(Duration::from_millis(200))
//!     .timeout(Duration::from_millis(500))
//!     .fall(2)
//!     .rise(2)
//!     .closed_at_first(true);
//! let results = health.results();
//!
//! let endpoint: Endpoint = "10.0.0.1:80".parse()?;
//! let client = ServiceBuilder::new()
//!     .layer(BalanceLayer::p2c(vec![endpoint.clone()]))
//!     .layer(health)
//!     .service(|_: &Arc<Node>| service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
//!
//! assert_eq!(client.oneshot(1).await?, 2);
//! assert_eq!(results.of(&endpoint.address), Standing::Up);
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//! Nothing for a request, except with [`interval_idle`](ActiveHealthLayer::interval_idle), which
//! has to notice requests: an observer of the node, one atomic load at the end of each attempt. One
//! task for all endpoints of a layer, and one for each probe that is under way. A few hundred bytes
//! for each endpoint, and for a bounded number of those that have left
//! ([`max_remembered`](evenkeel_core::health::check::CheckRules::max_remembered)).

mod follow;
mod layer;
mod task;
mod watch;

pub use self::layer::{ActiveHealthConnect, ActiveHealthLayer, Results};
