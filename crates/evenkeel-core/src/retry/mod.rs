//! What may be tried again, how often, and at what cost.
//!
//! A [`Budget`] bounds the retries and hedges of a client. A [`Schedule`] says whether and when
//! another attempt is made. A protocol describes its requests and responses with [`Replay`] and
//! [`Rules`]; [`AnyRules`] serves traffic of an unknown protocol.

mod budget;
mod rules;
mod schedule;
mod share;
mod throttle;

pub use self::{
    budget::Budget,
    rules::{AnyRules, Next, Reach, Replay, Ruled, Rules, Verdict, judge_error},
    schedule::{Progress, Schedule, Stop},
};
