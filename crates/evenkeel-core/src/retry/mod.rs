//! What may be tried again, how often, and what it may cost.
//!
//! A [`Budget`] bounds the retries and hedges of a client. A [`Schedule`] says whether another attempt
//! is made, and when. [`Replay`] and [`Rules`] are what a protocol says of its requests and responses;
//! [`AnyRules`] says it of traffic of which nothing is known.

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
