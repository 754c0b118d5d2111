//! Prequal: load that servers tell when they are probed.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, TryLockError},
    time::Duration,
};

use super::{PickContext, Picker, Policy, draw, p2c::passed_over, previous_as};
use crate::{load::ServerLoad, node::Node, sync::Ordering, time::Timestamp};

mod aversion;
mod hotness;
mod peer;
mod pool;
mod probing;
mod rules;
mod state;
mod synchronous;

use self::{peer::Peer, rules::Rules, state::State};
pub use self::{
    probing::{Probing, Ticket},
    synchronous::SyncPrequal,
};

/// Chooses the quickest of those recently probed that are not busier than usual.
///
/// *Load is not what you should balance* (Wydrowski and others, NSDI 2024): servers say, when probed,
/// how many requests they have in flight and how long requests take at such a load. Probes are sent
/// beside requests, three of random nodes for each by default, and the last sixteen answers are kept.
/// A request goes to the node that is *cold*, below the 84th percentile of requests in flight, and has
/// the least latency; if all are hot, to the one with the fewest in flight.
///
/// **Use it** where servers share machines with others, so that their speed changes from moment to moment
/// without a request of this client being in the way: it moves away within some requests, whoever sent
/// them. **Not** where endpoints cannot be probed; nor for few clients of few servers, where each client
/// sees most of the load itself and [`P2c`](super::P2c) knows nearly as much for nothing; nor where a
/// request costs less than three probes.
///
/// * A probe decides as many requests as the paper's formula says,
///   `max{1, (1+δ) / ((1−m/n)·r_probe − r_remove)}`. In a small set, where that is undefined, and never
///   more than: `(1+δ)·n / r_probe`.
/// * In a small set the quantile is one that so many values have: of two nodes the busier one is hot.
/// * The last two probes stay beyond that, until they are too old: they are better than none.
/// * A server that has answered nothing yet, and so knows no latency, gets one request at a time.
/// * Requests that this client itself has sent since a probe came count as in flight there, as far as
///   they still are.
/// * For each request one probe is removed: the oldest and the worst in turn. Those older than a second
///   are, too. At most one of a node is kept, the newest.
/// * A node where requests fail looks idle to a probe. So an answer counts only with the probability
///   that requests succeed there, of late, and a failure removes it.
/// * A node that lets requests wait until they are [given up](crate::cut) may look idle, too: until it
///   answers one, it takes at least as long as they have waited, which is forgotten over ten seconds.
/// * With fewer than two probes the choice is that of two random nodes with fewer requests in flight,
///   [penalty](Node::penalty) included, where requests succeed and are answered; the paper takes a random one.
///
/// That is its asynchronous mode. In the synchronous one servers are asked for each request before it is
/// sent: see [`SyncPrequal`].
///
/// Whoever builds the picker sends the probes: see [`Probing`]. The balancer of evenkeel-layers does, with
/// a probe that it is given; without one this is [`P2c`](super::P2c).
///
/// A pick takes the lock of the pool if nobody has it at the moment, and else chooses as with an empty
/// pool: it never waits. It allocates nothing and costs the same with any number of nodes.
#[derive(Clone, Debug, Default)]
pub struct Prequal {
    rules: Rules,
}

impl Prequal {
    /// The paper's parameters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many probes are sent for a request, on average. Default 3; below 1 is allowed.
    ///
    /// The paper saw no loss down to 1, and some below. 0 leaves the probes of idle times.
    ///
    /// # Panics
    /// If it is no number from 0 to 16.
    #[must_use]
    pub fn probe_rate(mut self, probes: f64) -> Self {
        assert!((0.0..=16.0).contains(&probes), "{probes} probes for a request");
        self.rules.probe_rate = probes;
        self
    }

    /// Sets how many probes are removed with a request, on average. Default 1.
    ///
    /// They keep the pool from filling up with nodes that nobody would choose. More than
    /// [`probe_rate`](Self::probe_rate) empties it.
    ///
    /// # Panics
    /// If it is no number from 0 to 16.
    #[must_use]
    pub fn remove_rate(mut self, probes: f64) -> Self {
        assert!((0.0..=16.0).contains(&probes), "{probes} probes removed with a request");
        self.rules.remove_rate = probes;
        self
    }

    /// Sets δ: by how much more probes are used than it takes to keep the pool full. Default 1.
    ///
    /// # Panics
    /// If it is negative or no number.
    #[must_use]
    pub fn delta(mut self, delta: f64) -> Self {
        assert!((0.0..1e6).contains(&delta), "a delta of {delta}");
        self.rules.delta = delta;
        self
    }

    /// Sets which quantile of requests in flight parts cold from hot. Default 2^(−1/4), about 0.84.
    ///
    /// 0 goes by requests in flight alone, 1 by latency alone. Good is 0.6 to 0.9.
    ///
    /// # Panics
    /// If it is no number from 0 to 1.
    #[must_use]
    pub fn quantile(mut self, quantile: f64) -> Self {
        assert!((0.0..=1.0).contains(&quantile), "a quantile of {quantile}");
        self.rules.quantile = quantile;
        self
    }

    /// Sets how old a probe may grow. Default 1 second.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn age_max(mut self, age_max: Duration) -> Self {
        assert!(Duration::ZERO < age_max, "a probe grows older than nothing");
        self.rules.age_max = age_max;
        self
    }

    /// Sets after which time without a probe one is sent though there is no request. Default 100 ms.
    ///
    /// Short enough, it keeps some in the pool for the request that ends an idle time. Each client
    /// sends so many to the fleet as long as it lives.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn idle_interval(mut self, interval: Duration) -> Self {
        assert!(Duration::ZERO < interval, "probes in no time");
        self.rules.idle_interval = interval;
        self
    }

    /// Sets how many probes may be under way at the same time. Default 64.
    ///
    /// What requests ask for beyond is forgotten.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn probes_max(mut self, probes: u32) -> Self {
        assert!(0 < probes, "no probe may be sent");
        self.rules.probes_max = probes;
        self
    }

    /// Goes by a score of what is in the pool, the least wins, in place of hot and cold.
    ///
    /// For comparisons with other rules: a weighted sum, or C3's. The worst, which is removed now and
    /// then, is the one of the highest score. It is called for each probe in the pool by each pick.
    #[must_use]
    pub fn scored(
        mut self,
        score: impl Fn(&Node, ServerLoad) -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.rules.score = Some(Arc::new(score));
        self
    }

    /// How many requests a probe may decide, on average, in a set of so many nodes.
    #[must_use]
    pub fn reuse(&self, nodes: usize) -> f64 {
        self.rules.reuse(nodes)
    }
}

impl Policy for Prequal {
    fn name(&self) -> &'static str {
        "prequal"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<PrequalPicker>(previous);
        let state = match previous {
            Some(picker) => picker.probing.state.clone(),
            None => Arc::new(State::new(self.rules.clone())),
        };
        let known: HashMap<u64, &Arc<Peer>> = previous
            .iter()
            .flat_map(|picker| picker.probing.peers.iter().map(|peer| (peer.id(), peer)))
            .collect();
        let peer = |node: &Arc<Node>| match known.get(&node.id()) {
            Some(&peer) => peer.clone(),
            None => Peer::new(&state, node),
        };
        let peers: Box<[_]> = nodes.iter().map(peer).collect();

        let mut pool = state.pool();
        let generation = state.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let indices: HashMap<u64, u32> =
            (0..).zip(nodes).map(|(index, node)| (node.id(), index)).collect();
        pool.reindex(|id| indices.get(&id).copied());
        drop(pool);

        state.set_nodes(nodes.len());
        (0..).zip(&peers).for_each(|(index, peer)| peer.is_at(index, generation));
        state.ask_for_a_pool(nodes.len());
        Box::new(PrequalPicker { probing: Probing { state, peers, generation } })
    }
}

struct PrequalPicker {
    probing: Probing,
}

impl Picker for PrequalPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        self.probing.state.advance(cx.now);
        self.probing.state.seed(cx.rng);
        self.probing.state.ask();
        self.pooled(nodes, cx).or_else(|| self.unprobed(nodes, cx))
    }

    fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        // Without probes nobody else tells the time by which failures are forgotten.
        const EVERY: Duration = Duration::from_secs(1);
        self.probing.state.advance(now);
        self.probing.state.age_out();
        Some(now + EVERY)
    }

    fn probing(&self) -> Option<&Probing> {
        Some(&self.probing)
    }
}

impl PrequalPicker {
    /// The best of those in the pool that is admitted.
    #[inline]
    fn pooled(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let state = &self.probing.state;
        let mut pool = match state.pool.try_lock() {
            Ok(pool) => pool,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if !self.probing.is_current() {
            return None;
        }
        pool.age_out(cx.now, state.rules.age_max);
        if pool.len() < 2 {
            return None;
        }
        if let Some(score) = &state.rules.score {
            pool.score(|probe, load| score(&nodes[probe.index as usize], load));
        }
        let mut passed_over = 0;
        let picked = loop {
            let slot = pool.best(passed_over)?;
            let index = pool.probe(slot).index as usize;
            if cx.admits(&nodes[index]) {
                pool.take(slot, nodes[index].in_flight());
                break index;
            }
            passed_over |= 1 << slot;
        };
        pool.thin_out(state.rules.remove_rate);
        Some(picked)
    }

    /// Of two random nodes the one with fewer requests in flight, for each that succeeds there. With the probability
    /// that they do, failures are passed over, as with probes: one of them must not keep all others away.
    #[inline(never)]
    fn unprobed(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        /// Below this a wait in vain is forgotten.
        const WAIT_MIN: Duration = Duration::from_millis(1);

        let (first, second) = draw::two(nodes, cx)?;
        let Some(second) = second else { return Some(first) };
        let now = self.probing.state.now();
        let mut cost = |index: usize| {
            let peer = &self.probing.peers[index];
            let share = peer.aversion.share(now);
            let counts = share == 0.0 || f64::from(share) <= cx.rng.unit();
            let succeeds = if counts { 1.0 } else { (1.0 - share).max(0.001) };
            // What was given up counts as if it were in flight still.
            let given_up = u32::from(WAIT_MIN <= peer.waited_in_vain(now));
            // What was turned away has not failed: the penalty alone tells of it.
            let load = nodes[index].load().max(nodes[index].in_flight() + given_up);
            (load as f32 + 1.0) / succeeds
        };
        let (one, other) = (cost(first), cost(second));
        let (chosen, loser) = if one <= other { (first, second) } else { (second, first) };
        passed_over(&nodes[loser], cx);
        Some(chosen)
    }
}

impl fmt::Debug for PrequalPicker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrequalPicker").field(&self.probing).finish()
    }
}

#[cfg(test)]
mod tests;
