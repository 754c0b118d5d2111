//! When services that failed are made again: at once, then with growing delays.

use std::{
    collections::{HashMap, HashSet},
    future,
    time::Duration,
};

use evenkeel_core::{backoff::Backoff, rng::Rng};
use tokio::time::{Instant, sleep_until};

use crate::clock;

/// A service that lived this long has recovered: the next failure counts as the first.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// The planned repairs, at most one for each node in the set.
#[derive(Debug)]
pub(super) struct Repairs {
    backoff: Backoff,
    rng: Rng,
    due: HashMap<u64, Instant>,
    done: HashMap<u64, (u32, Instant)>,
}

impl Repairs {
    pub(super) fn new(rng: Rng) -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        Self { backoff, rng, due: HashMap::new(), done: HashMap::new() }
    }

    /// Waits until a repair is due.
    pub(super) async fn due(&self) {
        match self.due.values().min() {
            Some(&due) => sleep_until(due).await,
            None => future::pending().await,
        }
    }

    /// The nodes whose services are to be made again now.
    pub(super) fn take_due(&mut self) -> HashSet<u64> {
        let now = clock::instant();
        self.due.extract_if(|_, due| *due <= now).map(|(id, _)| id).collect()
    }

    /// Plans the repair of a node, if it is not planned yet.
    pub(super) fn schedule(&mut self, id: u64) {
        if self.due.contains_key(&id) {
            return;
        }
        let now = clock::instant();
        let (tries, due) = match self.done.get(&id) {
            Some(&(tries, last)) if now.duration_since(last) < RECOVERED_AFTER => {
                (tries + 1, now + self.backoff.delay(tries, &mut self.rng))
            }
            _ => (0, now),
        };
        self.done.insert(id, (tries, due));
        self.due.insert(id, due);
    }

    /// Forgets a node that has left the set.
    pub(super) fn forget(&mut self, id: u64) {
        self.due.remove(&id);
        self.done.remove(&id);
    }
}
