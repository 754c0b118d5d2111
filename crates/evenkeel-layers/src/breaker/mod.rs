//! A circuit breaker: stops sending calls to what keeps failing, and tries again later.
//!
//! One layer, two places:
//!
//! * **Alone**, around a `Service`: calls that it does not let through fail with
//!   [`CircuitOpen`](evenkeel_core::error::CircuitOpen), which says when to try again.
//! * **Below a balancer**, around a `Connect`: one breaker for each endpoint. While it is open, the
//!   node's gate [`Breaker`](evenkeel_core::node::Gate::Breaker) is closed in every clone, and
//!   other endpoints are chosen; no call is refused because of it. A timer opens the gate for a
//!   trial without waiting for a request. Only the permitted number of requests goes there until
//!   the trial has succeeded.
//!
//! **Use it** alone in front of a dependency that is better left in peace while it is down, and
//! below a balancer where an endpoint that fails should be left at once, whatever the others do.
//! **Not** as the only protection of a set whose endpoints may all fail together. Breakers know
//! nothing of each other, so all of them can be open at the same time, and then the balancer waits
//! and refuses. Outlier detection compares the endpoints and leaves some of them open.
//!
//! The traffic says what counts as a failure. Below a balancer it is the traffic of its `Connect`,
//! alone that of [`traffic`](CircuitBreakerLayer::traffic), by default every error.
//! [`core::health::breaker`](evenkeel_core::health::breaker) describes what each outcome does. If a
//! call is cut off by a [deadline](crate::deadline), or by the attempt timeout of a retry above,
//! after half of that time or more, it has failed without an answer. A call that its caller drops
//! says nothing. [`core::cut`](evenkeel_core::cut) describes what counts when, and why. A trial
//! call is judged by the head of its response, and fails if none arrives in time.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::core::error::{CircuitOpen, cause};
//! use evenkeel::breaker::CircuitBreakerLayer;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let down = service_fn(|_: u32| async { Err::<u32, _>(std::io::Error::other("down")) });
//! let mut service = CircuitBreakerLayer::new().consecutive_failures(2).layer(down);
//!
//! for _ in 0..2 {
//!     let error = service.ready().await.unwrap().call(1).await.unwrap_err();
//!     assert_eq!(error.to_string(), "down");
//! }
//! let refused = service.ready().await.unwrap().call(1).await.unwrap_err();
//! let refused = cause::<CircuitOpen>(refused.as_ref()).expect("open by now");
//! assert!(refused.retry_after.unwrap() <= Duration::from_secs(1));
//! # }
//! ```
//!
//! Configured, below a balancer, and watched:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use evenkeel::core::{endpoint::Endpoint, health::{Window, breaker::State}, node::Node};
//! use evenkeel::{balance::BalanceLayer, breaker::CircuitBreakerLayer};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let breaker = CircuitBreakerLayer::new()
//!     .failure_rate(0.3)
//!     .slow_calls(Duration::from_secs(2), 0.8)
//!     .window(Window::Time(Duration::from_secs(10)))
//!     .min_calls(20)
//!     .trial_calls(3)
//!     .open_time(Duration::from_millis(500), Duration::from_secs(30));
//! let breakers = breaker.breakers();
//!
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
//! let client = ServiceBuilder::new()
//!     .layer(BalanceLayer::p2c(endpoints))
//!     .layer(breaker)
//!     .service(|_: &Arc<Node>| service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
//!
//! assert_eq!(client.clone().oneshot(1).await?, 2);
//! assert!(breakers.list().iter().all(|breaker| breaker.state() == State::Closed));
//!
//! // An operator takes one endpoint out by hand.
//! let first = &breakers.list()[0];
//! first.hold_open();
//! assert_eq!(first.state(), State::HeldOpen);
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//! Below a balancer: no service of its own, and a few atomic operations at the end of a call.
//! Alone: those of an attempt as well. No allocation, except for trial calls. The clock is read for
//! a call that has to wait, and otherwise only where the rules need it: for slow calls, for a
//! window of time, and when a breaker opens.
//!
//! # The tower contract
//! Alone, `poll_ready` reserves nothing and never fails by itself. While the breaker refuses, it is
//! ready without asking the inner service, so that nothing inside is held for a call that will not
//! come, and `call` refuses. If the breaker was refusing at `poll_ready` and would let the call
//! through a moment later, the call is refused too: the inner service was not asked. An error of
//! the inner service's `poll_ready` is passed on and not counted.

mod layer;
mod monitor;
mod service;

pub use self::{
    layer::CircuitBreakerLayer,
    monitor::{BreakerHandle, Breakers},
    service::{CircuitBreaker, CircuitBreakerFuture},
};
