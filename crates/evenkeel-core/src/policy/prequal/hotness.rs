//! The number of requests in flight above which a node counts as hot.

/// How many of the last answers determine what is usual.
const RECENT: usize = 128;

/// The requests in flight that recent probes found.
#[derive(Debug)]
pub(super) struct Hotness {
    recent: [f32; RECENT],
    len: usize,
    next: usize,
}

impl Default for Hotness {
    fn default() -> Self {
        Self { recent: [0.0; RECENT], len: 0, next: 0 }
    }
}

impl Hotness {
    /// Adds one answer and returns the limit above which a node is hot.
    ///
    /// The limit is the `quantile` of recent answers. A quantile of 1 means no limit: latency alone
    /// decides.
    pub(super) fn record(&mut self, in_flight: f32, quantile: f64) -> f32 {
        self.recent[self.next] = in_flight;
        self.next = (self.next + 1) % RECENT;
        self.len = RECENT.min(self.len + 1);
        if 1.0 <= quantile {
            return f32::INFINITY;
        }
        let mut sorted = self.recent;
        let sorted = &mut sorted[..self.len];
        // Rounded down: with a quantile just below 1, the nodes with the most in flight are hot.
        let rank = (quantile * (self.len - 1) as f64) as usize;
        *sorted.select_nth_unstable_by(rank, f32::total_cmp).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(quantile: f64, answers: impl IntoIterator<Item = u32>) -> f32 {
        let mut hotness = Hotness::default();
        let mut limit = f32::NAN;
        answers.into_iter().for_each(|answer| limit = hotness.record(answer as f32, quantile));
        limit
    }

    #[test]
    fn the_limit_is_a_quantile_of_recent_answers() {
        assert_eq!(limit(0.0, 0..100), 0.0);
        assert_eq!(limit(0.5, 0..101), 50.0);
        assert_eq!(limit(0.999, 0..101), 99.0, "the node with the most is hot");
        assert_eq!(limit(1.0, 0..100), f32::INFINITY);
    }

    #[test]
    fn old_answers_are_forgotten() {
        assert_eq!(limit(0.5, (0..200).map(|index| if index < 72 { 1_000 } else { 3 })), 3.0);
    }
}
