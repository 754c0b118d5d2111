//! Refusals: each its own struct, with what the caller can act on.

use std::{error::Error, io, sync::Arc, time::Duration};

use crate::{BoxError, quota::Rate};

/// No endpoint was known within the time that a request may wait for one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NoEndpoints {
    /// How long the request waited.
    pub waited: Duration,
    /// The last error that discovery gave, if any: the source of this one.
    pub discovery: Option<SharedError>,
}

impl NoEndpoints {
    /// The refusal after `waited`, with the last error of discovery.
    #[must_use]
    pub fn new(waited: Duration, discovery: Option<SharedError>) -> Self {
        Self { waited, discovery }
    }
}

impl std::fmt::Display for NoEndpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no endpoints after waiting {:?}", self.waited)
    }
}

impl Error for NoEndpoints {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.discovery.as_ref().map(SharedError::inner)
    }
}

/// Endpoints are known, but none was open within the time that a request may wait for one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("all {endpoints} endpoints closed after waiting {waited:?}")]
#[non_exhaustive]
pub struct AllEndpointsClosed {
    /// How many endpoints are known.
    pub endpoints: usize,
    /// How long the request waited.
    pub waited: Duration,
}

impl AllEndpointsClosed {
    /// The refusal with `endpoints` known, after `waited`.
    #[must_use]
    pub fn new(endpoints: usize, waited: Duration) -> Self {
        Self { endpoints, waited }
    }
}

/// Every open endpoint is excluded by the request itself.
#[derive(Clone, Copy, Debug, Default, thiserror::Error)]
#[error("all open endpoints are excluded by the request")]
#[non_exhaustive]
pub struct AllEndpointsExcluded;

/// Endpoints are open, but the policy picked none of them.
///
/// Correct the policy, or ask less of it. The balancer does not wait, since no endpoint has to open
/// first.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("policy {policy} picked none of {open} open endpoints")]
#[non_exhaustive]
pub struct NoEndpointPicked {
    /// The name of the policy.
    pub policy: &'static str,
    /// How many endpoints are open.
    pub open: usize,
}

impl NoEndpointPicked {
    /// The refusal where `policy` picked none of `open` endpoints.
    #[must_use]
    pub fn new(policy: &'static str, open: usize) -> Self {
        Self { policy, open }
    }
}

/// A circuit breaker is open: the request was not sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CircuitOpen {
    /// When it is worth trying again, at the earliest. `None` if that is unknown: the breaker is
    /// held open by hand, or as many trial calls as it permits are under way.
    pub retry_after: Option<Duration>,
}

impl CircuitOpen {
    /// The refusal of a breaker that can be tried again after `retry_after`.
    #[must_use]
    pub fn new(retry_after: Option<Duration>) -> Self {
        Self { retry_after }
    }
}

impl std::fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.retry_after {
            Some(after) => write!(f, "circuit breaker open for another {after:?}"),
            None => f.write_str("circuit breaker open"),
        }
    }
}

impl Error for CircuitOpen {}

/// A rate limit or a quota is used up: the request was not sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("rate limited for another {retry_after:?}")]
#[non_exhaustive]
pub struct RateLimited {
    /// When it is worth trying again, at the earliest.
    pub retry_after: Duration,
    /// How much may be spent.
    pub rate: Rate,
}

impl RateLimited {
    /// The refusal of a limiter of this `rate` that can be tried again after `retry_after`.
    #[must_use]
    pub fn new(retry_after: Duration, rate: Rate) -> Self {
        Self { retry_after, rate }
    }
}

/// The limit of calls under way is reached: the request was not sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("limit of {limit} concurrent calls reached{}", after_waiting(*waited))]
#[non_exhaustive]
pub struct LimitReached {
    /// How many may be under way at the same time.
    pub limit: u32,
    /// How long the request waited for another to end; zero if it was refused at once.
    pub waited: Duration,
}

fn after_waiting(waited: Duration) -> String {
    if waited.is_zero() { String::new() } else { format!(" after waiting {waited:?}") }
}

impl LimitReached {
    /// The refusal at `limit`, after `waited`.
    #[must_use]
    pub fn new(limit: u32, waited: Duration) -> Self {
        Self { limit, waited }
    }
}

/// The request was not sent: this client refuses a share of them while the server refuses many.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("request throttled with probability {probability:.3}")]
#[non_exhaustive]
pub struct RequestThrottled {
    /// The share of requests that is refused at the moment.
    pub probability: f64,
}

impl RequestThrottled {
    /// A refusal that had this probability.
    #[must_use]
    pub fn new(probability: f64) -> Self {
        Self { probability }
    }
}

/// This server is overloaded: the request's service did not begin.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("overloaded: request of priority {priority} shed after waiting {waited:?}")]
#[non_exhaustive]
pub struct Overloaded {
    /// The priority of the request, 0 for what matters most.
    pub priority: u8,
    /// How long it waited; zero if it was refused on arrival.
    pub waited: Duration,
}

impl Overloaded {
    /// The refusal of a request of this priority after `waited`.
    #[must_use]
    pub fn new(priority: u8, waited: Duration) -> Self {
        Self { priority, waited }
    }
}

/// The service was not ready for too long; until it is, calls fail at once.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("service not ready for {unready:?}")]
#[non_exhaustive]
pub struct FailedFast {
    /// For how long it has not been ready.
    pub unready: Duration,
}

impl FailedFast {
    /// The refusal of a service that has not been ready for `unready`.
    #[must_use]
    pub fn new(unready: Duration) -> Self {
        Self { unready }
    }
}

/// The balancer was polled outside a tokio runtime, where it cannot follow its discovery.
#[derive(Clone, Copy, Debug, Default, thiserror::Error)]
#[error("a balancer must be polled inside a tokio runtime")]
#[non_exhaustive]
pub struct NoRuntime;

/// An attempt gave no answer in the time that it had. The endpoint may have processed it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("attempt timed out after {after:?}")]
#[non_exhaustive]
pub struct AttemptTimeout {
    /// How much time it had.
    pub after: Duration,
}

impl AttemptTimeout {
    /// The failure of an attempt that had `after`.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after }
    }
}

/// The call was not over when its caller gave up.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("deadline exceeded after {after:?}")]
#[non_exhaustive]
pub struct DeadlineExceeded {
    /// How much time the call had.
    pub after: Duration,
}

impl DeadlineExceeded {
    /// The end of a call that had `after`.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after }
    }
}

/// An error that can be given to several callers.
#[derive(Clone, Debug)]
pub struct SharedError(Arc<BoxError>);

impl SharedError {
    /// Shares `error`.
    #[must_use]
    pub fn new(error: BoxError) -> Self {
        Self(Arc::new(error))
    }

    /// The error that is shared. [`cause`] can search it.
    #[must_use]
    pub fn inner(&self) -> &(dyn Error + 'static) {
        &**self.0
    }
}

impl std::fmt::Display for SharedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// An error and its sources. A [`SharedError`] looks like the error that it shares, and is seen
/// through.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<SharedError>() {
        Some(shared) => Some(shared.inner()),
        None => error.source(),
    })
}

/// Finds the error of type `T` in `error` or in what caused it.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{BoxError, error::{NoEndpoints, cause}};
///
/// let error: BoxError = NoEndpoints::new(Duration::from_secs(3), None).into();
/// assert_eq!(cause::<NoEndpoints>(error.as_ref()).unwrap().waited, Duration::from_secs(3));
/// ```
#[must_use]
pub fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref::<T>())
}

/// Whether a layer of this process refused a request that was not sent: no endpoint is at fault.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::error::{LimitReached, is_refusal};
///
/// assert!(is_refusal(&LimitReached::new(64, Duration::ZERO)));
/// assert!(!is_refusal(&std::io::Error::other("down")));
/// ```
#[must_use]
pub fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| {
        error.is::<NoEndpoints>()
            || error.is::<AllEndpointsClosed>()
            || error.is::<AllEndpointsExcluded>()
            || error.is::<NoEndpointPicked>()
            || error.is::<CircuitOpen>()
            || error.is::<LimitReached>()
            || error.is::<RequestThrottled>()
            || error.is::<Overloaded>()
            || error.is::<FailedFast>()
            || error.is::<RateLimited>()
    })
}

/// Whether this process or its host lacked what connecting takes: no endpoint is at fault.
///
/// That is an [`io::Error`] for lack of file descriptors (`EMFILE`, `ENFILE`), of memory (`ENOMEM`,
/// `ENOBUFS`), of a port to connect from (`EADDRNOTAVAIL`), or of a network (`ENETDOWN`).
/// `ENETUNREACH` and `EHOSTUNREACH` do not count: an endpoint without a route cannot be used from
/// here, but others may be.
///
/// ```
/// use std::io;
/// use evenkeel::core::error::is_of_this_host;
///
/// assert!(is_of_this_host(&io::Error::from(io::ErrorKind::AddrNotAvailable)));
/// assert!(!is_of_this_host(&io::Error::from(io::ErrorKind::ConnectionRefused)));
/// ```
#[must_use]
pub fn is_of_this_host(error: &(dyn Error + 'static)) -> bool {
    chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).any(|error| {
        // An `io::Error` made of another hides that one from the chain of sources.
        let inner = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
        lacks_resources(error) || inner.is_some_and(is_of_this_host)
    })
}

fn lacks_resources(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, NetworkDown, OutOfMemory};

    // The errors that have no `ErrorKind`, by number: ENFILE, EMFILE, ENOBUFS.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const NUMBERS: &[i32] = &[23, 24, 105];
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    const NUMBERS: &[i32] = &[23, 24, 55];
    #[cfg(windows)]
    const NUMBERS: &[i32] = &[10_024, 10_055];
    #[cfg(not(any(unix, windows)))]
    const NUMBERS: &[i32] = &[];

    matches!(error.kind(), AddrNotAvailable | NetworkDown | OutOfMemory)
        || error.raw_os_error().is_some_and(|number| NUMBERS.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn errors_of_this_host_are_told_apart_from_errors_of_an_endpoint() {
        let of_this_host = |number| is_of_this_host(&io::Error::from_raw_os_error(number));
        // ENOMEM, ENFILE, EMFILE, EADDRNOTAVAIL, ENETDOWN, ENOBUFS.
        for number in [12, 23, 24, 99, 100, 105] {
            assert!(of_this_host(number), "{number}");
        }
        // EPIPE, ENETUNREACH, ECONNRESET, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH.
        for number in [32, 101, 104, 110, 111, 113] {
            assert!(!of_this_host(number), "{number}");
        }
        let wrapped = io::Error::other(io::Error::from_raw_os_error(24));
        assert!(is_of_this_host(&wrapped), "at any depth of the chain");
    }

    #[test]
    fn an_error_that_is_shared_is_found_like_any_other() {
        let shared = SharedError::new(LimitReached::new(64, Duration::ZERO).into());

        assert!(is_refusal(&shared));
        assert!(cause::<LimitReached>(&SharedError::new(shared.into())).is_some());
    }

    #[test]
    fn the_error_of_discovery_is_found_behind_a_refusal() {
        let broken = std::io::Error::other("resolver broken");

        let refusal = NoEndpoints::new(Duration::ZERO, Some(SharedError::new(broken.into())));

        assert_eq!(cause::<std::io::Error>(&refusal).unwrap().to_string(), "resolver broken");
        assert_eq!(refusal.source().unwrap().to_string(), "resolver broken");
        assert!(NoEndpoints::new(Duration::ZERO, None).source().is_none());
    }
}
