//! The load that a server reports when it is probed.

use std::time::Duration;

/// How loaded a server is, as it reports: requests in flight, and how long they take.
///
/// Anything a server sends becomes a load. An invalid number of requests counts as one that does
/// not attract traffic.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::load::ServerLoad;
///
/// let load = ServerLoad::new(7.0, Duration::from_millis(12));
/// assert_eq!((load.in_flight(), load.latency().as_millis()), (7.0, 12));
/// assert_eq!(ServerLoad::new(-1.0, Duration::ZERO).in_flight(), 0.0);
/// assert_eq!(ServerLoad::new(f64::NAN, Duration::ZERO).in_flight(), ServerLoad::MAX_IN_FLIGHT);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerLoad {
    in_flight: f32,
    latency: Duration,
}

impl ServerLoad {
    /// More requests in flight than this count as this many.
    pub const MAX_IN_FLIGHT: f32 = 1e9;

    /// A server with `in_flight` requests in flight, where requests take `latency` at that load.
    ///
    /// Fractions are allowed: a server that would prefer to get a request may report a tenth of
    /// what it has (Prequal, section 4, synchronous mode). Below zero counts as zero, NaN as the
    /// maximum. A server that has not answered a request yet reports a latency of zero.
    #[must_use]
    pub fn new(in_flight: f64, latency: Duration) -> Self {
        let in_flight = if in_flight.is_nan() { f64::INFINITY } else { in_flight };
        Self { in_flight: in_flight.clamp(0.0, Self::MAX_IN_FLIGHT.into()) as f32, latency }
    }

    /// Requests that it has received and not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> f32 {
        self.in_flight
    }

    /// How long requests take with that many in flight. Zero if the server does not know.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.latency
    }
}
