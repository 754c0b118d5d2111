//! Finds nodes that differ from the others: rates by mean and deviation, latencies by the median.

use super::{
    host::{Cause, Interval},
    rules::OutlierRules,
};

/// The outliers among several nodes' counts, each once, the worst first.
pub(super) fn outliers<K: Copy + PartialEq>(
    intervals: &[(K, Interval)],
    rules: &OutlierRules,
) -> Vec<(K, Cause)> {
    let mut found: Vec<(K, Cause)> = Vec::new();
    let by_rule = [
        by_success_rate(intervals, rules),
        by_failure_percentage(intervals, rules),
        by_latency(intervals, rules),
    ];
    for (key, cause) in by_rule.into_iter().flatten() {
        if found.iter().all(|(known, _)| *known != key) {
            found.push((key, cause));
        }
    }
    found
}

fn by_success_rate<K: Copy>(intervals: &[(K, Interval)], rules: &OutlierRules) -> Vec<(K, Cause)> {
    let Some(rule) = rules.success_rate else { return Vec::new() };
    let rate = |interval: &Interval| {
        100.0 * f64::from(interval.calls - interval.failed) / f64::from(interval.calls)
    };
    let rates = with_enough(intervals, rule.min_calls, |interval| interval.calls, rate);
    if rates.is_empty() || rates.len() < rule.min_nodes {
        return Vec::new();
    }
    let values: Vec<_> = rates.iter().map(|(_, rate)| *rate).collect();
    let (mean, deviation) = mean_and_deviation(&values);
    let threshold = mean - (rule.deviations * deviation).max(rule.min_difference);
    worst_first(rates, |rate| rate < threshold, |rate| rate, Cause::SuccessRate)
}

fn by_failure_percentage<K: Copy>(
    intervals: &[(K, Interval)],
    rules: &OutlierRules,
) -> Vec<(K, Cause)> {
    let Some(rule) = rules.failure_percentage else { return Vec::new() };
    let share = |i: &Interval| 100.0 * f64::from(i.failed) / f64::from(i.calls);
    let shares = with_enough(intervals, rule.min_calls, |interval| interval.calls, share);
    if shares.len() < rule.min_nodes {
        return Vec::new();
    }
    let percent = f64::from(rule.percent);
    worst_first(shares, |share| percent <= share, |share| -share, Cause::FailurePercentage)
}

fn by_latency<K: Copy>(intervals: &[(K, Interval)], rules: &OutlierRules) -> Vec<(K, Cause)> {
    let Some(rule) = rules.latency else { return Vec::new() };
    let successes = |interval: &Interval| interval.calls - interval.failed;
    let mean = |interval: &Interval| interval.nanos as f64 / f64::from(successes(interval));
    let means = with_enough(intervals, rule.min_calls, successes, mean);
    if means.is_empty() || means.len() < rule.min_nodes {
        return Vec::new();
    }
    let values: Vec<_> = means.iter().map(|(_, mean)| *mean).collect();
    let limit = (rule.factor * median(values)).max(rule.min_latency.as_nanos() as f64);
    worst_first(means, |mean| limit <= mean, |mean| -mean, Cause::Latency)
}

fn with_enough<K: Copy>(
    intervals: &[(K, Interval)],
    min_calls: u32,
    calls: impl Fn(&Interval) -> u32,
    value: impl Fn(&Interval) -> f64,
) -> Vec<(K, f64)> {
    intervals
        .iter()
        .filter(|(_, interval)| min_calls.max(1) <= calls(interval))
        .map(|(key, interval)| (*key, value(interval)))
        .collect()
}

fn worst_first<K>(
    mut values: Vec<(K, f64)>,
    is_outlier: impl Fn(f64) -> bool,
    order: impl Fn(f64) -> f64,
    cause: Cause,
) -> Vec<(K, Cause)> {
    values.retain(|(_, value)| is_outlier(*value));
    values.sort_by(|(_, a), (_, b)| order(*a).total_cmp(&order(*b)));
    values.into_iter().map(|(key, _)| (key, cause)).collect()
}

/// The mean and the population's standard deviation.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The lower of the two middle values if their number is even.
fn median(mut values: Vec<f64>) -> f64 {
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::outlier::{FailurePercentage, SlowerThanOthers, SuccessRate};

    fn calls(calls: u32, failed: u32) -> Interval {
        Interval { calls, failed, nanos: 0 }
    }

    fn keyed(intervals: &[Interval]) -> Vec<(usize, Interval)> {
        intervals.iter().copied().enumerate().collect()
    }

    /// The values of Envoy's and gRPC's own tests.
    #[test]
    fn mean_and_deviation_are_those_of_envoy_and_grpc() {
        let (mean, deviation) = mean_and_deviation(&[600.0, 470.0, 170.0, 430.0, 300.0]);
        assert!((mean - 394.0).abs() < 1e-9);
        assert!((deviation - 147.322_774_885_623_18).abs() < 1e-9);
        let (mean, deviation) = mean_and_deviation(&[50.0, 100.0, 100.0, 100.0, 100.0]);
        assert!((mean - 90.0).abs() < 1e-9);
        assert!((deviation - 20.0).abs() < 1e-9);
        assert!((mean - 1.9 * deviation - 52.0).abs() < 1e-9);
    }

    #[test]
    fn a_single_failing_node_is_an_outlier_if_enough_nodes_have_enough_calls() {
        let rules = OutlierRules::default();
        let mut five =
            keyed(&[calls(100, 50), calls(100, 0), calls(100, 0), calls(100, 0), calls(100, 0)]);
        assert_eq!(outliers(&five, &rules), [(0, Cause::SuccessRate)]);
        five[0].1 = calls(99, 99);
        assert_eq!(outliers(&five, &rules), [], "one call too few");
        five[0].1 = calls(100, 50);
        five[4].1 = calls(99, 0);
        assert_eq!(outliers(&five, &rules), [], "one node too few");
    }

    #[test]
    fn a_difference_too_small_to_matter_makes_no_outlier() {
        let beside_four = |failed| {
            let good = calls(1_600, 0);
            keyed(&[calls(1_600, failed), good, good, good, good])
        };
        let rules = OutlierRules::default();
        // 99 percent, and 93.75, which is five points below the mean of all.
        assert_eq!(outliers(&beside_four(16), &rules), []);
        assert_eq!(outliers(&beside_four(100), &rules), []);
        assert_eq!(outliers(&beside_four(101), &rules), [(0, Cause::SuccessRate)]);

        let rule = SuccessRate { min_difference: 0.0, ..SuccessRate::default() };
        let envoy = OutlierRules { success_rate: Some(rule), ..OutlierRules::default() };
        assert_eq!(outliers(&beside_four(1), &envoy), [(0, Cause::SuccessRate)]);
    }

    #[test]
    fn no_node_is_an_outlier_if_all_fail_alike() {
        let rules = OutlierRules::default();
        assert_eq!(outliers(&keyed(&[calls(200, 200); 5]), &rules), []);
        assert_eq!(outliers(&keyed(&[calls(200, 0); 5]), &rules), []);
        assert_eq!(outliers(&keyed(&[]), &rules), []);
    }

    #[test]
    fn a_failure_percentage_counts_from_its_limit_on_and_the_worst_comes_first() {
        let rules = OutlierRules {
            success_rate: None,
            failure_percentage: Some(FailurePercentage::default()),
            ..OutlierRules::default()
        };
        let nodes = keyed(&[
            calls(100, 84),
            calls(100, 85),
            calls(50, 50),
            calls(49, 49),
            calls(50, 0),
            calls(50, 1),
        ]);
        assert_eq!(
            outliers(&nodes, &rules),
            [(2, Cause::FailurePercentage), (1, Cause::FailurePercentage)]
        );
    }

    #[test]
    fn a_node_is_slow_if_it_takes_a_multiple_of_the_median() {
        let rules = OutlierRules {
            success_rate: Some(SuccessRate { min_nodes: 100, ..SuccessRate::default() }),
            latency: Some(SlowerThanOthers::default()),
            ..OutlierRules::default()
        };
        let took = |millis: u64| Interval { calls: 20, failed: 0, nanos: 20 * millis * 1_000_000 };
        assert_eq!(
            outliers(&keyed(&[took(10), took(10), took(50)]), &rules),
            [(2, Cause::Latency)]
        );
        assert_eq!(outliers(&keyed(&[took(10), took(10), took(49)]), &rules), []);
        assert_eq!(outliers(&keyed(&[took(1), took(1), took(9)]), &rules), [], "fast enough");
        assert_eq!(
            outliers(&keyed(&[took(10), took(50)]), &rules),
            [],
            "two do not show which one is slow"
        );
        let failing = Interval { calls: 100, failed: 81, nanos: u64::MAX / 2 };
        assert_eq!(
            outliers(&keyed(&[took(10), took(10), failing]), &rules),
            [],
            "too few successes"
        );
    }
}
