//! Endpoints from an async function that is asked again and again.
//!
//! Use it for any registry that answers a question: an HTTP endpoint, a database, a cloud API. The
//! function's answer is believed, an empty list too; return an error where an empty answer is
//! suspect. After an error the last good set stays, and a back-off follows. A request for fresh
//! news, which a balancer makes when it cannot reach an endpoint, polls at once (3 times after a
//! calm, then once a second).
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::core::{discover::{Discovery, Update}, endpoint::{AddressError, Endpoint}};
//! use evenkeel::discovery::Poll;
//! use futures_util::StreamExt;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let poll = Poll::new(Duration::from_secs(10), || async {
//!     let endpoint: Endpoint = "10.0.0.1:80".parse()?; // Here you would ask your registry.
//!     Ok::<_, AddressError>(vec![endpoint])
//! })
//! .timeout(Duration::from_secs(2));
//!
//! assert!(matches!(poll.watch().next().await, Some(Ok(Update::Set(set))) if set.len() == 1));
//! # });
//! ```

use std::{sync::Arc, time::Duration};

use evenkeel_core::{BoxError, endpoint::Endpoint};
use futures_core::future::BoxFuture;
use tokio::time::timeout;

use crate::{
    settings::follows,
    watch::{Reconnect, Session, Source},
};

/// Asks an async function for the endpoints at an interval.
#[derive(Clone, Debug)]
pub struct Poll {
    reconnect: Reconnect<Polled>,
}

/// The polled function gave no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {after:?}")]
#[non_exhaustive]
pub struct PollTimedOut {
    /// How long it was given.
    pub after: Duration,
}

impl Poll {
    /// Calls `poll` at once and then every `interval`, give or take a tenth.
    ///
    /// # Panics
    /// If `interval` is zero.
    #[must_use]
    pub fn new<F, T, E>(interval: Duration, poll: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<Vec<Endpoint>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        assert!(Duration::ZERO < interval, "an interval of zero spins");
        let ask = Arc::new(move || -> Answer {
            let answer = poll();
            Box::pin(async move { answer.await.map_err(Into::into) })
        });
        let timeout = Duration::from_secs(10);
        Self { reconnect: Reconnect::new(Polled { ask, interval, jitter: 0.1, timeout }) }
    }

    /// Sets by which fraction an interval may be shorter or longer. Default: 0.1.
    ///
    /// With 0, clients that start together poll together for ever.
    ///
    /// # Panics
    /// If it is not within 0 and 0.5.
    #[must_use]
    pub fn jitter(self, part: f64) -> Self {
        assert!((0.0..=0.5).contains(&part), "jitter is a part of the interval from 0 to 0.5");
        self.with(|polled| polled.jitter = part)
    }

    /// Sets how long one answer may take. Default: 10 s.
    ///
    /// A short one takes a slow registry for a dead one; a long one hides a dead one.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|polled| polled.timeout = timeout)
    }
}

follows!(Poll by Polled, with backoff max_stale seed);

type Answer = BoxFuture<'static, Result<Vec<Endpoint>, BoxError>>;

#[derive(Clone)]
struct Polled {
    ask: Arc<dyn Fn() -> Answer + Send + Sync>,
    interval: Duration,
    jitter: f64,
    timeout: Duration,
}

impl Source for Polled {
    fn origin(&self) -> String {
        "polled function".into()
    }

    async fn session(&mut self, session: &mut Session) -> Result<(), BoxError> {
        loop {
            let answer = timeout(self.timeout, (self.ask)());
            let endpoints = answer.await.map_err(|_| PollTimedOut { after: self.timeout })??;
            session.set(endpoints);
            let part = 1.0 + self.jitter * (2.0 * session.rng().unit() - 1.0);
            session.wait(self.interval.mul_f64(part)).await;
        }
    }
}
