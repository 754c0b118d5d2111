//! Quotas: what a caller may spend, wherever it is counted.
//!
//! A [`Rate`] says how much may be spent. A [`Spender`] finds the quota that a request spends. A
//! [`QuotaState`] says what is left, and a [`Disclose`] tells that to the caller. The limiters are
//! elsewhere: in a layer for one process, on a server for all of them. [`Pace`] follows the limiter
//! of a server that this process calls. [`Allowance`] is what one process may spend of a quota that
//! many share.

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
