//! What a server reports about itself with its responses (ORCA).

use std::collections::BTreeMap;

use super::ServerLoad;

/// A server's report of its load: ORCA's `OrcaLoadReport`, as Envoy and gRPC know it.
///
/// All numbers are as the server sent them, even if they make no sense. The code that uses a number
/// decides what to do with NaN, infinities and negative ones. Zero means "not reported", as in
/// ORCA.
///
/// ```
/// use evenkeel::core::load::LoadReport;
///
/// let report = LoadReport { requests_per_second: 120.0, cpu_utilization: 0.6, ..LoadReport::default() };
/// assert_eq!(report.weight(1.0), Some(200.0));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// CPU in use. Above 1 if it uses more than was allotted.
    pub cpu_utilization: f64,
    /// Memory in use, from 0 to 1.
    pub memory_utilization: f64,
    /// The application's own measure of its load. Above 1 if it does more than it should.
    pub application_utilization: f64,
    /// Requests answered in a second.
    pub requests_per_second: f64,
    /// Requests that fail in a second.
    pub errors_per_second: f64,
    /// The cost of a request, in units known to the sender.
    pub request_cost: BTreeMap<String, f64>,
    /// Resources in use, from 0 to 1, by name.
    pub utilization: BTreeMap<String, f64>,
    /// Any other metrics, by name.
    pub named_metrics: BTreeMap<String, f64>,
    /// What the server would have answered to a probe, for a policy such as
    /// [`Prequal`](crate::policy::Prequal).
    pub server_load: Option<ServerLoad>,
}

impl LoadReport {
    /// The utilization that counts: the application's if there is one, else the CPU's (gRFC A51).
    #[must_use]
    pub fn any_utilization(&self) -> f64 {
        if 0.0 < self.application_utilization {
            self.application_utilization
        } else {
            self.cpu_utilization
        }
    }

    /// How many requests the server answers at full load, by gRPC's formula (gRFC A58). `None` if
    /// the report does not say.
    ///
    /// `rps / (utilization + eps/rps · error_penalty)`. If requests or utilization are not positive
    /// and finite, the report does not say. Errors that are not count as none.
    #[must_use]
    pub fn weight(&self, error_penalty: f64) -> Option<f64> {
        let (rps, eps) = (self.requests_per_second, self.errors_per_second);
        let is_good = |number: f64| 0.0 < number && number.is_finite();
        let utilization = Some(self.any_utilization()).filter(|&number| is_good(number))?;
        let penalty = if is_good(eps) { eps / rps * error_penalty } else { 0.0 };
        let weight = rps / (utilization + penalty);
        (is_good(rps) && is_good(weight)).then_some(weight)
    }
}

#[cfg(test)]
#[allow(clippy::approx_constant, reason = "one of gRPC's numbers is nearly π")]
mod tests {
    use super::*;

    fn report(utilization: f64, rps: f64, eps: f64) -> LoadReport {
        LoadReport {
            application_utilization: utilization,
            requests_per_second: rps,
            errors_per_second: eps,
            ..LoadReport::default()
        }
    }

    /// The cases of grpc-java's `WeightedRoundRobinLoadBalancerTest`.
    #[test]
    fn weights_are_those_of_grpc() {
        let normal = [(0.12, 22.0, 0.0), (0.28, 40.0, 0.0), (0.86, 100.0, 0.0)];
        let failing = [(0.12, 22.0, 19.7), (0.28, 40.0, 0.998), (0.86, 100.0, 3.14159)];
        let expected = [
            (1.0, normal, [183.333_333_333_333_34, 142.857_142_857_142_83, 116.279_069_767_441_87]),
            (
                1.75,
                failing,
                [13.040_549_643_001_482, 123.585_525_045_379_06, 109.292_266_181_423_57],
            ),
        ];
        for (penalty, reports, weights) in expected {
            for ((utilization, rps, eps), weight) in reports.into_iter().zip(weights) {
                assert_eq!(report(utilization, rps, eps).weight(penalty), Some(weight));
            }
        }
        for (rps, eps) in [(22.0, 19.7), (40.0, 0.998), (100.0, 3.14159)] {
            assert_eq!(report(0.0, rps, eps).weight(1.75), None);
        }
    }

    #[test]
    fn the_cpu_counts_if_the_application_reports_nothing() {
        let report = LoadReport { cpu_utilization: 0.5, ..report(0.0, 10.0, 0.0) };
        assert_eq!(report.weight(1.0), Some(20.0));
    }

    #[test]
    fn nonsense_gives_no_weight_or_a_finite_one() {
        let nonsense = [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, 5e-324];
        for utilization in nonsense {
            for rps in nonsense {
                for eps in nonsense {
                    let weight = report(utilization, rps, eps).weight(1.0);
                    assert!(weight.is_none_or(|weight| weight.is_finite() && 0.0 < weight));
                }
            }
        }
        assert_eq!(report(f64::NAN, 10.0, 0.0).weight(1.0), None);
        assert_eq!(report(0.5, 10.0, f64::NAN).weight(1.0), Some(20.0));
        assert_eq!(report(0.5, 10.0, -5.0).weight(1.0), Some(20.0));
    }
}
