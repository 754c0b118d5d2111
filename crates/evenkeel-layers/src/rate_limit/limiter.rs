//! What all clones share: governor's cells, and the pace that a server set.

use std::{fmt, num::NonZeroU32, ops::Add, sync::Arc, time::Duration};

use evenkeel_core::{
    error::RateLimited,
    quota::{Pace, QuotaState, Rate},
    time::Timestamp,
};
use evenkeel_metrics::Client;
use governor::{
    Quota,
    clock::{Clock, Reference},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::InMemoryState,
};

use super::keyed::{KeyHash, Keyed};
use crate::clock;

/// The target of what is traced here.
pub(super) const TARGET: &str = "evenkeel::rate_limit";

/// A limiter, shared by a [`RateLimitLayer`](super::RateLimitLayer) and all it makes. Cheap to
/// clone.
///
/// It can be asked directly where no layer fits, and told what a server says of its quota.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::quota::Rate;
/// use evenkeel::rate_limit::RateLimiter;
///
/// let limiter = RateLimiter::new(Rate::per_second(10).burst(2));
/// assert_eq!(limiter.check().unwrap().remaining, 1);
/// assert_eq!(limiter.check().unwrap().remaining, 0);
/// assert!(limiter.check().unwrap_err().retry_after <= Duration::from_millis(100));
/// ```
#[derive(Clone)]
pub struct RateLimiter(Arc<Shared>);

struct Shared {
    rate: Rate,
    cells: Cells,
    pace: Pace,
}

/// With state information, so that callers can be told what is left.
type Governed<S> = governor::RateLimiter<
    <S as governor::state::StateStore>::Key,
    S,
    Ticks,
    StateInformationMiddleware,
>;

enum Cells {
    One(Governed<InMemoryState>),
    /// The store makes the hashes. Governor gives no access to it, so it is shared.
    Each(Governed<Store>, Store),
}

impl RateLimiter {
    /// One quota for all callers.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::with(rate, Cells::One(Governed::new(quota(&rate), InMemoryState::default(), Ticks)))
    }

    /// A quota for each key. `max_keys` keys are known at the same time, rounded up to a multiple
    /// of eight.
    ///
    /// It takes 17 bytes a key, allocated all at once. If more keys are busy than there is room
    /// for, those least in debt are forgotten, and start again with a whole quota.
    ///
    /// # Panics
    /// If `max_keys` is zero.
    #[must_use]
    pub fn keyed(rate: Rate, max_keys: usize) -> Self {
        let store = Store(Arc::new(Keyed::new(max_keys)));
        Self::with(rate, Cells::Each(Governed::new(quota(&rate), store.clone(), Ticks), store))
    }

    fn with(rate: Rate, cells: Cells) -> Self {
        Self(Arc::new(Shared { rate, cells, pace: Pace::default() }))
    }

    /// How much may be spent.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.0.rate
    }

    /// Spends one request, if there is one. For a limiter with keys, the quota is that of the empty
    /// key.
    ///
    /// # Errors
    /// [`RateLimited`] if there is none.
    pub fn check(&self) -> Result<QuotaState, RateLimited> {
        self.check_key(self.hash(b""))
    }

    /// Follows what a server says: `remaining` requests are left until its quota is full again,
    /// after `reset`.
    ///
    /// It applies to all keys together. The rest is spread evenly; see [`Pace`].
    pub fn heed(&self, remaining: u32, reset: Duration) {
        self.0.pace.heed(clock::now(), remaining, reset);
    }

    /// Whether both are the same limiter.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What the quota applies to.
    pub(super) fn scope(&self) -> &'static str {
        match &self.0.cells {
            Cells::One(_) => "service",
            Cells::Each(..) => "key",
        }
    }

    pub(super) fn hash(&self, key: &[u8]) -> Option<KeyHash> {
        match &self.0.cells {
            Cells::One(_) => None,
            Cells::Each(_, store) => Some(store.0.hash(key)),
        }
    }

    #[inline]
    pub(super) fn check_key(&self, key: Option<KeyHash>) -> Result<QuotaState, RateLimited> {
        let Shared { rate, cells, pace } = &*self.0;
        // Asked before governor, so that a request refused by the pace spends nothing.
        if pace.is_told() {
            pace.check(clock::now()).map_err(|wait| RateLimited::new(wait, *rate))?;
        }
        let checked = match (cells, key) {
            (Cells::One(limiter), _) => limiter.check(),
            (Cells::Each(limiter, _), Some(key)) => limiter.check_key(&key),
            (Cells::Each(limiter, store), None) => limiter.check_key(&store.0.hash(b"")),
        };
        match checked {
            Ok(state) => Ok(QuotaState::new(*rate, state.remaining_burst_capacity())),
            Err(not_until) => {
                let wait = not_until.wait_time_from(Ticks.now());
                Err(RateLimited::new(wait, *rate))
            }
        }
    }
}

/// Logs that a request is refused, and by which limit.
#[cold]
pub(super) fn log_refusal(client: &Client, scope: &'static str, limited: &RateLimited) {
    evenkeel_metrics::count_rate_limit_refusal(client, scope);
    let client = client.name();
    tracing::debug!(target: TARGET, client, scope, retry_after = ?limited.retry_after, "request refused");
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("rate", &self.0.rate).finish_non_exhaustive()
    }
}

fn quota(rate: &Rate) -> Quota {
    let burst = NonZeroU32::new(rate.burst_size()).expect("a rate has a burst");
    let quota = Quota::with_period(rate.interval()).expect("a rate has an interval");
    quota.allow_burst(burst)
}

/// The bounded store, shared with the code that makes hashes for it.
#[derive(Clone, Debug)]
struct Store(Arc<Keyed>);

impl governor::state::StateStore for Store {
    type Key = KeyHash;

    fn measure_and_replace<T, F, E>(&self, key: &KeyHash, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, measure)
    }
}

/// Governor's clock. It is the clock of all layers, which stops when tokio's does.
#[derive(Clone, Copy, Debug)]
struct Ticks;

impl Clock for Ticks {
    type Instant = Tick;

    #[inline]
    fn now(&self) -> Tick {
        Tick(clock::now())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(Timestamp);

impl Add<Nanos> for Tick {
    type Output = Self;

    fn add(self, nanos: Nanos) -> Self {
        Self(self.0 + nanos.into())
    }
}

impl Reference for Tick {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.since(earlier.0).into()
    }

    fn saturating_sub(&self, nanos: Nanos) -> Self {
        Self(Timestamp::from_nanos(self.0.as_nanos().saturating_sub(nanos.as_u64())))
    }
}
