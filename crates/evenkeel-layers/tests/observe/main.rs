//! What the layers tell recorders of metrics and subscribers of traces.

// clippy knows test functions, but not the functions that they share; the clock is the paused one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[cfg(feature = "metrics")]
mod metrics;
#[allow(dead_code, reason = "shared with the tests of the balancer, which need more of it")]
#[path = "../balance/probe.rs"]
mod probe;
mod traces;
