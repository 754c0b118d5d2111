//! A quota that all machines share, on Redis, as a tower layer.
//!
//! A [`RedisQuota`] is a token bucket on a Redis server. All processes that use the same name share
//! one bucket, on any number of machines. [`QuotaLayer`] puts it in front of a service. A request
//! fails with [`RateLimited`](evenkeel_core::error::RateLimited), which says when to try again, if
//! nothing is left of the quota.
//!
//! **Use it** where several machines share a quota that you promise to a caller, or that another
//! service grants to all of you. **Not** to protect one process from overload: a local rate limit
//! does that without a round trip. **Not** for billing: see below what is exact.
//!
//! ```no_run
//! use evenkeel::core::quota::Rate;
//! use evenkeel::redis::{QuotaLayer, RedisQuota};
//! use tower::{BoxError, Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let quota = RedisQuota::open("redis://10.0.0.1:6379", "api", Rate::per_minute(6_000))?;
//! let service = QuotaLayer::new(quota)
//!     .layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n) }));
//!
//! assert_eq!(service.oneshot(1).await?, 1);
//! # Ok(())
//! # }
//! ```
//!
//! Configured: for each tenant, batches of ten, and a tenth of the rate in each process while Redis
//! is away.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::core::quota::{Plan, Rate};
//! use evenkeel::redis::{Failing, QuotaLayer, RedisQuota};
//!
//! # fn main() -> Result<(), evenkeel::core::BoxError> {
//! let quota = RedisQuota::open("redis://10.0.0.1:6379", "tenants", Rate::per_second(100).burst(200))?
//!     .plan(Plan::fixed(10))
//!     .max_keys(50_000)
//!     .timeout(Duration::from_millis(20))
//!     .rest(Duration::from_secs(1))
//!     .failing(Failing::Local(Rate::per_second(10)));
//! let layer = QuotaLayer::new(quota.clone())
//!     .keyed(|request: &(String, u32)| Some(request.0.clone()));
//! assert!(quota.is_reachable());
//! # drop(layer);
//! # Ok(())
//! # }
//! ```
//!
//! # How it counts
//! The bucket is one number on the server: the time at which it will be full again. One script
//! takes from it atomically and by the server's clock, so the clocks of the machines do not matter.
//! It also sets the number to expire when the bucket is full. A server that has lost the script
//! gets it again with the same question. A server that has lost the number starts with a full
//! bucket.
//!
//! A process takes requests in batches and spends them locally: see
//! [`Allowance`](evenkeel_core::quota::Allowance). Every request that is spent was taken before, so
//! in total no more go through than the burst and what has been refilled. In some span of time it
//! may be more, by what each process held at its beginning: at most a batch each, or as many as
//! were waiting for the same answer. With [`Plan::fixed(1)`](evenkeel_core::quota::Plan::fixed) it
//! is exact, up to the time that a request takes from Redis to the service.
//!
//! # When Redis is away
//! No request waits longer than the [`timeout`](RedisQuota::timeout). After a failure no request
//! asks Redis for the length of the [`rest`](RedisQuota::rest). Then one does, and the others do
//! not wait for it. Meanwhile, requests that were already fetched are spent. After that, requests
//! go through, are refused, or are limited by each process alone: [`Failing`]. The connection is
//! made again automatically. When Redis goes away and when it comes back, there is a tracing event:
//! `warn` and `info`. Requests for which Redis could not be asked are counted.
//!
//! | what Redis answers | means | and so |
//! |---|---|---|
//! | READONLY, MASTERDOWN, NOREPLICAS | this server may not write any more, as after a failover | another connection is made at once, to where the name leads now, and asked; then as below |
//! | it closes the connection | it was restarted, or has closed what was idle | another connection is made at once, and asked; then as below |
//! | nothing in time | it hangs, or its host is gone | the next question makes another connection, after the rest |
//! | LOADING, BUSY, OOM, TRYAGAIN, CLUSTERDOWN, too many clients, and unknown errors | it will answer later | it is asked again after the rest |
//! | NOAUTH, WRONGPASS, NOPERM, DENIED, MISCONF, WRONGTYPE, MOVED, ASK, CROSSSLOT, other `ERR` | the server's configuration or the quota's is wrong | the same, and the event is an `error` |
//!
//! For failover, use a name, a virtual address or a proxy that leads to the primary.
//!
//! # What it costs
//! While the process has some left, a request takes two locks with little contention, each held for
//! a few instructions. Otherwise it costs one round trip and some allocations, shared by all
//! requests that wait for the same key. With batches, more is fetched before the last is spent, so
//! steady traffic does not wait.
//!
//! # What this crate does not do
//! It speaks to one server, or to a proxy that stands for one. It knows no cluster and no sentinel.
//! Each key is independent, so a proxy in front of a cluster will do. It needs Redis 5 or newer, or
//! Valkey.
//!
//! # Features
//! | feature | brings |
//! |---|---|
//! | `tls` | `rediss://` and `RedisQuota::tls`, by rustls, with the crypto provider that the program chooses |
//! | `metrics` | metrics, for the recorder of the `metrics` facade that the program installs |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod layer;
mod line;
mod quota;
mod reach;
mod refusal;
mod server;
mod slots;

use evenkeel_clock as clock;

pub use layer::{Quota, QuotaFuture, QuotaLayer};
pub use quota::{Failing, RedisQuota};
