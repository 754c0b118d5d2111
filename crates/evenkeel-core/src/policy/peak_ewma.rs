//! Power of two choices on Peak EWMA latency.

use std::{hint::cold_path, sync::Arc, time::Duration};

use super::{PickContext, Picker, Policy, draw, p2c::passed_over};
use crate::node::Node;

/// Chooses, of two random nodes, the one with the lower latency times requests in flight.
///
/// Use it where endpoints differ in speed or distance. [`load::PeakEwma`](crate::load::PeakEwma)
/// describes the estimate. Attempts that failed or were turned away count as requests in flight, as
/// in [`P2c`](super::P2c): an endpoint that refuses at once has no latency. It costs two clock
/// reads a request more than [`P2c`](super::P2c), and none for an answer that comes without
/// waiting.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    decay: Duration,
}

impl PeakEwma {
    /// Makes the policy. Estimates decay over `decay`. The shorter it is, the sooner a slow node is
    /// tried again, and the more a single answer counts. Default: 10 seconds.
    ///
    /// # Panics
    /// If `decay` is zero.
    #[must_use]
    pub fn new(decay: Duration) -> Self {
        assert!(Duration::ZERO < decay, "an estimate needs time to decay");
        Self { decay }
    }
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new(Duration::from_secs(10))
    }
}

impl Policy for PeakEwma {
    fn name(&self) -> &'static str {
        "peak_ewma"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(PeakEwmaPicker)
    }

    fn latency_decay(&self) -> Option<Duration> {
        Some(self.decay)
    }
}

struct PeakEwmaPicker;

impl Picker for PeakEwmaPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let (first, second) = draw::two(nodes, cx)?;
        let Some(second) = second else { return Some(first) };
        let now = cx.now;
        let cost = |index: usize| nodes[index].latency().cost(nodes[index].load(), now);
        cx.tell(|| {
            let [first, second] = [cost(first), cost(second)].map(|cost| cost / 1e6);
            format!("of two drawn, the one that costs less: {first:.3} or {second:.3} ms in all")
        });
        if cost(first) <= cost(second) {
            passed_over(&nodes[second], cx);
            return Some(first);
        }
        passed_over(&nodes[first], cx);
        // As in `P2c`: a branch, so that the processor may run ahead.
        cold_path();
        Some(second)
    }
}
