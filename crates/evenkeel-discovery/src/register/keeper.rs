//! The task that enters a service, keeps it in the registry, and removes it.

use std::{future::Future, pin::Pin, time::Duration};

use evenkeel_core::{BoxError, backoff::Backoff, error::SharedError, rng::Rng};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Entry, Kept, Registry,
    error::{EntryLost, NotInTime, Taken},
    handle::Status,
    registration::Registration,
};
use crate::{clock, error::chain};

/// The first rest after a failed try.
const MIN_REST: Duration = Duration::from_millis(200);

pub(super) struct Keeper<R> {
    registry: R,
    ttl: Duration,
    timeout: Duration,
    propagation: Duration,
    rng: Rng,
    wishes: watch::Receiver<Entry>,
    status: watch::Sender<Status>,
    /// The state of the entry in the registry, as far as is known.
    stands: Stands,
    /// When it was last known to be there.
    alive_at: Instant,
    failures: u32,
    failing: Option<(Instant, String)>,
}

/// How a service leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It deregisters, and waits until its callers can have seen it.
    AndWait,
    /// It deregisters.
    AtOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// It has to be entered, or its changes have to be.
    Outdated,
    /// It is there as it should be.
    Current,
    /// Another instance has it.
    Taken,
}

impl<R: Registry> Keeper<R> {
    pub(super) fn new(
        registration: Registration<R>,
        wishes: watch::Receiver<Entry>,
        status: watch::Sender<Status>,
    ) -> Self {
        let Registration { registry, ttl, timeout, propagation, rng, .. } = registration;
        Self {
            registry,
            ttl,
            timeout,
            propagation,
            rng,
            wishes,
            status,
            stands: Stands::Outdated,
            alive_at: clock::now(),
            failures: 0,
            failing: None,
        }
    }

    pub(super) async fn run(
        mut self,
        ready: Pin<Box<dyn Future<Output = ()> + Send>>,
        mut leave: oneshot::Receiver<Leave>,
    ) -> Result<(), BoxError> {
        let how = tokio::select! {
            () = ready => self.keep(&mut leave).await,
            told = &mut leave => {
                // An entry that was never entered need not be removed.
                drop(told);
                self.status.send_replace(Status::Left);
                return Ok(());
            }
        };
        let left = self.leave().await;
        if how == Leave::AndWait {
            sleep(self.propagation).await;
        }
        self.status.send_replace(Status::Left);
        left
    }

    /// Keeps the entry there until it is to leave; returns how it leaves.
    async fn keep(&mut self, leave: &mut oneshot::Receiver<Leave>) -> Leave {
        loop {
            let delay = self.step().await;
            let due_at = clock::now() + delay;
            let is_changed = tokio::select! {
                biased;
                // If the handle was dropped without leaving, there is no caller to wait for.
                told = &mut *leave => return told.unwrap_or(Leave::AtOnce),
                Ok(()) = self.wishes.changed() => true,
                () = sleep_until(due_at) => false,
            };
            if is_changed && self.stands == Stands::Current {
                self.stands = Stands::Outdated;
            }
        }
    }

    /// Makes one try; returns how long to wait for the next.
    async fn step(&mut self) -> Duration {
        let entry = self.wishes.borrow_and_update().clone();
        let (ttl, after) = (self.ttl, self.timeout);
        let outcome = if self.stands == Stands::Outdated {
            bounded(after, self.registry.enter(&entry, ttl)).await.map(|()| Kept::Alive)
        } else {
            bounded(after, self.registry.keep(&entry, ttl)).await
        };
        match outcome {
            Ok(Kept::Alive) => {
                self.stands = Stands::Current;
                self.alive();
                // Spread, so that services that started together do not stay in step.
                return (ttl / 3).mul_f64(0.9 + 0.1 * self.rng.unit());
            }
            Ok(Kept::Lost) => {
                self.stands = Stands::Outdated;
                self.fail(EntryLost { id: entry.id }.into());
                self.failures = 0;
                // At once, but only once: an entry that is lost again and again waits like any
                // failure.
                return if self.alive_at + MIN_REST < clock::now() {
                    self.alive_at = clock::now();
                    Duration::ZERO
                } else {
                    MIN_REST
                };
            }
            Ok(Kept::Taken) => {
                self.stands = Stands::Taken;
                self.fail(Taken { id: entry.id }.into());
                return ttl / 3;
            }
            Err(error) => self.fail(error),
        }
        if self.stands == Stands::Current && self.alive_at + ttl <= clock::now() {
            // It has expired by now; the registry may not be able to keep it any more.
            self.stands = Stands::Outdated;
        }
        let rest = Backoff::new(MIN_REST, (ttl / 3).max(MIN_REST));
        self.failures = self.failures.saturating_add(1);
        rest.delay(self.failures - 1, &mut self.rng)
    }

    /// Removes the entry, or gives up in time. It is not certain whether it was ever entered: a try
    /// that failed here may have succeeded in the registry.
    async fn leave(&mut self) -> Result<(), BoxError> {
        let entry = self.wishes.borrow().clone();
        let left = self.try_to_leave(&entry).await;
        let (id, registry) = (&entry.id, self.registry.origin());
        match &left {
            Ok(()) => tracing::info!(id, registry, "left the registry"),
            Err(error) => {
                let (error, ttl) = (chain(&**error), self.ttl);
                tracing::warn!(id, registry, error, ?ttl, "not removed, and will run out");
            }
        }
        left
    }

    /// Tries until the time is over. Each try may take twice as long as the one before it. So a
    /// registry that hangs costs little of the time, and a slow one gets half of it in the end.
    async fn try_to_leave(&mut self, entry: &Entry) -> Result<(), BoxError> {
        let ends_at = clock::now() + self.timeout;
        let rest = Backoff::new(MIN_REST, 2 * MIN_REST);
        let (mut patience, mut tries) = (self.timeout / 6, 0);
        loop {
            let next_at = clock::now() + rest.delay(tries, &mut self.rng);
            let left_over = ends_at.saturating_duration_since(clock::now());
            let left = bounded(patience.min(left_over), self.registry.leave(entry)).await;
            if left.is_ok() || ends_at <= next_at.max(clock::now()) {
                return left;
            }
            sleep_until(next_at).await;
            (patience, tries) = (patience * 2, tries + 1);
        }
    }

    fn alive(&mut self) {
        self.alive_at = clock::now();
        self.failures = 0;
        let (id, registry) = (self.wishes.borrow().id.clone(), self.registry.origin());
        if let Some((since, _)) = self.failing.take() {
            let failed_for = since.elapsed();
            tracing::info!(id, registry, ?failed_for, "registration works again");
        } else if matches!(*self.status.borrow(), Status::Waiting) {
            tracing::info!(id, registry, "entered the registry");
        }
        self.status.send_if_modified(|status| {
            let is_new = !matches!(status, Status::Entered);
            *status = Status::Entered;
            is_new
        });
    }

    fn fail(&mut self, error: BoxError) {
        let text = chain(&*error);
        let registry = self.registry.origin();
        match &mut self.failing {
            Some((_, last)) if *last == text => return,
            Some((_, last)) => {
                tracing::debug!(registry, error = text, "registration fails still");
                *last = text;
            }
            None => {
                tracing::warn!(registry, error = text, "registration fails");
                self.failing = Some((clock::now(), text));
            }
        }
        self.status.send_replace(Status::Failing(SharedError::new(error)));
    }
}

async fn bounded<T>(
    after: Duration,
    attempt: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    timeout(after, attempt).await.unwrap_or_else(|_| Err(NotInTime { after }.into()))
}

#[cfg(test)]
mod tests;
