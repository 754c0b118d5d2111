//! Random numbers for arrivals and work.

use evenkeel_core::rng::Rng;

/// A number above 0, up to 1, so that its logarithm is finite.
fn open_unit(rng: &mut Rng) -> f64 {
    1.0 - rng.unit()
}

/// An exponential number with mean 1.
pub fn exponential(rng: &mut Rng) -> f64 {
    -open_unit(rng).ln()
}

/// A normal number with mean 0 and deviation 1 (Box and Muller 1958).
pub fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * open_unit(rng).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.unit()).cos()
}

/// A Pareto number with mean 1 and this shape, which is above 1. A smaller shape has a heavier
/// tail.
pub fn pareto(rng: &mut Rng, shape: f64) -> f64 {
    let least = (shape - 1.0) / shape;
    least * open_unit(rng).powf(-1.0 / shape)
}

/// A lognormal number with mean 1, whose logarithm has the deviation `sigma`.
pub fn lognormal(rng: &mut Rng, sigma: f64) -> f64 {
    (sigma * normal(rng) - sigma * sigma / 2.0).exp()
}

/// Ranks from 0. Higher ranks are rarer: the share of rank `k` is proportional to `1/(k+1)^s`.
///
/// Drawn by rejection against the integral of the law (Hörmann and Derflinger 1996), so that a draw
/// costs the same for ten ranks and for ten million.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    first: f64,
    span: f64,
}

impl Zipf {
    /// Ranks below `count`, with this exponent.
    ///
    /// # Panics
    /// If there is no rank or the exponent is not above 0.
    #[must_use]
    pub fn new(count: u32, exponent: f64) -> Self {
        assert!(0 < count, "no rank to draw");
        assert!(0.0 < exponent, "an exponent of {exponent}");
        let mut zipf = Self { count: count.into(), exponent, first: 0.0, span: 0.0 };
        zipf.first = zipf.integral(1.5) - 1.0;
        zipf.span = zipf.integral(zipf.count + 0.5) - zipf.first;
        zipf
    }

    /// Draws a rank.
    pub fn draw(&self, rng: &mut Rng) -> u32 {
        loop {
            let under = self.first + rng.unit() * self.span;
            let x = self.inverse(under);
            let rank = x.round().clamp(1.0, self.count);
            if self.integral(rank + 0.5) - rank.powf(-self.exponent) <= under {
                return rank as u32 - 1;
            }
        }
    }

    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { x.ln() } else { (x.powf(power) - 1.0) / power }
    }

    fn inverse(&self, y: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { y.exp() } else { (1.0 + y * power).powf(1.0 / power) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 400_000;

    fn mean(mut draw: impl FnMut(&mut Rng) -> f64) -> f64 {
        let mut rng = Rng::with_seed(5);
        (0..DRAWS).map(|_| draw(&mut rng)).sum::<f64>() / f64::from(DRAWS)
    }

    #[test]
    fn every_law_has_the_mean_that_it_says() {
        assert!((mean(exponential) - 1.0).abs() < 0.01);
        assert!(mean(normal).abs() < 0.01);
        assert!((mean(|rng| normal(rng).powi(2)) - 1.0).abs() < 0.01);
        assert!((mean(|rng| pareto(rng, 3.0)) - 1.0).abs() < 0.01);
        assert!((mean(|rng| lognormal(rng, 1.0)) - 1.0).abs() < 0.02);
    }

    #[test]
    fn ranks_are_as_frequent_as_their_law_says() {
        for exponent in [0.8, 1.0, 1.3] {
            let zipf = Zipf::new(1_000, exponent);
            let mut rng = Rng::with_seed(6);
            let mut counts = vec![0_u32; 1_000];
            for _ in 0..DRAWS {
                counts[zipf.draw(&mut rng) as usize] += 1;
            }
            let sum: f64 = (1..=1_000).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in [0_usize, 1, 9, 99] {
                let share = (rank as f64 + 1.0).powf(-exponent) / sum;
                let expected = share * f64::from(DRAWS);
                let off = (f64::from(counts[rank]) - expected).abs();
                assert!(off < 5.0 * expected.sqrt(), "rank {rank}: {} {expected}", counts[rank]);
            }
        }
    }
}
