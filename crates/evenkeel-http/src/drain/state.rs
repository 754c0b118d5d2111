//! How far a drain has come, and who is still here.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, watch};

/// Of all that is traced here.
pub(super) const TARGET: &str = "evenkeel::drain";

/// How far a drain has come. Each follows the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Phase {
    /// It serves, and says that it is ready.
    #[default]
    Serving,
    /// It still serves all that comes, and says that it is not ready. It deregisters.
    NotReady,
    /// It still serves all that comes, until everybody can have seen that it leaves. Over HTTP/1.1 it asks
    /// to be left with each response.
    Waiting,
    /// It takes no new connections, asks to be left over HTTP/2 as well, and ends what is under way.
    Closing,
    /// What was still under way has been cut.
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

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.phases.borrow()
    }

    /// Requests that are under way: until their responses have ended, or what they were upgraded to.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// Waits for `server`, then until nothing is under way: what was upgraded outlives the connections that
    /// a server knows of.
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

    /// Waits until it has come to `phase`.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.0.phases.subscribe();
        // The sender is here as well, so it never fails.
        let _ = phases.wait_for(|now| phase <= *now).await;
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The same as the last of `phases`, to be read without a lock.
    phase: AtomicU8,
    phases: watch::Sender<Phase>,
    /// Told when the last request leaves that is under way while the server closes.
    left: Notify,
    in_flight: AtomicUsize,
    /// Heads of requests of which half had come when the door was closed, and that are not whole yet.
    pub(super) half_heads: AtomicUsize,
    /// Connections on which the end of a response waits for its reader, and nothing else is under way.
    pub(super) tails: AtomicUsize,
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Visits {
    in_flight: AtomicUsize,
    begun: AtomicUsize,
}

/// The end of a response that was given away, and that its reader has not taken yet.
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
    /// Those that are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// How many have begun, to be compared.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Goes on to `phase`; never back.
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

/// One request that is under way, and where its connection is known, there.
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
        // In one order with the phase: either this sees that the server closes, or that sees this.
        let before = self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.has_reached(Phase::Closing) {
            self.0.left.notify_one();
        }
    }
}
