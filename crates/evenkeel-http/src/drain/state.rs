//! The phase of a drain, and the requests that are still in flight.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, watch};

/// The target of all events of a drain.
pub(super) const TARGET: &str = "evenkeel::drain";

/// The phase of a drain. Each follows the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Phase {
    /// The server serves, and says that it is ready.
    #[default]
    Serving,
    /// It still serves all requests, and says that it is not ready. It deregisters.
    NotReady,
    /// It still serves all requests, until all callers can have seen that it leaves. Each HTTP/1.1
    /// response asks the caller to leave.
    Waiting,
    /// It takes no new connections, asks HTTP/2 callers to leave, too, and finishes what is in flight.
    Closing,
    /// What was still in flight has been cut.
    Ended,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NotReady => "not_ready",
            Self::Waiting => "waiting",
            Self::Closing => "closing",
            Self::Ended => "ended",
        }
    }
}

/// Begins a drain, and watches it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DrainHandle(pub(super) Arc<Shared>);

impl DrainHandle {
    /// Begins the drain, if it has not begun.
    pub fn start(&self) {
        self.0.advance(Phase::NotReady);
    }

    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.phases.borrow()
    }

    /// The number of requests in flight. A request is in flight until its response has ended, or the
    /// connection that it was upgraded to.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// Waits for `server`, then until nothing is in flight: upgraded connections outlive those that a
    /// server knows of.
    pub(super) async fn idle_after<T>(&self, server: impl Future<Output = T>) -> T {
        let ended = server.await;
        loop {
            let changed = self.0.left.notified();
            if self.in_flight() == 0 {
                return ended;
            }
            changed.await;
        }
    }

    /// Waits until the drain has reached `phase`.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.0.phases.subscribe();
        // This handle holds the sender as well, so it never fails.
        let _ = phases.wait_for(|now| phase <= *now).await;
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The last value of `phases`, to be read without a lock.
    phase: AtomicU8,
    phases: watch::Sender<Phase>,
    /// Notified when the last request in flight ends while the server closes.
    left: Notify,
    in_flight: AtomicUsize,
    /// Requests with a head that was incomplete when the server closed, and still is.
    pub(super) half_heads: AtomicUsize,
    /// Connections on which only the end of a response waits for its reader.
    pub(super) tails: AtomicUsize,
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Visits {
    in_flight: AtomicUsize,
    begun: AtomicUsize,
}

/// The end of a response that hyper has, and that its reader has not taken yet.
#[derive(Debug)]
pub(super) struct Tail(Arc<Shared>);

impl Tail {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.tails.fetch_add(1, Ordering::AcqRel);
        Self(shared.clone())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.0.tails.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Visits {
    /// The number of requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// How many have begun, to be compared.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Goes on to `phase`, never back.
    pub(super) fn advance(&self, phase: Phase) {
        let has_advanced = self.phases.send_if_modified(|now| {
            let is_later = *now < phase;
            if is_later {
                *now = phase;
                self.phase.store(phase as u8, Ordering::SeqCst);
            }
            is_later
        });
        if has_advanced {
            let in_flight = self.in_flight.load(Ordering::Acquire);
            tracing::info!(target: TARGET, phase = phase.name(), in_flight, "drain");
        }
    }

    pub(super) fn has_reached(&self, phase: Phase) -> bool {
        phase as u8 <= self.phase.load(Ordering::SeqCst)
    }
}

/// One request in flight, counted for its connection, too, if that is known.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Shared>, Option<Arc<Visits>>);

impl InFlight {
    pub(super) fn new(shared: &Arc<Shared>, visits: Option<&Arc<Visits>>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::SeqCst);
        if let Some(visits) = visits {
            visits.begun.fetch_add(1, Ordering::AcqRel);
            visits.in_flight.fetch_add(1, Ordering::AcqRel);
        }
        Self(shared.clone(), visits.cloned())
    }

    pub(super) fn has_reached(&self, phase: Phase) -> bool {
        self.0.has_reached(phase)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(visits) = &self.1 {
            visits.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        // Ordered with the phase: either this sees that the server closes, or the closing sees this.
        let before = self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.has_reached(Phase::Closing) {
            self.0.left.notify_one();
        }
    }
}
