//! Prequal's synchronous mode: choosing among servers that were probed for this request.

use std::{fmt, sync::Arc};

use super::{hotness::Hotness, pool::key, rules::Rules};
use crate::{load::ServerLoad, node::Node, sync::Mutex};

/// Chooses among a few servers that have just reported their load.
///
/// The rule is that of [`Prequal`](super::Prequal). A server is *cold* if it is below a quantile of
/// the requests in flight in recent answers. The quickest cold one is chosen. If all are hot, the
/// one with the fewest in flight is chosen. A server's [penalty](Node::penalty) is added to its
/// requests in flight, because one that fails at once reports that it is idle.
///
/// The caller sends some probes before each request, three to five to random nodes, and chooses
/// when all but one are answered (Wydrowski and others, NSDI 2024, section 4, synchronous mode).
///
/// A choice waits for the lock of the recent answers, which all choices share and hold for some
/// comparisons.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use evenkeel::core::{load::ServerLoad, node::Node, policy::SyncPrequal};
///
/// let node = |address: &str| Arc::new(Node::new(address.parse().unwrap()));
/// let ms = Duration::from_millis;
/// let answers = [
///     (node("10.0.0.1:80"), ServerLoad::new(9.0, ms(3))),
///     (node("10.0.0.2:80"), ServerLoad::new(2.0, ms(8))),
///     (node("10.0.0.3:80"), ServerLoad::new(1.0, ms(20))),
/// ];
/// let choice = SyncPrequal::default();
/// assert_eq!(choice.best(&answers), Some(1), "the first is hot, the third slow");
/// assert_eq!(choice.best(&[]), None);
/// ```
pub struct SyncPrequal {
    quantile: f64,
    hotness: Mutex<Hotness>,
}

impl SyncPrequal {
    /// Sets the quantile of requests in flight above which a server is hot. Default: 2^(-1/4),
    /// about 0.84.
    ///
    /// At 0, requests in flight alone decide. At 1, latency alone decides.
    ///
    /// # Panics
    /// If it is not between 0 and 1.
    #[must_use]
    pub fn quantile(mut self, quantile: f64) -> Self {
        assert!((0.0..=1.0).contains(&quantile), "a quantile of {quantile}");
        self.quantile = quantile;
        self
    }

    /// The index of the best of these answers. `None` if there are none.
    ///
    /// # Panics
    /// Never: nothing panics while the lock is held.
    #[must_use]
    pub fn best(&self, answers: &[(Arc<Node>, ServerLoad)]) -> Option<usize> {
        let in_flight = |index: usize| {
            let (node, load): &(Arc<Node>, ServerLoad) = &answers[index];
            load.in_flight() + node.penalty() as f32
        };
        let quantile = Rules { quantile: self.quantile, ..Rules::default() };
        let quantile = quantile.quantile_of(answers.len());
        let mut hotness = self.hotness.lock().expect("no panic under the lock");
        let limits = (0..answers.len()).map(|index| hotness.record(in_flight(index), quantile));
        let hot_above = limits.last()?;
        (0..answers.len()).min_by_key(|&index| {
            key(in_flight(index), answers[index].1.latency().as_secs_f32(), hot_above)
        })
    }
}

impl Default for SyncPrequal {
    fn default() -> Self {
        Self { quantile: Rules::default().quantile, hotness: Mutex::new(Hotness::default()) }
    }
}

impl fmt::Debug for SyncPrequal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncPrequal").field("quantile", &self.quantile).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::Outcome;

    fn answer(in_flight: f64, millis: u64) -> (Arc<Node>, ServerLoad) {
        let node = Arc::new(Node::new("10.0.0.1:80".parse().unwrap()));
        (node, ServerLoad::new(in_flight, Duration::from_millis(millis)))
    }

    #[test]
    fn where_all_are_hot_the_fewest_in_flight_decide() {
        let choice = SyncPrequal::default();
        for _ in 0..100 {
            let _ = choice.best(&[answer(1.0, 9), answer(1.0, 9)]);
        }
        assert_eq!(choice.best(&[answer(9.0, 1), answer(7.0, 20), answer(8.0, 2)]), Some(1));
    }

    #[test]
    fn a_server_draws_a_request_by_reporting_less_load() {
        let choice = SyncPrequal::default().quantile(0.0);
        assert_eq!(choice.best(&[answer(4.0, 9), answer(1.2, 9), answer(3.0, 9)]), Some(1));
    }

    #[test]
    fn a_server_that_fails_at_once_does_not_look_idle() {
        let choice = SyncPrequal::default();
        let answers = [answer(0.0, 1), answer(3.0, 9), answer(3.0, 9)];
        assert_eq!(choice.best(&answers), Some(0));
        (0..5).for_each(|_| answers[0].0.record_outcome(Outcome::Failure));
        assert_eq!(choice.best(&answers), Some(1));
    }
}
