//! How much work a call needs.

use evenkeel_core::rng::Rng;

use crate::{
    dice,
    scenario::{Law, Work},
};

/// Draws the work of a call, in seconds of one core of pace 1.
#[derive(Clone, Copy, Debug)]
pub struct WorkLaw {
    law: Law,
    mean: f64,
    shape: f64,
    most: f64,
}

impl WorkLaw {
    /// The law of a scenario.
    #[must_use]
    pub fn new(work: &Work) -> Self {
        let shape = work.shape.map(|shape| shape.0);
        let default = if work.law == Law::Pareto { 1.5 } else { 1.0 };
        Self {
            law: work.law,
            mean: work.mean.seconds(),
            shape: shape.unwrap_or(default),
            most: work.most.map_or(1_000.0, |most| most.0),
        }
    }

    /// Draws the work of one call.
    #[inline]
    pub fn draw(&self, rng: &mut Rng) -> f64 {
        self.mean
            * match self.law {
                Law::Fixed => 1.0,
                Law::Exponential => dice::exponential(rng),
                Law::Normal => (1.0 + self.shape * dice::normal(rng)).max(0.0),
                Law::Lognormal => dice::lognormal(rng, self.shape),
                Law::Pareto => dice::pareto(rng, self.shape).min(self.most),
            }
    }

    /// The mean of the draws.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
            * match self.law {
                Law::Fixed | Law::Exponential | Law::Lognormal => 1.0,
                Law::Normal => clamped_normal_mean(self.shape),
                Law::Pareto => capped_pareto_mean(self.shape, self.most),
            }
    }
}

/// The mean of `max(0, N(1, deviation))`, by the midpoint rule over ten deviations.
fn clamped_normal_mean(deviation: f64) -> f64 {
    const STEPS: u32 = 20_000;
    let width = 20.0 / f64::from(STEPS);
    let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    (0..STEPS)
        .map(|step| -10.0 + (f64::from(step) + 0.5) * width)
        .map(|z| (1.0 + deviation * z).max(0.0) * density(z) * width)
        .sum()
}

/// The mean of `min(most, X)`, where `X` is a Pareto number with mean 1: the integral of its tail.
fn capped_pareto_mean(shape: f64, most: f64) -> f64 {
    let least = (shape - 1.0) / shape;
    if most <= least {
        return most;
    }
    let tail = (least.powf(1.0 - shape) - most.powf(1.0 - shape)) / (shape - 1.0);
    least + least.powf(shape) * tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Positive, Time};

    #[test]
    fn the_mean_is_that_of_what_is_drawn() {
        for (law, shape) in [
            (Law::Fixed, None),
            (Law::Exponential, None),
            (Law::Normal, None),
            (Law::Lognormal, Some(0.7)),
            (Law::Pareto, Some(2.5)),
        ] {
            let shape = shape.map(Positive::new);
            let most = Some(Positive::new(20.0));
            let law = WorkLaw::new(&Work { mean: Time::millis(80), law, shape, most });
            let mut rng = Rng::with_seed(3);
            let mean = (0..200_000).map(|_| law.draw(&mut rng)).sum::<f64>() / 200_000.0;
            assert!((mean / law.mean() - 1.0).abs() < 0.01, "{law:?}: {mean} {}", law.mean());
        }
    }

    #[test]
    fn the_job_of_the_paper_has_the_mean_that_follows_from_its_quantiles() {
        assert!((clamped_normal_mean(1.0) - 1.0833).abs() < 1e-4);
    }
}
