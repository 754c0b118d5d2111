//! Vegas and Gradient2 beside a plain model that keeps all calls of a window in a list.

use std::time::Duration;

use evenkeel_core::{
    limit::{Gradient2, Limit, Sample, Vegas},
    rng::Rng,
    time::Timestamp,
};

/// A call that ended; times in nanoseconds.
#[derive(Clone, Copy)]
struct Call {
    began: u64,
    ended: u64,
    in_flight: u32,
    is_dropped: bool,
}

/// The limit that follows from one, the baseline and the mean latency.
type Rule = fn(f64, f64, f64) -> f64;

const MIN: f64 = 4.0;
const MAX: f64 = 120.0;
const WINDOW: u64 = 100_000_000;

/// What the documentation of both limits says.
struct Model {
    rule: Rule,
    limit: f64,
    /// A tenth below what the endpoint works on at once, in one window of twenty.
    dip: Option<f64>,
    baseline: Option<f64>,
    /// Windows in use since the last dip.
    used: u32,
    window_began: Option<u64>,
    calls: Vec<Call>,
}

impl Model {
    fn new(rule: Rule) -> Self {
        let (dip, baseline, window_began) = (None, None, None);
        Self { rule, limit: 20.0, dip, baseline, used: 0, window_began, calls: Vec::new() }
    }

    fn shown(&self) -> f64 {
        self.dip.unwrap_or(self.limit).clamp(MIN, MAX)
    }

    fn ended(&mut self, call: Call) {
        if call.began == call.ended && !call.is_dropped {
            return;
        }
        let window_began = *self.window_began.get_or_insert(call.began);
        if call.began < window_began {
            return;
        }
        self.calls.push(call);
        if WINDOW <= call.ended - window_began && 16 <= self.calls.len() {
            let calls = std::mem::take(&mut self.calls);
            self.window_began = Some(call.ended);
            self.judge(&calls);
        }
    }

    fn judge(&mut self, calls: &[Call]) {
        let answered: Vec<_> = calls.iter().filter(|call| !call.is_dropped).collect();
        let dropped = calls.len() - answered.len();
        if calls.len() < 10 * dropped {
            self.limit = (self.limit * 0.9).clamp(MIN, MAX);
            if self.dip.take().is_some() {
                self.used = 0;
            }
            return;
        }
        let sum: u64 = answered.iter().map(|call| call.ended - call.began).sum();
        let latency = sum as f64 / answered.len() as f64;
        let Some(baseline) = self.baseline else {
            self.baseline = Some(latency);
            return;
        };
        if self.dip.take().is_some() {
            (self.baseline, self.used) = (Some(baseline.midpoint(latency)), 0);
            return;
        }
        let follow = baseline + 0.2 * (latency - baseline);
        let at_once = calls.iter().map(|call| call.in_flight).max().expect("16 calls");
        if 2.0 * f64::from(at_once) < self.limit {
            self.baseline = Some(follow);
            return;
        }
        let baseline = baseline.min(follow);
        self.baseline = Some(baseline);
        self.limit = (self.rule)(self.limit, baseline, latency).clamp(MIN, MAX);
        self.used += 1;
        if self.used == 20 {
            let at_work = self.limit * (baseline / latency).min(1.0);
            self.dip = Some((0.9 * at_work).max(self.limit / 2.0));
        }
    }
}

/// An endpoint with a latency that wanders, which drops calls now and then, and at times more of
/// them.
fn follows_the_model(limit: &dyn Limit, rule: Rule, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut model = Model::new(rule);
    let (mut now, mut usual, mut dropped_percent) = (1_u64 << 40, 20_000_u64, 2);
    for step in 0..60_000 {
        if rng.below(500) == 0 {
            usual = 2_000 + rng.below_u64(80_000);
            dropped_percent = [0, 2, 2, 30][rng.below(4)];
        }
        now += 1_000 * rng.below_u64(8_000);
        // In steps of 64 ns, as they are summed.
        let latency = 64 * rng.below_u64(usual * 1_000 / 32);
        let in_flight = 1 + rng.below(2 * limit.limit() as usize) as u32 / 2;
        let is_dropped = rng.below(100) < dropped_percent;
        let sample = Sample { latency: Duration::from_nanos(latency), in_flight, is_dropped };
        limit.sample(sample, Timestamp::from_nanos(now));
        model.ended(Call { began: now - latency, ended: now, in_flight, is_dropped });

        let off = (f64::from(limit.limit()) - model.shown().floor()).abs();
        // Floats that were added in another order may round to another whole number.
        let is_on_the_edge = (model.shown() - model.shown().round()).abs() < 1e-6;
        assert!(
            off == 0.0 || off == 1.0 && is_on_the_edge,
            "seed {seed}, step {step}: {} and {}",
            limit.limit(),
            model.shown(),
        );
    }
}

#[test]
fn vegas_does_what_a_plain_model_does() {
    for seed in 0..10 {
        let rule = |limit: f64, baseline: f64, latency: f64| {
            let step = limit.log10().floor().max(1.0);
            match (limit * (1.0 - baseline / latency)).ceil() {
                queue if queue <= step => limit + 6.0 * step,
                queue if queue < 3.0 * step => limit + step,
                queue if queue <= 6.0 * step => limit,
                _ => limit - step,
            }
        };
        follows_the_model(&Vegas::new().bounds(20, 4, 120), rule, seed);
    }
}

#[test]
fn gradient2_does_what_a_plain_model_does() {
    for seed in 0..10 {
        let rule = |limit: f64, baseline: f64, latency: f64| {
            let gradient = (1.5 * baseline / latency).clamp(0.5, 1.0);
            0.8 * limit + 0.2 * (gradient * limit + limit.sqrt())
        };
        follows_the_model(&Gradient2::new().bounds(20, 4, 120), rule, seed);
    }
}
