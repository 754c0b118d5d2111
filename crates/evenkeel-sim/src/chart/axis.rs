//! Maps numbers to pixels and chooses the labels of an axis.

/// One axis: its scale and its extent on the canvas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    from: f64,
    to: f64,
}

/// At most this many labels stand beside an axis.
const MAX_TICKS: usize = 9;

impl Axis {
    /// An axis that shows all of `values`, from `from` to `to` on the canvas. A linear axis begins
    /// at 0.
    pub(super) fn over(
        values: impl Iterator<Item = f64>,
        is_log: bool,
        starts_at_zero: bool,
        (from, to): (f64, f64),
    ) -> Self {
        let is_good = |value: &f64| value.is_finite() && (!is_log || 0.0 < *value);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(is_good) {
            (low, high) = (low.min(value), high.max(value));
        }
        if !low.is_finite() {
            (low, high) = (1.0, 10.0);
        }
        if is_log {
            (low, high) = (low / 1.1, high * 1.1);
        } else {
            if starts_at_zero {
                low = low.min(0.0);
            }
            let room = if high == low { high.abs().max(1.0) } else { high - low };
            high += room * 0.03;
        }
        Self { low, high, is_log, from, to }
    }

    /// Where a number is on the canvas. A number outside the axis is drawn at the edge.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// The numbers that label the axis.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let ticks = if self.is_log { self.log_ticks() } else { self.linear_ticks() };
        ticks.into_iter().filter(|tick| self.low <= *tick && *tick <= self.high).collect()
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / (MAX_TICKS - 2) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = step.into_iter().find(|step| rough <= *step).unwrap_or(power * 10.0);
        let first = (self.low / step).ceil();
        let count = ((self.high - self.low) / step) as u32 + 1;
        (0..=count).map(|index| (first + f64::from(index)) * step).collect()
    }

    fn log_ticks(&self) -> Vec<f64> {
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        for digits in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
            let powers = (first..=last).map(|power| 10_f64.powi(power));
            let ticks: Vec<_> =
                powers.flat_map(|power| digits.iter().map(move |digit| digit * power)).collect();
            let shown = ticks.iter().filter(|tick| self.low <= **tick && **tick <= self.high);
            if shown.count() <= MAX_TICKS {
                return ticks;
            }
        }
        (first..=last).step_by(2).map(|power| 10_f64.powi(power)).collect()
    }
}

/// Formats a number as a label of an axis.
pub(super) fn label(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if 1e6 <= size {
        return format!("{}M", short(value / 1e6));
    }
    if 1e4 <= size {
        return format!("{}k", short(value / 1e3));
    }
    short(value)
}

fn short(value: f64) -> String {
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let linear = Axis::over([0.0, 97.0].into_iter(), false, true, (0.0, 100.0));
        assert_eq!(linear.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0]);
        let log = Axis::over([3.0, 700.0].into_iter(), true, false, (0.0, 100.0));
        assert_eq!(log.ticks(), [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
    }

    #[test]
    fn numbers_are_written_short() {
        for (value, text) in
            [(0.0, "0"), (0.25, "0.25"), (100.0, "100"), (20_000.0, "20k"), (1.5e6, "1.5M")]
        {
            assert_eq!(label(value), text);
        }
    }

    #[test]
    fn a_value_outside_of_the_axis_is_drawn_at_its_edge() {
        let axis = Axis::over([1.0, 10.0].into_iter(), true, false, (100.0, 0.0));
        assert_eq!(axis.at(0.0), 100.0);
        assert_eq!(axis.at(1e9), 0.0);
    }
}
