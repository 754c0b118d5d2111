//! How a source is followed, whatever the source.

use std::time::Duration;

use evenkeel_core::backoff::Backoff;

/// What [`setters`] set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) backoff: Backoff,
    pub(crate) hold: Duration,
    pub(crate) max_stale: Option<Duration>,
    pub(crate) seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(10)),
            hold: Duration::from_secs(5),
            max_stale: None,
            seed: None,
        }
    }
}

/// The named setters, for the `impl` of a type with a function `set` that changes its [`Settings`].
macro_rules! setters {
    (backoff) => {
        /// Sets the rest after an error. Default: 1 s to 10 s.
        ///
        /// A short one burdens a registry that is already struggling; a long one delays the first
        /// news after it recovers.
        #[must_use]
        pub fn backoff(self, backoff: evenkeel_core::backoff::Backoff) -> Self {
            self.set(|settings| settings.backoff = backoff)
        }
    };
    (hold) => {
        /// Sets how long endpoints are kept that a suspicious answer misses. Default: 5 s.
        ///
        /// It should be longer than services take to enter themselves again: a third of their TTL.
        /// With a short one, there is a moment without endpoints when a registry restarts without
        /// data. With a long one, callers of a service that really ended fail to connect, where
        /// otherwise they would be refused.
        #[must_use]
        pub fn hold(self, hold: std::time::Duration) -> Self {
            self.set(|settings| settings.hold = hold)
        }
    };
    (max_stale) => {
        /// Sets how long the last good set is used while no answer comes. Default: for ever.
        ///
        /// After that the set becomes empty. A short one turns an outage of the registry into an
        /// outage of the service; with a long one, an address may belong to another service by
        /// then.
        #[must_use]
        pub fn max_stale(self, age: std::time::Duration) -> Self {
            self.set(|settings| settings.max_stale = Some(age))
        }
    };
    (seed) => {
        /// Sets the seed of the jitter. Default: the process's entropy.
        #[must_use]
        pub fn seed(self, seed: u64) -> Self {
            self.set(|settings| settings.seed = Some(seed))
        }
    };
    ($first:ident $($others:ident)+) => {
        $crate::settings::setters!($first);
        $crate::settings::setters!($($others)+);
    };
}

/// Makes a discovery of a type that has a `Reconnect` in its field `reconnect`, with the named
/// setters.
macro_rules! follows {
    ($type:ident by $source:ty, with $($setter:ident)*) => {
        impl $type {
            $($crate::settings::setters!($setter);)*

            #[allow(dead_code, reason = "some have no setter")]
            fn set(self, change: impl FnOnce(&mut $crate::settings::Settings)) -> Self {
                Self { reconnect: self.reconnect.set(change) }
            }

            fn with(self, change: impl FnOnce(&mut $source)) -> Self {
                Self { reconnect: self.reconnect.with(change) }
            }
        }

        impl evenkeel_core::discover::Discovery for $type {
            fn watch(&self) -> evenkeel_core::discover::Watch {
                self.reconnect.watch()
            }

            fn refresh(&self) {
                self.reconnect.refresh();
            }
        }
    };
}

pub(crate) use {follows, setters};
