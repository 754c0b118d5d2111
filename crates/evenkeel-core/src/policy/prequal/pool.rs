//! The pool of probes: which probe is chosen, and when probes are forgotten.

use std::time::Duration;

use super::rules::POOL;
use crate::{load::ServerLoad, time::Timestamp};

/// The result of one probe.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pooled {
    /// Index of its node among those that the picker was built for.
    pub(super) index: u32,
    /// Id of its node.
    pub(super) id: u64,
    /// Attempts of this client in flight at the node when the answer came.
    pub(super) own: u32,
    /// How many more requests it may decide.
    pub(super) uses: u32,
    pub(super) arrived: Timestamp,
}

/// The probes that requests choose from: at most one for each node, the newest.
///
/// Kept as slots in arrays, so that a choice is one pass over sixteen words.
#[derive(Debug)]
pub(super) struct Pool {
    /// Decides the choice: the least wins, see [`key`]. `u64::MAX` in empty slots.
    keys: [u64; POOL],
    /// Requests in flight as answered, and with those that this client has sent since.
    answered: [f32; POOL],
    in_flight: [f32; POOL],
    /// In nanoseconds.
    latency: [f32; POOL],
    probes: [Pooled; POOL],
    /// The order in which they came.
    order: [u64; POOL],
    len: usize,
    next: u64,
    /// All probes arrived at this time or later.
    oldest: Timestamp,
    /// A node with more requests in flight is hot.
    hot_above: f32,
    to_remove: f64,
    removes_worst: bool,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            keys: [u64::MAX; POOL],
            answered: [0.0; POOL],
            in_flight: [0.0; POOL],
            latency: [0.0; POOL],
            probes: [Pooled::default(); POOL],
            order: [0; POOL],
            len: 0,
            next: 0,
            oldest: Timestamp::default(),
            hot_above: f32::INFINITY,
            to_remove: 0.0,
            removes_worst: false,
        }
    }
}

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn probe(&self, slot: usize) -> &Pooled {
        &self.probes[slot]
    }

    pub(super) fn load(&self, slot: usize) -> ServerLoad {
        let latency = Duration::from_nanos(self.latency[slot] as u64);
        ServerLoad::new(self.in_flight[slot].into(), latency)
    }

    /// Adds a probe. It replaces an older one of the same node, or else the oldest.
    pub(super) fn insert(&mut self, probe: Pooled, load: ServerLoad) {
        self.forget(probe.id);
        if self.len == POOL
            && let Some(oldest) = self.oldest_slot()
        {
            self.remove(oldest);
        }
        let slot = self.len;
        if slot == 0 {
            self.oldest = probe.arrived;
        }
        self.len += 1;
        self.probes[slot] = probe;
        self.answered[slot] = load.in_flight();
        self.in_flight[slot] = load.in_flight();
        self.latency[slot] = load.latency().as_secs_f32() * 1e9;
        self.order[slot] = self.next;
        self.next += 1;
        self.weigh(slot);
    }

    /// The best slot that is not in `passed_over`, which has a bit for each slot.
    #[inline]
    pub(super) fn best(&self, passed_over: u32) -> Option<usize> {
        let mut best = (u64::MAX, 0);
        for (slot, &key) in self.keys.iter().enumerate() {
            let is_out = passed_over >> slot & 1 != 0;
            if key < best.0 && !is_out {
                best = (key, slot);
            }
        }
        (best.0 != u64::MAX).then_some(best.1)
    }

    /// Records that the request goes to the node of `slot`, which had `own` attempts of this client
    /// in flight before.
    ///
    /// A probe that has decided as many requests as it may is removed, unless it is one of the last
    /// two. Requests sent since are computed from what is in flight now, so that a cancelled one
    /// leaves no trace.
    #[inline]
    pub(super) fn take(&mut self, slot: usize, own: u32) {
        let probe = &mut self.probes[slot];
        probe.uses = probe.uses.saturating_sub(1);
        if probe.uses == 0 && 2 < self.len {
            self.remove(slot);
            return;
        }
        let sent = i64::from(own) + 1 - i64::from(probe.own);
        self.in_flight[slot] = (self.answered[slot] + sent as f32).max(0.0);
        self.weigh(slot);
    }

    /// Removes `rate` probes on average: the oldest and the worst in turn.
    ///
    /// Two are left, since fewer give no choice.
    #[inline]
    pub(super) fn thin_out(&mut self, rate: f64) {
        self.to_remove += rate;
        while 1.0 <= self.to_remove {
            self.to_remove -= 1.0;
            if self.len <= 2 {
                self.to_remove = 0.0;
                return;
            }
            let slot = if self.removes_worst { self.worst_slot() } else { self.oldest_slot() };
            self.removes_worst = !self.removes_worst;
            if let Some(slot) = slot {
                self.remove(slot);
            }
        }
    }

    /// Removes probes older than `max_age`.
    #[inline]
    pub(super) fn age_out(&mut self, now: Timestamp, max_age: Duration) {
        if max_age < now.since(self.oldest) {
            self.retain(|probe| now.since(probe.arrived) <= max_age);
            let arrivals = self.probes[..self.len].iter().map(|probe| probe.arrived);
            self.oldest = arrivals.min().unwrap_or(now);
        }
    }

    /// Removes the probe of the node with this id.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(slot) = self.probes[..self.len].iter().position(|probe| probe.id == id) {
            self.remove(slot);
        }
    }

    /// After nodes have moved, gives each probe the index that `index_of` returns, or removes it.
    pub(super) fn reindex(&mut self, index_of: impl Fn(u64) -> Option<u32>) {
        self.retain(|probe| match index_of(probe.id) {
            Some(index) => {
                probe.index = index;
                true
            }
            None => false,
        });
    }

    /// Sets the number of requests in flight above which a node is hot.
    pub(super) fn set_hot_above(&mut self, in_flight: f32) {
        if self.hot_above != in_flight {
            self.hot_above = in_flight;
            (0..self.len).for_each(|slot| self.weigh(slot));
        }
    }

    /// Ranks all probes by a score instead of the rule. The least is the best.
    pub(super) fn score(&mut self, score: impl Fn(&Pooled, ServerLoad) -> f64) {
        for slot in 0..self.len {
            self.keys[slot] = ordered(score(&self.probes[slot], self.load(slot)));
        }
    }

    fn weigh(&mut self, slot: usize) {
        self.keys[slot] = key(self.in_flight[slot], self.latency[slot], self.hot_above);
    }

    fn oldest_slot(&self) -> Option<usize> {
        (0..self.len).min_by_key(|&slot| self.order[slot])
    }

    fn worst_slot(&self) -> Option<usize> {
        (0..self.len).max_by_key(|&slot| self.keys[slot])
    }

    fn retain(&mut self, mut keep: impl FnMut(&mut Pooled) -> bool) {
        let mut slot = 0;
        while slot < self.len {
            if keep(&mut self.probes[slot]) {
                slot += 1;
            } else {
                self.remove(slot);
            }
        }
    }

    fn remove(&mut self, slot: usize) {
        let last = self.len - 1;
        self.keys[slot] = self.keys[last];
        self.keys[last] = u64::MAX;
        self.answered[slot] = self.answered[last];
        self.in_flight[slot] = self.in_flight[last];
        self.latency[slot] = self.latency[last];
        self.probes[slot] = self.probes[last];
        self.order[slot] = self.order[last];
        self.len = last;
    }
}

/// Any cold one before any hot one. Of cold ones the quickest, of hot ones the one with least in
/// flight.
///
/// The bits of non-negative floats sort like the floats. The worst has the greatest key: of hot
/// ones the one with most in flight, else the slowest.
#[inline]
pub(super) fn key(in_flight: f32, latency: f32, hot_above: f32) -> u64 {
    const HOT: u64 = 1 << 63;
    let (in_flight_bits, latency_bits) =
        (u64::from(in_flight.to_bits()), u64::from(latency.to_bits()));
    // A node that knows no latency has answered no request yet: try it with one, do not flood it.
    let is_untried = latency == 0.0 && 0.0 < in_flight;
    if hot_above < in_flight || is_untried {
        HOT | in_flight_bits << 32 | latency_bits
    } else {
        latency_bits << 32 | in_flight_bits
    }
}

/// A number that sorts like the score. NaN is the worst of all.
fn ordered(score: f64) -> u64 {
    if score.is_nan() {
        return u64::MAX - 1;
    }
    let bits = score.to_bits();
    let mask = if score.is_sign_negative() { u64::MAX } else { 1 << 63 };
    (bits ^ mask).min(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1 << 50) + Duration::from_millis(millis)
    }

    fn insert(pool: &mut Pool, id: u64, in_flight: f64, millis: u64) {
        let probe = Pooled { index: id as u32, id, own: 0, uses: 9, arrived: at(id) };
        pool.insert(probe, ServerLoad::new(in_flight, Duration::from_millis(millis)));
    }

    fn ids(pool: &Pool) -> Vec<u64> {
        let mut ids: Vec<_> = (0..pool.len()).map(|slot| pool.probe(slot).id).collect();
        ids.sort_unstable();
        ids
    }

    fn best(pool: &Pool) -> u64 {
        pool.probe(pool.best(0).expect("there is one")).id
    }

    #[test]
    fn the_quickest_cold_node_is_chosen_and_among_hot_ones_the_least_busy() {
        let mut pool = Pool::default();
        insert(&mut pool, 1, 9.0, 1);
        insert(&mut pool, 2, 3.0, 20);
        insert(&mut pool, 3, 2.0, 30);
        pool.set_hot_above(5.0);
        assert_eq!(best(&pool), 2);

        pool.set_hot_above(1.0);
        assert_eq!(best(&pool), 3, "all are hot");
        pool.set_hot_above(f32::INFINITY);
        assert_eq!(best(&pool), 1, "latency alone");
    }

    #[test]
    fn a_node_without_an_answer_yet_is_tried_with_one_request() {
        let mut pool = Pool::default();
        insert(&mut pool, 1, 3.0, 20);
        insert(&mut pool, 2, 0.0, 0);
        assert_eq!(best(&pool), 2);
        pool.take(1, 0);
        assert_eq!(best(&pool), 1);
    }

    #[test]
    fn a_full_pool_forgets_the_oldest_and_a_newer_probe_replaces_that_of_its_node() {
        let mut pool = Pool::default();
        (1..=16).for_each(|id| insert(&mut pool, id, 1.0, 1));
        insert(&mut pool, 1, 7.0, 1);
        assert_eq!(pool.len(), 16);
        insert(&mut pool, 17, 1.0, 1);

        assert_eq!(ids(&pool), [vec![1], (3..=17).collect()].concat());
    }

    #[test]
    fn the_oldest_and_the_worst_are_removed_in_turn_down_to_two() {
        let mut pool = Pool::default();
        for (id, in_flight) in [(1, 1.0), (2, 8.0), (3, 9.0), (4, 1.0), (5, 1.0)] {
            insert(&mut pool, id, in_flight, id);
        }
        pool.set_hot_above(5.0);
        pool.thin_out(0.5);
        assert_eq!(ids(&pool), [1, 2, 3, 4, 5]);
        pool.thin_out(0.5);
        assert_eq!(ids(&pool), [2, 3, 4, 5], "the oldest");
        pool.thin_out(1.0);
        assert_eq!(ids(&pool), [2, 4, 5], "the hot one with most in flight");
        pool.thin_out(7.0);
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn own_requests_count_and_cancelled_ones_do_not() {
        let mut pool = Pool::default();
        insert(&mut pool, 1, 4.0, 1);
        let in_flight = |pool: &Pool| pool.load(0).in_flight();

        pool.take(0, 0);
        pool.take(0, 1);
        assert_eq!(in_flight(&pool), 6.0);
        // Both were cancelled.
        pool.take(0, 0);
        assert_eq!(in_flight(&pool), 5.0);
    }

    #[test]
    fn a_probe_decides_a_bounded_number_of_requests() {
        let mut pool = Pool::default();
        (1..=3).for_each(|id| insert(&mut pool, id, 4.0, 1));
        (0..8).for_each(|_| pool.take(0, 0));
        assert_eq!(ids(&pool), [1, 2, 3]);
        pool.take(0, 0);
        assert_eq!(ids(&pool), [2, 3]);
        (0..20).for_each(|_| pool.take(0, 0));
        assert_eq!(ids(&pool), [2, 3], "two are left, whatever they have decided");
    }

    #[test]
    fn probes_are_forgotten_when_they_are_too_old() {
        let mut pool = Pool::default();
        insert(&mut pool, 100, 4.0, 1);
        insert(&mut pool, 900, 4.0, 1);
        let second = Duration::from_secs(1);
        pool.age_out(at(1_100), second);
        assert_eq!(ids(&pool), [100, 900]);
        pool.age_out(at(1_101), second);
        assert_eq!(ids(&pool), [900]);
        pool.age_out(at(0), second);
        assert_eq!(ids(&pool), [900], "a clock that goes back");
        pool.age_out(at(2_000), second);
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn nodes_that_moved_are_found_again_and_those_that_left_are_forgotten() {
        let mut pool = Pool::default();
        (1..=3).for_each(|id| insert(&mut pool, id, 1.0, 1));
        pool.reindex(|id| (id != 2).then_some(10 + id as u32));
        let mut found: Vec<_> = (0..pool.len()).map(|slot| pool.probe(slot).index).collect();
        found.sort_unstable();
        assert_eq!(found, [11, 13]);
    }

    #[test]
    fn scores_keep_their_order_and_nan_is_the_worst() {
        let scores = [f64::NEG_INFINITY, -3.0, -0.5, 0.0, 1e-9, 2.0, f64::INFINITY, f64::NAN];
        for pair in scores.windows(2) {
            assert!(ordered(pair[0]) <= ordered(pair[1]), "{pair:?}");
        }
        assert!(ordered(f64::NAN) < u64::MAX);
        assert!(ordered(f64::INFINITY) < ordered(f64::NAN));
    }
}
