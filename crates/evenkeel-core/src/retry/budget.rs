//! What the retries and hedges of a client may spend.

use std::{sync::Arc, time::Duration};

use super::{share::Share, throttle::Throttle};
use crate::time::Timestamp;

/// What the retries and hedges of a client may spend together, shared by its clones.
///
/// Without one, a service that fails under its load gets that load times the number of attempts.
///
/// * [`share`](Self::share), Finagle's: retries are a share of the calls of the last seconds, and a
///   few more so that low traffic is not left without.
/// * [`throttle`](Self::throttle), gRPC's: no retries while more than some calls in a row, or some
///   share of them, fail.
///
/// It is told the time, keeps exact count under any number of threads, never spends what it does not
/// have, and takes no lock. Its size is fixed.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_core::{retry::Budget, time::Timestamp};
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
    /// Retries as a share of calls, in percent, over the last ten seconds, and ten a second besides.
    ///
    /// Every share counts as it is written, down to a tenth of a thousandth: 0.1 is one retry to a
    /// thousand calls, 40 is two to five, 1,000 is ten to each. Zero leaves the floor alone. Above
    /// some 30 percent a service that is overloaded may stay so by its retries alone.
    ///
    /// # Panics
    /// If `percent` is not 0 and not between 0.1 and 1,000.
    #[must_use]
    pub fn share(percent: f64) -> Self {
        Self(Arc::new(Kind::Share(Share::new(percent, 10, Duration::from_secs(10)))))
    }

    /// As gRPC throttles retries (gRFC A6).
    ///
    /// It starts with `tokens_max`. A failure takes one, a success gives `token_ratio`, which counts
    /// in thousandths. Retries are allowed while more than half of the tokens are there; they cost
    /// nothing themselves, but each that fails does.
    ///
    /// # Panics
    /// If `tokens_max` is not between 1 and 1,000 or `token_ratio` not between 0.001 and 1,000.
    #[must_use]
    pub fn throttle(tokens_max: u32, token_ratio: f64) -> Self {
        Self(Arc::new(Kind::Throttle(Throttle::new(tokens_max, token_ratio))))
    }

    /// Sets how many retries a second there may always be, on the average over the window. Default 10.
    ///
    /// Zero leaves a client that makes few calls without retries. A great one defeats the share: it is
    /// for each client, and an overloaded service has many. The budget that it gives is new and shared
    /// with nobody. It changes nothing in a throttle, which has no floor.
    ///
    /// # Panics
    /// If it is above a million.
    #[must_use]
    pub fn floor_per_second(self, retries: u32) -> Self {
        self.changed(|share| Share::new(share.percent(), retries, share.window()))
    }

    /// Sets for how long a call counts, and a retry too, to a sixteenth of it. Default 10 seconds.
    ///
    /// A short window forgets the calls that quiet traffic made, a long one lets a burst of retries
    /// follow a busy minute. The budget that it gives is new and shared with nobody. It changes nothing
    /// in a throttle, which has no window.
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

    /// Counts a call for less than [`deposit`](Self::deposit) costs with the time read for it.
    ///
    /// `clock` is asked while calls are few, and for one in 32 where they are many; the others count with the
    /// time that is known already.
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
    pub fn succeeded(&self) {
        if let Kind::Throttle(throttle) = &*self.0 {
            throttle.succeeded();
        }
    }

    /// An attempt failed in a way that calls for another, or was told not to be repeated.
    #[inline]
    pub fn failed(&self) {
        if let Kind::Throttle(throttle) = &*self.0 {
            throttle.failed();
        }
    }

    /// How many retries it would pay for now; of a throttle, how many failures until it pays none.
    #[must_use]
    pub fn balance(&self, now: Timestamp) -> u64 {
        match &*self.0 {
            Kind::Share(share) => share.balance(now),
            Kind::Throttle(throttle) => throttle.failures_left(),
        }
    }
}

impl Default for Budget {
    /// A fifth of the calls of the last ten seconds, and ten retries a second besides, as in Finagle.
    fn default() -> Self {
        Self::share(20.0)
    }
}
