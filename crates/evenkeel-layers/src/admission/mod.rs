//! Which requests are let in under overload: on the client's side and on the server's.
//!
//! * [`ThrottleLayer`], on a client: refuses a share of its own calls when the other side refuses
//!   many (the SRE book's adaptive throttling). For an overloaded server, refusing a call costs
//!   nearly as much as answering it. A call refused here costs it nothing.
//! * [`LoadShedLayer`], on a server: a limit with a short queue in front. When the queue does not
//!   drain, a rule says which requests are refused, the least important first.
//!
//! **Use** the throttle above the balancer of a client whose service refuses when it is overloaded,
//! and load shedding at the top of a server's stack. **Not** the throttle where one bad endpoint
//! out of many fails: that is for breakers and ejection. **Not** load shedding, with a limit of
//! thousands, in front of a service that mostly waits for others: nothing ever queues there.
//!
//! ```
//! use evenkeel::core::{BoxError, error::{RequestThrottled, cause}};
//! use evenkeel::admission::ThrottleLayer;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let overloaded = service_fn(|_: u32| async { Err::<u32, BoxError>("overloaded".into()) });
//! let mut client = ThrottleLayer::new().seed(1).layer(overloaded);
//!
//! let mut throttled = 0;
//! for _ in 0..100 {
//!     let error = client.ready().await?.call(1).await.unwrap_err();
//!     throttled += u32::from(cause::<RequestThrottled>(error.as_ref()).is_some());
//! }
//! assert!(80 < throttled, "{throttled} of 100 were not sent");
//! # Ok(())
//! # }
//! ```
//!
//! Load shedding, configured:
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::core::{BoxError, limit::Priority};
//! use evenkeel::admission::LoadShedLayer;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let shed = LoadShedLayer::fixed(64)
//!     .max_queue(500)
//!     .target(Duration::from_millis(2))
//!     .interval(Duration::from_millis(50))
//!     .priority(|request: &&str| match *request {
//!         "report" => Priority::SHEDDABLE,
//!         _ => Priority::CRITICAL,
//!     });
//! let server = shed.layer(service_fn(|n: &'static str| async move { Ok::<_, BoxError>(n) }));
//!
//! assert_eq!(server.oneshot("report").await?, "report");
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//! Both: a handful of atomic operations. While nothing is refused, there is no allocation, no clock
//! and no random number, except that the throttle reads the clock while calls are few, and once in
//! eight calls where they are many. A request that has to queue allocates its place.

mod load_shed;
mod throttle;

pub use self::{
    load_shed::{LoadShed, LoadShedLayer},
    throttle::{Throttle, ThrottleFuture, ThrottleLayer},
};
