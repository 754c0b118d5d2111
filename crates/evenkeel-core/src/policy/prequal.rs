//! Prequal: balancing by the load that servers report when probed.

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

/// Chooses the quickest of the recently probed nodes that are not busier than usual.
///
/// *Load is not what you should balance* (Wydrowski and others, NSDI 2024): when probed, servers
/// report how many requests they have in flight and how long requests take at that load. Probes are
/// sent beside requests. By default each request causes three, to random nodes, and the last
/// sixteen answers are kept. A node is *cold* if it is below the 84th percentile of requests in
/// flight. A request goes to the cold node with the least latency. If all are hot, it goes to the
/// one with the fewest in flight.
///
/// **Use it** where servers share machines with others, so that their speed changes from moment to
/// moment for reasons outside this client's requests. Prequal moves away within a few requests,
/// whichever client sent them. **Not** where endpoints cannot be probed. Nor for few clients of few
/// servers: each client then sees most of the load itself, and [`P2c`](super::P2c) knows nearly as
/// much at no cost. Nor where a request costs less than three probes.
///
/// * A probe decides as many requests as the paper's formula says,
///   `max{1, (1+δ) / ((1−m/n)·r_probe − r_remove)}`, but never more than `(1+δ)·n / r_probe`. That
///   limit also holds in a small set, where the formula is undefined.
/// * In a small set the quantile is one that exists for that number of values. Of two nodes, the
///   busier one is hot.
/// * The last two probes stay after they are used up, until they are too old: they are better than
///   none.
/// * A server that has not answered a request yet knows no latency. It gets one request at a time.
/// * Requests that this client has sent since a probe was answered count as in flight at that node,
///   as long as they are.
/// * For each request one probe is removed: the oldest and the worst in turn. Probes older than a
///   second are removed, too. At most one probe of each node is kept, the newest.
/// * A node at which requests fail looks idle to a probe. So an answer counts only with the
///   probability that requests have recently succeeded there, and a failure removes it.
/// * A node that lets requests wait until they are [given up](crate::cut) may look idle, too. Until
///   it answers a request, its latency is taken to be at least the time they have waited. That wait
///   is forgotten over ten seconds.
/// * With fewer than two probes, it picks two random nodes and chooses the one with fewer requests
///   in flight, [penalty](Node::penalty) included, where requests succeed and are answered. The
///   paper chooses one random node.
///
/// That is Prequal's asynchronous mode. In its synchronous mode, servers are probed for each
/// request before it is sent: see [`SyncPrequal`].
///
/// The owner of the picker sends the probes: see [`Probing`]. The balancer of evenkeel-layers does
/// so with the probe it is given. Without one, this policy is [`P2c`](super::P2c).
///
/// A pick takes the lock of the pool if it is free. Otherwise it chooses as with an empty pool, so
/// it never waits. It allocates nothing and costs the same with any number of nodes.
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

    /// Sets how many probes are sent for each request, on average. Default: 3. Values below 1 are
    /// allowed.
    ///
    /// The paper saw no loss down to 1, and some below. With 0, only the probes of idle times are
    /// sent.
    ///
    /// # Panics
    /// If it is not a number from 0 to 16.
    #[must_use]
    pub fn probe_rate(mut self, probes: f64) -> Self {
        assert!((0.0..=16.0).contains(&probes), "{probes} probes for a request");
        self.rules.probe_rate = probes;
        self
    }

    /// Sets how many probes are removed with each request, on average. Default: 1.
    ///
    /// Removal keeps the pool from filling up with nodes that would never be chosen. More than
    /// [`probe_rate`](Self::probe_rate) empties it.
    ///
    /// # Panics
    /// If it is not a number from 0 to 16.
    #[must_use]
    pub fn remove_rate(mut self, probes: f64) -> Self {
        assert!((0.0..=16.0).contains(&probes), "{probes} probes removed with a request");
        self.rules.remove_rate = probes;
        self
    }

    /// Sets δ: how many more uses probes get than are needed to keep the pool full. Default: 1.
    ///
    /// # Panics
    /// If it is negative or not a number.
    #[must_use]
    pub fn delta(mut self, delta: f64) -> Self {
        assert!((0.0..1e6).contains(&delta), "a delta of {delta}");
        self.rules.delta = delta;
        self
    }

    /// Sets the quantile of requests in flight that separates cold from hot. Default: 2^(−1/4),
    /// about 0.84.
    ///
    /// 0 uses requests in flight alone, 1 latency alone. Good values are 0.6 to 0.9.
    ///
    /// # Panics
    /// If it is not a number from 0 to 1.
    #[must_use]
    pub fn quantile(mut self, quantile: f64) -> Self {
        assert!((0.0..=1.0).contains(&quantile), "a quantile of {quantile}");
        self.rules.quantile = quantile;
        self
    }

    /// Sets the maximum age of a probe. Default: 1 second.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        assert!(Duration::ZERO < max_age, "a probe grows older than nothing");
        self.rules.max_age = max_age;
        self
    }

    /// Sets how long it takes without a probe until one is sent without a request. Default: 100 ms.
    ///
    /// A short interval keeps some answers in the pool for the request that ends an idle time. Each
    /// client sends probes to the fleet at this rate as long as it lives.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn idle_interval(mut self, interval: Duration) -> Self {
        assert!(Duration::ZERO < interval, "probes in no time");
        self.rules.idle_interval = interval;
        self
    }

    /// Sets how many probes may be under way at the same time. Default: 64.
    ///
    /// Probes that requests ask for beyond that are forgotten.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn max_probes(mut self, probes: u32) -> Self {
        assert!(0 < probes, "no probe may be sent");
        self.rules.max_probes = probes;
        self
    }

    /// Chooses by a score of the probes in the pool instead of hot and cold. The lowest score wins.
    ///
    /// For comparisons with other rules, such as a weighted sum, or C3's. The worst probe, which is
    /// removed now and then, is the one with the highest score. Each pick calls `score` for each
    /// probe in the pool.
    #[must_use]
    pub fn scored(
        mut self,
        score: impl Fn(&Node, ServerLoad) -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.rules.score = Some(Arc::new(score));
        self
    }

    /// How many requests a probe may decide, on average, in a set of this many nodes.
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
        // Without probes, nothing else advances the time by which failures are forgotten.
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
    /// The best admitted node of those in the pool.
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
        pool.age_out(cx.now, state.rules.max_age);
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

    /// Of two random nodes, the one with fewer requests in flight for each that succeeds there.
    ///
    /// As with probes, failures are ignored with the probability that requests succeed: a single
    /// failure must not keep all other requests away.
    #[inline(never)]
    fn unprobed(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        /// A wait below this is forgotten.
        const MIN_WAIT: Duration = Duration::from_millis(1);

        let (first, second) = draw::two(nodes, cx)?;
        let Some(second) = second else { return Some(first) };
        let now = self.probing.state.now();
        let mut cost = |index: usize| {
            let peer = &self.probing.peers[index];
            let share = peer.aversion.share(now);
            let counts = share == 0.0 || f64::from(share) <= cx.rng.unit();
            let succeeds = if counts { 1.0 } else { (1.0 - share).max(0.001) };
            // A request that was given up counts as if it were still in flight.
            let given_up = u32::from(MIN_WAIT <= peer.waited_in_vain(now));
            // A request that was turned away has not failed: only the penalty accounts for it.
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
