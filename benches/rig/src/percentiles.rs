//! Percentiles over many trials.

use serde::Serialize;

/// The percentiles 50, 99 and 100 of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of the values are at or below this one.
    pub p50: f64,
    /// 99 % of the values are at or below this one.
    pub p99: f64,
    /// The largest value.
    pub worst: f64,
}

impl Percentiles {
    /// By nearest rank, so that each is a measured value. None if there are no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let rank = |share: f64| (share * values.len() as f64).ceil() as usize;
        let at = |share: f64| values.get(rank(share).max(1) - 1).copied();
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, worst: at(1.0)? })
    }
}

/// `never` is printed for what did not happen during the measurement.
#[must_use]
pub fn triple(percentiles: Option<Percentiles>, decimals: usize) -> String {
    let Some(Percentiles { p50, p99, worst }) = percentiles else { return String::new() };
    let text = |value: f64| match value {
        _ if value.is_infinite() => "never".to_owned(),
        _ => format!("{value:.decimals$}"),
    };
    [p50, p99, worst].map(text).join(" / ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = Percentiles::of((1..=100).map(f64::from)).unwrap();
        let one = Percentiles::of([7.0]).unwrap();

        assert_eq!((hundred.p50, hundred.p99, hundred.worst), (50.0, 99.0, 100.0));
        assert_eq!((one.p50, one.p99, one.worst), (7.0, 7.0, 7.0));
        assert_eq!(Percentiles::of([]), None);
    }
}
