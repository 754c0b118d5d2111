//! What governor keeps of each key, in bounded memory.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

use governor::{nanos::Nanos, state::StateStore};

/// How many keys share a lock and a set.
const WAYS: usize = 8;

/// The hash of a key. Never zero, which marks a free place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyHash(u64);

/// The state of a bounded number of keys, in sets of eight.
///
/// The hash of a key selects its set. In a full set, the key that is nearest to having its whole
/// quota back is removed; if it has it back, nothing is lost. So a look-up costs the same however
/// many keys there are, and nothing is allocated after the start. Only hashes of keys are kept,
/// under a seed of this process: one in 2⁶⁴ pairs of keys shares a quota.
pub(super) struct Keyed {
    hasher: RandomState,
    sets: Box<[Mutex<[Cell; WAYS]>]>,
}

/// One key: its hash, and when its quota is whole again in governor's time.
#[derive(Clone, Copy, Default)]
struct Cell {
    hash: u64,
    full_at: u64,
}

impl Keyed {
    pub(super) fn new(max_keys: usize) -> Self {
        assert!(0 < max_keys, "room for one key at least");
        let sets = max_keys.div_ceil(WAYS);
        Self { hasher: RandomState::new(), sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.hasher.hash_one(key).max(1))
    }
}

impl StateStore for Keyed {
    type Key = KeyHash;

    fn measure_and_replace<T, F, E>(&self, key: &KeyHash, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // The upper bits choose the set, without a division (Lemire 2019).
        let set = ((u128::from(key.0) * self.sets.len() as u128) >> 64) as usize;
        let mut cells = self.sets[set].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.iter_mut().find(|cell| cell.hash == key.0) {
            let (passed, full_at) = measure(Some(Nanos::new(cell.full_at)))?;
            cell.full_at = full_at.as_u64();
            return Ok(passed);
        }
        let (passed, full_at) = measure(None)?;
        let oldest = cells.iter_mut().min_by_key(|cell| cell.full_at).expect("eight of them");
        *oldest = Cell { hash: key.0, full_at: full_at.as_u64() };
        Ok(passed)
    }
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyed").field("max_keys", &(self.sets.len() * WAYS)).finish_non_exhaustive()
    }
}
