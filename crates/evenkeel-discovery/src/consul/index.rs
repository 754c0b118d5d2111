//! The index of blocking queries: what to ask next after an answer.

/// The index that was last seen, and whether the next query may block on it.
///
/// An answer does not prove a change, an index can go backwards, and a query with index 0 never
/// blocks. The rules are those of Consul's documentation of blocking queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    last: u64,
    /// The last index before a reset, with which the next is compared.
    before: u64,
}

impl Index {
    /// The index on which the next query blocks; none if it must not block.
    pub(super) fn blocks_on(self) -> Option<u64> {
        (0 < self.last).then_some(self.last)
    }

    /// Whether the index of an answer goes backwards.
    pub(super) fn is_behind(self, index: u64) -> bool {
        index.max(1) < self.last.max(self.before)
    }

    /// Takes the index of an answer; true if it goes backwards. Then the state was rebuilt, from a
    /// snapshot or from nothing, and the next query does not block.
    pub(super) fn take(&mut self, index: u64) -> bool {
        let is_behind = self.is_behind(index);
        // A query with index 0 does not block, so it would be repeated as fast as it is answered.
        *self = if is_behind { Self::default() } else { Self { last: index.max(1), before: 0 } };
        is_behind
    }

    /// Makes the next query a non-blocking one. Its index is still compared with the last.
    pub(super) fn reset(&mut self) {
        *self = Self { last: 0, before: self.last.max(self.before) };
    }

    /// Forgets everything, since the index of another server cannot be compared.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_backwards_starts_over() {
        let mut index = Index::default();
        assert_eq!((index.take(40), index.blocks_on()), (false, Some(40)));
        assert_eq!((index.take(40), index.blocks_on()), (false, Some(40)));
        assert_eq!((index.take(41), index.blocks_on()), (false, Some(41)));

        assert_eq!((index.take(7), index.blocks_on()), (true, None));

        assert_eq!((index.take(7), index.blocks_on()), (false, Some(7)));
    }

    #[test]
    fn an_index_of_zero_counts_as_one() {
        let mut index = Index::default();
        index.take(0);
        assert_eq!(index.blocks_on(), Some(1));
    }

    #[test]
    fn after_a_reset_an_index_is_still_compared_to_the_last_one() {
        let mut index = Index::default();
        index.take(40);
        index.reset();
        assert_eq!(index.blocks_on(), None);
        assert!(index.take(39));

        index.take(40);
        index.forget();
        assert!(!index.take(39));
    }
}
