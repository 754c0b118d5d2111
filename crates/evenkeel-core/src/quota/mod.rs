//! Quotas: what a caller may spend, whoever keeps count of it.
//!
//! A [`Rate`] says how much, a [`Spender`] whose quota a request spends, a [`QuotaState`] what is left
//! of it, which a [`Disclose`] tells the caller. The limiters are elsewhere: in a layer for one
//! process, on a server for all of them. [`Pace`] is what somebody else's limiter asks of us, and
//! [`Allowance`] what one process may spend of a quota that many share.

mod allowance;
mod bucket;
mod pace;
mod rate;
mod spender;

pub use allowance::{Allowance, Draw, Plan};
pub use bucket::{Bucket, Grant};
pub use pace::Pace;
pub use rate::{Disclose, QuotaState, Rate, Silent};
pub use spender::{Everyone, Spender};
