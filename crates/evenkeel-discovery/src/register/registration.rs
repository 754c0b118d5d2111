//! The configuration of a registration.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use evenkeel_core::rng::Rng;

use super::{Entry, Registry};

/// How a service enters itself. See the [module docs](super).
pub struct Registration<R> {
    pub(super) registry: R,
    pub(super) entry: Entry,
    pub(super) ttl: Duration,
    pub(super) timeout: Duration,
    pub(super) propagation: Duration,
    pub(super) rng: Rng,
    pub(super) ready: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<R: Registry> Registration<R> {
    /// Enters `entry` in `registry`, once it is started.
    ///
    /// # Panics
    /// If the entry could never be called, found or removed, such as one with port 0. For an entry
    /// from a configuration, call [`Registry::validate`] first, which returns an error.
    #[must_use]
    pub fn new(registry: R, entry: Entry) -> Self {
        if let Err(invalid) = registry.validate(&entry) {
            panic!("{invalid}");
        }
        Self {
            registry,
            entry,
            ttl: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            propagation: Duration::from_secs(2),
            rng: Rng::from_entropy(),
            ready: None,
        }
    }

    /// Sets how long the entry lives without a heartbeat. Default: 10 s.
    ///
    /// A short one burdens the registry and loses the entry in its short outages; a long one keeps
    /// the entry of a process that died for longer. etcd's minimum is 2 s.
    ///
    /// # Panics
    /// If it is below 1 s.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        assert!(Duration::from_secs(1) <= ttl, "a time to live of {ttl:?}");
        self.ttl = ttl;
        self
    }

    /// Sets how long the registry may take for one answer, and for all tries to leave. Default: 3
    /// s.
    ///
    /// It bounds how long a registry that is down keeps the service from stopping. With a short
    /// one, the entry of a service that stopped stays in use if the registry was away for a moment.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(Duration::ZERO < timeout, "no answer comes in no time");
        self.timeout = timeout;
        self
    }

    /// Sets how long callers take to see that the service has left. Default: 2 s.
    ///
    /// That is enough for callers that get changes pushed; callers that read DNS take its TTL. If
    /// it is too short, callers connect to a port that is closed; if too long, every stop takes
    /// that long.
    #[must_use]
    pub fn propagation(mut self, time: Duration) -> Self {
        self.propagation = time;
        self
    }

    /// Enters only when `ready` has completed. Default: at once.
    #[must_use]
    pub fn ready_when(mut self, ready: impl Future<Output = ()> + Send + 'static) -> Self {
        self.ready = Some(Box::pin(ready));
        self
    }

    /// Sets the seed of the jitter. Default: the process's entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.rng = Rng::with_seed(seed);
        self
    }
}

impl<R: fmt::Debug> fmt::Debug for Registration<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("registry", &self.registry)
            .field("entry", &self.entry)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
