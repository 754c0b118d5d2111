//! What this process knows about each key, in bounded memory.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use evenkeel_core::quota::{Allowance, Bucket, Plan};
use tokio::sync::Notify;

/// How many keys share a lock and a set.
const WAYS: usize = 8;

/// How many bytes of a key count.
const MAX_KEY: usize = 256;

/// One key.
pub(crate) struct Slot {
    /// Its name on the server.
    pub(crate) key: Box<[u8]>,
    state: Mutex<State>,
    /// Notified when a fetch has ended.
    pub(crate) changed: Notify,
}

pub(crate) struct State {
    pub(crate) allowance: Allowance,
    /// The local bucket for the time in which the server is away.
    pub(crate) bucket: Bucket,
}

impl Slot {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys, in sets of eight. When a set is full, the least recently used key is dropped, with
/// what it had left.
pub(crate) struct Slots {
    prefix: Box<[u8]>,
    plan: Plan,
    hasher: RandomState,
    sets: Box<[Mutex<Vec<Arc<Slot>>>]>,
}

impl Slots {
    pub(crate) fn new(prefix: &str, plan: Plan, max_keys: usize) -> Self {
        let sets = (0..max_keys.div_ceil(WAYS)).map(|_| Mutex::default()).collect();
        Self { prefix: prefix.as_bytes().into(), plan, hasher: RandomState::new(), sets }
    }

    pub(crate) fn slot(&self, key: &[u8]) -> Arc<Slot> {
        let key = &key[..key.len().min(MAX_KEY)];
        let hash = self.hasher.hash_one(key);
        // The upper bits choose the set, without a division (Lemire 2019).
        let set = ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize;
        let mut slots = self.sets[set].lock().unwrap_or_else(PoisonError::into_inner);
        match slots.iter().position(|slot| &slot.key[self.prefix.len()..] == key) {
            // The most recently used key stands first.
            Some(index) => slots[..=index].rotate_right(1),
            None => {
                slots.truncate(WAYS - 1);
                slots.insert(0, self.new_slot(key));
            }
        }
        slots[0].clone()
    }

    fn new_slot(&self, key: &[u8]) -> Arc<Slot> {
        let allowance = Allowance::new(self.plan);
        Arc::new(Slot {
            key: [&self.prefix, key].concat().into(),
            state: Mutex::new(State { allowance, bucket: Bucket::default() }),
            changed: Notify::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_again_and_the_longest_unused_makes_room() {
        let slots = Slots::new("quota:", Plan::fixed(1), WAYS);
        let first = slots.slot(b"a");
        assert_eq!(&*first.key, b"quota:a");
        assert!(Arc::ptr_eq(&first, &slots.slot(b"a")));

        for key in 0..7_u8 {
            slots.slot(&[key]);
        }
        assert!(Arc::ptr_eq(&first, &slots.slot(b"a")), "there was room for eight");
        slots.slot(b"ninth");
        assert!(Arc::ptr_eq(&first, &slots.slot(b"a")), "another was unused for longer");
        for key in 10..18_u8 {
            slots.slot(&[key]);
        }
        assert!(!Arc::ptr_eq(&first, &slots.slot(b"a")));
        assert_eq!(slots.sets[0].lock().unwrap().len(), WAYS);
    }

    #[test]
    fn no_key_is_longer_than_the_bound() {
        let slots = Slots::new("quota:", Plan::fixed(1), 64);
        assert_eq!(slots.slot(&[b'x'; 10_000]).key.len(), 6 + MAX_KEY);
    }
}
