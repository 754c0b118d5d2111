//! Core's health machines at the nodes of one client, in virtual time.
//!
//! evenkeel-layers drives these machines with tasks and tokio's clock; this module drives them with
//! events. The machines, the rules and the defaults are core's.

mod breaker;
mod outlier;

pub(crate) use self::{breaker::Breakers, outlier::Watch};
