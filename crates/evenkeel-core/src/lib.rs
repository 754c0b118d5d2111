//! Contracts and mathematics of evenkeel, for authors of a policy, a discovery or a layer.
//!
//! An [`Endpoint`](endpoint::Endpoint) is what a [`Discovery`](discover::Discovery) names. While it
//! is in use it is a [`Node`](node::Node): its requests in flight, its latency estimate, its gates.
//! A [`Policy`](policy::Policy) builds a [`Picker`](policy::Picker) over the nodes, which chooses
//! one for each request. A [`Connect`](connect::Connect) makes the service that speaks to a node, and
//! [`Traffic`](traffic::Traffic) tells what a balancer may read from the requests and responses.
//!
//! ```
//! use std::sync::Arc;
//! use evenkeel::core::{endpoint::Endpoint, node::Node, policy::{self, PickContext}, rng::Rng};
//!
//! let nodes: Vec<Arc<Node>> = ["10.0.0.1:80", "10.0.0.2:80"]
//!     .into_iter()
//!     .map(|address| Arc::new(Node::new(address.parse().unwrap())))
//!     .collect();
//!
//! let policy = policy::by_name("round_robin").expect("a built-in policy");
//! let picker = policy.build(&nodes, None);
//! let mut rng = Rng::with_seed(7);
//! let picks: Vec<_> =
//!     (0..4).map(|_| picker.pick(&nodes, &mut PickContext::new(&mut rng)).unwrap()).collect();
//! // Round robin takes each in turn. The first is random.
//! assert_ne!(picks[0], picks[1]);
//! assert_eq!(picks[..2], picks[2..]);
//! ```
//!
//! # What this crate does not do
//! It opens no socket, reads no clock, starts no task, logs nothing, and knows no HTTP. Time and
//! randomness are arguments, so a failure replays from its seed and a simulator runs the very code
//! that ships. The layers that drive it are in `evenkeel-layers`.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attempt;
pub mod backoff;
pub mod connect;
pub mod cut;
pub mod deadline;
pub mod deregister;
pub mod discover;
pub mod endpoint;
pub mod error;
pub mod hash;
pub mod health;
pub mod limit;
pub mod load;
pub mod mirror;
pub mod node;
pub mod number;
pub mod observe;
pub mod outcome;
pub mod policy;
pub mod probe;
pub mod quota;
pub mod retry;
pub mod rng;
pub mod snapshot;
pub mod subset;
pub mod time;
pub mod traffic;
pub mod why;

mod gate;
mod ring;
mod sync;
mod warming;

/// A boxed error that can cross threads, the same type as tower's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
