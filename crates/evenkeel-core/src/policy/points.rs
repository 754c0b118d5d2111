//! Points on a ring, each of which belongs to a node.

use super::hashed::{STEPS, Table};

/// A place on a ring: 64 bits for ring hash, 32 for ketama.
pub(super) trait Place: Copy + Ord + Send + Sync + 'static {
    /// Its first `bits` bits.
    fn first(self, bits: u32) -> usize;

    /// The place of a request with this hash.
    fn of(hash: u64) -> Self;
}

/// Points sorted by place.
#[derive(Debug)]
pub(super) struct Points<P> {
    points: Box<[Point<P>]>,
    /// For each of `2^bits` equal stretches of the ring, the index of its first point, followed by
    /// the end of the last stretch.
    starts: Box<[u32]>,
    bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point<P> {
    pub(super) place: P,
    pub(super) owner: u32,
}

impl<P: Place> Points<P> {
    /// Sorts the points. Of several at one place, only that of the first owner stays.
    pub(super) fn new(mut points: Vec<Point<P>>) -> Self {
        points.sort_unstable();
        points.dedup_by_key(|point| point.place);
        // About four points a stretch, which share a cache line or two.
        let bits = points.len().checked_ilog2().unwrap_or(0).saturating_sub(2);
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        for (index, point) in (0..).zip(&points) {
            while starts.len() <= point.place.first(bits) {
                starts.push(index);
            }
        }
        starts.resize((1 << bits) + 1, points.len() as u32);
        Self { points: points.into(), starts: starts.into(), bits }
    }

    /// The index of the first point at or after `place`, in constant time on average.
    fn at(&self, place: P) -> usize {
        let stretch = place.first(self.bits);
        let (start, end) = (self.starts[stretch] as usize, self.starts[stretch + 1] as usize);
        start + self.points[start..end].partition_point(|point| point.place < place)
    }

    #[cfg(test)]
    pub(super) fn points(&self) -> &[Point<P>] {
        &self.points
    }
}

impl<P: Place> Table for Points<P> {
    fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (before, from) = self.points.split_at(self.at(P::of(hash)));
        from.iter().chain(before).take(STEPS).map(|point| point.owner)
    }
}

impl Place for u64 {
    fn first(self, bits: u32) -> usize {
        self.checked_shr(Self::BITS - bits).unwrap_or(0) as usize
    }

    fn of(hash: u64) -> Self {
        hash
    }
}

impl Place for u32 {
    fn first(self, bits: u32) -> usize {
        self.checked_shr(Self::BITS - bits).unwrap_or(0) as usize
    }

    fn of(hash: u64) -> Self {
        hash as Self
    }
}
