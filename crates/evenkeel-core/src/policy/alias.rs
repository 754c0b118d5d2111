//! Drawing by weight in constant time: Walker's alias method, tables by Vose (1991).

use crate::rng::Rng;

/// A table from which index `i` is drawn with probability `weights[i] / sum(weights)`, exactly.
#[derive(Debug)]
pub(super) struct AliasTable {
    columns: Box<[Column]>,
    /// Sum of the weights: the height of every column, in units of `1/n` weight.
    height: u64,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// Below this height the column belongs to its own index, above it to `alias`.
    own: u64,
    alias: u32,
}

impl AliasTable {
    /// The table for `weights`, or `None` if they are all zero.
    pub(super) fn new(weights: impl ExactSizeIterator<Item = u32>) -> Option<Self> {
        let n = weights.len() as u64;
        let mut columns: Box<[_]> = weights
            .enumerate()
            .map(|(index, weight)| Column { own: u64::from(weight) * n, alias: index as u32 })
            .collect();
        let height = columns.iter().map(|column| column.own / n).sum();
        if height == 0 {
            return None;
        }

        // A high column fills up a low one, and the rest of the high one is sorted in again.
        let (mut low, mut high): (Vec<_>, Vec<_>) =
            (0..columns.len()).partition(|&index| columns[index].own < height);
        while let (Some(&small), Some(&large)) = (low.last(), high.last()) {
            low.pop();
            columns[small].alias = large as u32;
            columns[large].own -= height - columns[small].own;
            if columns[large].own < height {
                high.pop();
                low.push(large);
            }
        }
        debug_assert!(low.is_empty(), "integers leave no rounding error behind");
        Some(Self { columns, height })
    }

    /// An index, drawn by weight.
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        let index = rng.below(self.columns.len());
        let column = self.columns[index];
        if rng.below_u64(self.height) < column.own { index } else { column.alias as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_owns_its_exact_share_of_the_table() {
        for weights in
            [vec![1], vec![5, 1, 1], vec![1, 1_000_000], vec![0, 3, 0, 7], vec![u32::MAX; 9]]
        {
            let table = AliasTable::new(weights.iter().copied()).unwrap();
            let mut owned = vec![0_u64; weights.len()];
            for (index, column) in table.columns.iter().enumerate() {
                owned[index] += column.own.min(table.height);
                owned[column.alias as usize] += table.height - column.own.min(table.height);
            }
            let expected: Vec<_> =
                weights.iter().map(|&weight| u64::from(weight) * weights.len() as u64).collect();
            assert_eq!(owned, expected);
        }
    }

    #[test]
    fn nothing_can_be_drawn_by_weights_of_zero() {
        assert!(AliasTable::new([0, 0].into_iter()).is_none());
        assert!(AliasTable::new([].into_iter()).is_none());
    }
}
