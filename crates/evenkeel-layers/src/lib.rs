//! Tower layers that make a load-balancing pipeline, a module for each.
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//! use evenkeel::core::{endpoint::Endpoint, node::Node};
//! use evenkeel::balance::BalanceLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
//!
//! // Below the balancer is what speaks to one endpoint. Here it is a closure.
//! let mut client = ServiceBuilder::new().layer(BalanceLayer::round_robin(endpoints)).service(
//!     |node: &Arc<Node>| {
//!         let address = node.address().to_string();
//!         service_fn(move |request: &'static str| {
//!             let response = format!("{request} from {address}");
//!             async move { Ok::<_, Infallible>(response) }
//!         })
//!     },
//! );
//!
//! use tower::Service;
//! let one = client.ready().await?.call("hello").await?;
//! let other = client.ready().await?.call("hello").await?;
//! assert!(one.starts_with("hello from 10.0.0."));
//! assert_ne!(one, other, "each in turn");
//! # Ok(())
//! # }
//! ```
//!
//! # What this crate does not do
//! It knows no HTTP (`evenkeel-http` does) and no registry (`evenkeel-discovery` does).

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod active_health;
pub mod admission;
pub mod balance;
pub mod breaker;
pub mod concurrency;
pub mod deadline;
pub mod fail_fast;
pub mod hedge;
pub mod mirror;
pub mod observe;
pub mod outlier;
pub mod per_endpoint;
pub mod rate_limit;
pub mod retry;

mod alone;
mod attempt_end;
mod background;
mod observers;
mod weak_list;

use evenkeel_clock as clock;
