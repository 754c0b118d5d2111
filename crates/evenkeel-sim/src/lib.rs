//! A deterministic simulator of fleets that runs evenkeel's own policies and health machines.
//!
//! It has virtual time and one seed, and neither sockets nor a runtime. Clients use core's
//! [`Node`](evenkeel_core::node::Node), policies, attempts, outlier detection, breakers, budgets
//! and schedules, exactly as they ship. They call servers that share cores, queue, slow down, flap,
//! fail and die. The same scenario with the same seed gives the same report, byte for byte.
//!
//! ```
//! use evenkeel_sim::{policies, scenario::Scenario, simulate};
//!
//! let scenario = Scenario::parse(
//!     "example.toml",
//!     r#"
//!         name = "two speeds"
//!         [load]
//!         utilization = 0.7
//!         calls = 20_000
//!         [work]
//!         mean = "10ms"
//!         [[servers]]
//!         count = 5
//!         [[servers]]
//!         count = 5
//!         pace = 0.5
//!     "#,
//! )?;
//! let run = |name: &'static str| {
//!     let maker = move |seen: &_| policies::by_name(name, seen).expect("it ships");
//!     simulate(&scenario, name, &maker, &mut |_| {})
//! };
//!
//! assert!(run("p2c").phase().p99 < run("round_robin").phase().p99);
//! # Ok::<(), evenkeel_sim::scenario::ScenarioError>(())
//! ```
//!
//! # What it does not do
//! It does not know bytes or protocols: a call is an amount of work. Connecting takes no time.
//! Cancelled work stops at once. A request that a client drops because it took too long counts for
//! its endpoint as it does [in the layers](evenkeel_core::cut).

pub mod chart;
mod client;
pub mod dice;
mod health;
pub mod machine;
pub mod policies;
pub mod queue;
mod remembered;
pub mod report;
pub mod rules;
pub mod run;
pub mod scenario;
pub mod slab;
pub mod studies;
mod tally;
pub mod time;
pub mod work;
mod world;

pub use world::simulate;
