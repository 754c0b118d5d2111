//! One session with a source: what it says, and what its watchers want.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    endpoint::{Address, Endpoint},
    rng::Rng,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    clock,
    journal::Journal,
    refresh::Refresh,
    settings::Settings,
    trust::{Answer, Change, Event, Trust},
};

/// What a [`Source`](crate::watch::Source) reports to, and where it learns what its watchers want.
///
/// What [`set`](Self::set), [`insert`](Self::insert) and [`remove`](Self::remove) report is
/// believed. What [`answer`](Self::answer) and [`change`](Self::change) report may be doubted.
#[derive(Debug)]
pub struct Session {
    origin: Arc<str>,
    journal: watch::Sender<Journal>,
    refresh: Refresh,
    rng: Rng,
    trust: Trust,
    /// Held while the source fails.
    counted: Option<evenkeel_metrics::Held>,
}

impl Session {
    pub(crate) fn new(
        origin: &str,
        journal: watch::Sender<Journal>,
        refresh: Refresh,
        settings: &Settings,
    ) -> Self {
        Self {
            origin: origin.into(),
            journal,
            refresh,
            rng: settings.seed.map_or_else(Rng::from_entropy, Rng::with_seed),
            trust: Trust::new(settings),
            counted: None,
        }
    }

    /// Reports the whole set. The same set again is good news too, but watchers get no update.
    pub fn set(&mut self, endpoints: Vec<Endpoint>) {
        self.answer(Answer::new(endpoints).ordered().certain());
    }

    /// Reports that an endpoint is new or has changed.
    pub fn insert(&mut self, endpoint: Endpoint) {
        self.tell(|trust, journal, now| {
            journal.insert(endpoint);
            trust.end_failure(journal, now);
        });
    }

    /// Reports that an endpoint is gone.
    pub fn remove(&mut self, address: &Address) {
        self.tell(|trust, journal, now| {
            journal.remove(address);
            trust.end_failure(journal, now);
        });
    }

    /// Reports what the registry has; true if watchers get another set.
    ///
    /// An answer is suspicious if it is empty and the last was not, if the registry's state was
    /// [rebuilt](Answer::rebuilt), and if no session worked for more than 3 s before it. Endpoints
    /// that it misses are kept for [`hold`](crate::watch::Reconnect::hold), and watchers get
    /// [`NotConfirmed`](crate::error::NotConfirmed) as an error. New endpoints are used at once.
    /// Report the answer again when [`wait_out_doubt`](Self::wait_out_doubt).
    pub fn answer(&mut self, answer: Answer) -> bool {
        self.tell(|trust, journal, now| trust.take(journal, answer, now))
    }

    /// Reports what has changed since the last answer, with the same doubts as
    /// [`answer`](Self::answer). `whole` gives the whole set after the changes, if it is needed.
    pub fn change(&mut self, changes: Vec<Change>, whole: impl FnOnce() -> Vec<Endpoint>) {
        self.tell(|trust, journal, now| trust.change(journal, changes, whole, now));
    }

    /// Reports that the registry gave its last answer again, word for word. False if the answer has
    /// to be reported all the same, as while something is doubted.
    pub fn confirm(&mut self) -> bool {
        self.trust.is_settled() && 0 < self.known()
    }

    /// Reports that something is wrong while the session goes on. The set stays.
    ///
    /// Without good news in between, the same error is passed on to watchers only once, and no more
    /// than eight errors are.
    pub fn fail(&mut self, error: impl Into<BoxError>) {
        self.tell(|trust, journal, now| trust.fail(journal, error.into(), now));
    }

    /// How many endpoints are known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.journal.borrow().len()
    }

    /// What watchers know.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn journal(&self) -> watch::Ref<'_, Journal> {
        self.journal.borrow()
    }

    /// Until when endpoints are kept that the last answer misses, or may come to miss.
    pub(crate) fn doubted_until(&self) -> Option<Instant> {
        self.trust.doubted_until()
    }

    /// Waits until the doubt ends that there is now; for ever if there is none.
    pub fn wait_out_doubt(&self) -> impl Future<Output = ()> + Send + use<> {
        let until = self.doubted_until();
        async move {
            match until {
                Some(instant) => sleep_until(instant).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for `delay`, or shorter if a watcher asks for fresh news.
    ///
    /// Requests for fresh news are granted at once up to 3 after a calm, and then once a second.
    pub async fn wait(&mut self, delay: Duration) {
        self.refresh.wait(delay).await;
    }

    /// Waits until a watcher asks for fresh news, at the rate of [`wait`](Self::wait).
    pub async fn wait_for_refresh(&mut self) {
        self.refresh.wait_for_grant().await;
    }

    /// The randomness for jitter.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Rests after a session has ended. A set that becomes stale within the rest is dropped then.
    pub(crate) async fn rest(&mut self, backoff: Backoff) {
        let ended = self.trust.end_session(clock::now());
        let rested_at = clock::now() + backoff.delay(ended, &mut self.rng);
        let stale_at = self.trust.stale_at().filter(|at| *at <= rested_at && 0 < self.known());
        if let Some(stale_at) = stale_at {
            sleep_until(stale_at).await;
            self.tell(Trust::drop_stale);
        }
        sleep_until(rested_at).await;
    }

    /// Has `act` change what watchers know, wakes them if it did, and logs.
    fn tell<R>(&mut self, act: impl FnOnce(&mut Trust, &mut Journal, Instant) -> R) -> R {
        let mut result = None;
        self.journal.send_if_modified(|journal| {
            let before = journal.end();
            result = Some(act(&mut self.trust, journal, clock::now()));
            before != journal.end()
        });
        self.log();
        result.expect("the closure has run")
    }

    fn log(&mut self) {
        let (origin, endpoints) = (&*self.origin, self.known());
        for event in std::mem::take(&mut self.trust.events) {
            match event {
                Event::Fails(error) => {
                    tracing::warn!(origin, error, kept = endpoints, "discovery fails");
                    evenkeel_metrics::count_source_failure();
                    self.counted = Some(evenkeel_metrics::mark_source_failing());
                }
                Event::FailsStill(error) => {
                    tracing::debug!(origin, error, "discovery fails still");
                    evenkeel_metrics::count_source_failure();
                }
                Event::Works(failed_for) => {
                    tracing::info!(origin, endpoints, ?failed_for, "discovery works again");
                    self.counted = None;
                }
            }
        }
    }
}
