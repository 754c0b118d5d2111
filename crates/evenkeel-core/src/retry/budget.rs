//! What the retries and hedges of a client may spend.

use std::{sync::Arc, time::Duration};

use super::{share::Share, throttle::Throttle};
use crate::time::Timestamp;

/// What all clones of a client may spend together on retries and hedges.
///
/// Without a budget, a service that fails under load gets that load times the number of attempts.
///
/// * [`share`](Self::share), Finagle's: retries are a share of the calls of the last seconds, plus
///   a fixed number, so that low traffic can also retry.
/// * [`throttle`](Self::throttle), gRPC's: no retries while more than a number of calls in a row,
///   or a share of them, fail.
///
/// A budget is given the time, counts exactly under any number of threads, never spends what it
/// does not have, and takes no lock. Its size is fixed.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{retry::Budget, time::Timestamp};
///
/// let budget = Budget::share(20.0).floor_per_second(0);
/// let now = Timestamp::default();
/// for _ in 0..10 {
///     budget.deposit(now);
/// }
///
/// assert!(budget.withdraw(now));
/// assert!(budget.withdraw(now));
/// assert!(!budget.withdraw(now)); // a fifth of ten
/// assert!(!budget.withdraw(now + Duration::from_secs(10)));
/// ```
#[derive(Clone, Debug)]
pub struct Budget(Arc<Kind>);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for a client, behind an Arc")]
enum Kind {
    Share(Share),
    Throttle(Throttle),
}

impl Budget {
    /// Retries as a share of calls, in percent, over the last ten seconds, plus ten a second.
    ///
    /// The share is exact down to a tenth of a thousandth: 0.1 is one retry for a thousand calls,
    /// 40 is two for five, 1,000 is ten for each. Zero leaves only the floor. Above some 30
    /// percent, an overloaded service may stay overloaded by its retries alone.
    ///
    /// # Panics
    /// If `percent` is not 0 and not between 0.1 and 1,000.
    #[must_use]
    pub fn share(percent: f64) -> Self {
        Self(Arc::new(Kind::Share(Share::new(percent, 10, Duration::from_secs(10)))))
    }

    /// Retries as gRPC throttles them (gRFC A6).
    ///
    /// It starts with `max_tokens` tokens. A failure takes one. A success gives `token_ratio`,
    /// which is rounded to thousandths. Retries are allowed while more than half of the tokens are
    /// there. They cost nothing themselves, but each retry that fails does.
    ///
    /// # Panics
    /// If `max_tokens` is not between 1 and 1,000 or `token_ratio` not between 0.001 and 1,000.
    #[must_use]
    pub fn throttle(max_tokens: u32, token_ratio: f64) -> Self {
        Self(Arc::new(Kind::Throttle(Throttle::new(max_tokens, token_ratio))))
    }

    /// Sets how many retries a second are always allowed, on average over the window. Default 10.
    ///
    /// Zero leaves a client that makes few calls without retries. A high floor defeats the share:
    /// it holds for each client, and an overloaded service has many. The budget that this returns
    /// is new and not shared. A throttle has no floor and stays as it is.
    ///
    /// # Panics
    /// If it is above a million.
    #[must_use]
    pub fn floor_per_second(self, retries: u32) -> Self {
        self.changed(|share| Share::new(share.percent(), retries, share.window()))
    }

    /// Sets how long calls and retries count, to a sixteenth of it. Default 10 seconds.
    ///
    /// A short window forgets the calls of quiet traffic; a long one lets a burst of retries follow
    /// a busy minute. The budget that this returns is new and not shared. A throttle has no window
    /// and stays as it is.
    ///
    /// # Panics
    /// If it is not between 1 and 60 seconds.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        self.changed(|share| Share::new(share.percent(), share.floor(), window))
    }

    fn changed(self, change: impl FnOnce(&Share) -> Share) -> Self {
        match &*self.0 {
            Kind::Share(share) => Self(Arc::new(Kind::Share(change(share)))),
            Kind::Throttle(_) => self,
        }
    }

    /// Counts a call, not an attempt.
    #[inline]
    pub fn deposit(&self, now: Timestamp) {
        if let Kind::Share(share) = &*self.0 {
            share.deposit(now);
        }
    }

    /// Counts a call at less cost than [`deposit`](Self::deposit) with a time that is read for it.
    ///
    /// `clock` is read while calls are few, and for one call in 32 while they are many. The others
    /// count with the last known time.
    #[inline]
    pub fn deposit_lazily(&self, clock: impl FnOnce() -> Timestamp) {
        if let Kind::Share(share) = &*self.0 {
            share.deposit(share.lately().unwrap_or_else(clock));
        }
    }

    /// Pays for a retry or a hedge, if there is enough.
    #[must_use]
    pub fn withdraw(&self, now: Timestamp) -> bool {
        match &*self.0 {
            Kind::Share(share) => share.withdraw(now),
            Kind::Throttle(throttle) => throttle.is_allowed(),
        }
    }

    /// An attempt succeeded.
    #[inline]
    pub fn record_success(&self) {
        if let Kind::Throttle(throttle) = &*self.0 {
            throttle.record_success();
        }
    }

    /// An attempt failed and may be repeated, or the endpoint forbids repeating it.
    #[inline]
    pub fn record_failure(&self) {
        if let Kind::Throttle(throttle) = &*self.0 {
            throttle.record_failure();
        }
    }

    /// How many retries it would pay for now; for a throttle, how many failures until it pays for
    /// none.
    #[must_use]
    pub fn balance(&self, now: Timestamp) -> u64 {
        match &*self.0 {
            Kind::Share(share) => share.balance(now),
            Kind::Throttle(throttle) => throttle.failures_left(),
        }
    }
}

impl Default for Budget {
    /// A fifth of the calls of the last ten seconds, plus ten retries a second, as in Finagle.
    fn default() -> Self {
        Self::share(20.0)
    }
}
