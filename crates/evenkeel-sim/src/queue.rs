//! The events of a run, in the order of their time.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
};

/// Events in the order of their time. Events of the same time stay in the order in which they were
/// added.
///
/// Most events come a fixed time after another event: network delays, timeouts. Events with the
/// same delay are in order already, so each delay has a [lane](Self::lane) of its own, which needs
/// no sorting. Timeouts, which rarely fire, never enter the heap.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    lanes: Vec<VecDeque<Entry<E>>>,
    delays: Vec<u64>,
    /// The key of the first event of each lane; [`Key::NEVER`] if the lane is empty.
    fronts: Vec<Key>,
    added: u64,
}

/// A lane of a queue. See [`Queue::lane`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: u64,
    added: u64,
}

impl Key {
    const NEVER: Self = Self { at: u64::MAX, added: u64::MAX };
}

#[derive(Clone, Copy, Debug)]
struct Entry<E> {
    key: Key,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl<E: Copy> Queue<E> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            lanes: Vec::new(),
            delays: Vec::new(),
            fronts: Vec::new(),
            added: 0,
        }
    }

    /// The lane for all events that come `delay` nanoseconds after they are added.
    pub fn lane(&mut self, delay: u64) -> Lane {
        let known = self.delays.iter().position(|known| *known == delay);
        let index = known.unwrap_or_else(|| {
            self.delays.push(delay);
            self.lanes.push(VecDeque::new());
            self.fronts.push(Key::NEVER);
            self.delays.len() - 1
        });
        Lane(index as u32)
    }

    /// Adds an event at a point in time.
    #[inline]
    pub fn add(&mut self, at: u64, event: E) {
        let key = self.key(at);
        self.heap.push(Reverse(Entry { key, event }));
    }

    /// Adds an event that comes the lane's delay after `now`. `now` must not go back.
    #[inline]
    pub fn add_after(&mut self, lane: Lane, now: u64, event: E) {
        let index = lane.0 as usize;
        let key = self.key(now + self.delays[index]);
        let lane = &mut self.lanes[index];
        debug_assert!(lane.back().is_none_or(|last| last.key < key), "time went back");
        if lane.is_empty() {
            self.fronts[index] = key;
        }
        lane.push_back(Entry { key, event });
    }

    /// Takes the next event and its time.
    #[inline]
    pub fn take_next(&mut self) -> Option<(u64, E)> {
        let mut first = self.heap.peek().map_or(Key::NEVER, |Reverse(entry)| entry.key);
        let mut lane = None;
        for (index, front) in self.fronts.iter().enumerate() {
            if *front < first {
                (first, lane) = (*front, Some(index));
            }
        }
        let Some(index) = lane else {
            return self.heap.pop().map(|Reverse(Entry { key, event })| (key.at, event));
        };
        let Entry { key, event } = self.lanes[index].pop_front().expect("it has a front");
        self.fronts[index] = self.lanes[index].front().map_or(Key::NEVER, |entry| entry.key);
        Some((key.at, event))
    }

    fn key(&mut self, at: u64) -> Key {
        self.added += 1;
        Key { at, added: self.added }
    }
}

impl<E: Copy> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::rng::Rng;

    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_time_and_then_of_their_adding() {
        let mut queue = Queue::new();
        let mut rng = Rng::with_seed(1);
        let lanes = [queue.lane(0), queue.lane(7), queue.lane(50)];
        let (mut now, mut pending, mut added) = (0, Vec::new(), 0_u32);

        for _ in 0..20_000 {
            for _ in 0..rng.below(3) {
                let at = match rng.below(4) {
                    3 => {
                        let at = now + rng.below_u64(60);
                        queue.add(at, added);
                        at
                    }
                    lane => {
                        queue.add_after(lanes[lane], now, added);
                        now + [0, 7, 50][lane]
                    }
                };
                pending.push((at, added));
                added += 1;
            }
            let expected = pending.iter().copied().min();
            assert_eq!(queue.take_next(), expected);
            if let Some(next) = expected {
                pending.retain(|entry| *entry != next);
                now = next.0;
            }
        }
        assert!(10_000 < added);
    }

    #[test]
    fn lanes_of_the_same_delay_are_the_same() {
        let mut queue = Queue::<()>::new();
        assert_eq!(queue.lane(3), queue.lane(3));
        assert_ne!(queue.lane(3), queue.lane(4));
    }
}
