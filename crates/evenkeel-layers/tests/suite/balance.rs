//! What a balancer promises, behaviour by behaviour, on a paused clock.

mod active_health;
mod ask_first;
mod breaker;
mod contract;
mod discovery;
mod hashing;
mod hints;
mod in_flight;
mod lifecycle;
mod limit;
mod outlier;
mod prequal;
mod probe;
mod properties;
mod rate_limit;
mod readiness;
mod removal;
mod sinkhole;
mod stress;
mod tiers;
