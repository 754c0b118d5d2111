//! How retries are configured.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    backoff::Backoff,
    retry::{Budget, Ruled, Schedule},
    rng::Seeds,
};
use evenkeel_metrics::Client;
use tower_layer::Layer;

use super::{
    NoRules, PolicyRules, Retry,
    settings::{Settings, Shared},
};

/// Makes another attempt if one failed. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct RetryLayer<P = NoRules> {
    settings: Settings<P>,
}

impl RetryLayer {
    /// Makes retries that `budget` pays for. The [`rules`](Self::rules) say what may be retried.
    /// Without them the layer makes no service.
    ///
    /// One budget may be given to several layers, including a hedge. Then they spend it together.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        let settings = Settings::new(NoRules::default(), Schedule::default());
        Self { settings }.budget(budget)
    }
}

impl<T, Res> RetryLayer<PolicyRules<T, Res>> {
    /// Makes retries as a [`tower::retry::Policy`] says, and nothing else: no budget, no limit on
    /// attempts.
    ///
    /// The policy sees errors as [`BoxError`](evenkeel_core::BoxError).
    #[must_use]
    pub fn with_policy(policy: T) -> Self {
        let schedule = Schedule { max_attempts: u32::MAX, ..Schedule::default() };
        Self { settings: Settings::new(PolicyRules::new(policy), schedule) }
    }
}

impl<P> RetryLayer<P> {
    /// Sets what may be retried, and how: `HttpRetry` of evenkeel-http for HTTP and gRPC,
    /// [`AnyRules`](evenkeel_core::retry::AnyRules) for anything else. There is no default.
    #[must_use]
    pub fn rules<Q>(self, rules: Q) -> RetryLayer<Q> {
        let Settings { schedule, budget, attempt_timeout, seed, rules: _ } = self.settings;
        RetryLayer { settings: Settings { rules, schedule, budget, attempt_timeout, seed } }
    }

    /// Sets what retries may cost, also for a [policy](RetryLayer::with_policy) of tower's.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.settings.budget = Some(budget);
        self
    }

    /// Sets how many attempts a call may make, including the first. Default 3.
    ///
    /// A request that was provably not processed is retried once without counting as an attempt.
    /// With 1, only that retry is left. Many attempts keep a caller waiting that might prefer to
    /// hear of the failure.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        assert!(0 < attempts, "a call without an attempt");
        self.settings.schedule.max_attempts = attempts;
        self
    }

    /// Sets how long to wait before an attempt, if the endpoint does not say. Default: full jitter
    /// from 25 to 250 milliseconds.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.schedule.backoff = backoff;
        self
    }

    /// Sets the longest delay that an endpoint may ask for. Default 5 seconds.
    ///
    /// If it asks for more, the attempt is made after this delay. Up to half is added at random, so
    /// that callers that were told the same delay do not come back together. Zero ignores what
    /// endpoints ask for.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.settings.schedule.max_delay = delay;
        self
    }

    /// Sets how long an attempt may take until its response is there. Default: no limit.
    ///
    /// The time runs from when the attempt first has to wait. If it is too short, every slow
    /// request is sent again, although the attempt that was cut off may still be processed. The
    /// endpoint has [failed](evenkeel_core::cut) by it.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        assert!(Duration::ZERO < timeout, "an attempt without time");
        self.settings.attempt_timeout = Some(timeout);
        self
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default: the process's
    /// entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }
}

impl<P: Ruled<S> + Clone, S> Layer<S> for RetryLayer<P> {
    type Service = Retry<S, P>;

    fn layer(&self, inner: S) -> Retry<S, P> {
        let settings = self.settings.clone();
        let seeds = settings.seed.map_or_else(Seeds::from_entropy, Seeds::new);
        Retry { inner, shared: Arc::new(Shared { settings, seeds, client: Client::current() }) }
    }
}
