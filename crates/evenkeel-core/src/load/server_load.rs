//! What a server says of its load when it is probed.

use std::time::Duration;

/// How loaded a server is, as it says itself: requests in flight, and how long they take.
///
/// Whatever a server sends becomes a load: what is no number of requests counts as none that could
/// draw traffic.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_core::load::ServerLoad;
///
/// let load = ServerLoad::new(7.0, Duration::from_millis(12));
/// assert_eq!((load.in_flight(), load.latency().as_millis()), (7.0, 12));
/// assert_eq!(ServerLoad::new(-1.0, Duration::ZERO).in_flight(), 0.0);
/// assert_eq!(ServerLoad::new(f64::NAN, Duration::ZERO).in_flight(), ServerLoad::IN_FLIGHT_MAX);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerLoad {
    in_flight: f32,
    latency: Duration,
}

impl ServerLoad {
    /// More requests in flight than this count as this many.
    pub const IN_FLIGHT_MAX: f32 = 1e9;

    /// A server with so many requests in flight, whose requests take `latency` at such a load.
    ///
    /// A fraction is allowed: a server that would rather have a request may say a tenth of what it has
    /// (Prequal, section 4, synchronous mode). Below zero counts as zero, no number as the maximum. A
    /// server that has answered nothing yet says a latency of zero.
    #[must_use]
    pub fn new(in_flight: f64, latency: Duration) -> Self {
        let in_flight = if in_flight.is_nan() { f64::INFINITY } else { in_flight };
        Self { in_flight: in_flight.clamp(0.0, Self::IN_FLIGHT_MAX.into()) as f32, latency }
    }

    /// Requests that it has and has not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> f32 {
        self.in_flight
    }

    /// How long requests take there while so many are in flight; zero where it does not know.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.latency
    }
}
