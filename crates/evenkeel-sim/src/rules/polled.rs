//! The rules that Prequal's paper compares with, on polled and on local counts (NSDI 2024, section
//! 5.2).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use evenkeel_core::{
    node::Node,
    policy::{PickContext, Picker, Policy},
    time::Timestamp,
};

use super::{Surroundings, server_of};

/// Power of two choices on requests in flight at the servers, which are polled every half second.
#[derive(Debug)]
pub(super) struct PolledP2c {
    pub(super) surroundings: Surroundings,
}

const POLL: Duration = Duration::from_millis(500);

impl Policy for PolledP2c {
    fn name(&self) -> &'static str {
        "polled_p2c"
    }

    fn build(&self, nodes: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        let polled = Polled { counts: vec![0; nodes.len()], next: Timestamp::default() };
        Box::new(PolledPicker {
            surroundings: self.surroundings.clone(),
            servers: nodes.iter().map(|node| server_of(node)).collect(),
            polled: Mutex::new(polled),
        })
    }
}

struct PolledPicker {
    surroundings: Surroundings,
    servers: Vec<u32>,
    polled: Mutex<Polled>,
}

struct Polled {
    counts: Vec<u32>,
    next: Timestamp,
}

impl Picker for PolledPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let mut polled = self.polled.lock().expect("no panic under the lock");
        if polled.next <= cx.now {
            for (count, server) in polled.counts.iter_mut().zip(&self.servers) {
                *count = self.surroundings.server(*server).in_flight();
            }
            // Each client polls first at another time, so that the clients do not poll in step.
            let is_first = polled.next == Timestamp::default();
            let pause = if is_first { POLL.mul_f64(cx.rng.unit()) } else { POLL };
            polled.next = cx.now + pause;
        }
        let (first, second) = super::two(nodes, cx)?;
        Some(if polled.counts[first] <= polled.counts[second] { first } else { second })
    }
}

/// Picks the node with the fewest requests of this client in flight; among equals the next in turn.
#[derive(Debug)]
pub(super) struct LeastLoadedInTurn;

impl Policy for LeastLoadedInTurn {
    fn name(&self) -> &'static str {
        "least_loaded_in_turn"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(InTurnPicker(AtomicUsize::new(0)))
    }
}

struct InTurnPicker(AtomicUsize);

impl Picker for InTurnPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let start = self.0.load(Relaxed);
        let in_turn = (0..nodes.len()).map(|step| (start + step) % nodes.len());
        let admitted = in_turn.filter(|index| cx.admits(&nodes[*index]));
        let picked = admitted.min_by_key(|index| nodes[*index].in_flight())?;
        self.0.store(picked + 1, Relaxed);
        Some(picked)
    }
}
