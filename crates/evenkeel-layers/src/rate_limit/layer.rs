//! How a rate limit is configured.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    quota::{Everyone, Rate, Silent},
    rng::Seeds,
};
use evenkeel_metrics::Client;
use tower_layer::Layer;

use super::{RateLimit, RateLimiter, rules::Rules};

/// Makes rate limits. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct RateLimitLayer<K = Everyone, D = Silent> {
    limiter: RateLimiter,
    spender: K,
    disclose: D,
    rules: Rules,
}

impl RateLimitLayer {
    /// Lets `rate` through. Requests above it are refused.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::shared(RateLimiter::new(rate))
    }

    /// Lets `amount` requests a second through, all of them at once if they arrive together.
    ///
    /// # Panics
    /// If `amount` is zero.
    #[must_use]
    pub fn per_second(amount: u32) -> Self {
        Self::new(Rate::per_second(amount))
    }

    /// Lets through what `limiter` does. Others may share it. Below a balancer only its rate
    /// counts.
    #[must_use]
    pub fn shared(limiter: RateLimiter) -> Self {
        let rules = Rules {
            max_wait: Duration::ZERO,
            jitter: limiter.rate().interval(),
            max_throttle: Duration::ZERO,
            seeds: Arc::new(Seeds::from_entropy()),
            client: Client::default(),
        };
        Self { limiter, spender: Everyone, disclose: Silent, rules }
    }
}

impl<D> RateLimitLayer<Everyone, D> {
    /// Gives each key a quota of its own. `max_keys` keys are known at the same time, rounded up to
    /// a multiple of eight.
    ///
    /// Call it after setting the rate and the burst. It takes 17 bytes a key, allocated all at
    /// once. With room for twice as many keys as are busy within a [window](Rate::window), a key is
    /// hardly ever forgotten. A forgotten key has its whole quota again.
    ///
    /// # Panics
    /// If `max_keys` is zero.
    #[must_use]
    pub fn keyed<K>(self, spender: K, max_keys: usize) -> RateLimitLayer<K, D> {
        RateLimitLayer {
            limiter: RateLimiter::keyed(self.limiter.rate(), max_keys),
            spender,
            disclose: self.disclose,
            rules: self.rules,
        }
    }

    /// Sets how many requests may come at once. Default: as many as in a period.
    ///
    /// # Panics
    /// If `burst` is zero.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.limiter = RateLimiter::new(self.limiter.rate().burst(burst));
        self.rules.jitter = self.limiter.rate().interval();
        self
    }
}

impl<K, D> RateLimitLayer<K, D> {
    /// Lets requests wait, up to `max_wait`. By default they are refused at once.
    ///
    /// A request that would have to wait longer is refused at once. Waiting requests are not served
    /// in the order of arrival. Below a balancer no request waits here: another endpoint is chosen.
    #[must_use]
    pub fn wait(mut self, max_wait: Duration) -> Self {
        self.rules.max_wait = max_wait;
        self
    }

    /// Sets the longest random extension of a wait. Default: the time between two requests.
    ///
    /// With zero, all waiting requests wake at the same moment and only one of them proceeds. A
    /// large value leaves the quota unused.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.rules.jitter = jitter;
        self
    }

    /// Below a balancer: if an endpoint throttles a request, it gets none for as long as it asks,
    /// up to `max_throttle`. By default this is off.
    ///
    /// Over HTTP that is a 429 with `Retry-After`, over gRPC `RESOURCE_EXHAUSTED` with a pushback.
    #[must_use]
    pub fn heed_throttling(mut self, max_throttle: Duration) -> Self {
        self.rules.max_throttle = max_throttle;
        self
    }

    /// Sets what tells callers of their quota in the response. Default: nothing.
    #[must_use]
    pub fn disclose<E>(self, disclose: E) -> RateLimitLayer<K, E> {
        RateLimitLayer { limiter: self.limiter, spender: self.spender, disclose, rules: self.rules }
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default: the process's
    /// entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.rules.seeds = Arc::new(Seeds::new(seed));
        self
    }

    /// The limiter that this layer and all it makes share. Below a balancer each endpoint has its
    /// own instead.
    #[must_use]
    pub fn limiter(&self) -> RateLimiter {
        self.limiter.clone()
    }
}

impl<T, K: Clone, D: Clone> Layer<T> for RateLimitLayer<K, D> {
    type Service = RateLimit<T, K, D>;

    fn layer(&self, inner: T) -> Self::Service {
        RateLimit::new(
            inner,
            self.limiter.clone(),
            self.spender.clone(),
            self.disclose.clone(),
            Rules { client: Client::current(), ..self.rules.clone() },
        )
    }
}
