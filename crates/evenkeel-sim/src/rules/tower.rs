//! Tower's published balancer: p2c over pending requests or Peak EWMA.
//!
//! Both measure how soon an attempt ends, and not how it ends. An endpoint that fails fast
//! therefore looks quick and free.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use evenkeel_core::{
    node::Node,
    observe::{Observer, Report},
    policy::{PickContext, Picker, Policy},
    time::Timestamp,
};

use super::two;

/// `tower::balance::p2c` over `tower::load::PendingRequests`.
#[derive(Debug)]
pub(super) struct PendingRequests;

impl Policy for PendingRequests {
    fn name(&self) -> &'static str {
        "tower_p2c"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(PendingPicker)
    }
}

struct PendingPicker;

impl Picker for PendingPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let (first, second) = two(nodes, cx)?;
        let load = |index: usize| nodes[index].in_flight();
        Some(if load(first) <= load(second) { first } else { second })
    }
}

/// The same over `tower::load::PeakEwma`, with the settings of its documentation's example.
#[derive(Debug)]
pub(super) struct TowerPeakEwma;

const DECAY: Duration = Duration::from_secs(10);
const DEFAULT_RTT: f64 = 0.05;

impl Policy for TowerPeakEwma {
    fn name(&self) -> &'static str {
        "tower_peak_ewma"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let known = previous
            .and_then(|picker| (picker as &dyn std::any::Any).downcast_ref::<EwmaPicker>())
            .map(|picker| picker.known.clone())
            .unwrap_or_default();
        let estimate = |node: &Arc<Node>| {
            let old = known.iter().find(|(id, _)| *id == node.id());
            let estimate = old.map_or_else(
                || {
                    let estimate = Arc::new(Estimate::default());
                    node.observe(estimate.clone());
                    estimate
                },
                |(_, estimate)| estimate.clone(),
            );
            (node.id(), estimate)
        };
        Box::new(EwmaPicker { known: nodes.iter().map(estimate).collect() })
    }

    fn latency_decay(&self) -> Option<Duration> {
        Some(DECAY)
    }
}

struct EwmaPicker {
    known: Vec<(u64, Arc<Estimate>)>,
}

impl Picker for EwmaPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let now = cx.now;
        let (first, second) = two(nodes, cx)?;
        let load = |index: usize| {
            let rtt = self.known[index].1.read(now);
            rtt * (f64::from(nodes[index].in_flight()) + 1.0)
        };
        Some(if load(first) <= load(second) { first } else { second })
    }
}

/// The moving average of one endpoint, in seconds.
#[derive(Debug)]
struct Estimate(Mutex<Ewma>);

#[derive(Debug)]
struct Ewma {
    rtt: f64,
    updated: Timestamp,
    /// Latencies since the last read: an observer is not told the time.
    pending: Vec<f64>,
}

impl Default for Estimate {
    fn default() -> Self {
        let ewma = Ewma { rtt: DEFAULT_RTT, updated: Timestamp::default(), pending: Vec::new() };
        Self(Mutex::new(ewma))
    }
}

impl Ewma {
    fn update(&mut self, rtt: f64, now: Timestamp) {
        if self.rtt < rtt {
            self.rtt = rtt;
        } else {
            let weight = (-now.since(self.updated).as_secs_f64() / DECAY.as_secs_f64()).exp();
            self.rtt = self.rtt * weight + rtt * (1.0 - weight);
        }
        self.updated = now;
    }
}

impl Estimate {
    /// Reads the average. Reading lets it decay, as in tower.
    fn read(&self, now: Timestamp) -> f64 {
        let mut ewma = self.0.lock().expect("no panic under the lock");
        for rtt in std::mem::take(&mut ewma.pending) {
            ewma.update(rtt, now);
        }
        ewma.update(0.0, now);
        ewma.rtt
    }
}

impl Observer for Estimate {
    fn ended(&self, _: &Node, report: &Report) {
        let mut ewma = self.0.lock().expect("no panic under the lock");
        ewma.pending.push(report.latency.as_secs_f64());
    }

    fn is_timing(&self) -> bool {
        true
    }
}
