//! Core's health machines at the nodes of one client, told the virtual time.
//!
//! What evenkeel-layers does with tasks and tokio's clock is done here with events: the machines are
//! core's, and so are the rules and their defaults.

mod breaker;
mod outlier;

pub(crate) use self::{breaker::Breakers, outlier::Watch};
