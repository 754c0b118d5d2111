//! Taking a service out of its registry before its server stops.

use std::{pin::Pin, time::Duration};

use crate::BoxError;

/// A service's own entry in a registry, which can be taken out.
///
/// The code that enters a service implements it, and the code that stops a server takes it: neither
/// needs to know the other. The order is: deregister, serve on for
/// [`propagation`](Self::propagation), then stop accepting requests.
///
/// ```
/// use std::{future::{Future, ready}, pin::Pin, time::Duration};
/// use evenkeel::core::{BoxError, deregister::Deregister};
///
/// struct InDns;
///
/// impl Deregister for InDns {
///     fn deregister(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
///         Box::pin(ready(Ok(()))) // Here the record would be removed.
///     }
///
///     fn propagation(&self) -> Duration {
///         Duration::from_secs(30) // The record's time to live.
///     }
/// }
/// ```
pub trait Deregister: Send + 'static {
    /// Takes the entry out. It does not wait until callers have seen that.
    fn deregister(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    /// How long callers take to see that the entry is gone.
    fn propagation(&self) -> Duration;
}
