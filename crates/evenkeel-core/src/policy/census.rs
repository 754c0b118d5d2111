//! How many nodes of a group are fit, known at any time without looking at them.
//!
//! A picker that distributes requests among groups of nodes must know at each pick how many nodes
//! of each group can carry load. Looking at them would cost O(n) a pick. So each node has a
//! [`Member`] among its observers. It hears of the node's gates and updates the count of the node's
//! group. A pick reads one counter for each group, on a cache line that changes when a node becomes
//! unfit or fit.
//!
//! A member is told of a change after it has happened, and reads the node's state under its own
//! lock. So of two changes at the same time, the later read sees both, and the count is exact as
//! soon as both have been told. Gates that open and close every few requests because a node is full
//! do not make it unfit and take no lock.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use crate::{
    node::{Gate, Node},
    observe::{Observer, Report},
    sync::{AtomicI64, Mutex, Ordering},
};

/// How many nodes of a group are fit.
#[derive(Debug, Default)]
pub(super) struct Census {
    fit: AtomicI64,
    /// The census of all groups together.
    whole: Option<Arc<Census>>,
}

impl Census {
    pub(super) fn part_of(whole: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self { fit: AtomicI64::new(0), whole: Some(whole.clone()) })
    }

    /// How many nodes are fit.
    #[inline]
    pub(super) fn fit(&self) -> u64 {
        // A node that moves may be subtracted here before it was added.
        self.fit.load(Ordering::Relaxed).max(0) as u64
    }

    fn add(&self, count: i64) {
        self.fit.fetch_add(count, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.add(count);
        }
    }
}

/// Identifies the members that are counted for one picker and its successors.
#[derive(Debug, Default)]
pub(super) struct Roll;

impl Roll {
    /// Counts `node` in `census` from now on, and in no other census of this roll.
    pub(super) fn enlist(self: &Arc<Self>, node: &Node, census: &Arc<Census>) {
        let mut vacant = None;
        for member in members(node) {
            let mut place = member.0.lock().expect("no panic under the lock");
            if place.as_ref().is_some_and(|place| place.is_on(self)) {
                let place = place.as_mut().expect("it is on the roll");
                if !Arc::ptr_eq(&place.census, census) {
                    place.leave();
                    place.census = census.clone();
                    place.recount(node);
                }
                return;
            }
            if place.as_ref().is_none_or(|place| place.roll.strong_count() == 0) {
                vacant = Some(member);
            }
        }
        let place = Place { roll: Arc::downgrade(self), census: census.clone(), is_counted: false };
        // A member no longer in use is taken over, so that a node that comes and goes does not
        // collect members.
        match vacant {
            Some(member) => member.take(place, node),
            None => {
                let member = Arc::new(Member::default());
                node.observe(member.clone());
                // Counted only now: an earlier change would not have been told.
                member.take(place, node);
            }
        }
    }

    /// Stops counting `node` on this roll.
    pub(super) fn dismiss(self: &Arc<Self>, node: &Node) {
        for member in members(node) {
            let mut place = member.0.lock().expect("no panic under the lock");
            if place.as_ref().is_some_and(|place| place.is_on(self)) {
                place.take().expect("it is on the roll").leave();
            }
        }
    }
}

fn members(node: &Node) -> impl Iterator<Item = &Member> {
    node.observers().filter_map(|observer| (&**observer as &dyn Any).downcast_ref())
}

/// Where a node is counted: on one roll, or on none.
#[derive(Default)]
struct Member(Mutex<Option<Place>>);

struct Place {
    roll: Weak<Roll>,
    census: Arc<Census>,
    is_counted: bool,
}

impl Place {
    fn is_on(&self, roll: &Arc<Roll>) -> bool {
        std::ptr::eq(self.roll.as_ptr(), Arc::as_ptr(roll))
    }

    fn recount(&mut self, node: &Node) {
        let is_fit = node.is_fit();
        if is_fit != self.is_counted {
            self.is_counted = is_fit;
            self.census.add(if is_fit { 1 } else { -1 });
        }
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.is_counted) {
            self.census.add(-1);
        }
    }
}

impl Member {
    fn take(&self, mut new: Place, node: &Node) {
        let mut place = self.0.lock().expect("no panic under the lock");
        new.recount(node);
        *place = Some(new);
    }
}

impl Observer for Member {
    fn ended(&self, _: &Node, _: &Report) {}

    fn is_hearing(&self) -> bool {
        false
    }

    fn gate_changed(&self, node: &Node, gate: Gate) {
        if !matches!(gate, Gate::Joining | Gate::Limit | Gate::RateLimit)
            && let Some(place) = &mut *self.0.lock().expect("no panic under the lock")
        {
            place.recount(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Address, Endpoint};

    fn node() -> Node {
        Node::new(Endpoint::new("10.0.0.1:80".parse::<Address>().unwrap()))
    }

    #[test]
    fn a_census_follows_the_gates_of_health_and_not_how_busy_a_node_is() {
        let (node, roll, census) = (node(), Arc::new(Roll), Arc::new(Census::default()));
        roll.enlist(&node, &census);
        assert_eq!(census.fit(), 1);

        node.close(Gate::Limit);
        assert_eq!(census.fit(), 1);
        node.close(Gate::Ejected);
        node.close(Gate::Unhealthy);
        assert_eq!(census.fit(), 0);
        node.open(Gate::Ejected);
        assert_eq!(census.fit(), 0);
        node.open(Gate::Unhealthy);
        assert_eq!(census.fit(), 1);
    }

    #[test]
    fn a_node_that_moves_is_counted_in_its_new_place() {
        let (node, roll) = (node(), Arc::new(Roll));
        let whole = Arc::new(Census::default());
        let (first, second) = (Census::part_of(&whole), Census::part_of(&whole));

        roll.enlist(&node, &first);
        roll.enlist(&node, &second);
        assert_eq!((first.fit(), second.fit(), whole.fit()), (0, 1, 1));
        roll.dismiss(&node);
        assert_eq!((first.fit(), second.fit(), whole.fit()), (0, 0, 0));
        node.close(Gate::Ejected);
        node.open(Gate::Ejected);
        assert_eq!(whole.fit(), 0);
    }

    #[test]
    fn a_node_keeps_no_members_of_rolls_that_are_gone() {
        let node = node();
        for _ in 0..100 {
            Arc::new(Roll).enlist(&node, &Arc::default());
        }
        assert_eq!(members(&node).count(), 1);
    }

    #[test]
    fn an_observer_of_gates_alone_makes_no_attempt_report() {
        let node = node();
        Arc::new(Roll).enlist(&node, &Arc::default());
        assert!(!node.is_heard());
    }
}
